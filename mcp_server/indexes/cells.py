"""Spreads items over cells of neighbours, so that only items that share a cell need be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.faiss_library import faiss_library

CELLS_EACH = 3
"""How many cells an item is in: two alike on either side of a border still meet."""
_CELLS_PER_ROOT = 4
_SAMPLE_PER_CELL = 20
_ITERATIONS = 8
_SEED = 7

Read = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class Cells:
    """Which item is in which cells.

    Attributes:
        items: (P,) int64, ascending.
        cells_of: (P, CELLS_EACH) int32, the cells of each.
        order: places in `cells_of`, flattened, cell by cell, items ascending within each.
        bounds: where each cell begins in `order`, and the end.
    """

    items: NDArray[np.int64]
    cells_of: NDArray[np.int32]
    order: NDArray[np.int64] = field(repr=False)
    bounds: NDArray[np.int64] = field(repr=False)

    def members(self, cell: int) -> NDArray[np.int64]:
        """Return the items in `cell`, ascending, each once: with fewer than `CELLS_EACH` cells an item is in the first again."""
        return self.items[np.unique(self.order[self.bounds[cell] : self.bounds[cell + 1]] // CELLS_EACH)]

    def with_any(self, wanted: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
        """Yield the members of each cell that holds an item for which `wanted`, one bool per position, is True, and another item."""
        for cell in np.unique(self.cells_of[wanted[self.items]]):
            members = self.members(int(cell))
            if len(members) > 1:
                yield members

    def around(self, item: int) -> NDArray[np.int64]:
        """Return every item that shares a cell with `item`, ascending, each once."""
        place = int(np.searchsorted(self.items, item))
        return np.unique(np.concatenate([self.members(int(cell)) for cell in self.cells_of[place]]))


def spread(read: Read, items: NDArray[np.int64], block: int, threshold: float) -> Cells:
    """Put each of `items`, ascending positions, at least 1, into its nearest cells; the same input gives the same cells.

    Centres with a cosine of `threshold` or more are one, so that thousands of pictures of the same are not torn apart. Reads a sample of
    some 20 items a cell at once, then all items `block` at a time. O(P**1.5 D) time.
    """
    faiss = faiss_library()
    count = max(1, int(_CELLS_PER_ROOT * sqrt(len(items))))
    size = min(len(items), _SAMPLE_PER_CELL * count)
    sample = read(np.sort(np.random.default_rng(_SEED).choice(items, size, replace=False)))
    count = min(count, size)
    clustering = faiss.Kmeans(
        sample.shape[1], count, niter=_ITERATIONS, seed=_SEED, spherical=True, min_points_per_centroid=1, max_points_per_centroid=size
    )
    clustering.train(sample)
    del sample
    centres = faiss.IndexFlatIP(clustering.d)
    centres.add(_apart(clustering.centroids, threshold))
    nearest = np.empty((len(items), CELLS_EACH), np.int32)
    for start in range(0, len(items), block):
        part = items[start : start + block]
        nearest[start : start + len(part)] = centres.search(read(part), CELLS_EACH)[1]
    nearest[nearest < 0] = 0  # fewer cells than CELLS_EACH: FAISS pads with -1
    order = np.argsort(nearest.ravel(), kind="stable")
    return Cells(items, nearest, order, np.searchsorted(nearest.ravel()[order], np.arange(centres.ntotal + 1)))


def _apart(centres: NDArray[np.float32], threshold: float) -> NDArray[np.float32]:
    """Return `centres`, unit rows, without those that have an earlier one left in at a cosine of `threshold` or more."""
    alike = centres @ centres.T >= threshold
    kept = np.zeros(len(centres), np.bool_)
    for place in range(len(centres)):
        kept[place] = not np.any(alike[place] & kept)
    return centres[kept]
