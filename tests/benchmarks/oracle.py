"""The answer by brute force in float64, from the contract of `Index.search` alone: what every index is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CHUNK = 8_192
_DOUBT = 1e-9
"""More than float64 sums of up to some thousand products of unit vectors differ by in whatever order they are summed."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The best rows, best first, (M,) int64, and their cosines, (M,) float32."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Oracle:
    """Cosines of every row to each of a batch of queries, in float64: 8 bytes a row and query. Any mask and k is answered from them.

    Attributes:
        rows: (N, D) as stored.
        units: (Q, D) float64, the queries at unit length.
        cosines: (Q, N) float64; -inf for rows that are not finite or have no length.
        ties: (N,) int64; of equal scores the lower comes first.
    """

    rows: NDArray[Any] = field(repr=False)
    units: NDArray[np.float64] = field(repr=False)
    cosines: NDArray[np.float64] = field(repr=False)
    ties: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, rows: NDArray[Any], queries: NDArray[np.float32], ties: NDArray[np.int64] | None = None) -> Oracle:
        """Score all rows, a chunk at a time, by one product in float64."""
        wide = queries.astype(np.float64)
        units = wide / np.sqrt(np.einsum("qd,qd->q", wide, wide))[:, None]
        cosines = np.empty((len(queries), len(rows)))
        for start in range(0, len(rows), _CHUNK):
            chunk = np.asarray(rows[start : start + _CHUNK]).astype(np.float64)
            with np.errstate(all="ignore"):
                scores = (chunk @ units.T).T / np.sqrt(np.einsum("nd,nd->n", chunk, chunk))
            scores[~np.isfinite(scores)] = -np.inf
            cosines[:, start : start + _CHUNK] = scores
        return cls(rows, units, cosines, np.arange(len(rows)) if ties is None else ties)

    def answer(self, query: int, k: int, skip: NDArray[np.bool_]) -> Answer:
        """Return the best min(k, rows allowed) rows not in `skip`, by descending float32 cosine, equal ones by ascending tie key."""
        cosines = np.where(skip, -np.inf, self.cosines[query])
        k = min(k, int(np.count_nonzero(cosines > -np.inf)))
        if k == 0:
            return Answer(np.empty(0, np.int64), np.empty(0, np.float32))
        least = np.partition(cosines, len(cosines) - k)[len(cosines) - k]
        # all that could be among the k after rounding to float32: half a unit in its last place on either side, and the doubt
        near = np.flatnonzero(cosines >= least - 1.3e-7 * max(abs(least), 1e-3) - _DOUBT)
        # summed row by row, so that equal rows are equal to the last bit; a product of matrices does not promise that
        wide = np.asarray(self.rows[near]).astype(np.float64)
        scores = np.vecdot(wide, self.units[query]) / np.sqrt(np.einsum("nd,nd->n", wide, wide))
        rounded = scores.astype(np.float32)
        order = np.lexsort((near, self.ties[near], -rounded))[:k]
        return Answer(near[order], rounded[order])
