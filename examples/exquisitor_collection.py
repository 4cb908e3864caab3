"""Serve an Exquisitor collection: write one as other tools do (INI, SQLite in the M3 schema, Zarr v2 zip), point the server at it, filter.

Videos with keyframes: the year hangs on the video, what is seen on the frame; a frame inherits the video's tags.
Run from the repository: python examples/exquisitor_collection.py
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import anyio
import numpy as np
import zarr
from first_search import ask
from mcp import Client, StdioServerParameters
from zarr.storage import ZipStore

MODEL = Path(__file__).resolve().parent.parent / "data" / "demo" / "model"
VIDEOS, FRAMES = 5, 8

SCHEMA = """
CREATE TABLE source_types (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE medias (id INTEGER PRIMARY KEY, source TEXT, source_type INTEGER, thumbnail_uri TEXT, group_id INTEGER);
CREATE TABLE tag_types (id INTEGER PRIMARY KEY, description TEXT);
CREATE TABLE tagsets (id INTEGER PRIMARY KEY, name TEXT, tagtype_id INTEGER);
CREATE TABLE tags (id INTEGER PRIMARY KEY, tagtype_id INTEGER, tagset_id INTEGER);
CREATE TABLE alphanumerical_tags (id INTEGER PRIMARY KEY, value TEXT, tagset_id INTEGER);
CREATE TABLE numerical_int_tags (id INTEGER PRIMARY KEY, value INTEGER, tagset_id INTEGER);
CREATE TABLE taggings (media_id INTEGER, tag_id INTEGER);
INSERT INTO source_types VALUES (1, 'Image'), (2, 'Video');
INSERT INTO tag_types VALUES (1, 'alphanumerical'), (5, 'numerical_int');
INSERT INTO tagsets VALUES (1, 'CLIP Index ID', 5), (2, 'Scene', 1), (3, 'Year', 5);
"""


def write_collection(folder: Path) -> Path:
    """Write the collection into `folder` and return its configuration file."""
    data = folder / "data"
    data.mkdir()
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((VIDEOS * FRAMES, 192)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with closing(ZipStore(data / "embeddings.zarr.zip", mode="w")) as store:
        zarr.create_array(store, data=vectors.astype(np.float16), chunks=(16, 192), zarr_format=2)

    tags: dict[tuple[int, str | int], int] = {}
    with closing(sqlite3.connect(data / "collection.db")) as db:
        db.executescript(SCHEMA)

        def tag(media: int, tagset: int, value: str | int) -> None:
            kind, table = (1, "alphanumerical_tags") if tagset == 2 else (5, "numerical_int_tags")
            number = tags.setdefault((tagset, value), len(tags) + 1)
            db.execute("INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", (number, kind, tagset))
            db.execute(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", (number, value, tagset))
            db.execute("INSERT INTO taggings VALUES (?, ?)", (media, number))

        for video in range(1, VIDEOS + 1):
            db.execute("INSERT INTO medias VALUES (?, ?, 2, NULL, NULL)", (video, f"video{video}.mp4"))
            tag(video, 3, 2018 + video)
            for frame in range(FRAMES):
                row = (video - 1) * FRAMES + frame
                media = 100 + row
                db.execute("INSERT INTO medias VALUES (?, ?, 1, ?, ?)", (media, f"v{video}/f{frame}.jpg", f"v{video}/f{frame}.webp", video))
                tag(media, 1, row)
                tag(media, 2, ("beach", "street", "indoor")[row % 3])
        db.commit()

    config = data / "config.ini"
    config.write_text(
        f"""
[DEFAULT]
ModelDevice = cpu
Model = local-dir:{MODEL}

[news]
Enabled = True
IndexType = zarr
EmbeddingsFile = ./data/embeddings.zarr.zip
DatabaseFile = ./data/collection.db
ThumbnailMediaURL = https://example.org/thumbs/
OriginalMediaURL = https://example.org/originals/
""",
        encoding="utf-8",
    )
    return config


async def search(config: Path) -> None:
    """Search the collection with filters on both levels, and leave one video out."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "mcp_server", "serve", "--config", str(config)])
    async with Client(server) as client:
        overview = await ask(client, "describe_filters")
        print("fields:", overview["fields"])
        assert [field["name"] for field in overview["fields"]] == ["Scene", "Year"]  # the CLIP Index ID is nobody's business

        filters = {"Scene": "beach", "Year": {"gte": 2020}}
        found = await ask(client, "clip_search", text="waves on the sand", n=50, filters=filters, detail="full")
        print(f"{found['returned']} frames: {found['filters']}")
        expected = {100 + row for row in range(FRAMES, VIDEOS * FRAMES) if row % 3 == 0}
        assert {hit["id"] for hit in found["hits"]} == expected
        assert found["hits"][0]["thumbnail_url"].startswith("https://example.org/thumbs/v")

        tree = {"root": {"kind": "leaf", "filter": {"id": 3, "tagtype_id": 5, "constraint": {"lower_bound": 2020, "upper_bound": 2021}}}}
        ranged = await ask(client, "clip_search", text="waves on the sand", n=50, filters=tree)
        assert {hit["group"] for hit in ranged["hits"]} == {2, 3}

        without = await ask(client, "clip_search", text="waves on the sand", n=100, excluded_groups=[2])
        assert without["returned"] == (VIDEOS - 1) * FRAMES
        assert all(hit["group"] != 2 for hit in without["hits"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        written = write_collection(Path(temporary))
        before = {path.name: path.read_bytes() for path in written.parent.iterdir() if path.is_file()}
        anyio.run(search, written)
        assert {name: written.with_name(name).read_bytes() for name in before} == before  # your files are only read
