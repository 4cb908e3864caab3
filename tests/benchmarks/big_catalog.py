"""Writes a large catalog in the Simplified-M3 schema, to measure with: by default 1,000,000 media and 8 million taggings of 36,000 tags.

python tests/benchmarks/big_catalog.py FILE [--media 1000000] [--captions]
"""

from __future__ import annotations

import argparse
import sqlite3
import time
from contextlib import closing
from datetime import date, timedelta
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
BATCH = 50_000
FIRST_TAG = 10_000_000
SYLLABLES = ("ka", "lo", "mi", "ren", "tu", "sa", "po", "vel", "dri", "an", "go", "shi", "be", "nor", "fa", "ula")

TYPES = ("alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json")
TEXT, DATE, INT, DEC = 1, 4, 5, 6
FIELDS: tuple[tuple[str, int, int, float, int], ...] = (
    # name, type, values, exponent of the share of the nth value (0: all equal), tags of one medium
    ("Category", TEXT, 30, 1.0, 1),
    ("Label", TEXT, 30_000, 0.8, 3),
    ("Place", TEXT, 2_000, 0.6, 1),
    ("Hour", INT, 24, 0.0, 1),
    ("Day", DATE, 3_650, 0.0, 1),
    ("Rating", DEC, 500, 0.3, 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--media", type=int, default=1_000_000)
    parser.add_argument("--captions", action="store_true", help="give every medium a Caption of its own as well")
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    start = time.perf_counter()
    count = build(options.file, options.media, captions=options.captions, seed=options.seed)
    size = options.file.stat().st_size / 2**20
    print(f"{options.file}: {options.media:,} media, {count:,} taggings, {size:,.0f} MiB, {time.perf_counter() - start:.0f} s")


def build(file: Path, media: int, *, captions: bool = False, seed: int = 5) -> int:
    """Write the catalog and return how many taggings it has, those of the index not counted. Every medium has the row of its id less 1."""
    file.unlink(missing_ok=True)
    rng = np.random.default_rng(seed)
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -400000;"
        )
        db.executescript(_schema())
        db.execute("BEGIN")
        _medias(db, media)
        columns = [_field(db, rng, number, media) for number in range(len(FIELDS))]
        if captions:
            columns.append(_captions(db, rng, len(FIELDS) + 1, media))
        columns.append(_index(db, len(FIELDS) + 2, media))
        _taggings(db, media, np.concatenate(columns, axis=1))
        db.execute("CREATE INDEX taggings_by_tag ON taggings (tag_id, media_id)")
        (count,) = db.execute("SELECT count(*) FROM taggings").fetchone()
        db.execute("COMMIT")
    return count - media


def _schema() -> str:
    values = "".join(
        f"CREATE TABLE {name}_tags (id INTEGER PRIMARY KEY, value {'INTEGER' if name == 'numerical_int' else 'TEXT'}, tagset_id INTEGER);"
        f"INSERT INTO tag_types VALUES ({number}, '{name}');"
        for number, name in enumerate(TYPES, start=1)
    )
    return f"""
        CREATE TABLE source_types (id INTEGER PRIMARY KEY, name TEXT);
        INSERT INTO source_types VALUES (1, 'Image'), (2, 'Video'), (3, 'Audio'), (4, 'Text'), (5, 'Other');
        CREATE TABLE medias (id INTEGER PRIMARY KEY, source TEXT, source_type INTEGER, thumbnail_uri TEXT, group_id INTEGER);
        CREATE TABLE tag_types (id INTEGER PRIMARY KEY, description TEXT);
        CREATE TABLE tagsets (id INTEGER PRIMARY KEY, name TEXT, tagtype_id INTEGER);
        CREATE TABLE tags (id INTEGER PRIMARY KEY, tagtype_id INTEGER, tagset_id INTEGER);
        CREATE TABLE taggings (media_id INTEGER, tag_id INTEGER, PRIMARY KEY (media_id, tag_id)) WITHOUT ROWID;
        {values}
    """


def _medias(db: sqlite3.Connection, media: int) -> None:
    """Every third medium is in a group of twenty, whose first member is the one it is called after."""
    rows = ((one, f"m/{one}.jpg", 1, f"t/{one}.webp", one - one % 60 + 1 if one % 3 == 2 else None) for one in range(1, media + 1))
    db.executemany("INSERT INTO medias VALUES (?, ?, ?, ?, ?)", rows)


def _field(db: sqlite3.Connection, rng: np.random.Generator, number: int, media: int) -> Ints:
    """Enter a field and return the tags of each medium, (media, tags of one)."""
    name, kind, values, exponent, each = FIELDS[number]
    db.execute("INSERT INTO tagsets VALUES (?, ?, ?)", (number + 1, name, kind))
    first = FIRST_TAG + 100_000 * number
    _tags(db, number + 1, kind, first, [_value(kind, at) for at in range(values)])
    shares = 1.0 / np.arange(1, values + 1) ** exponent
    edges = np.cumsum(shares / shares.sum())
    return first + np.minimum(np.searchsorted(edges, rng.random((media, each))), values - 1)


def _captions(db: sqlite3.Connection, rng: np.random.Generator, tagset: int, media: int) -> Ints:
    db.execute("INSERT INTO tagsets VALUES (?, 'Caption', ?)", (tagset, TEXT))
    first = FIRST_TAG + 10_000_000
    nouns = [_word(at) for at in range(5_000)]
    picked = rng.integers(0, len(nouns), (media, 6)).tolist()
    captions = [f"A {' '.join(nouns[one] for one in some)} {at}" for at, some in enumerate(picked)]
    _tags(db, tagset, TEXT, first, captions)
    return np.arange(first, first + media, dtype=np.int64)[:, None]


def _index(db: sqlite3.Connection, tagset: int, media: int) -> Ints:
    db.execute("INSERT INTO tagsets VALUES (?, 'CLIP Index ID', ?)", (tagset, INT))
    first = FIRST_TAG + 30_000_000
    _tags(db, tagset, INT, first, range(media))
    return np.arange(first, first + media, dtype=np.int64)[:, None]


def _tags(db: sqlite3.Connection, tagset: int, kind: int, first: int, values: list[object] | range) -> None:
    db.executemany("INSERT INTO tags VALUES (?, ?, ?)", ((first + at, kind, tagset) for at in range(len(values))))
    table = f"{TYPES[kind - 1]}_tags"
    db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", ((first + at, value, tagset) for at, value in enumerate(values)))


def _taggings(db: sqlite3.Connection, media: int, tags: Ints) -> None:
    for start in range(0, media, BATCH):
        part = np.sort(tags[start : start + BATCH], axis=1)
        owners = np.repeat(np.arange(start + 1, start + 1 + len(part)), part.shape[1])
        pairs = zip(owners.tolist(), chain.from_iterable(part.tolist()), strict=True)
        db.executemany("INSERT OR IGNORE INTO taggings VALUES (?, ?)", pairs)


def _value(kind: int, at: int) -> object:
    if kind == DATE:
        return (date(2015, 1, 1) + timedelta(days=at)).isoformat()
    if kind == DEC:
        return f"{at / 100:.2f}"
    return at if kind == INT else _word(at)


def _word(at: int) -> str:
    """Return a word that can be said, a different one for each number."""
    parts: list[str] = []
    rest = at + len(SYLLABLES)
    while rest:
        rest, part = divmod(rest, len(SYLLABLES))
        parts.append(SYLLABLES[part])
    return "".join(parts).capitalize()


if __name__ == "__main__":
    main()
