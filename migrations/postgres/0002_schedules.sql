-- When an outcome of the job was last recorded: how stale an interrupted job is.
ALTER TABLE jobs ADD COLUMN recorded BIGINT;
-- Names its source, kind and album from one job to the next; NULL where what came is no list that comes again.
ALTER TABLE jobs ADD COLUMN source_id BYTEA;
-- The interrupted job that it goes on with.
ALTER TABLE jobs ADD COLUMN continues UUID;
ALTER TABLE jobs DROP COLUMN resumed;
DROP INDEX jobs_by_source;
CREATE INDEX jobs_by_source ON jobs (source_id, id) WHERE source_id IS NOT NULL;
-- The schedule that began it.
ALTER TABLE jobs ADD COLUMN schedule TEXT;

-- The process that took the database last. One that lost its lock finds out here whether another had it since.
CREATE TABLE owner (
    id UUID NOT NULL
);

-- What the daemon remembers of its schedules.
CREATE TABLE schedules (
    name     TEXT COLLATE "C" PRIMARY KEY,
    cron     TEXT NOT NULL,                 -- the line that `last_due` is a time of
    paused   BOOLEAN NOT NULL DEFAULT FALSE,
    last_due BIGINT,                        -- the last time of its cron line that was dealt with
    job      UUID                           -- its last job
);
