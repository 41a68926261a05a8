-- A JSON object that clients gave it.
ALTER TABLE albums ADD COLUMN metadata TEXT;

-- Albums whose folders are about to get another name. What is recorded has it already.
CREATE TABLE renames (
    id      UUID PRIMARY KEY,
    old     TEXT NOT NULL,
    new     TEXT NOT NULL,
    folder  TEXT                             -- device and number of the folder; NULL: there is none
);
