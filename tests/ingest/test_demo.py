"""The demo that ships is what its pictures, its metadata and its model make."""

from __future__ import annotations

import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mcp_server.config import demo_folder
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.ingest.run import ingest_folder
from mcp_server.ingest.wishes import Options
from mcp_server.stores.catalog import Catalog

DEMO = demo_folder()
COUNT = 3513


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of the demo's pictures, spread over all sets, unpacked with the metadata of all."""
    folder = tmp_path_factory.mktemp("sample")
    with zipfile.ZipFile(DEMO / "thumbnails.zip") as archive:
        archive.extractall(folder, archive.namelist()[:: COUNT // 19][:20])
    with zipfile.ZipFile(DEMO / "metadata.zip") as archive:
        archive.extractall(folder)
    return folder


def read(database: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
        return opened.execute(sql).fetchall()


TAGGED = """
SELECT m.source, s.name, s.tagtype_id, coalesce(a.value, d.value, i.value, j.value)
FROM medias m JOIN taggings g ON g.media_id = m.id JOIN tags t ON t.id = g.tag_id JOIN tagsets s ON s.id = t.tagset_id
LEFT JOIN alphanumerical_tags a ON a.id = t.id LEFT JOIN date_tags d ON d.id = t.id
LEFT JOIN numerical_int_tags i ON i.id = t.id LEFT JOIN json_tags j ON j.id = t.id
WHERE s.name <> 'CLIP Index ID'
"""


def test_twenty_pictures_ingested_anew_equal_what_ships(sample: Path, tmp_path: Path) -> None:
    report = ingest_folder(
        sample,
        tmp_path / "again",
        tmp_path / "config.ini",
        "again",
        f"local-dir:{DEMO / 'model'}",
        "cpu",
        Options(metadata=str(sample / "metadata.jsonl"), only_own=True, near="off"),
    )
    assert report.counts.added == 20
    assert report.failed == ()
    assert report.metadata is not None
    assert report.metadata.report.unmatched == COUNT - 20
    shipped = read(DEMO / "collection.db", "SELECT source, id FROM medias WHERE source_type = 1")
    row_of = {source: int(str(number)) - 1 for source, number in shipped}
    again = [source for (source,) in read(tmp_path / "again/collection.db", "SELECT source FROM medias WHERE source_type = 1 ORDER BY id")]
    old = load_embeddings(DEMO / "embeddings.zarr.zip").rows[[row_of[source] for source in again]]
    new = load_embeddings(tmp_path / "again/embeddings.zarr.zip").rows
    assert np.einsum("nd,nd->n", old, new).min() >= 0.999
    wanted = {row for row in read(DEMO / "collection.db", TAGGED) if row[0] in again}
    # the one impossible date of the whole collection, and kinds, are decided over all rows
    assert set(read(tmp_path / "again/collection.db", TAGGED)) == wanted


def test_every_picture_of_the_demo_has_a_row_a_vector_and_a_thumbnail() -> None:
    embeddings = load_embeddings(DEMO / "embeddings.zarr.zip")
    assert embeddings.rows.shape == (COUNT, 192)
    assert not embeddings.unusable.any()
    with closing(Catalog.open(DEMO / "collection.db", COUNT)) as catalog:
        assert catalog.findings == ()
        assert catalog.indexed == COUNT
    uris = {uri for (uri,) in read(DEMO / "collection.db", "SELECT thumbnail_uri FROM medias WHERE source_type = 1")}
    with zipfile.ZipFile(DEMO / "thumbnails.zip") as archive:
        assert set(archive.namelist()) == uris
        assert archive.testzip() is None


def test_the_demos_fields_have_the_kinds_its_readme_promises() -> None:
    kinds = dict(read(DEMO / "collection.db", "SELECT s.name, t.description FROM tagsets s JOIN tag_types t ON t.id = s.tagtype_id"))
    text = [
        "title",
        "description",
        "keywords",
        "category",
        "subcategory",
        "has_skin_tone",
        "skin_tone",
        "emoji",
        "author",
        "color",
        "colors",
    ]
    text += ["collection", "license", "source_package", "color_hex", "id"]
    numbers = ["unicode_version", "width", "height", "bytes", "group_size", "CLIP Index ID"]
    assert kinds == {
        **dict.fromkeys(text, "alphanumerical"),
        **dict.fromkeys(numbers, "numerical_int"),
        "introduced": "date",
        "names": "json",
    }
    assert read(DEMO / "collection.db", "SELECT count(*) FROM medias WHERE source_type = 5") == [(2271,)]


def test_the_demos_groups_have_the_ids_that_ingest_gives() -> None:
    groups = read(DEMO / "collection.db", "SELECT id, source FROM medias WHERE source_type = 5 ORDER BY source")
    assert [number for number, _ in groups] == list(range(COUNT + 1, COUNT + 1 + len(groups)))


def test_the_demo_stays_small() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) < 45_000_000
