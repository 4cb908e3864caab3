"""Words and examples as one query vector.

T = unit(sum of weight x text vector), L = unit(sum of the vectors of `like`), U = unit(sum of the vectors of `unlike`). With one of T and L
alone, the query is that. Otherwise

    q = unit(T / s(T) + L / s(L) - UNLIKE * U / s(U))        absent parts left out

where s(x) is the standard deviation of the cosines between x and a sample of the collection: pictures are far more alike to each other
than to words, and without it they would drown the words. Source of the idea: relevance feedback, Rocchio 1971.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import BadArgumentError
from mcp_server.indexes.base import Index

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]

UNLIKE = 0.25
"""How much the pictures not wanted count against what is wanted."""
SAMPLE = 1_024
"""Rows of the collection by which words and pictures are put on one scale."""
_NO_DIRECTION = 1e-6


@dataclass(frozen=True)
class QueryVector:
    """What is searched for, all (D,) float32 of unit length.

    Attributes:
        vector: the query.
        text: the wanted texts alone, None without any; the same array as `vector` when it is all there is.
        like: the wanted examples alone, None without any; likewise.
    """

    vector: Floats
    text: Floats | None
    like: Floats | None


def compose(texts: Sequence[tuple[Floats, float]], like: Floats, unlike: Floats, sample: Floats) -> QueryVector:
    """Return the query of `texts`, vectors with weights, and of the examples `like` (A, D) and `unlike` (B, D), all of unit length.

    `sample` is (S, D), some rows of the collection of unit length; it may be empty where words or examples stand alone. Sums are made in
    float64 in a fixed order, so equal calls give equal bits.

    Raises:
        BadArgumentError: what is asked cancels out.
    """
    wanted = [(vector, weight) for vector, weight in texts if weight > 0]
    if len(texts) + len(like) == 1 and len(wanted) == len(texts) and not len(unlike):
        alone = texts[0][0] if texts else like[0]
        return QueryVector(alone, alone if texts else None, None if texts else alone)
    words = _unit(_summed([vector for vector, _ in texts], [weight for _, weight in texts])) if texts else None
    liked = _unit(_summed(list(like), [1.0] * len(like))) if len(like) else None
    unliked = _unit(_summed(list(unlike), [1.0] * len(unlike))) if len(unlike) else None
    parts = [(part, factor) for part, factor in ((words, 1.0), (liked, 1.0), (unliked, -UNLIKE)) if part is not None]
    if len(parts) == 1:
        query = _narrow(parts[0][0])
    else:
        query = _narrow(_unit(_summed([part for part, _ in parts], [factor / _spread(part, sample) for part, factor in parts])))
    if len(parts) == 1 and len(wanted) == len(texts):
        return QueryVector(query, query if texts else None, None if texts else query)
    text = _narrow(_unit(_summed([vector for vector, _ in wanted], [weight for _, weight in wanted]))) if wanted else None
    return QueryVector(query, text, None if liked is None else _narrow(liked))


def sample_of(index: Index, mapped: NDArray[np.bool_]) -> Floats:
    """Return (S, D) float32 unit vectors of up to `SAMPLE` usable rows that are `mapped`, (N,) bool, evenly spaced; the same each time."""
    rows = np.flatnonzero(mapped & ~index.unusable)
    if len(rows) > SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]
    return index.vectors(rows)


def _summed(vectors: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> Wide:
    total = np.zeros(len(vectors[0]), np.float64)
    for vector, weight in zip(vectors, weights, strict=True):
        total += weight * vector.astype(np.float64)
    return total


def _unit(vector: Wide) -> Wide:
    length = float(np.sqrt(np.einsum("i,i->", vector, vector)))
    if length < _NO_DIRECTION:
        raise BadArgumentError("What is wanted and what is not cancel each other out. Change a weight, a text or an example.")
    return vector / length


def _narrow(vector: Wide) -> Floats:
    return vector.astype(np.float32)


def _spread(part: Wide, sample: Floats) -> float:
    """Return the standard deviation of the cosines of `part` over `sample`; 1 where all are equal, as in a collection of one."""
    if len(sample) < 2:
        return 1.0
    spread = float(np.einsum("ij,j->i", sample.astype(np.float64), part).std())
    return spread if spread > _NO_DIRECTION else 1.0
