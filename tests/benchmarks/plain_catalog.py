"""A catalog and a configuration around a made-up collection, so that the real engine serves it: no pictures, no model, three fields."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from synthetic import Synthetic, zarr_file

SCHEMA = Path(__file__).resolve().parents[2] / "mcp_server" / "stores" / "schema.sql"
NAME = "made"
COLOURS, YEARS, ALBUM = 12, 25, 1_000
"""Colours lie anywhere; a year is one stretch of rows; an album is a stretch of `ALBUM` rows."""


def served_folder(collection: Synthetic, data: Path) -> Path:
    """Return a folder in `data` with `config.ini` and what it names; written if it is not there. Caches and sessions go there as well.

    Media id 1 is row 0, and so on. The model is a folder that says how wide it is and has no weights: searches go by `like`.
    """
    size, width = collection.rows.shape
    embeddings = zarr_file(collection, data).resolve()
    folder = data / f"engine-{size}x{width}-seed{collection.world.seed}"
    if (folder / "config.ini").exists():
        return folder
    (folder / "model").mkdir(parents=True, exist_ok=True)
    model = {"model_cfg": {"embed_dim": width, "text_cfg": {}, "vision_cfg": {}}}
    (folder / "model" / "open_clip_config.json").write_text(json.dumps(model), encoding="utf-8")
    (folder / "collection.db").unlink(missing_ok=True)
    _write_catalog(folder / "collection.db", size)
    (folder / "config.ini").write_text(
        f"[{NAME}]\nIndexType = zarr\nModel = local-dir:./model\nEmbeddingsFile = {embeddings}\nDatabaseFile = ./collection.db\n"
        "[LOGGING]\nLevel = ERROR\n",
        encoding="utf-8",
    )
    return folder


def _write_catalog(file: Path, size: int) -> None:
    tables, _, indexes = SCHEMA.read_text(encoding="utf-8").partition("-- Indexes:")
    rows = "WITH RECURSIVE rows (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM rows WHERE i + 1 < :size) "
    colour, year, album = size + 1, size + 1 + COLOURS, size + 1 + COLOURS + YEARS
    given = {"size": size, "colour": colour, "year": year, "album": album, "colours": COLOURS, "years": YEARS, "of_album": ALBUM}
    with closing(sqlite3.connect(file)) as database:
        database.executescript(tables)
        database.execute("PRAGMA synchronous = OFF")
        database.executescript("INSERT INTO tagsets VALUES (1, 'CLIP Index ID', 5), (2, 'colour', 1), (3, 'year', 5), (4, 'album', 1);")
        for statement in (
            "INSERT INTO medias " + rows + "SELECT i + 1, printf('%07d.jpg', i), 1, NULL, NULL FROM rows",
            "INSERT INTO tags " + rows + "SELECT i + 1, 5, 1 FROM rows",
            "INSERT INTO numerical_int_tags " + rows + "SELECT i + 1, i, 1 FROM rows",
            "INSERT INTO taggings " + rows + "SELECT i + 1, i + 1 FROM rows",
            "INSERT INTO taggings " + rows + "SELECT i + 1, :colour + (i * 2654435761 >> 9) % :colours FROM rows",
            "INSERT INTO taggings " + rows + "SELECT i + 1, :year + i * :years / :size FROM rows",
            "INSERT INTO taggings " + rows + "SELECT i + 1, :album + i / :of_album FROM rows",
        ):
            database.execute(statement, given)
        albums = -(-size // ALBUM)
        for tagset, first, count, kind in ((2, colour, COLOURS, 1), (3, year, YEARS, 5), (4, album, albums, 1)):
            database.executemany("INSERT INTO tags VALUES (?, ?, ?)", [(first + at, kind, tagset) for at in range(count)])
        values = [(colour + at, f"colour {at}", 2) for at in range(COLOURS)] + [(album + at, f"album {at}", 4) for at in range(albums)]
        database.executemany("INSERT INTO alphanumerical_tags VALUES (?, ?, ?)", values)
        database.executemany("INSERT INTO numerical_int_tags VALUES (?, ?, 3)", [(year + at, 2000 + at) for at in range(YEARS)])
        database.commit()
        database.executescript(indexes.partition("\n")[2] + "ANALYZE;")
