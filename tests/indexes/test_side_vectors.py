"""Side files of embeddings: made once, right for the file as it is now, done without where they cannot be."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from mcp_server.errors import CollectionError
from mcp_server.indexes import side_vectors
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.row_file import RowFile
from mcp_server.indexes.side_vectors import CODED_FROM, SideVectors
from mcp_server.side_files import SideFiles
from tests.contracts.index_contract import assert_exact, assert_same, clustered, with_flaws

SIZE = CODED_FROM + 5


def stored(path: Path, rows: NDArray) -> Path:
    path.unlink(missing_ok=True)
    with ZipStore(path, mode="w") as store:
        zarr.create_array(store, data=rows, chunks=(1000, rows.shape[1]))
    return path


@pytest.fixture
def rows() -> NDArray[np.float16]:
    return with_flaws(clustered(1, SIZE)).astype(np.float16)


@pytest.fixture
def file(tmp_path: Path, rows: NDArray) -> Path:
    return stored(tmp_path / "e.zip", rows)


def opened(file: Path, folder: Path) -> ExactIndex:
    vectors = SideVectors(SideFiles(folder), file)
    index = vectors.index(vectors.open(), None)
    vectors.complete()
    return index


def names(folder: Path) -> list[str]:
    return sorted(path.name.split("-")[0] for path in folder.iterdir() if path.is_dir())


def test_the_first_opening_makes_the_files_and_the_second_maps_them(file: Path, tmp_path: Path, rows: NDArray) -> None:
    first = opened(file, tmp_path / "side")
    assert names(tmp_path / "side") == ["codes", "costs", "rows"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "side").rglob("*.npy")}
    file_times = file.stat().st_mtime_ns
    second = opened(file, tmp_path / "side")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "side").rglob("*.npy")} == before
    assert file.stat().st_mtime_ns == file_times
    plain = load_embeddings(file)
    for index in (first, second):
        assert index.is_coded
        assert isinstance(index.embeddings.rows.base, np.memmap)
        assert index.embeddings.rows.tobytes() == plain.rows.tobytes()
        assert index.embeddings.norms.tobytes() == plain.norms.tobytes()
        for query in clustered(2, 3):
            assert_exact(index, rows, np.arange(SIZE), query, k=50, skip=np.arange(SIZE) % 3 == 0)


@pytest.mark.parametrize(("what", "made_anew"), [("rows", ["rows", "codes"]), ("codes", ["codes"])])
def test_damage_is_found_some_time_after_the_opening_and_mended_by_the_next_one(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, made_anew: list[str]
) -> None:
    monkeypatch.setattr(side_vectors, "_CHECK_AFTER_SECONDS", 0.0)
    opened(file, tmp_path / "side")
    inodes = {name: next((tmp_path / "side").glob(f"{name}-*")).stat().st_ino for name in ("rows", "codes")}
    (large,) = (tmp_path / "side").glob(f"{what}-*/{what}.npy")
    whole = large.read_bytes()
    large.write_bytes(whole[:-100] + bytes(50) + whole[-50:])
    side, found = SideFiles(tmp_path / "side"), threading.Event()
    vectors = SideVectors(side, file, found.set)
    assert vectors.damaged() == [what]
    vectors.index(vectors.open(), None)
    assert found.wait(60)
    again = SideVectors(side, file)
    assert again.damaged() == []
    again.index(again.open(), None)
    again.complete()
    assert again.there() == (True, True)
    assert large.read_bytes() == whole
    after = {name: next((tmp_path / "side").glob(f"{name}-*")).stat().st_ino for name in ("rows", "codes")}
    assert [name for name in after if after[name] != inodes[name]] == made_anew


def test_few_rows_need_no_codes(tmp_path: Path) -> None:
    index = opened(stored(tmp_path / "e.zip", clustered(1, 300)), tmp_path / "side")
    assert names(tmp_path / "side") == ["rows"]
    assert not index.is_coded


def test_rows_that_are_all_unusable_open_as_often_as_one_likes(tmp_path: Path) -> None:
    file = stored(tmp_path / "e.zip", np.full((SIZE, 4), np.nan, np.float16))
    for _ in range(2):
        index = opened(file, tmp_path / "side")
        assert not index.is_coded
        assert len(index.search(np.ones(4, np.float32), 5, np.zeros(SIZE, bool)).rows) == 0


def test_a_file_system_without_locks_only_costs_speed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(side_vectors.FileLock, "acquire", acquire)
    assert not opened(file, tmp_path / "side").is_coded
    assert "Searches are slower" in caplog.text


def test_searches_are_answered_while_codes_are_made(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, coding = threading.Event(), threading.Event()
    plain = side_vectors.write_codes

    def slowly(*arguments: object) -> None:
        coding.set()
        assert go_on.wait(60)
        plain(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(side_vectors, "write_codes", slowly)
    vectors = SideVectors(SideFiles(tmp_path / "side"), file)
    index = vectors.index(vectors.open(), None)
    assert coding.wait(60)
    query, everything = clustered(2, 1)[0], np.zeros(SIZE, bool)
    before = index.search(query, 20, everything)
    assert not index.is_coded
    go_on.set()
    vectors.complete()
    assert index.is_coded
    assert_same(index.search(query, 20, everything), before)


def test_embeddings_that_were_replaced_are_read_anew(file: Path, tmp_path: Path) -> None:
    opened(file, tmp_path / "side")
    other = clustered(7, SIZE).astype(np.float16)
    index = opened(stored(file, other), tmp_path / "side")
    assert index.embeddings.rows.tobytes() == other.tobytes()
    assert index.is_coded
    assert names(tmp_path / "side") == ["codes", "costs", "rows"]


def test_a_chunk_of_a_folder_that_was_replaced_is_noticed_by_more_than_size_and_time(tmp_path: Path) -> None:
    folder, rows = tmp_path / "e.zarr", clustered(1, 300)
    array = zarr.create_array(folder, data=rows, chunks=(100, rows.shape[1]), compressors=None)
    opened(folder, tmp_path / "side")
    before = {path: path.stat() for path in folder.rglob("*")}
    array[100:200] = -rows[100:200]
    for path, stat in before.items():
        assert path.stat().st_size == stat.st_size
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    index = opened(folder, tmp_path / "side")
    assert np.array_equal(index.embeddings.rows[100:200], -rows[100:200])
    assert names(tmp_path / "side") == ["rows"]


def test_two_that_open_at_once_end_with_the_same_files(file: Path, tmp_path: Path, rows: NDArray) -> None:
    found: list[ExactIndex] = []
    threads = [threading.Thread(target=lambda: found.append(opened(file, tmp_path / "side"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path / "side") == ["codes", "costs", "rows"]
    assert [index.is_coded for index in found] == [True] * 3
    for index in found:
        assert index.embeddings.rows.tobytes() == rows.tobytes()


def test_a_second_server_waits_for_the_rows_that_the_first_lays_down(
    file: Path, tmp_path: Path, rows: NDArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts: list[str] = []
    whole = side_vectors.SideFiles.writing

    def writing(self: SideFiles, name: str, key: dict[str, object]):
        drafts.append(name)
        return whole(self, name, key)

    monkeypatch.setattr(side_vectors.SideFiles, "writing", writing)
    start, found = threading.Barrier(4), list[bytes]()

    def run() -> None:
        vectors = SideVectors(SideFiles(tmp_path / "side"), file)
        start.wait(30)
        found.append(vectors.open().rows.tobytes())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drafts == ["rows"]
    assert found == [rows.tobytes()] * 4


def test_closing_stops_the_making_of_codes(file: Path, tmp_path: Path) -> None:
    vectors = SideVectors(SideFiles(tmp_path / "side"), file)
    vectors.close()
    index = vectors.index(vectors.open(), None)
    vectors.complete()
    assert not index.is_coded
    assert names(tmp_path / "side") == ["rows"]


@pytest.mark.parametrize("what", ["rows", "codes"])
def test_what_a_server_stopped_at_its_first_start_left_is_removed_by_the_next_one(file: Path, tmp_path: Path, what: str) -> None:
    left = tmp_path / "side" / f".{what}-0123456789abcdef.x1"
    left.mkdir(parents=True)
    (left / f"{what}.npy").write_bytes(b"1")
    opened(file, tmp_path / "side")
    assert not left.exists()
    assert names(tmp_path / "side") == ["codes", "costs", "rows"]


@pytest.mark.parametrize("failing", ["rows", "codes"])
def test_a_disk_that_is_full_only_costs_speed(
    file: Path, tmp_path: Path, rows: NDArray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    whole = side_vectors.SideFiles.writing

    def writing(self: SideFiles, name: str, key: dict[str, object]):
        if name == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(self, name, key)

    monkeypatch.setattr(side_vectors.SideFiles, "writing", writing)
    index = opened(file, tmp_path / "side")
    assert not index.is_coded
    assert "Searches are slower" in caplog.text
    assert_exact(index, rows, np.arange(SIZE), clustered(2, 1)[0], k=50, skip=np.zeros(SIZE, bool))


def test_a_folder_that_cannot_be_made_only_costs_speed(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "side").write_text("a file where the folder should be")
    index = opened(file, tmp_path / "side" / "photos")
    assert not isinstance(index.embeddings.rows.base, np.memmap)
    assert "Searches are slower" in caplog.text


def test_a_disk_without_room_is_left_alone(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_vectors, "_ROOM", 1e12)
    assert not isinstance(opened(file, tmp_path / "side").embeddings.rows.base, np.memmap)
    assert names(tmp_path / "side") == []


def test_files_of_embeddings_that_were_replaced_make_room_for_the_new_ones(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = SideFiles(tmp_path / "side")
    opened(file, side.folder)
    size = sum(path.stat().st_size for path in side.folder.rglob("*.npy"))

    def disk_usage(folder: Path) -> SimpleNamespace:
        """Tell of a disk that has room for one version and a half."""
        return SimpleNamespace(free=size * 3 // 2 - sum(path.stat().st_size for path in folder.rglob("*.npy")))

    monkeypatch.setattr(side_vectors.shutil, "disk_usage", disk_usage)
    vectors = SideVectors(side, stored(file, clustered(7, SIZE).astype(np.float16)))
    assert vectors.there() == (False, False)
    assert vectors.obstacle() is None
    assert opened(file, side.folder).is_coded
    assert vectors.there() == (True, True)
    monkeypatch.setattr(side_vectors.shutil, "disk_usage", lambda _: SimpleNamespace(free=size // 10))
    other = SideVectors(SideFiles(tmp_path / "other"), file)
    assert (other.obstacle() or "").startswith("they need 0.3 MiB, and 0.0 MiB are free in ")


def test_damaged_embeddings_are_refused_and_leave_no_files(tmp_path: Path) -> None:
    file = stored(tmp_path / "e.zip", clustered(1, 3000))
    content = bytearray(file.read_bytes())
    content[2_000:3_000] = bytes(1_000)
    file.write_bytes(content)
    with pytest.raises(CollectionError):
        SideVectors(SideFiles(tmp_path / "side"), file).open()
    assert names(tmp_path / "side") == []


def test_few_rows_are_read_and_many_are_looked_at_and_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(1, 60_000)  # 64 bytes a row: 4,096 in a window
    np.save(tmp_path / "rows.npy", rows)
    released: list[int] = []

    class Map:
        def madvise(self, advice: int) -> None:
            released.append(advice)

    file = RowFile(np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r")))
    monkeypatch.setattr("mcp_server.indexes.row_file.AT_MOST", 10 * 2**18)
    random = np.random.default_rng(3)
    for count in (0, 1, 2_048):
        some = random.integers(0, 60_000, count)
        assert np.array_equal(file.take(some), rows[some])
    for some in (np.arange(500, 900), np.array([7, 8, 9, 9, 10, 3, 2, 1, 59_999, 0, 1])):
        assert np.array_equal(file.take(some), rows[some])
    assert not file._windows.any(), "rows that are read are not mapped"  # pyright: ignore[reportPrivateUsage]
    real = file._map  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(file, "_map", Map())
    assert np.array_equal(file.take(np.arange(30_000)), rows[:30_000])
    assert released == []
    assert np.array_equal(file.take(np.arange(30_000, 60_000)), rows[30_000:])
    assert len(released) == 1
    file.take(np.arange(3_000))
    assert len(released) == 1
    monkeypatch.setattr(file, "_map", real)
    file.let_go()
    assert np.array_equal(file.take(np.arange(60_000)), rows), "the file is only let go of, not changed"


def test_rows_are_looked_at_where_they_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered(1, 3_000)
    np.save(tmp_path / "rows.npy", rows)
    monkeypatch.delattr("mcp_server.indexes.row_file.os.pread")
    file = RowFile(np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r")))
    assert np.array_equal(file.take(np.array([5, 2_999, 5])), rows[[5, 2_999, 5]])
