"""A plain file of vectors to put together and to look things up in, when they are too many for the memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]
"""(n, width) float32 or float16."""


class RowFile:
    """(count, width) numbers in a file, zeros where nothing was put. For one thread."""

    def __init__(self, file: Path, count: int, width: int, dtype: type[np.float16] | type[np.float32]) -> None:
        """Make `file` anew."""
        self.count = count
        self.width = width
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self._bytes = width * self.dtype.itemsize
        self._file = file.open("w+b")
        self._file.truncate(count * self._bytes)

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def put(self, start: int, rows: Rows) -> None:
        """Write `rows`, (n, width) of either float type, from row `start` on."""
        self._file.seek(start * self._bytes)
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)

    def blocks(self, size: int) -> Iterator[Rows]:
        """Yield all rows in blocks of `size`, as stored; the last may be shorter."""
        for start in range(0, self.count, size):
            yield self._read(start, min(size, self.count - start))

    def gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (len(rows), width) float32, in the order of `rows`. Neighbouring rows are read at once."""
        found = np.empty((len(rows), self.width), np.float32)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        cuts = np.flatnonzero(np.diff(ordered) != 1) + 1
        for places, stretch in zip(np.split(order, cuts), np.split(ordered, cuts), strict=True):
            if len(stretch):
                found[places] = self._read(int(stretch[0]), len(stretch))
        return found

    def _read(self, start: int, count: int) -> Rows:
        self._file.seek(start * self._bytes)
        return np.frombuffer(self._file.read(count * self._bytes), self.dtype).reshape(count, self.width)
