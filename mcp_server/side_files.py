"""Arrays worked out once from a user's files and kept beside them in the cache, so that the next start only maps them into memory.

One *set* of arrays is a folder `NAME-HASH`: `about.json` says which arrays there are, `arrays.bin` holds them one behind the other, and
those that are larger than memory have a `.npy` file each. HASH is of the *key*, the facts that decide whether the set still fits: a set of
another key is never read. Nor is one that was damaged or put in another's place: `about.json` has the name of its folder and checksums of
itself and of all files; reading a set, though, looks only at head and size of `.npy` files, and `SideSet.is_whole` at the rest, which takes
a third of a second a gigabyte beside what the disk takes. A set is written to a temporary folder and renamed when it is
whole, and never changed afterwards, so any number of processes may map it. Sets that a newer one of the same name replaces are removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

logger = logging.getLogger(__name__)

FORMAT = 4
"""Counts up when the meaning of any array or the layout of a set changes; part of every key."""
_ABOUT = "about.json"
_TOGETHER = "arrays.bin"
"""One file for most arrays: each file that is mapped keeps one of the few hundred descriptors that a process may have."""
_NAME_LENGTH = 50
"""Letters, which may take four bytes each; a disk allows 255 bytes for a name, with what goes before and after."""
_ALIGNED = 64
_READ_WHOLE = 4096
"""Files up to so many bytes are read, not mapped; an empty array cannot be mapped at all."""
_LEFT_SECONDS = 24 * 3600
_WRITTEN_AT_ONCE = 2 * 2**20
"""A large array is written in whole pieces of so many bytes: a Linux whose file system has large folios keeps it in huge pages then. They
are mapped in a tenth of the time, and some thousand rows here and there are picked out of them in three quarters of it."""
_CHECKED_AT_ONCE = 8 * 2**20

Arrays = dict[str, NDArray[Any]]
Place = list[Any]
"""Type, shape and where in `arrays.bin` an array begins, None for one with a file of its own; as JSON has them."""


class SideSet:
    """One whole set, memory-mapped.

    Attributes:
        arrays: by name, read-only; pages are read from disk when first touched.
        about: what the writer noted, JSON values.
        folder: where it lies.
    """

    def __init__(self, folder: Path, arrays: Arrays, about: dict[str, Any], sums: Mapping[str, int]) -> None:
        self.folder = folder
        self.arrays = arrays
        self.about = about
        self._sums = sums

    def is_whole(self, is_wanted: Callable[[], bool] = lambda: True) -> bool:
        """Read the large arrays and tell whether each byte is as it was written; what `is_wanted` keeps from being read counts as so.

        `is_wanted` is asked every few megabytes.
        """
        for name, checksum in self._sums.items():
            array = self.arrays[name]
            found, content = zlib.crc32(_head(array.dtype, array.shape)), array.reshape(-1).view(np.uint8)
            for start in range(0, len(content), _CHECKED_AT_ONCE):
                if not is_wanted():
                    return True
                found = zlib.crc32(content[start : start + _CHECKED_AT_ONCE].data, found)
            if found != checksum:
                return False
        return True


class Stream:
    """One array of a draft, written row by row; it may be larger than memory."""

    def __init__(self, file: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Write the head of `file`."""
        self._left = shape[0]
        self._shape, self._dtype = shape[1:], dtype
        self._file = file.open("wb")
        self._waiting = memoryview(bytearray(_WRITTEN_AT_ONCE))
        self._filled = 0
        self.checksum = 0
        """Of what was written to the file so far."""
        self._write(memoryview(_head(dtype, shape)))

    def append(self, rows: NDArray[Any]) -> None:
        """Write the next rows. Raises OSError on a full disk (a mapped file would end the process instead)."""
        if rows.shape[1:] != self._shape or len(rows) > self._left:
            raise ValueError(f"{rows.shape} does not go on an array of which {(self._left, *self._shape)} is left.")
        self._write(np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data)
        self._left -= len(rows)

    def close(self) -> None:
        """End the file. Raises ValueError if rows are missing, OSError on a full disk."""
        try:
            self._write_down(self._waiting[: self._filled])
        finally:
            self._file.close()
        if self._left:
            raise ValueError(f"{self._left} rows are missing.")

    def _write(self, data: memoryview) -> None:
        while len(data):
            some = data[: len(self._waiting) - self._filled]
            self._waiting[self._filled : self._filled + len(some)] = some
            self._filled += len(some)
            data = data[len(some) :]
            if self._filled == len(self._waiting):
                self._write_down(self._waiting)
                self._filled = 0

    def _write_down(self, data: memoryview) -> None:
        self._file.write(data)
        self.checksum = zlib.crc32(data, self.checksum)


class Draft:
    """A set being written."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._streams: dict[str, Stream] = {}
        self._places: dict[str, Place] = {}
        self.about: dict[str, Any] = {}
        """Facts to keep with the arrays."""

    def stream(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Stream:
        """Return a new array of `shape` that will be called `name`; append all its rows before the draft ends."""
        stream = self._streams[name] = Stream(self._folder / f"{name}.npy", shape, np.dtype(dtype))
        self._places[name] = [np.dtype(dtype).str, list(shape), None]
        return stream

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Keep `array` as `name`."""
        with (self._folder / _TOGETHER).open("ab") as file:
            file.write(bytes(-file.tell() % _ALIGNED))
            self._places[name] = [array.dtype.str, list(array.shape), file.tell()]
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def settle(self) -> None:
        """Bring everything to the disk."""
        for stream in self._streams.values():
            stream.close()
        together = self._folder / _TOGETHER
        content: dict[str, Any] = {"set": self._name, "about": self.about, "arrays": self._places}
        content["together"] = zlib.crc32(_together(together).data) if together.exists() else 0
        content["streams"] = {name: stream.checksum for name, stream in self._streams.items()}
        (self._folder / _ABOUT).write_text(json.dumps({**content, "sum": _sum(content)}) + "\n", encoding="utf-8")
        for file in self._folder.iterdir():
            with file.open("r+b") as opened:  # Windows brings nothing to the disk for those who may only read
                os.fsync(opened.fileno())

    def drop(self) -> None:
        """Close what is open, whole or not."""
        for stream in self._streams.values():
            with suppress(ValueError, OSError):  # on a full disk closing fails as well
                stream.close()


class SideFiles:
    """The sets of one collection, in one folder of the cache. Safe to call from several threads and processes."""

    @classmethod
    def of(cls, folder: Path, collection: str) -> SideFiles:
        """Return those of `collection` in the folder that all collections share."""
        return cls(folder / name_on_disk(collection))

    def __init__(self, folder: Path) -> None:
        """Nothing is read or made yet."""
        self.folder = folder
        self._passed_over: set[Path] = set()

    def make_folder(self) -> None:
        """Make the folder, which its owner alone can read, if it is not there. Raises OSError where that cannot be."""
        self.folder.mkdir(0o700, parents=True, exist_ok=True)  # who may not read a catalog may not read what is kept of it

    def read(self, name: str, key: Mapping[str, Any]) -> SideSet | None:
        """Return the set `name` that was made for exactly `key`; None when there is none, or it is damaged (which is logged)."""
        folder = self._folder_of(name, key)
        if folder in self._passed_over:
            return None
        try:
            content = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if content.pop("sum") != _sum(content) or content["set"] != folder.name:
                raise ValueError(f"{_ABOUT} is damaged or of another set")
            return SideSet(folder, _arrays(folder, content["arrays"], content["together"]), content["about"], content["streams"])
        except FileNotFoundError:  # another process may be removing it at this moment
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            logger.warning("side_files.unreadable set=%s error=%s", folder, error)
            return None

    @contextmanager
    def writing(self, name: str, key: Mapping[str, Any]) -> Generator[Draft]:
        """Lend a draft of the set `name` for `key`; it is put in place when the block ends well, and removed when it does not.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
            ValueError: rows of a stream are missing.
        """
        final = self._folder_of(name, key)
        self.make_folder()
        temporary = self.folder / f".{final.name}.{secrets.token_hex(8)}"
        temporary.mkdir()
        draft = Draft(temporary, final.name)
        try:
            yield draft
            draft.settle()
            self._put_in_place(temporary, final, name, key)
        except BaseException:
            draft.drop()
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self.drop_outdated(name, key)

    def pass_over(self, name: str) -> None:
        """Read the sets called `name` that are there no more, so that they are written anew; who has them mapped goes on reading them."""
        for folder in self._sets(name):
            self._passed_over.add(folder)
            with suppress(OSError):  # in a folder that cannot be written it stays for others
                (folder / _ABOUT).unlink(missing_ok=True)

    def drop_outdated(self, name: str, key: Mapping[str, Any]) -> None:
        """Remove the sets called `name` that were made for another key; who has them mapped goes on reading them."""
        for folder in self._outdated(name, key):
            shutil.rmtree(folder, ignore_errors=True)

    def outdated_bytes(self, name: str, key: Mapping[str, Any]) -> int:
        """Return what `drop_outdated` would free on the disk."""
        return sum(map(bytes_in, self._outdated(name, key)))

    def sweep(self, name: str = "*", older_than: float = _LEFT_SECONDS) -> None:
        """Remove the drafts of `name`, or of all, that writers who were ended have left: those begun more seconds ago than `older_than`."""
        for left in self.folder.glob(f".{name}-*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime >= older_than:
                    shutil.rmtree(left, ignore_errors=True)

    def _folder_of(self, name: str, key: Mapping[str, Any]) -> Path:
        raw = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(raw.encode()).hexdigest()[:16]}"

    def _put_in_place(self, temporary: Path, final: Path, name: str, key: Mapping[str, Any]) -> None:
        try:
            if self.read(name, key) is None:
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
                self._passed_over.discard(final)
        except OSError:
            if self.read(name, key) is None:
                raise
        shutil.rmtree(temporary, ignore_errors=True)  # still there when another writer was quicker; its set is the same

    def _outdated(self, name: str, key: Mapping[str, Any]) -> list[Path]:
        return [folder for folder in self._sets(name) if folder != self._folder_of(name, key)]

    def _sets(self, name: str) -> list[Path]:
        return [folder for folder in self.folder.glob(f"{name}-*") if folder.name[len(name) + 1 :].isalnum()]


def name_on_disk(collection: str) -> str:
    """Return what files of `collection` are called: any disk takes it, and collections of other names have others."""
    safe = "".join(char if char.isalnum() or char in "-_" else "_" for char in collection)
    mark = "" if safe[:_NAME_LENGTH] == collection.lower() else f".{hashlib.sha256(collection.encode()).hexdigest()[:8]}"
    return f"{safe[:_NAME_LENGTH]}{mark}"


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files in `folder` have, and in the folders in it."""
    found = 0
    with suppress(OSError):  # another process may remove them meanwhile
        for file in folder.rglob("*"):
            found += file.lstat().st_size
    return found


def _head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return how a `.npy` file begins."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    return head.getvalue()


def _sum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _arrays(folder: Path, places: Mapping[str, Place], checksum: int) -> Arrays:
    """Return the arrays at `places`. Raises ValueError where they are not those that were written; `checksum` is of those in one file."""
    arrays: Arrays = {}
    together = _together(folder / _TOGETHER) if any(start is not None for _, _, start in places.values()) else np.empty(0, np.uint8)
    if zlib.crc32(together.data) != checksum:
        raise ValueError(f"{_TOGETHER} is damaged")
    for name, (dtype, shape, start) in places.items():
        if start is None:
            arrays[name] = _mapped(folder / f"{name}.npy", np.dtype(dtype), tuple(shape))
        else:
            stop = start + np.dtype(dtype).itemsize * math.prod(shape)
            arrays[name] = together[start:stop].view(dtype).reshape(shape)
    return arrays


def _together(file: Path) -> NDArray[np.uint8]:
    if file.stat().st_size <= _READ_WHOLE:
        small = np.fromfile(file, np.uint8)
        small.flags.writeable = False
        return small
    return np.asarray(np.memmap(file, np.uint8, "r"))


def _mapped(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    head, size = _head(dtype, shape), dtype.itemsize * math.prod(shape)
    with file.open("rb") as opened:
        if opened.read(len(head)) != head or file.stat().st_size != len(head) + size:
            raise ValueError(f"{file.name} is not the array that was written")
        if size <= _READ_WHOLE:
            return np.frombuffer(opened.read(size), dtype).reshape(shape)
    # a plain array over the same pages: np.memmap's own bookkeeping costs time at every slice
    return np.asarray(np.memmap(file, dtype, "r", len(head), shape))
