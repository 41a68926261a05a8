-- Times are milliseconds since 1970-01-01T00:00:00Z. Ids are UUIDs (version 7) of 16 bytes.

CREATE TABLE jobs (
    id         BLOB PRIMARY KEY,
    source     TEXT NOT NULL,               -- without credentials
    kind       TEXT NOT NULL,
    album      TEXT NOT NULL,               -- '' is the root folder
    state      TEXT NOT NULL,
    started    INTEGER NOT NULL,
    finished   INTEGER,
    resumed    INTEGER,                     -- when it was last taken up again
    interrupted INTEGER NOT NULL DEFAULT 0, -- 1: its process ended before it did
    targets    INTEGER NOT NULL DEFAULT 0,
    stored     INTEGER NOT NULL DEFAULT 0,
    changed    INTEGER NOT NULL DEFAULT 0,
    unchanged  INTEGER NOT NULL DEFAULT 0,
    duplicate  INTEGER NOT NULL DEFAULT 0,
    rejected   INTEGER NOT NULL DEFAULT 0,
    failed     INTEGER NOT NULL DEFAULT 0,
    skipped    INTEGER NOT NULL DEFAULT 0,
    repeats    INTEGER NOT NULL DEFAULT 0,
    bytes      INTEGER NOT NULL DEFAULT 0,
    error      TEXT
) WITHOUT ROWID;

CREATE INDEX jobs_by_source ON jobs (source, id);

CREATE TABLE albums (
    name     TEXT PRIMARY KEY,
    created  INTEGER NOT NULL
) WITHOUT ROWID;

-- What is kept. `stage` names the staged file that holds the current bytes until they are published.
CREATE TABLE files (
    id          BLOB PRIMARY KEY,
    stage       BLOB NOT NULL,
    path        TEXT NOT NULL UNIQUE,       -- relative to the store's root
    album       TEXT NOT NULL,
    format      TEXT NOT NULL,
    media_type  TEXT NOT NULL,
    bytes       INTEGER NOT NULL,
    sha256      BLOB NOT NULL,
    width       INTEGER,
    height      INTEGER,
    active      INTEGER NOT NULL,
    name_from   TEXT NOT NULL,
    metadata    TEXT,                       -- JSON object
    stored      INTEGER NOT NULL,
    mtime_ns    INTEGER,                    -- of the published file, in nanoseconds since 1970
    shared      INTEGER NOT NULL DEFAULT 0  -- whether more than one URL may stand for it
) WITHOUT ROWID;

-- Indexes by content are made by the first job that drops duplicates: no other needs them.
-- A new file is staged under its own id, so only replaced bytes need a look-up of their own.
CREATE INDEX files_restaged ON files (stage) WHERE stage <> id;

-- What is known of each URL. `key` is the first half of a SHA-256 of URL, album and wanted name.
CREATE TABLE urls (
    id             INTEGER PRIMARY KEY,
    key            BLOB NOT NULL UNIQUE,
    url            TEXT NOT NULL,           -- without credentials
    album          TEXT NOT NULL,           -- what its list wants: '' is the root folder,
    name           TEXT,                    -- NULL is any name
    file           BLOB,                    -- files.id; an index is made by the first deletion
    etag           TEXT,
    last_modified  TEXT,
    fresh_until    INTEGER,
    checked        INTEGER,                 -- last answer from the origin
    tried          INTEGER,                 -- when it was last asked for
    seen           INTEGER NOT NULL,        -- when a job last had it
    status         INTEGER,                 -- of the last answer
    failures       INTEGER NOT NULL DEFAULT 0, -- rejected or failed so many times in a row
    outcome        TEXT NOT NULL,
    reason         TEXT,
    job            BLOB NOT NULL            -- the last job that had it
);

-- Which URLs a source lists; only of sources whose files go when their URLs go.
CREATE TABLE listed (
    source      BLOB NOT NULL,              -- the first half of a SHA-256
    key         BLOB NOT NULL,              -- urls.key
    job         BLOB NOT NULL,              -- the last job that had it from there
    gone_since  INTEGER,                    -- when a whole list was first found without it
    PRIMARY KEY (source, key)
) WITHOUT ROWID;

-- Outcomes of a job. Unchanged targets are only counted, unless the job asks for every outcome.
CREATE TABLE outcomes (
    job         BLOB NOT NULL,
    seq         INTEGER NOT NULL,           -- order within the job
    url         TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    reason      TEXT,
    detail      TEXT,
    status      INTEGER,
    attempts    INTEGER NOT NULL,
    elapsed_ms  INTEGER,
    final_url   TEXT,
    file        BLOB,                       -- files.id
    line        INTEGER,
    grp         TEXT,
    name        TEXT,                       -- what the list wanted of a target that could not be had,
    album       TEXT,                       -- so that it can be fetched again as it was
    sha256      BLOB,
    PRIMARY KEY (job, seq)
) WITHOUT ROWID;

-- The outbox: written in the transaction that makes an event true, deleted once delivered.
-- No id is used twice, so that a reader can say how far it is.
CREATE TABLE events (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    job      BLOB,
    event    TEXT NOT NULL,
    payload  TEXT NOT NULL,                 -- JSON object
    created  INTEGER NOT NULL
);

-- The last batch that each writer has recorded, so that one whose answer was lost is not recorded twice.
CREATE TABLE writers (
    id     BLOB PRIMARY KEY,
    batch  BLOB NOT NULL
) WITHOUT ROWID;
