"""Approximate where that is safe, exact everywhere else."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex

logger = logging.getLogger(__name__)

EXACT_BELOW = 200_000
"""Up to so many allowed rows a scan of all of them is quick enough."""
SMALLEST_SHARE = 0.05
"""Below this share of allowed rows a graph or a list of clusters loses most of the answer."""


class HybridIndex:
    """Implements `Index`: full answers always, exact ones unless `approximation` says otherwise.

    The exact index answers when few rows are allowed (at most `exact_below`), when they are a small share of all (under 5 %), when the
    FAISS type takes no masks or visits every vector anyway, and when the approximate answer comes back short. Safe to call from several
    threads.
    """

    def __init__(self, exact: ExactIndex, approximate: FaissIndex, exact_below: int = EXACT_BELOW) -> None:
        """Combine two indexes of the same embeddings.

        Raises:
            IndexMismatchError: they differ in size or width.
        """
        if (exact.size, exact.width) != (approximate.size, approximate.width):
            raise IndexMismatchError(
                f"The exact index holds {exact.size} rows {exact.width} wide, the approximate one {approximate.size} rows "
                f"{approximate.width} wide; both must be built from the same embeddings."
            )
        self._exact = exact
        self._approximate = approximate
        self._exact_below = exact_below

    @property
    def size(self) -> int:
        """N."""
        return self._exact.size

    @property
    def width(self) -> int:
        """D."""
        return self._exact.width

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, rows never returned."""
        return self._exact.unusable

    @property
    def approximate(self) -> FaissIndex:
        """The FAISS side, for `doctor`."""
        return self._approximate

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the min(k, rows allowed) best rows not in `skip`, as `Index.search` promises; the best FAISS knows when it says so."""
        if skip.shape != (self.size,) or skip.dtype != np.bool_:
            return self._exact.search(query, k, skip)  # which refuses it
        allowed = self.size - int(np.count_nonzero(skip | self.unusable))
        if not self._may_approximate(allowed):
            return self._exact.search(query, k, skip)
        nearest = self._approximate.search(query, k, skip)
        if len(nearest.rows) >= min(k, allowed):
            return nearest
        logger.debug("hybrid.fell_back found=%d asked=%d allowed=%d", len(nearest.rows), k, allowed)
        return self._exact.search(query, k, skip)

    def best_score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float | None:
        """Return the best cosine among `rows`, exactly; see `ExactIndex.best_score`."""
        return self._exact.best_score(query, rows)

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of each of `rows`; see `ExactIndex.scores`."""
        return self._exact.scores(query, rows)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `rows` at unit length; see `ExactIndex.vectors`."""
        return self._exact.vectors(rows)

    def _may_approximate(self, allowed: int) -> bool:
        worthwhile = self._approximate.takes_masks and self._approximate.is_faster_than_scan
        return worthwhile and allowed > self._exact_below and allowed >= SMALLEST_SHARE * self.size
