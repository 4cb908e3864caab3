"""What every index must agree on: how a call is checked, how a row is scored, and in which order equals come."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes import lanes
from mcp_server.indexes.embeddings import Embeddings, Rows
from mcp_server.indexes.kernels import wide_dots

_TILE = 512
_PIECE = 4096


def unit_query(query: NDArray[Any], width: int) -> NDArray[np.float64]:
    """Return `query`, floats of any precision, as (D,) float64 of unit length.

    Raises:
        IndexMismatchError: it is not `width` wide.
        ValueError: it is not of floats, not finite, or has no length.
    """
    if query.ndim != 1 or query.shape[0] != width:
        raise IndexMismatchError(f"The query is {_shape(query)} wide; this index holds vectors {width} wide.")
    if query.dtype.kind != "f":
        raise ValueError(f"The query must hold floats; got {query.dtype}.")
    wide = query.astype(np.float64)
    length = float(np.sqrt(np.dot(wide, wide)))
    if not np.isfinite(length) or length == 0:
        raise ValueError("The query must be finite and have a length.")
    return wide / length


def checked_mask(embeddings: Embeddings, k: int, skip: NDArray[np.bool_]) -> None:
    """Refuse a mask or a k that no search can be made with.

    Raises:
        IndexMismatchError: the mask is not N long.
        ValueError: k is less than 1, or the mask is not of bools.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k}.")
    if skip.ndim != 1 or skip.shape[0] != embeddings.size:
        raise IndexMismatchError(f"The skip mask is {_shape(skip)} long; this index holds {embeddings.size} rows.")
    if skip.dtype != np.bool_:
        raise ValueError(f"The skip mask must hold bools; got {skip.dtype}.")


def allowed_rows(embeddings: Embeddings, k: int, skip: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (N,) bool, True for the rows a search may return: usable and not in `skip`. A new array.

    Raises what `checked_mask` raises.
    """
    checked_mask(embeddings, k, skip)
    return ~(skip | embeddings.unusable)


def checked_tie_keys(embeddings: Embeddings, tie_keys: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return `tie_keys` if there is one per row. Raises IndexMismatchError otherwise. None stands for the row itself."""
    if tie_keys is not None and tie_keys.shape != (embeddings.size,):
        raise IndexMismatchError(f"There are {_shape(tie_keys)} tie keys for {embeddings.size} rows.")
    return tie_keys


def cosines(embeddings: Embeddings, positions: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the cosine of each row in `positions`, usable ones, to `query`, (M,) float32 in [-1, 1].

    Dot product and length are summed in float64 over the stored values and rounded once at the end. A row's score depends on the row
    and the query only, not on its neighbours in the call: equal rows score equal to the last bit. `query` is (D,) float64 of unit length.
    """
    scores = np.empty(len(positions), np.float32)

    def piece(start: int) -> None:
        for first in range(start, min(start + _PIECE, len(positions)), _TILE):
            some = positions[first : first + _TILE]
            scores[first : first + _TILE] = cosines_of(embeddings.take(some), embeddings.norms[some], query)

    lanes.each(piece, range(0, len(positions), _PIECE))
    return scores


def cosines_of(rows: Rows, norms: NDArray[np.float64], query: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the cosine of each of `rows`, (M, D) as stored and of length `norms`, as `cosines` does."""
    return (wide_dots(query, rows) / norms).astype(np.float32)


def unit_tile(embeddings: Embeddings, which: slice | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the rows `which` at unit length, (M, D) float64; zeros for unusable ones."""
    unusable = embeddings.unusable[which]
    tile = (embeddings.rows[which] if isinstance(which, slice) else embeddings.take(which)).astype(np.float64)
    tile[unusable] = 0
    tile /= np.where(unusable, 1.0, embeddings.norms[which])[:, None]
    return tile


def unit_rows(embeddings: Embeddings, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return (M, D) float32, each row in `positions` at unit length, its length summed in float64; zeros for unusable ones."""
    found = np.empty((len(positions), embeddings.width), np.float32)
    for start in range(0, len(positions), _TILE):
        found[start : start + _TILE] = unit_tile(embeddings, positions[start : start + _TILE])
    return found


def best_first(positions: NDArray[np.int64], scores: NDArray[np.float32], ties: NDArray[np.int64] | None, k: int) -> Neighbors:
    """Return the best `k` of `positions`, each there once, by descending score, equal scores by ascending tie key, then by row."""
    if len(scores) > k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        positions, scores = positions[kept], scores[kept]
    keys = positions if ties is None else ties[positions]
    order = np.lexsort((positions, keys, -scores))[:k]
    return Neighbors(positions[order], scores[order])


def _shape(array: NDArray[Any]) -> str:
    return "x".join(map(str, array.shape)) or "0-d"
