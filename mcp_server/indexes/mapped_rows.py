"""Rows in a mapped file, and a bound on how much of it stays in memory."""

from __future__ import annotations

import mmap
import threading
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_AT_MOST = 384 * 2**20
"""Bytes of the file that may stay mapped into memory."""
_WINDOW = 64 * 2**10
"""The system maps so many bytes around the one that was looked at."""


class MappedRows:
    """Bounds how much of a mapped file stays in memory: lets go of all of it when too much has been looked at.

    The pages stay in the system's cache as long as it has room, so that looking at them again costs little.
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        """Watch `rows`, (N, D), an array over a mapped file."""
        mapped = cast("Any", rows.base)
        self._map: mmap.mmap | None = getattr(mapped, "_mmap", None)
        self._row_bytes = rows.shape[1] * rows.dtype.itemsize
        self._windows = np.zeros(len(rows) * self._row_bytes // _WINDOW + 2, np.bool_)
        self._lock = threading.Lock()

    def looked_at(self, rows: NDArray[np.int64] | slice) -> None:
        """Note that `rows`, or those from `start` up to `stop` of a slice, were read."""
        with self._lock:
            if isinstance(rows, slice):
                self._windows[rows.start * self._row_bytes // _WINDOW : rows.stop * self._row_bytes // _WINDOW + 1] = True
            else:
                self._windows[rows * self._row_bytes // _WINDOW] = True
            if self._map is None or int(np.count_nonzero(self._windows)) * _WINDOW < _AT_MOST:
                return
            self._windows[:] = False
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)
