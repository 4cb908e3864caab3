"""The exact index: the definition of right."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.faiss_library import selector_of
from mcp_server.indexes.flat_scan import flat_scan
from mcp_server.indexes.scoring import allowed_rows, best_first, checked_tie_keys, cosines, unit_query, unit_rows

_GATHER_UP_TO = 512
"""So few rows are scored directly; above, the scan is faster even with nearly everything skipped."""
_SPARE = 64
"""Rows fetched beyond k, so that the first scan nearly always proves the answer."""


class ExactIndex:
    """Always the true nearest rows: cosine summed in float64, rounded to float32. Implements `Index`.

    Two passes at most: a float32 scan of known error fetches a few more rows than asked, their scores are computed anew, and the answer
    stands if no row outside can reach it. If one could (many near-equal rows), everything within the error of the k-th score is fetched.
    O(N D) time, N / 8 bytes a call; never writes to what it shares, so any number of threads may search at once.
    """

    def __init__(self, embeddings: Embeddings, tie_keys: NDArray[np.int64] | None = None) -> None:
        """Index `embeddings`; among equal scores the lower of `tie_keys`, (N,) int64, comes first (default: the lower row).

        Raises:
            IndexMismatchError: not one tie key per row.
        """
        self._embeddings = embeddings
        self._ties = checked_tie_keys(embeddings, tie_keys)
        self._scan = flat_scan(embeddings)

    @property
    def size(self) -> int:
        """N."""
        return self._embeddings.size

    @property
    def width(self) -> int:
        """D."""
        return self._embeddings.width

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, rows never returned."""
        return self._embeddings.unusable

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the best min(k, rows allowed) rows not in `skip`, as `Index.search` promises; `approximation` is None.

        Raises:
            IndexMismatchError: the query is not D wide or the mask not N long.
            ValueError: k is less than 1, or the query is not finite or has no length.
        """
        unit = unit_query(query, self.width)
        allowed = allowed_rows(self._embeddings, k, skip)
        count = int(np.count_nonzero(allowed))
        k = min(k, count)
        if count <= max(_GATHER_UP_TO, 2 * (k + _SPARE)):
            candidates = np.flatnonzero(allowed)
            return best_first(candidates, cosines(self._embeddings.rows, candidates, unit), self._ties, k)
        return self._scanned(unit, k, allowed)

    def best_score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float | None:
        """Return the best cosine among `rows`, unusable ones left out; None when there is none.

        Raises:
            IndexMismatchError: the query is not D wide, or a row is not below N.
            ValueError: the query is not finite or has no length.
        """
        skip = _all_but(rows, self.size)
        scores = self.search(query, 1, skip).scores
        return float(scores[0]) if len(scores) else None

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosine of each of `rows`, as `Index.scores` promises.

        Raises:
            IndexMismatchError: the query is not D wide, or a row is not below N.
            ValueError: the query is not finite or has no length.
        """
        _refuse_strange(rows, self.size)
        return cosines(self._embeddings.rows, rows, unit_query(query, self.width))

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `rows` at unit length, as `Index.vectors` promises.

        Raises:
            IndexMismatchError: a row is not below N.
        """
        _refuse_strange(rows, self.size)
        return unit_rows(self._embeddings.rows, rows)

    def _scanned(self, unit: NDArray[np.float64], k: int, allowed: NDArray[np.bool_]) -> Neighbors:
        selector = selector_of(allowed)
        candidates, lowest = self._scan.top(unit, k + _SPARE, selector)
        best = best_first(candidates, cosines(self._embeddings.rows, candidates, unit), self._ties, k)
        worst = float(best.scores[-1])
        if worst > lowest + self._scan.margin:  # strictly: a row outside that only equals the k-th score may win by its tie key
            return best
        candidates = self._scan.above(unit, worst - self._scan.margin, selector)
        return best_first(candidates, cosines(self._embeddings.rows, candidates, unit), self._ties, k)


def _all_but(rows: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """Return (size,) bool, False at `rows` only. Raises IndexMismatchError if one of them is not in 0..size-1."""
    _refuse_strange(rows, size)
    skip = np.ones(size, np.bool_)
    skip[rows] = False
    return skip


def _refuse_strange(rows: NDArray[np.int64], size: int) -> None:
    if len(rows) and (rows.min() < 0 or rows.max() >= size):
        raise IndexMismatchError(f"Rows must lie in 0..{size - 1}; got {rows.min()}..{rows.max()}.")
