-- Who wants which events, and how far it has them. While there is none, no events are written.
CREATE TABLE receivers (
    name      TEXT PRIMARY KEY,          -- '' stands for all who listen to the daemon
    events    TEXT NOT NULL,              -- names and patterns, divided by spaces
    position  INTEGER NOT NULL,          -- the last of events.id that it has
    seen      INTEGER NOT NULL           -- when settings last had it
) WITHOUT ROWID;

-- What was written before anybody could want it.
DELETE FROM events;
