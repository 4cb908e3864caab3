"""Which vectors lie in which list of an IVF index."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.faiss_library import faiss_library


def list_ids(lists: Any) -> list[NDArray[np.int64]]:
    """Return the ids in each of the inverted lists of an IVF index."""
    found: list[NDArray[np.int64]] = []
    for number in range(int(lists.nlist)):
        ids = np.empty(0, np.int64)
        if count := int(lists.list_size(number)):
            held = lists.get_ids(number)
            ids = faiss_library().rev_swig_ptr(held, count).copy()
            lists.release_ids(number, held)
        found.append(ids)
    return found


class InvertedLists:
    """The ids 0..N-1 of an IVF index by list, and the list of each; 8 bytes an id. Never changes.

    Attributes:
        count: how many lists there are.
        list_of: (N,) int32, the list each id lies in.
    """

    def __init__(self, lists: Any) -> None:
        """Copy the ids out of FAISS's `lists`."""
        ids = list_ids(lists)
        lengths = np.array([len(part) for part in ids], np.int64)
        self.count = len(ids)
        self._ids = np.concatenate([np.empty(0, np.int64), *ids]).astype(np.int32)
        self._starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        self.list_of = np.empty(len(self._ids), np.int32)
        self.list_of[self._ids] = np.repeat(np.arange(self.count, dtype=np.int32), lengths)

    def ids_in(self, lists: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the ids in `lists`, list after list."""
        return np.concatenate([np.empty(0, np.int32), *(self._ids[self._starts[one] : self._starts[one + 1]] for one in lists)])
