-- A collection's catalog, Simplified-M3 layout. One value table per tag type; medias and groups share one table.

CREATE TABLE source_types (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Pictures, and the groups they belong to. source: path below the picture folder, with "/"; for a group, its name.
CREATE TABLE medias (
    id            INTEGER PRIMARY KEY,
    source        TEXT NOT NULL,
    source_type   INTEGER NOT NULL REFERENCES source_types (id),
    thumbnail_uri TEXT,
    group_id      INTEGER REFERENCES medias (id)
);

CREATE TABLE tag_types (
    id          INTEGER PRIMARY KEY,
    description TEXT NOT NULL UNIQUE
);

CREATE TABLE tagsets (
    id         INTEGER PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    tagtype_id INTEGER NOT NULL REFERENCES tag_types (id)
);

CREATE TABLE tags (
    id         INTEGER PRIMARY KEY,
    tagtype_id INTEGER NOT NULL REFERENCES tag_types (id),
    tagset_id  INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE alphanumerical_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     TEXT NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE timestamp_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     TEXT NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE time_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     TEXT NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE date_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     TEXT NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE numerical_int_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     INTEGER NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE numerical_dec_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     REAL NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE json_tags (
    id        INTEGER PRIMARY KEY REFERENCES tags (id),
    value     TEXT NOT NULL,
    tagset_id INTEGER NOT NULL REFERENCES tagsets (id)
);

CREATE TABLE taggings (
    media_id INTEGER NOT NULL REFERENCES medias (id),
    tag_id   INTEGER NOT NULL REFERENCES tags (id),
    PRIMARY KEY (media_id, tag_id)
) WITHOUT ROWID;

INSERT INTO source_types VALUES (1, 'Image'), (2, 'Video'), (3, 'Audio'), (4, 'Text'), (5, 'Other');

INSERT INTO tag_types VALUES
    (1, 'alphanumerical'), (2, 'timestamp'), (3, 'time'), (4, 'date'), (5, 'numerical_int'), (6, 'numerical_dec'), (7, 'json');

-- Indexes: a writer makes them after the rows.
CREATE INDEX medias_by_group ON medias (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX tags_by_tagset ON tags (tagset_id);
CREATE INDEX taggings_by_tag ON taggings (tag_id, media_id);
CREATE INDEX alphanumerical_tags_by_value ON alphanumerical_tags (tagset_id, value);
CREATE INDEX timestamp_tags_by_value ON timestamp_tags (tagset_id, value);
CREATE INDEX time_tags_by_value ON time_tags (tagset_id, value);
CREATE INDEX date_tags_by_value ON date_tags (tagset_id, value);
CREATE INDEX numerical_int_tags_by_value ON numerical_int_tags (tagset_id, value);
CREATE INDEX numerical_dec_tags_by_value ON numerical_dec_tags (tagset_id, value);
CREATE INDEX json_tags_by_tagset ON json_tags (tagset_id);
