"""Rows read for a part of a search, so that none is read twice."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes import lanes
from mcp_server.indexes.embeddings import Embeddings, Rows
from mcp_server.indexes.spare import Spare

_spare = Spare(lanes.LANES)


@dataclass(frozen=True, eq=False)
class Picked:
    """Some rows of a collection, as stored.

    Attributes:
        rows: (M,) int64, ascending, each there once.
        stored: (M, D).
    """

    rows: NDArray[np.int64]
    stored: Rows = field(repr=False)

    def only(self, rows: NDArray[np.int64]) -> Picked:
        """Return those of these that are `rows`, each there once, all of them among these."""
        at = np.searchsorted(self.rows, np.sort(rows))
        return Picked(self.rows[at], self.stored[at])


@contextmanager
def picked(embeddings: Embeddings, rows: NDArray[np.int64]) -> Generator[Picked]:
    """Read `rows`, each there once, in any order, for the block: their memory is used again afterwards."""
    rows = np.sort(rows)
    needed = len(rows) * embeddings.width * embeddings.rows.itemsize
    memory = _spare.take(needed)
    yield Picked(rows, embeddings.take(rows, memory[:needed].view(embeddings.rows.dtype).reshape(-1, embeddings.width)))
    _spare.give_back(memory)
