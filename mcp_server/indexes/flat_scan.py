"""A fast scan over all rows whose scores come with a proven bound on their error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.faiss_library import faiss_library
from mcp_server.indexes.row_memory import RowMemory, row_memory

_UNIT_ROUNDOFF = 2.0**-24
_TILE = 4096


@dataclass(frozen=True, eq=False)
class FlatScan:
    """Scores rows by inner product in float32. Safe to call from several threads.

    Attributes:
        memory: the rows scanned: unit vectors, or close to.
        margin: for every usable row, |scan score - cosine| <= margin.
    """

    memory: RowMemory = field(repr=False)
    margin: float

    def top(self, query: NDArray[np.float64], count: int, selector: Any) -> tuple[NDArray[np.int64], float]:
        """Return the `count` selected rows of highest scan score, and the lowest of those scores: no other selected row exceeds it."""
        scores, positions = self.memory.scanner.search(_as_batch(query), count, params=_parameters(selector))
        found = positions[0] >= 0  # FAISS pads with -1 when fewer are selected
        return positions[0][found], float(scores[0][found].min(initial=np.inf))

    def above(self, query: NDArray[np.float64], threshold: float, selector: Any) -> NDArray[np.int64]:
        """Return every selected row whose scan score is at least `threshold`, in no order."""
        below = float(np.nextafter(np.float32(threshold), np.float32(-np.inf)))  # FAISS wants more than, not at least
        _, _, positions = self.memory.scanner.range_search(_as_batch(query), below, params=_parameters(selector))
        return positions


def flat_scan(embeddings: Embeddings) -> FlatScan:
    """Return a scan of `embeddings`. Unit rows are scanned where they lie; others as a unit copy in float16 (2 * N * D bytes more)."""
    if embeddings.normalised:
        usable = embeddings.norms[~embeddings.unusable].astype(np.float64)
        # a stored row and its unit vector differ by exactly how far its length is from 1 (lengths are rounded to float32)
        return FlatScan(embeddings.memory, _margin(embeddings.width, float(np.abs(usable - 1).max(initial=0)) + 2 * _UNIT_ROUNDOFF))
    memory = row_memory(embeddings.size, embeddings.width, np.dtype(np.float16))
    residual = 0.0
    for start in range(0, embeddings.size, _TILE):
        stretch = slice(start, start + _TILE)
        tile = embeddings.rows[stretch].astype(np.float64)
        tile[embeddings.unusable[stretch]] = 0
        lengths = np.sqrt(np.einsum("ij,ij->i", tile, tile))
        unit = tile / np.where(lengths > 0, lengths, 1)[:, None]
        memory.rows[stretch] = unit
        rest = unit - memory.rows[stretch]
        residual = max(residual, float(np.sqrt(np.einsum("ij,ij->i", rest, rest)).max(initial=0)))
    memory.rows.flags.writeable = False
    return FlatScan(memory, _margin(embeddings.width, residual))


def _margin(width: int, residual: float) -> float:
    """Return the bound on |scan score - cosine| when no scanned row is farther than `residual` from its unit vector.

    For the unit vectors q and u, the scanned row x and the rounded query p: |<p, x> - <q, u>| <= |x - u| + |p - q| |x|, and a float32 sum
    of D products, in any order, is off by at most D u / (1 - D u) |p| |x| with u = 2**-24.
    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1. The last term is the rounding of cosines to float32.
    """
    steps = (width + 4) * _UNIT_ROUNDOFF
    summing = steps / (1 - steps) if steps < 1 else np.inf
    return residual + summing * (1 + residual) + 2 * _UNIT_ROUNDOFF


def _as_batch(query: NDArray[np.float64]) -> NDArray[np.float32]:
    return query.astype(np.float32)[None]


def _parameters(selector: Any) -> Any:
    return faiss_library().SearchParameters(sel=selector)
