-- When an outcome of the job was last recorded: how stale an interrupted job is.
ALTER TABLE jobs ADD COLUMN recorded INTEGER;
-- The schedule that began it.
ALTER TABLE jobs ADD COLUMN schedule TEXT;

-- What the daemon remembers of its schedules.
CREATE TABLE schedules (
    name     TEXT PRIMARY KEY,
    paused   INTEGER NOT NULL DEFAULT 0,
    last_due INTEGER,                       -- the last time of its cron line that was dealt with
    job      BLOB                           -- its last job
) WITHOUT ROWID;
