"""The whole walk, from drawn pictures to a collection that opens."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.config import load_settings
from mcp_server.errors import ConfigError, IngestError
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.ingest.report import IngestReport
from mcp_server.ingest.run import ingest_folder
from mcp_server.ingest.wishes import Options
from mcp_server.ingest.write import check_writable
from mcp_server.ingest.write_archives import stored_dtype, thumbnail_name, write_embeddings
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.thumbnails import PictureStore
from tests.ingest.toys import COLOURS, BreakingEncoder, ColourEncoder, a_dozen, draw, write_rows


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return a_dozen(tmp_path / "my pictures")


def ingest(pictures: Path, name: str = "toys", **said: Any) -> IngestReport:
    """Ingest into data/NAME beside the pictures. Without more ado the catalog has only the metadata's fields."""
    data = pictures.parent / "data"
    wishes = {"only_own": True} | {key: said.pop(key) for key in list(said) if key in Options.__dataclass_fields__}
    if "metadata" in wishes:
        wishes["metadata"] = str(wishes["metadata"])
    return ingest_folder(
        pictures,
        data / name,
        data / "config.ini",
        name,
        "local-dir:./model",
        options=Options(**wishes),
        **{"encoder": ColourEncoder(), **said},
    )


def rows_of(database: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(sql, values).fetchall()


def tags(database: Path, field: str, kind: str = "alphanumerical") -> dict[str, list[Any]]:
    """Return source to sorted values of `field`, read with nothing but SQL."""
    found: dict[str, list[Any]] = {}
    sql = (
        f"SELECT source, value FROM {kind}_tags v JOIN tagsets s ON s.id = v.tagset_id JOIN taggings t ON t.tag_id = v.id "
        "JOIN medias m ON m.id = t.media_id WHERE s.name = ? ORDER BY source, value"
    )
    for source, value in rows_of(database, sql, field):
        found.setdefault(source, []).append(value)
    return found


def fingerprint(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_the_collection_opens_with_the_projects_own_readers(pictures: Path) -> None:
    report = ingest(pictures)
    (collection,) = load_settings(pictures.parent / "data/config.ini").collections
    assert report.counts.added == report.pictures == 12
    assert report.failed == ()
    assert collection.model == f"local-dir:{Path.cwd() / 'model'}"
    embeddings = load_embeddings(collection.embeddings_file)
    assert embeddings.rows.shape == (12, 3)
    assert embeddings.rows.dtype == np.float32
    with closing(Catalog.open(collection.database_file, 12)) as catalog:
        assert catalog.findings == ()
        assert catalog.indexed == 12
        assert catalog.media_of_row.tolist() == list(range(1, 13))
        items = catalog.items_at(np.arange(12), "full")
    for item, vector in zip(items, embeddings.rows, strict=True):
        colour = next((np.array(rgb) for name, rgb in COLOURS.items() if name in item.uri), None)
        if colour is not None:
            np.testing.assert_allclose(vector, colour / np.linalg.norm(colour), atol=1e-6)
        for base, uri in ((collection.thumbnail_base, item.thumbnail_uri), (collection.original_base, item.uri)):
            with closing(PictureStore.open(base)) as store:
                assert store.read(uri) is not None


def test_media_ids_follow_the_paths_and_rows_follow_the_media(pictures: Path) -> None:
    ingest(pictures)
    database = pictures.parent / "data/toys/collection.db"
    sources = [source for (source,) in rows_of(database, "SELECT source FROM medias ORDER BY id")]
    assert sources == sorted(sources)
    assert len(sources) == 12
    assert tags(database, "CLIP Index ID", "numerical_int") == {source: [row] for row, source in enumerate(sources)}


def test_every_type_of_metadata_becomes_the_tags_one_would_expect(pictures: Path) -> None:
    metadata = write_rows(
        pictures.parent / "m.jsonl",
        [
            {
                "file": "plain/0-red.png",
                "title": "Red",
                "words": ["warm", "loud", "warm"],
                "year": 1999,
                "weight": 2,
                "day": "2020-02-29",
                "at": "2020-02-29T10:00:00",
                "clock": "10:30",
                "good": True,
                "names": {"de": "rot"},
                "nothing": None,
            },
            {
                "file": "plain/1-green.png",
                "title": "Green",
                "words": "calm",
                "year": -5,
                "weight": 2.5,
                "day": None,
                "good": False,
                "names": {},
            },
            {"file": "disc.png", "title": "", "words": [], "year": None},
        ],
    )
    report = ingest(pictures, metadata=metadata)
    assert report.catalog is not None
    database = pictures.parent / "data/toys/collection.db"
    red, green = "plain/0-red.png", "plain/1-green.png"
    assert {field.name: field.kind for field in report.catalog.fields} == {
        "title": "alphanumerical",
        "words": "alphanumerical",
        "year": "numerical_int",
        "weight": "numerical_dec",
        "day": "date",
        "at": "timestamp",
        "clock": "time",
        "good": "alphanumerical",
        "names": "json",
    }
    assert tags(database, "title") == {red: ["Red"], green: ["Green"]}
    assert tags(database, "words") == {red: ["loud", "warm"], green: ["calm"]}
    assert tags(database, "year", "numerical_int") == {red: [1999], green: [-5]}
    assert tags(database, "weight", "numerical_dec") == {red: [2.0], green: [2.5]}
    assert tags(database, "day", "date") == {red: ["2020-02-29"]}
    assert tags(database, "at", "timestamp") == {red: ["2020-02-29T10:00:00"]}
    assert tags(database, "clock", "time") == {red: ["10:30"]}
    assert tags(database, "good") == {red: ["true"], green: ["false"]}
    assert tags(database, "names", "json") == {red: ['{"de":"rot"}']}
    assert report.metadata is not None
    assert report.metadata.without_row == 9
    assert rows_of(database, "PRAGMA foreign_key_check") == []
    assert rows_of(database, "PRAGMA integrity_check") == [("ok",)]
    assert rows_of(database, "PRAGMA journal_mode") == [("delete",)]


def test_pictures_of_one_group_point_at_one_medium_that_is_not_indexed(pictures: Path) -> None:
    rows = [
        {"file": "plain/0-red.png", "group_id": "reds"},
        {"file": "web/0-red.webp", "group_id": "reds"},
        {"file": "plain/2-blue.png", "group_id": 7, "clip index id": 3},
        {"file": "disc.png"},
    ]
    report = ingest(pictures, metadata=write_rows(pictures.parent / "m.jsonl", rows))
    database = pictures.parent / "data/toys/collection.db"
    groups = rows_of(database, "SELECT id, source, source_type, thumbnail_uri, group_id FROM medias WHERE source_type = 5 ORDER BY id")
    assert groups == [(13, "7", 5, None, None), (14, "reds", 5, None, None)]  # ids follow the names, as in the bundled demo
    members = rows_of(database, "SELECT source, group_id FROM medias WHERE group_id IS NOT NULL ORDER BY source")
    assert members == [("plain/0-red.png", 14), ("plain/2-blue.png", 13), ("web/0-red.webp", 14)]
    assert rows_of(database, "SELECT name FROM tagsets") == [("CLIP Index ID",)]
    assert report.groups == 2
    assert report.catalog is not None
    assert report.catalog.left_out == ("clip index id",)
    with closing(Catalog.open(database, 12)) as catalog:
        assert catalog.findings == ()
        assert sorted(catalog.group_of_row[catalog.group_of_row >= 0].tolist()) == [13, 14, 14]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
def test_a_report_that_cannot_be_written_is_named_and_the_next_run_writes_it(pictures: Path) -> None:
    with pytest.raises(IngestError, match=r"Cannot write /dev/full: No space left on device\. .* name another with --report"):
        ingest(pictures, report="/dev/full")
    report = pictures.parent / "report.jsonl"
    assert ingest(pictures, report=str(report)).counts.added == 12
    assert '"added": 12' in report.read_text()


def test_a_configuration_that_cannot_be_written_is_named_before_the_work(pictures: Path) -> None:
    (pictures.parent / "file").write_text("not a folder")
    config_file = pictures.parent / "file/config.ini"
    encoder = ColourEncoder()
    with pytest.raises(IngestError, match=r"Cannot write .*config\.ini: .*file is no folder\. Name another with --config"):
        ingest_folder(pictures, pictures.parent / "data/toys", config_file, "toys", "M", encoder=encoder)
    assert encoder.seen == 0
    assert not (pictures.parent / "data").exists()


@pytest.mark.parametrize("option", ["--report", "--config"])
def test_a_file_that_one_may_not_write_is_named_before_the_work(pictures: Path, option: str) -> None:
    locked = pictures.parent / "locked"
    locked.mkdir(mode=0o500)
    if os.access(locked, os.W_OK):
        pytest.skip("the superuser may write everywhere")
    options, config_file = Options(), pictures.parent / "config.ini"
    if option == "--report":
        options = Options(report=str(locked / "report.jsonl"))
    else:
        config_file = locked / "config.ini"
    with pytest.raises(IngestError, match=f"Cannot write .*locked may not be written. Name another with {option}"):
        ingest_folder(pictures, pictures.parent / "toys", config_file, "toys", "M", options=options, encoder=ColourEncoder())
    assert not (pictures.parent / "toys").exists()


def test_a_file_on_a_drive_that_is_not_there_is_named() -> None:
    class OnNoDrive(type(Path())):
        def stat(self, **_: bool) -> os.stat_result:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    with pytest.raises(IngestError, match=r"Cannot write .*config\.ini: .*photos is no folder\. Name another with --config"):
        check_writable(OnNoDrive("/photos"), OnNoDrive("/photos/config.ini"), "--config")


def test_a_folder_that_cannot_be_listed_is_said_so(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(folder: str | Path | int) -> Any:  # pathlib and shutil list folders by it as well
        if folder == pictures:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr("mcp_server.ingest.scan.os.scandir", refuse)
    with pytest.raises(IngestError, match=r"^The folder cannot be read: .*Permission denied"):
        ingest(pictures)


def test_files_that_give_no_vector_are_listed_and_take_no_row(pictures: Path) -> None:
    (pictures / "broken.png").write_text("no picture")
    draw(pictures / "night.png", "black")
    rows = [{"file": "broken.png", "color": "none"}, {"file": "disc.png", "color": "blue", "day": "2004-08-39"}, {"file": "x.png"}, "{"]
    rows.append({"file": "large.jpg", "day": "2004-08-09"})
    report = ingest(pictures, metadata=write_rows(pictures.parent / "m.jsonl", rows))
    assert [failed.source for failed in report.failed] == ["broken.png", "night.png"]
    assert report.failed[1].reason == "the model made no vector of it"
    assert (report.counts.added, report.counts.failed, report.pictures) == (12, 2, 12)
    assert report.metadata is not None
    assert report.metadata.report.unmatched == 1
    assert [bad.number for bad in report.metadata.report.bad.first] == [4]
    assert report.catalog is not None
    assert [(remark.field, remark.count, remark.example) for remark in report.catalog.refused] == [("day", 1, "2004-08-39")]
    database = pictures.parent / "data/toys/collection.db"
    assert rows_of(database, "SELECT value FROM alphanumerical_tags") == [("blue",)]
    assert rows_of(database, "SELECT count(*) FROM medias WHERE source IN ('broken.png', 'night.png')") == [(0,)]
    assert load_embeddings(database.with_name("embeddings.zarr.zip")).rows.shape == (12, 3)


def test_a_collection_of_something_else_is_refused_with_a_way_out_that_works(pictures: Path) -> None:
    ingest(pictures)
    other = a_dozen(pictures.parent / "others")
    with pytest.raises(IngestError, match=r"holds the pictures of .*my pictures, not of .*others. Give another --name, or --replace"):
        ingest(other)
    with pytest.raises(IngestError, match="differs in letter case only"):
        ingest(pictures, "Toys")
    ingest(other, "toys2")
    draw(other / "more.png", "red")
    assert ingest(other, replace=True).pictures == 13
    names = [collection.name for collection in load_settings(pictures.parent / "data/config.ini").collections]
    assert names == ["toys", "toys2"]
    assert load_embeddings(pictures.parent / "data/toys/embeddings.zarr.zip").rows.shape == (13, 3)
    assert sorted(path.name for path in (pictures.parent / "data").iterdir()) == ["config.ini", "toys", "toys2"]


def test_a_folder_with_something_in_it_is_never_written_into_unasked(pictures: Path) -> None:
    (pictures.parent / "data/toys").mkdir(parents=True)
    (pictures.parent / "data/toys/thesis.txt").write_text("years of work")
    with pytest.raises(IngestError, match="is there already and not empty"):
        ingest(pictures)
    ingest(pictures, replace=True)
    assert (pictures.parent / "data/toys/thesis.txt").read_text() == "years of work"


def test_a_failure_while_replacing_leaves_the_old_collection_and_the_next_run_goes_on(pictures: Path) -> None:
    ingest(pictures)
    data = pictures.parent / "data"
    before = {**fingerprint(data / "toys"), **fingerprint(data)}
    for number in range(30):
        draw(pictures / f"more/{number}.png", "green")
    with pytest.raises(RuntimeError, match="the power went"):
        ingest(pictures, replace=True, encoder=BreakingEncoder(2, batch=10))
    assert {**fingerprint(data / "toys"), **fingerprint(data)} == before
    encoder = ColourEncoder(batch=10)
    assert ingest(pictures, replace=True, encoder=encoder).pictures == 42
    assert encoder.seen == 22
    assert sorted(path.name for path in data.iterdir()) == ["config.ini", "toys"]


def test_a_failure_before_anything_was_embedded_leaves_nothing(pictures: Path) -> None:
    with pytest.raises(RuntimeError, match="the power went"):
        ingest(pictures, encoder=BreakingEncoder(0))
    assert list((pictures.parent / "data").iterdir()) == []


def test_a_model_that_cannot_be_loaded_leaves_nothing(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="open_clip_config"):
        ingest(pictures, encoder=None)
    assert list((pictures.parent / "data").iterdir()) == []


def test_a_folder_of_unreadable_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p/a.png").write_text("no picture")
    with pytest.raises(IngestError, match=r"None of the 1 files can be read; the first, a.png: not a picture"):
        ingest(tmp_path / "p")
    assert list((tmp_path / "data").iterdir()) == []


def test_a_file_name_that_is_no_text_is_listed_not_fatal(pictures: Path) -> None:
    try:
        (pictures / "caf\udce9.png").write_bytes((pictures / "disc.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes only names that are text")
    report = ingest(pictures)
    assert [(failed.source, failed.reason) for failed in report.failed] == [("caf?.png", "its name is not Unicode text")]
    assert (report.counts.added, report.counts.failed) == (12, 1)


def test_progress_counts_every_file_once_and_ends_at_all(pictures: Path) -> None:
    (pictures / "broken.png").touch()
    for number in range(70):
        draw(pictures / f"more/{number}.png", "green")
    seen: list[tuple[int, int]] = []
    ingest(pictures, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert len(seen) == 2
    assert seen[-1] == (83, 83)


def test_the_same_pictures_give_the_same_bytes(pictures: Path) -> None:
    ingest(pictures, "one")
    ingest(pictures, "two")
    data = pictures.parent / "data"
    assert fingerprint(data / "one") == fingerprint(data / "two")


def test_paths_below_the_root_are_relative_and_others_absolute(pictures: Path, tmp_path: Path) -> None:
    ingest(pictures)
    text = (tmp_path / "data/config.ini").read_text()
    assert "EmbeddingsFile = ./data/toys/embeddings.zarr.zip\n" in text
    assert "OriginalMediaURL = ./my pictures\n" in text
    config_file = tmp_path / "elsewhere/config.ini"
    ingest_folder(pictures, tmp_path / "out", config_file, "toys", "M", original_base="https://host/100%/", encoder=ColourEncoder())
    text = config_file.read_text()
    assert f"DatabaseFile = {(tmp_path / 'out/collection.db').as_posix()}\n" in text
    assert "OriginalMediaURL = https://host/100%/\n" in text
    (collection,) = load_settings(config_file).collections
    assert collection.original_base == "https://host/100%/"


@given(st.sets(st.from_regex(r"[ab](\\.(jpg|JPG|png|webp|WEBP|x)){1,4}", fullmatch=True).filter(lambda name: not name.endswith(".x"))))
def test_thumbnails_of_different_pictures_have_different_names(sources: set[str]) -> None:
    names = {thumbnail_name(source) for source in sources}
    assert len(names) == len(sources)
    assert all(name.lower().endswith(".webp") for name in names)
    assert thumbnail_name("images/noto.v2.webp") == "images/noto.v2.webp"


def test_large_collections_are_stored_in_half_the_bytes() -> None:
    assert stored_dtype(99_999) is np.float32
    assert stored_dtype(100_000) is np.float16


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_vectors_of_any_batching_come_back_in_order(tmp_path: Path, dtype: type[np.float32] | type[np.float16]) -> None:
    width = 2**18  # few rows fill a chunk, so that batches cross chunk borders
    rows = np.repeat(np.arange(1, 43, dtype=dtype)[:, None], width, axis=1)
    batches = [rows[:1], rows[1:20], rows[20:20], rows[20:41], rows[41:]]
    write_embeddings(tmp_path / "e.zarr.zip", batches, 42, width, dtype)
    with zipfile.ZipFile(tmp_path / "e.zarr.zip") as archive:
        assert len(archive.namelist()) > 3
    assert [path.name for path in tmp_path.iterdir()] == ["e.zarr.zip"]
    found = load_embeddings(tmp_path / "e.zarr.zip").rows
    assert found.dtype == dtype
    assert np.array_equal(found, rows)
