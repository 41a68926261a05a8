-- What a client asked for, as a JSON object: such a job goes on after a restart. NULL in all other jobs.
ALTER TABLE jobs ADD COLUMN request TEXT;
-- When it was posted; `started` is when it began.
ALTER TABLE jobs ADD COLUMN posted INTEGER;
-- How many targets were posted; NULL where a list has to be read to tell.
ALTER TABLE jobs ADD COLUMN total INTEGER;
-- Half a SHA-256 of who posted it and the key that makes a repeat harmless; and of what was posted.
ALTER TABLE jobs ADD COLUMN idempotency BLOB;
ALTER TABLE jobs ADD COLUMN digest BLOB;
CREATE UNIQUE INDEX jobs_by_idempotency ON jobs (idempotency) WHERE idempotency IS NOT NULL;
CREATE INDEX jobs_by_state ON jobs (state, id);

-- What the steps of its job found out, as a JSON object.
ALTER TABLE outcomes ADD COLUMN steps TEXT;
-- Which outcome of its job it is, in the order in which they were recorded; only in posted jobs.
ALTER TABLE outcomes ADD COLUMN nth INTEGER;
CREATE INDEX outcomes_by_nth ON outcomes (job, nth) WHERE nth IS NOT NULL;

-- The groups of posted jobs.
CREATE TABLE groups (
    job       BLOB NOT NULL,
    number    INTEGER NOT NULL,             -- order within the job
    id        TEXT NOT NULL,                -- what its client calls it
    on_error  TEXT NOT NULL,                -- 'continue' or 'stop'
    metadata  TEXT,                         -- JSON object
    targets   INTEGER NOT NULL,
    done      INTEGER NOT NULL DEFAULT 0,   -- targets that have their outcome
    failures  INTEGER NOT NULL DEFAULT 0,
    error     TEXT,                         -- the first of them, as a JSON object
    PRIMARY KEY (job, number)
) WITHOUT ROWID;

-- The targets of posted jobs: JSON arrays of up to 500, in the order in which they are begun.
CREATE TABLE parts (
    job      BLOB NOT NULL,
    number   INTEGER NOT NULL,
    targets  TEXT NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
