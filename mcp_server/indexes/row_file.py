"""Rows in a file that is mapped into memory, read so that little of it stays there."""

from __future__ import annotations

import mmap
import os
import threading
from typing import Any, cast
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

_READ_UP_TO = 2_048
"""So few rows are read one by one. A look at a mapped row makes the system map as much as 256 KiB around it, which takes far longer."""
AT_MOST = 384 * 2**20
"""Bytes of the file that may stay mapped into memory. Smaller files need no such care."""
_WINDOW = 256 * 2**10


class RowFile:
    """N rows of one type, one after the other in a file. Safe to use from several threads."""

    def __init__(self, rows: NDArray[Any]) -> None:
        """Take `rows`, (N, D), an array over a file that numpy has mapped."""
        mapped = cast("Any", rows.base)
        self._rows = rows
        self._map: mmap.mmap | None = getattr(mapped, "_mmap", None)
        self._offset = int(getattr(mapped, "offset", 0))
        self._row_bytes = rows.shape[1] * rows.dtype.itemsize
        self._file = _opened(mapped)
        if self._file is not None:
            finalize(self, os.close, self._file)
        self._windows = np.zeros(rows.nbytes // _WINDOW + 2, np.bool_)
        self._lock = threading.Lock()

    def take(self, rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return (M, D), a copy of `rows`, each in 0..N-1; few rows are read into `out`, in one piece, if there is one."""
        if self._file is not None and len(rows) <= _READ_UP_TO:
            found = np.empty((len(rows), self._rows.shape[1]), self._rows.dtype) if out is None else out
            if self._read(self._file, rows, found):
                return found
        found = self._rows[rows]
        with self._lock:
            self._windows[rows * self._row_bytes // _WINDOW] = True
            too_much = int(np.count_nonzero(self._windows)) * _WINDOW > AT_MOST
        if too_much:
            self.let_go()
        return found

    def _read(self, file: int, rows: NDArray[np.int64], out: NDArray[Any]) -> bool:
        """Read `rows` into `out`, and return whether they were all there."""
        if not len(rows):
            return True
        length, room = self._row_bytes, out.reshape(-1).view(np.uint8).data
        starts = np.concatenate(([0], np.flatnonzero(rows[1:] - rows[:-1] != 1) + 1))  # rows that follow each other are read at once
        ends = (length * np.append(starts[1:], len(rows))).tolist()
        places = (self._offset + length * rows[starts]).tolist()
        pieces = zip((length * starts).tolist(), ends, places, strict=True)
        return sum([os.preadv(file, (room[start:end],), place) for start, end, place in pieces]) == length * len(rows)

    def let_go(self) -> None:
        """Unmap what searches have looked at. It stays in the system's cache as long as there is room."""
        with self._lock:
            self._windows[:] = False
        if self._map is not None and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)


def _opened(mapped: Any) -> int | None:
    """Return a descriptor of the file under `mapped`; None where rows cannot be read by position."""
    try:
        return os.open(mapped.filename, os.O_RDONLY) if hasattr(os, "preadv") else None
    except (OSError, TypeError, AttributeError):
        return None
