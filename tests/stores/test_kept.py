"""What is kept beside a catalog is taken while the catalog is the same, never a moment longer, and never stands in anybody's way."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.side_files import SideFiles
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.facets import overview
from mcp_server.stores.filter_index import FilterIndex
from tests import m3

TYPES = {"Color": "alphanumerical", "Year": "numerical_int", "Weight": "numerical_dec", "Day": "date", "Extra": "json", "Empty": "date"}
MEDIAS = [
    m3.Media(1, 0, tags={"Color": ["red", "RED"], "Year": [1999], "Weight": ["0.5"], "Day": ["2021-03-01"], "Extra": ["{}"]}),
    m3.Media(2, 2, 1, {"Color": ["blue"], "Year": [2**60 + 1], "Day": ["unknown"]}),
    m3.Media(3, 3, 7),
    m3.Media(4, None, tags={"Color": ["violet"]}),
]
FILTERS = (
    {"Color": "red"},
    {"Color": {"all": ["red", "RED"]}},
    {"Color": {"contains": "L"}},
    {"Year": {"gt": 2000}},
    {"Weight": 0.5},
    {"Day": {"exists": True}},
    {"not": {"Extra": {"exists": True}}},
)
OLD_NS = 10 * 1_000_000_000


def settled(path: Path, at_ns: int | None = None) -> int:
    """Make `path` look as if it had not been written to for a while; a file written to this very moment is not kept. Return its time."""
    at_ns = at_ns if at_ns is not None else time.time_ns() - OLD_NS
    os.utime(path, ns=(at_ns, at_ns))
    return path.stat().st_mtime_ns


def read(path: Path, side: SideFiles | None, size: int = 5, unusable: np.ndarray | None = None) -> object:
    """Open the catalog and return all that can be seen of it."""
    with closing(Catalog.open(path, size, unusable, side)) as catalog:
        index = FilterIndex(catalog)
        passing = [catalog.media_of_row[index.evaluate(parse_filter(raw)).mask].tolist() for raw in FILTERS]
        values = [(field.name, list(index.data(field).shown), list(index.data(field).keys)) for field in index.fields]
        rows = catalog.rows_of([4, 3, 2, 1]), catalog.rows_of_groups([7, 1])
        return passing, values, [(one.rows.tolist(), one.unknown) for one in rows], catalog.findings, catalog.indexed, overview(index)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Returns where fields came from since it was last called."""
    caplog.set_level(logging.DEBUG, "mcp_server.stores")

    def origins() -> list[str]:
        found = [record.getMessage().split("from=")[1].split()[0] for record in caplog.records if "from=" in record.getMessage()]
        caplog.clear()
        return sorted(set(found))

    return origins


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_a_second_start_reads_what_the_first_one_kept(tmp_path: Path, layout: m3.Layout, logged: Callable[[], list[str]]) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS, TYPES, layout=layout)
    settled(path)
    plain = read(path, None)
    assert logged() == ["catalog"]
    side = SideFiles(tmp_path / "side")
    assert read(path, side) == plain
    assert logged() == ["catalog"]
    kept = sorted(one.name.rsplit("-", 1)[0] for one in side.folder.iterdir())
    assert kept == sorted(["media", *(f"field-{number}" for number in range(1, 7))])
    assert read(path, side) == plain
    assert logged() == ["side_files"]


def update(connection: sqlite3.Connection, old: str, new: str) -> None:
    with connection:
        assert connection.execute("UPDATE alphanumerical_tags SET value = ? WHERE value = ?", (new, old)).rowcount == 1


def test_an_edit_of_the_same_size_and_time_is_seen(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    at, size = settled(path), path.stat().st_size
    read(path, side)
    with closing(sqlite3.connect(path)) as connection:
        update(connection, "blue", "cyan")
    assert settled(path, at) == at
    assert path.stat().st_size == size
    logged()
    assert read(path, side) == read(path, None)
    assert logged() == ["catalog"]
    assert read(path, side) == read(path, None)
    assert logged() == ["catalog", "side_files"]


def test_commits_in_a_write_ahead_log_are_seen(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        at = settled(path)
        read(path, side)
        for old, new in (("blue", "cyan"), ("cyan", "teal"), ("teal", "blue")):
            update(connection, old, new)
            settled(path, at)
            settled(path.with_name("c.db-wal"), at)
            logged()
            assert read(path, side) == read(path, None), new
            assert logged() == ["catalog"]
            assert read(path, side) == read(path, None), new
            assert "side_files" in logged(), "the log's content is part of what a set belongs to"
            connection.execute("PRAGMA wal_checkpoint(RESTART)")
    settled(path, at)
    assert read(path, side) == read(path, None)


def test_another_file_in_its_place_is_seen(tmp_path: Path) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    other = m3.build(tmp_path / "other.db", [*MEDIAS[:1], m3.Media(2, 2, 1, {"Color": ["cyan"], "Year": [1]}), *MEDIAS[2:]], TYPES)
    at = settled(path)
    first = read(path, side)
    settled(other, at)
    assert other.stat().st_size == path.stat().st_size
    other.replace(path)
    assert read(path, side) == read(path, None) != first


def test_a_writer_between_opening_and_loading_a_field_spoils_nothing(tmp_path: Path) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    at = settled(path)
    with closing(Catalog.open(path, 5, None, side)) as catalog, closing(sqlite3.connect(path)) as connection:
        update(connection, "blue", "cyan")
        settled(path, at)
        index = FilterIndex(catalog)
        assert "cyan" in list(index.data(index.field("Color")).shown)
    assert not list(side.folder.glob("field-*")), "this field and the rows read before may not fit each other"
    assert read(path, side) == read(path, None)


def test_sets_belong_to_the_rows_they_were_made_for(tmp_path: Path) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    settled(path)
    read(path, side)
    assert read(path, side, size=3) == read(path, None, size=3)
    unusable = np.array([True, False, False, False, False])
    assert read(path, side, unusable=unusable) == read(path, None, unusable=unusable)
    assert read(path, side, unusable=np.zeros(5, np.bool_)) == read(path, None)


@pytest.mark.parametrize("ahead_ns", [0, 60 * 1_000_000_000])
def test_a_catalog_written_to_this_moment_is_not_kept_yet(tmp_path: Path, ahead_ns: int) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    settled(path, (time.time_ns() + ahead_ns) // 1_000_000_000 * 1_000_000_000)
    assert read(path, side) == read(path, None)
    assert not side.folder.exists()


def test_a_folder_that_cannot_be_written_costs_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS, TYPES)
    settled(path)
    (tmp_path / "file").write_text("not a folder")
    caplog.set_level(logging.WARNING)
    assert read(path, SideFiles(tmp_path / "file" / "side")) == read(path, None)
    assert [record.getMessage().split()[0] for record in caplog.records if "not_kept" in record.getMessage()] == ["catalog.not_kept"]


def test_a_damaged_set_is_worked_out_again(tmp_path: Path, logged: Callable[[], list[str]]) -> None:
    path, side = m3.build(tmp_path / "c.db", MEDIAS, TYPES), SideFiles(tmp_path / "side")
    settled(path)
    plain = read(path, side)
    damaged = list(side.folder.glob("*/arrays.bin"))
    assert damaged
    for file in damaged:
        file.write_bytes(b"")
    logged()
    assert read(path, side) == plain
    assert logged() == ["catalog"]
