"""Arrays worked out once from a user's files and kept beside them in the cache, so that the next start only maps them into memory.

One *set* of arrays is a folder `NAME-HASH` with one `.npy` file an array and `about.json`; HASH is of the *key*, the facts that decide
whether the set still fits: a set of another key is never read. A set is written to a temporary folder and renamed when it is whole, and
never changed afterwards, so any number of processes may map it. Sets that a newer one of the same name replaces are removed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

logger = logging.getLogger(__name__)

FORMAT = 1
"""Counts up when the meaning of any array changes; part of every key."""
_ABOUT = "about.json"
_READ_WHOLE = 4096
"""Files up to so many bytes are read, not mapped; an empty array cannot be mapped at all."""

Arrays = dict[str, NDArray[Any]]


class SideSet:
    """One whole set, memory-mapped.

    Attributes:
        arrays: by name, read-only; pages are read from disk when first touched.
        about: what the writer noted, JSON values.
        folder: where it lies.
    """

    def __init__(self, folder: Path, arrays: Arrays, about: dict[str, Any]) -> None:
        self.folder = folder
        self.arrays = arrays
        self.about = about


class Draft:
    """A set being written. Its arrays are files already, so they may be larger than memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[np.memmap[Any, Any]] = []
        self.about: dict[str, Any] = {}
        """Facts to keep with the arrays."""

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a new zeroed array that will be called `name`; fill it before the draft ends."""
        if 0 in shape:
            empty = np.zeros(shape, dtype)
            self.put(name, empty)
            return empty
        mapped = np.lib.format.open_memmap(self._folder / f"{name}.npy", mode="w+", dtype=np.dtype(dtype), shape=shape)
        self._open.append(mapped)
        return mapped

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Keep `array` as `name`."""
        np.save(self._folder / f"{name}.npy", array, allow_pickle=False)

    def settle(self) -> None:
        """Bring everything to the disk."""
        for mapped in self._open:
            mapped.flush()
        self._open.clear()
        (self._folder / _ABOUT).write_text(json.dumps(self.about) + "\n", encoding="utf-8")
        for file in self._folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


class SideFiles:
    """The sets of one collection, in one folder of the cache. Safe to call from several threads and processes."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read or made yet."""
        self.folder = folder

    def read(self, name: str, key: Mapping[str, Any]) -> SideSet | None:
        """Return the set `name` that was made for exactly `key`; None when there is none, or it is damaged (which is logged)."""
        folder = self._folder_of(name, key)
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            arrays = {file.stem: _mapped(file) for file in sorted(folder.glob("*.npy"))}
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.warning("side_files.unreadable set=%s error=%s", folder, error)
            return None
        return SideSet(folder, arrays, about)

    @contextmanager
    def writing(self, name: str, key: Mapping[str, Any]) -> Generator[Draft]:
        """Lend a draft of the set `name` for `key`; it is put in place when the block ends well, and removed when it does not.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        final = self._folder_of(name, key)
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            draft = Draft(temporary)
            yield draft
            draft.settle()
            if self.read(name, key) is not None:  # another process was quicker; its set is the same
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._drop_others(name, final)

    def _folder_of(self, name: str, key: Mapping[str, Any]) -> Path:
        raw = json.dumps({"format": FORMAT, **key}, sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(raw.encode()).hexdigest()[:16]}"

    def _drop_others(self, name: str, kept: Path) -> None:
        for other in self.folder.glob(f"{name}-*"):
            if other != kept and other.name[len(name) + 1 :].isalnum():
                shutil.rmtree(other, ignore_errors=True)  # who has it mapped goes on reading it


def _mapped(file: Path) -> NDArray[Any]:
    if file.stat().st_size <= _READ_WHOLE:
        small = np.load(file, allow_pickle=False)
        small.flags.writeable = False
        return small
    # a plain array over the same pages: np.memmap's own bookkeeping costs time at every slice
    return np.asarray(np.load(file, mmap_mode="r", allow_pickle=False))
