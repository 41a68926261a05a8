-- Events that a receiver refused until it was given up. They are kept so that they can be sent again.
CREATE TABLE dead_letters (
    receiver  TEXT COLLATE "C" NOT NULL,
    id        BIGINT NOT NULL,          -- of the event, as in events.id
    job       UUID,
    event     TEXT NOT NULL,
    payload   TEXT NOT NULL,
    created   BIGINT NOT NULL,          -- when the event was written
    died      BIGINT NOT NULL,          -- when it was given up
    answer    TEXT NOT NULL,             -- the last answer of the receiver
    PRIMARY KEY (receiver, id)
);
