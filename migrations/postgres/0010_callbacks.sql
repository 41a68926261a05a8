-- Where a client wants to be told of the end of a job, without credentials; NULL: nowhere.
ALTER TABLE jobs ADD COLUMN callback TEXT;
ALTER TABLE jobs ADD COLUMN callback_attempts BIGINT NOT NULL DEFAULT 0;
-- When it is to be told next; NULL: the job has not ended, or there is nothing to tell any more.
ALTER TABLE jobs ADD COLUMN callback_next BIGINT;
-- When it was told.
ALTER TABLE jobs ADD COLUMN callback_told BIGINT;
-- Why the last attempt failed.
ALTER TABLE jobs ADD COLUMN callback_error TEXT;
CREATE INDEX jobs_by_callback ON jobs (callback_next) WHERE callback_next IS NOT NULL;
