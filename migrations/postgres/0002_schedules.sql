-- When an outcome of the job was last recorded: how stale an interrupted job is.
ALTER TABLE jobs ADD COLUMN recorded BIGINT;
-- The schedule that began it.
ALTER TABLE jobs ADD COLUMN schedule TEXT;

-- What the daemon remembers of its schedules.
CREATE TABLE schedules (
    name     TEXT COLLATE "C" PRIMARY KEY,
    paused   BOOLEAN NOT NULL DEFAULT FALSE,
    last_due BIGINT,                        -- the last time of its cron line that was dealt with
    job      UUID                           -- its last job
);
