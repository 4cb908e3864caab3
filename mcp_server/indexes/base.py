"""What the rest of the house knows of an index: a unit vector and a mask in, the nearest rows out."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors


class Index(Protocol):
    """Nearest rows of N unit vectors of width D. Safe to call from several threads; never written to while searching."""

    @property
    def size(self) -> int:
        """N, how many rows there are."""
        ...

    @property
    def width(self) -> int:
        """D, the length of each row."""
        ...

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, True for rows that are not finite or have no length. `search` never returns them, whatever `skip` says."""
        ...

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the best rows not in `skip`, best first.

        Args:
            query: (D,) float32, unit length.
            k: how many to return, at least 1.
            skip: (N,) bool; True means never return this row. Not changed.

        Returns:
            M = min(k, rows allowed) rows with their cosine in float32, descending; equal scores by ascending tie key, no row twice.

        Raises:
            IndexMismatchError: the query is not D wide or the mask not N long.
            ValueError: k is less than 1.
        """
        ...

    def best_score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float | None:
        """Return the best exact cosine among `rows`, each in 0..N-1; None when none of them is usable.

        Raises:
            IndexMismatchError: the query is not D wide.
        """
        ...

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of each of `rows`, usable ones in 0..N-1, in that order: what `search` says of them.

        Raises:
            IndexMismatchError: the query is not D wide, or a row is not below N.
        """
        ...

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return (M, D) float32, the stored vectors of `rows`, usable ones in 0..N-1, at unit length.

        Raises:
            IndexMismatchError: a row is not below N.
        """
        ...
