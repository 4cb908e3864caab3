-- What ingest knows of a folder's files between runs. One row a file that is or was there; ids are given once and never again.

PRAGMA auto_vacuum = INCREMENTAL;

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value NOT NULL
) WITHOUT ROWID;

CREATE TABLE files (
    source        TEXT PRIMARY KEY,                   -- path below the folder, with "/"
    id            INTEGER NOT NULL UNIQUE,            -- media id
    size          INTEGER NOT NULL,
    mtime_ns      INTEGER NOT NULL,
    ctime_ns      INTEGER NOT NULL,
    sidecars      TEXT NOT NULL DEFAULT '[]',         -- JSON list of paths
    sidecar_stamp TEXT NOT NULL DEFAULT '',
    todo          INTEGER NOT NULL DEFAULT 0,         -- 0 nothing, 1 decode and embed, 2 read its facts again
    status        TEXT NOT NULL DEFAULT 'unchanged',  -- since the last run that ended: added, changed, unchanged, removed, failed; gone before
    moved_from    TEXT,
    published_as  TEXT,                               -- its path when its thumbnail was published
    reason        TEXT,                               -- why it cannot be read
    again         INTEGER NOT NULL DEFAULT 0,         -- whether that may change without the file
    notes         TEXT,                               -- JSON list: what is odd about it all the same
    sha256        TEXT,                               -- of a picture that is gone, too
    "row"         INTEGER UNIQUE,                     -- position of its vector; NULL: it has none
    facts         TEXT,                               -- JSON object: what the file says of itself
    own           TEXT,                               -- JSON object: what the metadata file says of it
    own_group     TEXT,                               -- the group the metadata file puts it in
    member_of     INTEGER,                            -- id of its group
    original      INTEGER                             -- id of the picture it is a duplicate of, its own id when of none; NULL: undecided
);

CREATE INDEX files_todo ON files (todo, source) WHERE todo > 0;
CREATE INDEX files_by_content ON files (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX files_by_original ON files (original) WHERE original IS NOT NULL;

-- Vectors and thumbnails that are in no published file yet.
CREATE TABLE pending (
    id        INTEGER PRIMARY KEY,
    "row"     INTEGER NOT NULL,
    vector    BLOB NOT NULL,                          -- float32, little-endian
    thumbnail BLOB NOT NULL,
    sha256    TEXT NOT NULL
);

-- Rows whose picture was changed or went: used again only after a catalog without them was published.
CREATE TABLE free_rows ("row" INTEGER PRIMARY KEY, usable INTEGER NOT NULL DEFAULT 0);

CREATE TABLE groups (name TEXT PRIMARY KEY, id INTEGER NOT NULL UNIQUE);
