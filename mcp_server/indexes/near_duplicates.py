"""Finds, for each item, the first earlier one that looks the same: a photograph saved twice, a still frame, a resized copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.cells import spread
from mcp_server.indexes.leaders import Leaders, alike

Gather = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Takes up to `GATHER_ROWS` embedding rows, (B,), and returns their unit vectors, (B, D) float32."""

GATHER_ROWS = 4096
EXACT_PAIRS = 20_000**2
"""Up to so many comparisons every undecided item is held against every original."""
NOTED = 16
"""So many earlier items like it are noted for each item, the first ones; one of them nearly always is its original."""
_TILE = 1024


def first_like(
    gather: Gather, rows: NDArray[np.int64], threshold: float, known: NDArray[np.int64], exact_pairs: int = EXACT_PAIRS
) -> NDArray[np.int64]:
    """Return the position of each item's original, its own for an item that is one: (M,) int64.

    Items are decided in order. One joins the first earlier original whose cosine, summed in float64, is at least `threshold`, else it
    becomes an original; so every item is that close to its original itself, and there are no chains. The same input gives the same result.

    Args:
        gather: reads vectors; called with at most `GATHER_ROWS` rows at a time, any of them more than once.
        rows: (M,) embedding rows in order of precedence.
        threshold: lowest cosine that counts as the same.
        known: (M,) what an earlier run decided: the position of the item's original, its own when it is one, -1 for decide now. A known
            original stays one. An item stays with its known original as long as that is one; otherwise it is decided anew.
        exact_pairs: the most comparisons made without cells.

    Exact while undecided items times the items to compare with are at most `exact_pairs`: 20,000 new items, or 400 beside a million
    originals. Above, items are spread over cells of neighbours, each in its three nearest, and held only against items they share a cell
    with: a pair that shares none is missed. Reads every vector once or, with cells, about five times. Keeps the vectors of 20,000 items
    at most or, with cells, of a sample of 80 * sqrt(M) of them and 150 bytes an item.

    Raises:
        ValueError: `rows` and `known` differ in length, or a known position is not in -1..M-1.
    """
    size = len(rows)
    if known.shape != (size,) or (size and (known.min() < -1 or known.max() >= size)):
        raise ValueError(f"known must hold {size} positions in -1..{size - 1}.")
    leaders = Leaders(known)
    undecided = len(leaders.undecided)
    if undecided:

        def read(positions: NDArray[np.int64]) -> NDArray[np.float32]:
            return _gathered(gather, rows[positions])

        if undecided * len(leaders.taking_part) <= exact_pairs:
            _decide_exactly(read, threshold, leaders)
        else:
            _decide_in_cells(read, threshold, leaders)
    return leaders.result


def _decide_exactly(read: Gather, threshold: float, leaders: Leaders) -> None:
    """Hold each undecided item against the known originals before it, then, in order, against the new ones."""
    undecided = leaders.undecided
    vectors = read(undecided)
    first = np.full(len(undecided), len(leaders.result), np.int64)
    """The first known original like each, beyond the end when there is none."""
    for block in _blocks(leaders.known_originals, GATHER_ROWS):
        others = read(block)
        for tile in _tiles(len(undecided)):
            left, right = alike(vectors[tile], others, threshold)
            earlier = block[right] < undecided[tile][left]
            np.minimum.at(first[tile], left[earlier], block[right[earlier]])
    new = np.empty(0, np.int64)
    """Places in `undecided` of those that have become originals."""
    for tile in _tiles(len(undecided)):
        for block in _blocks(new, _TILE):
            left, right = alike(vectors[tile], vectors[block], threshold)
            np.minimum.at(first[tile], left, undecided[block[right]])
        items = undecided[tile]
        left, right = alike(vectors[tile], vectors[tile], threshold)
        left, right = left[right < left], right[right < left]
        bounds = np.searchsorted(left, np.arange(len(items) + 1))
        for place, item in enumerate(items.tolist()):
            near = items[right[bounds[place] : bounds[place + 1]]]
            if first[tile][place] < item:
                near = np.append(near, first[tile][place])
            if not leaders.decide(item, near):
                leaders.make_original(item)
        new = np.concatenate([new, tile.start + np.flatnonzero(leaders.are_originals(items))])


def _decide_in_cells(read: Gather, threshold: float, leaders: Leaders) -> None:
    """Note for each undecided item the first items like it that it shares a cell with; then decide in order."""
    cells = spread(read, leaders.taking_part, GATHER_ROWS, threshold)
    notes = _Notes(leaders)
    for members in cells.with_any(leaders.is_undecided):
        for mine in _blocks(members[leaders.is_undecided[members]], GATHER_ROWS):
            vectors = read(mine)
            for theirs in _growing(members[members < mine[-1]]):
                places = notes.open_to(mine, int(theirs[0]))
                if not len(places):
                    break
                others = read(theirs)
                for tile in _tiles(len(places)):
                    items = mine[places[tile]]
                    left, right = alike(vectors[places[tile]], others, threshold)
                    earlier = theirs[right] < items[left]
                    notes.add(items, left[earlier], theirs[right[earlier]])
    for item in leaders.undecided.tolist():
        near, is_cut = notes.of(item)
        if leaders.decide(item, near):
            continue
        if is_cut:  # none of the noted is an original, but there were more
            around = cells.around(item)
            around = around[around < item]
            near = _like(read, threshold, item, around[leaders.are_originals(around)])
        if not is_cut or not leaders.decide(item, near):
            leaders.make_original(item)


class _Notes:
    """The first `NOTED` earlier items like each undecided one."""

    def __init__(self, leaders: Leaders) -> None:
        self._none = len(leaders.result)
        self._undecided = leaders.undecided
        self._near = np.full((len(leaders.undecided), NOTED), self._none, np.int32)
        self._cut = np.zeros(len(leaders.undecided), np.bool_)

    def open_to(self, items: NDArray[np.int64], first: int) -> NDArray[np.int64]:
        """Return the places of those of `items` for which an item from `first` on can still be noted.

        Those that have as many notes already, all before `first`, count as having more: among thousands alike, that is so.
        """
        at = np.searchsorted(self._undecided, items)
        full = self._near[at, -1] < first
        self._cut[at[full]] = True
        return np.flatnonzero(~full & (items > first))

    def add(self, items: NDArray[np.int64], left: NDArray[np.int64], near: NDArray[np.int64]) -> None:
        """Note that `near[i]` is like `items[left[i]]`; sorted by `left`, then by `near`. Telling twice does no harm."""
        rank = np.arange(len(left)) - np.searchsorted(left, left)
        told, inverse = np.unique(left, return_inverse=True)
        places = np.searchsorted(self._undecided, items[told])
        self._cut[places[inverse[rank == NOTED]]] = True
        few = rank < NOTED
        both = np.full((len(told), 2 * NOTED), self._none, np.int32)
        both[:, :NOTED] = self._near[places]
        both[inverse[few], NOTED + rank[few]] = near[few]
        both.sort(axis=1)
        both[:, 1:][both[:, 1:] == both[:, :-1]] = self._none
        both.sort(axis=1)
        self._near[places] = both[:, :NOTED]
        self._cut[places] |= both[:, NOTED] < self._none

    def of(self, item: int) -> tuple[NDArray[np.int64], bool]:
        """Return the noted items, ascending, and whether there may be more."""
        place = int(np.searchsorted(self._undecided, item))
        near = self._near[place]
        return near[near < self._none].astype(np.int64), bool(self._cut[place])


def _like(read: Gather, threshold: float, item: int, others: NDArray[np.int64]) -> NDArray[np.int64]:
    vector = read(np.array([item]))
    return np.concatenate([np.empty(0, np.int64), *(block[alike(vector, read(block), threshold)[1]] for block in _blocks(others, _TILE))])


def _gathered(gather: Gather, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Gather any number of rows, read in the order in which they are stored."""
    order = np.argsort(rows, kind="stable")
    vectors: NDArray[np.float32] | None = None
    for part in _blocks(order, GATHER_ROWS):
        read = gather(rows[part])
        if vectors is None:
            vectors = np.empty((len(rows), read.shape[1]), np.float32)
        vectors[part] = read
    if vectors is None:
        raise ValueError("There are no rows to gather.")
    return vectors


def _blocks(positions: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    return (positions[start : start + size] for start in range(0, len(positions), size))


def _growing(positions: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield `positions` in blocks, a small one first: among items that are all alike it is enough."""
    start, size = 0, 4 * NOTED
    while start < len(positions):
        yield positions[start : start + size]
        start, size = start + size, min(GATHER_ROWS, 4 * size)


def _tiles(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _TILE, count)) for start in range(0, count, _TILE))
