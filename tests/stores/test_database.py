"""Reading leaves the file alone and stands in nobody's way."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import numpy as np
import pytest

from mcp_server.errors import CatalogBusyError, CatalogError, CatalogReplacedError
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.database import Database
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.sqlite_uri import uri_of
from tests import m3

MEDIAS = [m3.Media(1, 0, tags={"color": ["red"]}), m3.Media(2, 1, tags={"color": ["blue"]})]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def use(path: Path) -> None:
    with closing(Catalog.open(path, 2)) as catalog:
        assert FilterIndex(catalog).evaluate(None).count == 2
        assert len(catalog.items_at([0, 1], "full")) == 2


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_file_is_byte_identical_and_nothing_is_left_beside_it(tmp_path: Path, mode: str) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute(f"PRAGMA journal_mode={mode}")
    before = digest(path)
    use(path)
    assert digest(path) == before
    assert [one.name for one in tmp_path.iterdir()] == ["c.db"]


@pytest.mark.parametrize("name", ["a b.db", "50% #1?.db", "Ünï.db", "x'y.db", "file:c.db"])
def test_awkward_file_names_open(tmp_path: Path, name: str) -> None:
    use(m3.build(tmp_path / "fold#er ?" / name, MEDIAS))


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PureWindowsPath("C:/pictures/50% #1?.db"), "file:///C:/pictures/50%25%20%231%3F.db"),
        (PureWindowsPath("//server/share/a b.db"), "file:////server/share/a%20b.db"),
        (PurePosixPath("/pictures/a b.db"), "file:///pictures/a%20b.db"),
    ],
)
def test_a_file_of_a_network_share_has_an_address_that_names_no_machine(path: PurePath, uri: str) -> None:
    assert uri_of(path) == uri
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):  # since it is not there; not "invalid uri authority"
        sqlite3.connect(f"{uri}?mode=ro", uri=True)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_writer_is_never_blocked_by_an_open_catalog(tmp_path: Path, mode: str) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with closing(sqlite3.connect(path)) as setup:
        setup.execute(f"PRAGMA journal_mode={mode}")
    with closing(Catalog.open(path, 2)) as catalog:
        catalog.items_at([0], "full")
        with closing(sqlite3.connect(path, timeout=0)) as writer:
            with writer:
                writer.execute("UPDATE medias SET source = 'changed.jpg' WHERE id = 1")
            assert catalog.items_at([0], "concise")[0].uri == "changed.jpg"
            with writer:
                writer.execute("UPDATE medias SET source = 'again.jpg' WHERE id = 1")
        assert catalog.items_at([0], "concise")[0].uri == "again.jpg"


def test_a_writer_that_lets_nobody_read_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CatalogBusyError, match="Let it finish, then try again"):
            Catalog.open(path, 2)
        writer.execute("COMMIT")
        with closing(Catalog.open(path, 2)) as catalog:
            assert catalog.items_at([0], "concise")[0].uri == "pictures/1.jpg"
            writer.execute("BEGIN EXCLUSIVE")
            started = time.monotonic()
            with pytest.raises(CatalogBusyError):
                catalog.items_at([0], "concise")
            assert time.monotonic() - started < 9
            writer.execute("COMMIT")
            assert catalog.items_at([0], "concise")[0].uri == "pictures/1.jpg"


def test_what_is_still_in_the_wal_is_seen(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=wal")
        with writer:
            writer.execute("UPDATE medias SET source = 'in-the-wal.jpg' WHERE id = 2")
        with closing(Catalog.open(path, 2)) as catalog:
            assert catalog.items_at([1], "concise")[0].title == "in-the-wal.jpg"


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    barrier = threading.Barrier(8)
    titles: list[str] = []
    with closing(Catalog.open(path, 2)) as catalog:
        index = FilterIndex(catalog)

        def work() -> None:
            barrier.wait()
            for _ in range(20):
                titles.append(catalog.items_at([1, 0], "full")[0].title)
                assert index.data(index.fields[0]).values.size == 2

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert titles == ["2.jpg"] * 160


def test_the_connection_refuses_to_write(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with Database(path) as database, pytest.raises(CatalogError, match="readonly"):
        database.rows("DELETE FROM medias")


def test_a_closed_catalog_says_so(tmp_path: Path) -> None:
    catalog = Catalog.open(m3.build(tmp_path / "c.db", MEDIAS), 2)
    catalog.close()
    catalog.close()
    with pytest.raises(CatalogError, match="closed"):
        catalog.items_at([0], "concise")


def test_files_that_are_no_catalog_are_named_in_the_error(tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("not a database at all, but long enough to be looked at " * 20)
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other, other:
        other.execute("CREATE TABLE songs (id)")
    for name, hint in (
        ("absent.db", "no catalog file"),
        ("notes.db", "cannot be"),
        ("empty.db", "no table medias"),
        ("other.db", "It has: songs"),
    ):
        with pytest.raises(CatalogError, match=hint):
            Catalog.open(tmp_path / name, 2)
    with pytest.raises(CatalogError, match="no catalog file"):
        Catalog.open(tmp_path, 2)


def test_ids_that_are_no_numbers_are_a_catalog_error(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with Database(path) as database:
        with pytest.raises(CatalogError, match="whole number"):
            database.integers("SELECT 'a', 1")
        assert database.integers("SELECT 1, 2 UNION ALL SELECT 3, 4").tolist() == [[1, 2], [3, 4]]
        assert database.integers("SELECT 1, 2 WHERE 0").shape == (0, 2)
        assert database.integers("SELECT 1, 2").dtype == np.int64


def test_a_writer_that_closes_after_our_reads_leaves_no_wal_behind(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", [m3.Media(1, 0)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
    with Catalog.open(path, 1) as catalog:
        writer = sqlite3.connect(path)
        with writer:
            writer.execute("UPDATE medias SET thumbnail_uri = 'new'")
        assert catalog.items_at([0], "concise")[0].thumbnail_uri == "new"
        writer.close()
        assert [file.name for file in tmp_path.iterdir()] == ["c.db"]


def test_text_in_a_wrong_encoding_costs_no_more_than_its_own_characters(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", [m3.Media(1, 0, tags={"title": ["caf\u00e9"]}), m3.Media(2, 1, tags={"title": ["tea"]})])
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE alphanumerical_tags SET value = CAST(x'636166e9' AS TEXT) WHERE value LIKE 'caf%'")
    with Catalog.open(path, 2) as catalog:
        assert [item.title for item in catalog.items_at([0, 1], "concise")] == ["caf\ufffd", "tea"]
        assert FilterIndex(catalog).fields


def test_a_replaced_file_is_read_on_in_turns_with_the_connections_there_are(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with Database(path) as database:
        assert database.rows("SELECT count(*) FROM medias") == [(2,)]
        m3.build(tmp_path / "new.db", MEDIAS[:1]).replace(path)
        assert database.is_replaced
        barrier = threading.Barrier(6)
        counts: list[int] = []

        def work() -> None:
            barrier.wait()
            counts.extend(database.rows("SELECT count(*) FROM medias")[0][0] for _ in range(20))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [2] * 120


def test_a_file_replaced_before_it_was_connected_to_is_not_mistaken_for_the_new_one(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with Database(path) as database:
        for version in range(5):  # a file system may give the number of a deleted file to the next one
            m3.build(tmp_path / f"{version}.db", MEDIAS[:1]).replace(path)
            assert database.is_replaced
            with pytest.raises(CatalogReplacedError):
                database.rows("SELECT 1")


def test_a_write_in_place_is_a_change_and_a_read_is_none(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", MEDIAS)
    with Database(path) as database:
        database.rows("SELECT * FROM medias")
        assert not database.is_changed
        with closing(sqlite3.connect(path)) as writer, writer:
            writer.execute("PRAGMA user_version = 7")
            writer.execute("UPDATE medias SET source = 'changed'")
        assert database.is_changed
        assert not database.is_replaced
    assert not database.is_changed
