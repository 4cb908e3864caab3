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
_REGIONS = 64
"""The file is let go of one such part at a time, so that no search is held up for long."""


class MappedRows:
    """Bounds how much of a mapped file stays in memory: lets go of the fullest part of it when too much has been looked at.

    The pages stay in the system's cache as long as it has room, so that looking at them again costs little.
    """

    def __init__(self, rows: NDArray[Any]) -> None:
        """Watch `rows`, (N, D), an array over a mapped file."""
        self._map: mmap.mmap | None = getattr(cast("Any", rows.base), "_mmap", None)
        self._row_bytes = rows.shape[1] * rows.dtype.itemsize
        per_region = max(1, -(-(len(rows) * self._row_bytes // _WINDOW + 2) // _REGIONS))
        self._windows = np.zeros((_REGIONS, per_region), np.bool_)
        self._lock = threading.Lock()

    def looked_at(self, rows: NDArray[np.int64] | slice) -> None:
        """Note that `rows`, or those from `start` up to `stop` of a slice, were read."""
        with self._lock:
            windows = self._windows.reshape(-1)
            if isinstance(rows, slice):
                windows[rows.start * self._row_bytes // _WINDOW : rows.stop * self._row_bytes // _WINDOW + 1] = True
            else:
                windows[rows * self._row_bytes // _WINDOW] = True
            filled = np.count_nonzero(self._windows, axis=1)
            surplus = int(filled.sum()) - _AT_MOST // _WINDOW
            if surplus <= 0:
                return
            fullest = np.argsort(-filled)
            leaving = fullest[: 1 + int(np.searchsorted(np.cumsum(filled[fullest]), surplus))]
            self._windows[leaving] = False
        for region in leaving.tolist():
            self._let_go(region)

    def _let_go(self, region: int) -> None:
        if self._map is None or not hasattr(self._map, "madvise"):
            return
        length = self._windows.shape[1] * _WINDOW
        start = region * length
        if start < len(self._map):
            self._map.madvise(mmap.MADV_DONTNEED, start, min(length, len(self._map) - start))
