-- Events that a receiver refused until it was given up. They are kept so that they can be sent again.
CREATE TABLE dead_letters (
    receiver  TEXT NOT NULL,
    id        INTEGER NOT NULL,          -- of the event, as in events.id
    job       BLOB,
    event     TEXT NOT NULL,
    payload   TEXT NOT NULL,
    created   INTEGER NOT NULL,          -- when the event was written
    died      INTEGER NOT NULL,          -- when it was given up
    answer    TEXT NOT NULL,             -- the last answer of the receiver
    PRIMARY KEY (receiver, id)
) WITHOUT ROWID;
