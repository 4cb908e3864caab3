"""The exact index: the definition of right."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes import lanes
from mcp_server.indexes.codes import Codes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.estimates import Estimates
from mcp_server.indexes.kernels import UNIT_ROUNDOFF
from mcp_server.indexes.masks import Allowed
from mcp_server.indexes.picked import Picked, picked
from mcp_server.indexes.planner import LEADERS, Costs, Thinning, Way, are_picked_out, quickest
from mcp_server.indexes.scoring import best_first, checked_mask, checked_tie_keys, cosines, cosines_of, unit_query, unit_rows
from mcp_server.indexes.sweeps import CodeSweep, RowSweep, Scope

logger = logging.getLogger(__name__)

_SCORED_AT_ONCE = 48
"""So many rows are all scored closely: estimating them first would cost more."""
_READ_SCORED_AT_ONCE = 128
"""Likewise of rows that have been read already."""
_READ_ONCE = 1_024
"""Up to so many rows are picked out once, all together; above, they pass by in parts, and those that matter are picked out again."""
_NONE: NDArray[np.float64] = np.empty(0)
_PICKED_AT_MOST = 8_192
"""More contenders than that, and than twice as many as asked for, are not held in memory at once."""


@dataclass(frozen=True, eq=False)
class _Coded:
    """What there is beside the rows: codes, perhaps projections, what using them costs, and how much projections are of use."""

    codes: CodeSweep
    projections: CodeSweep | None
    costs: Costs
    heard: Callable[[NDArray[np.float64]], None] | None
    thinning: Thinning = field(default_factory=Thinning)


class ExactIndex:
    """Always the true nearest rows: cosine summed in float64, rounded to float32. Implements `Index`.

    A search estimates the allowed rows, from their codes if there are any, else from the rows themselves; keeps those that the estimates'
    known error leaves in the running; and scores these closely. Which rows are estimated how is the planner's choice and never changes the
    answer. Never writes to what it shares, so any number of threads may search at once; two searches are under way at a time, others wait
    for their turn, and each holds 5 to 20 bytes a row of the collection, up to 50 where very many rows are equal.
    """

    def __init__(self, embeddings: Embeddings, tie_keys: NDArray[np.int64] | None = None) -> None:
        """Index `embeddings`; among equal scores the lower of `tie_keys`, (N,) int64, comes first (default: the lower row).

        Raises:
            IndexMismatchError: not one tie key per row.
        """
        self.embeddings = embeddings
        self._ties = checked_tie_keys(embeddings, tie_keys)
        self._rows = RowSweep(embeddings)
        self._coded: _Coded | None = None
        self._all_usable = not embeddings.unusable.any()

    def adopt(self, codes: Codes, costs: Costs, heard: Callable[[NDArray[np.float64]], None] | None = None) -> None:
        """Use `codes`, made from the same rows, from the next search on; what ways cost is `costs`.

        `heard` is called with the query, (D,) float64 of unit length, of each search that could use the codes, in the thread of the search.

        Raises:
            IndexMismatchError: they are of another number of rows or another width.
        """
        shape = codes.table.codes.shape
        if shape != (self.size, self.width):
            raise IndexMismatchError(f"The codes are of {shape} rows and numbers; the index holds {(self.size, self.width)}.")
        projections = CodeSweep(codes.projections) if codes.projections is not None else None
        self._coded = _Coded(CodeSweep(codes), projections, costs, heard)

    @property
    def is_coded(self) -> bool:
        """Whether searches can use codes."""
        return self._coded is not None

    @property
    def size(self) -> int:
        """N."""
        return self.embeddings.size

    @property
    def width(self) -> int:
        """D."""
        return self.embeddings.width

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, rows never returned."""
        return self.embeddings.unusable

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the best min(k, rows allowed) rows not in `skip`, as `Index.search` promises; `approximation` is None.

        Raises:
            IndexMismatchError: the query is not D wide or the mask not N long.
            ValueError: k is less than 1, or the query is not finite or has no length.
        """
        unit = unit_query(query, self.width)
        checked_mask(self.embeddings, k, skip)
        if not self._all_usable:
            skip = skip | self.unusable
        return self._searched(unit, k, skip, None)

    def best_score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float | None:
        """Return the best cosine among `rows`, unusable ones left out; None when there is none.

        Raises:
            IndexMismatchError: the query is not D wide, or a row is not below N.
            ValueError: the query is not finite or has no length.
        """
        unit = unit_query(query, self.width)
        _refuse_strange(rows, self.size)
        rows = rows[~self.unusable[rows]]
        if len(rows) > _SCORED_AT_ONCE:
            return float(self._best_of(self._rows.gathered(unit, rows), unit, 1).scores[0])
        return float(cosines(self.embeddings, rows, unit).max()) if len(rows) else None

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosine of each of `rows`, as `Index.scores` promises.

        Raises:
            IndexMismatchError: the query is not D wide, or a row is not below N.
            ValueError: the query is not finite or has no length.
        """
        _refuse_strange(rows, self.size)
        return cosines(self.embeddings, rows, unit_query(query, self.width))

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `rows` at unit length, as `Index.vectors` promises.

        Raises:
            IndexMismatchError: a row is not below N.
        """
        _refuse_strange(rows, self.size)
        return unit_rows(self.embeddings, rows)

    def search_by(self, way: Way, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return what `search` returns, by one way and no other: for measuring. Raises what `search` raises."""
        unit = unit_query(query, self.width)
        checked_mask(self.embeddings, k, skip)
        return self._searched(unit, k, skip | self.unusable, way)

    def _searched(self, unit: NDArray[np.float64], k: int, skip: NDArray[np.bool_], way: Way | None) -> Neighbors:
        with lanes.turn():
            allowed = Allowed(skip)
            k = min(k, allowed.count)
            if allowed.count <= _few(k):
                return self._closely(allowed.rows, unit, k)
            coded = self._coded
            if coded is not None and coded.heard is not None:
                coded.heard(unit)
            way = way or self._quickest(coded, k, allowed)
            scope = Scope(skip, allowed, allowed.rows if way.startswith("gather") else None)
            in_place = self.embeddings.file is None and allowed.are_in_runs
            if scope.rows is not None and way == "gather rows" and allowed.count <= _READ_ONCE and not in_place:
                with picked(self.embeddings, scope.rows) as read:
                    return self._best(*self._scored(read, unit, k, _NONE), k)
            if coded is None or way in ("gather rows", "scan rows"):
                return self._best_of(self._rows.estimates(unit, scope), unit, k)
            return self._by_codes(coded, way, unit, k, scope)

    def _quickest(self, coded: _Coded | None, k: int, allowed: Allowed) -> Way:
        count = allowed.count
        if coded is None:
            return quickest(Costs(), self.size, count, allowed.occupied.rows, k, in_runs=allowed.are_in_runs, coded=False)
        occupied, in_runs = self.size, False
        if not are_picked_out(coded.costs, self.size, count, k):
            occupied, in_runs = allowed.occupied.rows, allowed.are_in_runs
        left = coded.thinning.share(count, k) if coded.projections is not None else None
        way = quickest(coded.costs, self.size, count, occupied, k, in_runs=in_runs, coded=True, left=left)
        if left is not None and way.endswith("codes"):
            coded.thinning.fade(count, k)
        return way

    def _by_codes(self, coded: _Coded, way: Way, unit: NDArray[np.float64], k: int, scope: Scope) -> Neighbors:
        query = coded.codes.query(unit)
        projections = coded.projections if way.endswith("projections") else None
        rough = coded.codes.estimates(query, scope) if projections is None else projections.estimates(projections.query(unit), scope)
        highest = rough.highest(k)
        if projections is not None:
            highest = coded.codes.gathered(query, rough.highest(LEADERS * k)).highest(k)
        with picked(self.embeddings, highest) as read:
            leaders = read.rows
            scores = cosines_of(read.stored, self.embeddings.norms[leaders], unit)
        reached = scores.astype(np.float64) - 2 * UNIT_ROUNDOFF  # no cosine that is rounded to a score is below
        floor = float(reached.min())
        contenders = rough.contenders(floor)
        if projections is not None:
            coded.thinning.note(scope.allowed.count, k, len(contenders) / scope.allowed.count)
            closer = scope.narrowed(contenders, coded.costs.gather_code, coded.costs.scan_code)
            contenders = coded.codes.estimates(query, closer).contenders(floor)
        if len(contenders) > 2 * k + _SCORED_AT_ONCE:
            contenders = coded.codes.finer(query, contenders).contenders(floor)
        if len(contenders) > max(_PICKED_AT_MOST, 2 * k):  # as among very many near-equal rows
            logger.debug("exact.many_contenders count=%d", len(contenders))
            closer = scope.narrowed(contenders, coded.costs.gather_row, coded.costs.scan_row)
            return self._best_of(self._rows.estimates(unit, closer), unit, k)
        at = np.minimum(np.searchsorted(leaders, contenders), len(leaders) - 1)
        with picked(self.embeddings, contenders[leaders[at] != contenders]) as read:
            rows, others = self._scored(read, unit, k, reached)
            return self._best(np.concatenate((leaders, rows)), np.concatenate((scores, others)), k)

    def _scored(
        self, read: Picked, unit: NDArray[np.float64], k: int, reached: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return those of `read` that may be among the best `k`, and their scores. `reached` is what other rows' cosines are at least."""
        if len(read.rows) > max(_READ_SCORED_AT_ONCE, _few(k - len(reached))):
            found = self._rows.estimates_of(unit, read)
            read = read.only(found.contenders(found.floor(k, reached)))
        return read.rows, cosines_of(read.stored, self.embeddings.norms[read.rows], unit)

    def _best_of(self, found: Estimates, unit: NDArray[np.float64], k: int) -> Neighbors:
        return self._closely(found.contenders(found.floor(k)), unit, k)

    def _closely(self, rows: NDArray[np.int64], unit: NDArray[np.float64], k: int) -> Neighbors:
        return self._best(rows, cosines(self.embeddings, rows, unit), k)

    def _best(self, rows: NDArray[np.int64], scores: NDArray[np.float32], k: int) -> Neighbors:
        return best_first(rows, scores, self._ties, k)


def _few(k: int) -> int:
    """Return of how many rows it is quicker to score all closely than to find out first which ones need it."""
    return 2 * k + _SCORED_AT_ONCE


def _refuse_strange(rows: NDArray[np.int64], size: int) -> None:
    if len(rows) and (rows.min() < 0 or rows.max() >= size):
        raise IndexMismatchError(f"Rows must lie in 0..{size - 1}; got {rows.min()}..{rows.max()}.")
