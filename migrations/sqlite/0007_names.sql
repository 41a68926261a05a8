-- What names were made of, for `gannet rename`; NULL where it was not recorded, or there is none.
ALTER TABLE files ADD COLUMN header_name TEXT;      -- the name in Content-Disposition
ALTER TABLE files ADD COLUMN line INTEGER;          -- in the list
ALTER TABLE files ADD COLUMN grp TEXT;              -- the group that the list puts it in
-- Set once a client has named the file.
ALTER TABLE files ADD COLUMN by_client INTEGER NOT NULL DEFAULT 0;
-- When its origin says that the bytes were last modified.
ALTER TABLE files ADD COLUMN last_modified INTEGER;
-- The list's other columns for a target that could not be had, so that a retry places it as the list says: a JSON object.
ALTER TABLE outcomes ADD COLUMN metadata TEXT;
-- Until when a URL that answered 410 is not asked again; NULL where it did not, or where a redirect to it holds no longer.
ALTER TABLE urls ADD COLUMN gone_until INTEGER;
