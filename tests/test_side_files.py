"""Side files are whole or not there, belong to one key, and can be read while newer ones replace them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.side_files import SideFiles
from mcp_server.stores.relevance_file import cached_file, write_scale


def write(files: SideFiles, key: int, value: float) -> None:
    with files.writing("rows", {"key": key}) as draft:
        large = draft.stream("large", (300, 40), np.float32)
        for _ in range(3):
            large.append(np.full((100, 40), value))
        draft.put("small", np.arange(3))
        draft.stream("empty", (0, 5), np.float16)
        draft.about["value"] = value


def test_a_set_comes_back_as_it_was_written_for_its_key_alone(tmp_path: Path) -> None:
    files = SideFiles(tmp_path / "cache" / "photos")
    assert files.read("rows", {"key": 1}) is None
    write(files, 1, 2.5)
    found = files.read("rows", {"key": 1})
    assert found is not None
    assert found.about == {"value": 2.5}
    assert found.arrays["large"].shape == (300, 40)
    assert np.all(found.arrays["large"] == 2.5)
    assert found.arrays["small"].tolist() == [0, 1, 2]
    assert found.arrays["empty"].shape == (0, 5)
    assert not any(array.flags.writeable for array in found.arrays.values())
    assert files.read("rows", {"key": 2}) is None
    assert files.read("codes", {"key": 1}) is None


@pytest.mark.parametrize("length", [0, 1, 5_000])
def test_arrays_of_any_type_and_shape_come_back_and_keep_one_file_open(tmp_path: Path, length: int) -> None:
    arrays = {
        "bits": np.arange(length) % 3 == 0,
        "odd": np.arange(length, dtype=np.uint8),
        "wide": np.arange(2.0 * length).reshape(length, 2).T,
        "empty": np.empty((0, 7), np.int64),
        "single": np.array(4.5),
        "text": np.full(length, "häuser"),
        "days": np.full(length, np.datetime64("2020-02-29", "D")),
    }
    files = SideFiles(tmp_path)
    with files.writing("field", {}) as draft:
        for name, array in arrays.items():
            draft.put(name, array)
    found = files.read("field", {})
    assert found is not None
    assert list(found.arrays) == list(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert np.array_equal(found.arrays[name], array)
        assert not found.arrays[name].flags.writeable
    assert sorted(path.name for path in found.folder.iterdir()) == ["about.json", "arrays.bin"]


@pytest.mark.parametrize(("one", "other"), [("photos", "Photos"), ("a b", "a_b"), ("a" * 81, "a" * 82), ("写" * 300, "写" * 301)])
def test_collections_of_different_names_have_different_files(one: str, other: str, tmp_path: Path) -> None:
    names: list[str] = []
    for collection in (one, other):
        side, scale = SideFiles.of(tmp_path, collection), cached_file(tmp_path, collection)
        write(side, 1, 1.0)
        write_scale(scale, {}, {})
        names += [side.folder.name.lower(), scale.name.lower()]
    assert len(set(names)) == 4


@pytest.mark.skipif(os.name != "posix", reason="Windows gives a user's folders no rights for others")
def test_what_is_kept_of_a_collection_is_for_its_owner_alone(tmp_path: Path) -> None:
    files = SideFiles.of(tmp_path / "search-cache", "private")
    write(files, 1, 1.0)
    assert files.folder.stat().st_mode & 0o777 == 0o700


def test_a_newer_set_replaces_the_older_one_and_leaves_others_alone(tmp_path: Path) -> None:
    files = SideFiles(tmp_path)
    with files.writing("rows-small", {"key": 1}) as draft:
        draft.put("small", np.arange(3))
    write(files, 1, 1.0)
    old = files.read("rows", {"key": 1})
    write(files, 2, 2.0)
    assert files.read("rows", {"key": 1}) is None
    assert files.read("rows-small", {"key": 1}) is not None
    assert old is not None
    assert np.all(old.arrays["large"] == 1.0), "who has it mapped goes on reading it"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_draft_that_fails_leaves_nothing(tmp_path: Path) -> None:
    files = SideFiles(tmp_path)

    def give_up() -> None:
        with files.writing("rows", {"key": 1}) as draft:
            draft.stream("large", (300, 40), np.float32).append(np.zeros((100, 40)))
            raise KeyError

    with pytest.raises(KeyError):
        give_up()
    assert files.read("rows", {"key": 1}) is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_of_the_same_set_changes_nothing(tmp_path: Path) -> None:
    files = SideFiles(tmp_path)
    write(files, 1, 1.0)
    found = files.read("rows", {"key": 1})
    assert found is not None
    before = found.folder.stat().st_ino
    write(files, 1, 1.0)
    again = files.read("rows", {"key": 1})
    assert again is not None
    assert again.folder.stat().st_ino == before
    assert np.array_equal(found.arrays["large"], again.arrays["large"])


DAMAGES: dict[str, Callable[[Path], object]] = {
    "about cut off": lambda folder: (folder / "about.json").write_text("{"),
    "about empty": lambda folder: (folder / "about.json").write_text("{}"),
    "about strange": lambda folder: (folder / "about.json").write_text("[1]"),
    "array cut off": lambda folder: os.truncate(folder / "large.npy", 20_000),
    "head cut off": lambda folder: (folder / "large.npy").write_bytes(b"\x93NUMPY"),
    "array empty": lambda folder: (folder / "large.npy").write_bytes(b""),
    "array missing": lambda folder: (folder / "large.npy").unlink(),
    "other type": lambda folder: np.save(folder / "large.npy", np.zeros((300, 40), np.float16)),
    "other shape": lambda folder: np.save(folder / "large.npy", np.zeros((40, 300), np.float32)),
    "small ones cut off": lambda folder: os.truncate(folder / "arrays.bin", 23),
    "small ones empty": lambda folder: os.truncate(folder / "arrays.bin", 0),
    "small ones missing": lambda folder: (folder / "arrays.bin").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_passed_over_and_can_be_written_anew(tmp_path: Path, damage: str) -> None:
    files = SideFiles(tmp_path)
    write(files, 1, 1.0)
    (folder,) = tmp_path.iterdir()
    DAMAGES[damage](folder)
    assert files.read("rows", {"key": 1}) is None
    write(files, 1, 3.0)
    found = files.read("rows", {"key": 1})
    assert found is not None
    assert found.about == {"value": 3.0}
    assert np.all(found.arrays["large"] == 3.0)


@pytest.mark.parametrize(("name", "most"), [("about.json", 10_000), ("arrays.bin", 10_000), ("large.npy", 128), ("empty.npy", 128)])
def test_no_bit_can_be_wrong_where_arrays_are_described(tmp_path: Path, name: str, most: int) -> None:
    files = SideFiles(tmp_path)
    write(files, 1, 1.0)
    (folder,) = tmp_path.iterdir()
    whole = (folder / name).read_bytes()
    for at in range(8 * min(most, len(whole.rstrip()))):
        damaged = bytearray(whole)
        damaged[at // 8] ^= 1 << at % 8
        (folder / name).write_bytes(damaged)
        assert files.read("rows", {"key": 1}) is None, at
    (folder / name).write_bytes(whole)
    assert files.read("rows", {"key": 1}) is not None


def test_any_byte_of_a_large_array_that_is_not_as_it_was_written_is_found(tmp_path: Path) -> None:
    files = SideFiles(tmp_path)
    write(files, 1, 1.0)
    found = files.read("rows", {"key": 1})
    assert found is not None
    assert found.is_whole()
    file = found.folder / "large.npy"
    whole = file.read_bytes()
    for at in (128, 129, 25_000, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        damaged = files.read("rows", {"key": 1})
        assert damaged is not None, "reading a set does not read all of it"
        assert not damaged.is_whole(), at
        assert damaged.is_whole(lambda: False), "what is not read counts as whole"
    files.pass_over("rows")
    assert files.read("rows", {"key": 1}) is None
    write(files, 1, 1.0)
    again = files.read("rows", {"key": 1})
    assert again is not None
    assert again.is_whole()


def test_a_damaged_set_that_cannot_be_removed_is_passed_over_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SideFiles(tmp_path)
    write(files, 1, 1.0)

    def refused(_: Path, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refused)
    files.pass_over("rows")
    assert files.read("rows", {"key": 1}) is None
    assert SideFiles(tmp_path).read("rows", {"key": 1}) is not None


def test_a_set_in_the_place_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    files, others = SideFiles(tmp_path / "one"), SideFiles(tmp_path / "two")
    write(files, 1, 1.0)
    write(others, 2, 2.0)
    (mine,), (other,) = (tmp_path / "one").iterdir(), (tmp_path / "two").iterdir()
    shutil.rmtree(mine)
    other.rename(mine)
    assert files.read("rows", {"key": 1}) is None


@pytest.mark.skipif(os.name != "posix", reason="rights of a file are different elsewhere")
def test_a_set_can_be_read_by_whom_the_user_lets_read_his_files(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write(SideFiles(tmp_path), 1, 1.0)
    finally:
        os.umask(before)
    (folder,) = tmp_path.iterdir()
    assert oct(folder.stat().st_mode)[-3:] == "755"


def test_an_array_with_rows_missing_or_too_many_is_not_kept(tmp_path: Path) -> None:
    files = SideFiles(tmp_path)

    def fill(rows: int, width: int = 4) -> None:
        with files.writing("rows", {"key": 1}) as draft:
            draft.stream("large", (30, 4), np.float32).append(np.zeros((rows, width)))

    for rows, width in ((29, 4), (31, 4), (30, 5)):
        with pytest.raises(ValueError, match=r"left|missing"):
            fill(rows, width)
    assert list(tmp_path.iterdir()) == []
    fill(30)
    assert files.read("rows", {"key": 1}) is not None


def test_what_killed_writers_left_is_swept(tmp_path: Path) -> None:
    files = SideFiles(tmp_path)
    files.sweep()
    names = [".rows-0123456789abcdef.x1", ".rows-0123456789abcdef.x2", ".codes-0123456789abcdef.x1", ".codes-0123456789abcdef.x2"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "large.npy").write_bytes(b"1")
    os.utime(tmp_path / names[0], (0, 0))
    os.utime(tmp_path / names[2], (0, 0))
    write(files, 1, 1.0)
    files.sweep()
    assert [name for name in names if (tmp_path / name).exists()] == [names[1], names[3]]
    files.sweep("codes", 0)
    assert [name for name in names if (tmp_path / name).exists()] == [names[1]]
    assert files.read("rows", {"key": 1}) is not None


@given(widths=st.integers(1, 3000), blocks=st.lists(st.integers(0, 700), max_size=12), dtype=st.sampled_from(["f2", "f4", "i1"]))
def test_blocks_of_any_size_make_one_array_written_in_large_pieces(widths: int, blocks: list[int], dtype: str) -> None:
    random = np.random.default_rng(widths)
    rows = random.integers(-100, 100, (sum(blocks), widths)).astype(dtype)
    sizes: list[int] = []
    with TemporaryDirectory() as folder:
        files = SideFiles(Path(folder))
        with files.writing("rows", {"key": 1}) as draft:
            stream = draft.stream("large", rows.shape, dtype)
            write_down, stream._file.write = stream._file.write, lambda data: (sizes.append(len(data)), write_down(data))[1]  # pyright: ignore
            for start, block in zip(np.cumsum([0, *blocks]), blocks, strict=False):
                stream.append(rows[start : start + block])
        found = files.read("rows", {"key": 1})
        assert found is not None
        assert np.array_equal(found.arrays["large"], rows)
    assert all(size == 2 * 2**20 for size in sizes[:-1])


@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_disk_that_is_full_is_left_as_it_was(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SideFiles(tmp_path)

    def fill() -> None:
        with files.writing("rows", {"key": 1}) as draft:
            stream = draft.stream("large", (rows, 40), np.float32)
            monkeypatch.setattr(stream, "_file", FullDisk(stream._file))  # pyright: ignore[reportPrivateUsage]
            stream.append(np.zeros((rows, 40)))

    class FullDisk:
        def __init__(self, file: BinaryIO) -> None:
            self._file = file

        def write(self, data: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self._file.close()
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_files_are_brought_to_the_disk_by_who_may_write_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl", reason="Windows refuses by itself")
    modes: list[int] = []
    monkeypatch.setattr("mcp_server.side_files.os.fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE))
    write(SideFiles(tmp_path), 1, 1.0)
    assert modes == [os.O_RDWR] * 4
