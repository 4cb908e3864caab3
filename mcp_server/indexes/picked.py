"""Rows read for one call, so that none is read twice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.embeddings import Embeddings, Rows


@dataclass(frozen=True, eq=False)
class Picked:
    """Some rows of a collection, as stored.

    Attributes:
        rows: (M,) int64, ascending, each there once.
        stored: (M, D).
    """

    rows: NDArray[np.int64]
    stored: Rows = field(repr=False)

    @classmethod
    def of(cls, embeddings: Embeddings, rows: NDArray[np.int64]) -> Picked:
        """Read `rows`, each there once, in any order."""
        rows = np.sort(rows)
        return cls(rows, embeddings.take(rows))

    def instead(self, embeddings: Embeddings, rows: NDArray[np.int64]) -> Picked:
        """Return `rows`, each there once, in any order, of which only those not among these are read."""
        rows = np.sort(rows)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        here = self.rows[at] == rows
        stored = np.empty((len(rows), embeddings.width), self.stored.dtype)
        stored[here] = self.stored[at[here]]
        stored[~here] = embeddings.take(rows[~here])
        return Picked(rows, stored)  # pyright: ignore[reportArgumentType] - of the same type as these

    def only(self, rows: NDArray[np.int64]) -> Picked:
        """Return those of these that are `rows`, each there once, all of them among these."""
        at = np.searchsorted(self.rows, np.sort(rows))
        return Picked(self.rows[at], self.stored[at])
