-- The URL that answered, without credentials and fragment, where redirects led away from `url`. The validators are its own.
ALTER TABLE urls ADD COLUMN answered TEXT;
-- What the job accepts that rejected the URL last, as half a SHA-256; NULL where it would have failed in any job.
ALTER TABLE urls ADD COLUMN failed_under BLOB;
-- The checks that the bytes passed, in the words of their kind; NULL: not known.
ALTER TABLE files ADD COLUMN criteria TEXT;

-- Freshness took no notice of redirects.
UPDATE urls SET fresh_until = NULL WHERE fresh_until IS NOT NULL;
-- Nor did validators: they may be those of the URL that answered. They stay only where the history shows that `url` sent
-- the file itself; it forgets, and never tells of unchanged targets.
UPDATE urls SET etag = NULL, last_modified = NULL
    WHERE url IN (SELECT url FROM outcomes WHERE final_url IS NOT NULL);
UPDATE urls SET etag = NULL, last_modified = NULL
    WHERE (etag IS NOT NULL OR last_modified IS NOT NULL)
    AND url NOT IN (SELECT url FROM outcomes WHERE outcome IN ('stored', 'changed', 'duplicate') AND url IS NOT NULL);
