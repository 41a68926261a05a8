-- How the picture has to be turned to stand upright: the EXIF orientation, 2 to 8; NULL where it stands as it is.
ALTER TABLE files ADD COLUMN orientation INTEGER;
-- The variant of its format that nothing decodes, in words; NULL where it was decoded, or did not have to be.
ALTER TABLE files ADD COLUMN undecoded TEXT;
