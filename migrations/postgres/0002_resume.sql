-- When an outcome of the job was last recorded: how stale an interrupted job is.
ALTER TABLE jobs ADD COLUMN recorded BIGINT;
