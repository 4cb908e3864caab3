"""Approximate where that was measured to be good and is seen to be, exact everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.approval import FEW, Approval
from mcp_server.indexes.base import Index
from mcp_server.indexes.faiss_index import FaissIndex

logger = logging.getLogger(__name__)

EXACT_BELOW = 200_000
"""Up to so many allowed rows a scan of all of them is quick enough."""


class HybridIndex:
    """Implements `Index`: full answers always, exact ones unless `approximation` says otherwise.

    FAISS answers only where all of this holds, and the exact index everywhere else:

    - more than `exact_below` rows are allowed, and at most 100 asked for;
    - FAISS was measured to find `TargetRecall` of the true nearest, clearly faster, with as small a share of all rows allowed, and with as
      small a share allowed *near the query* (in the nearest lists, or among the nearest nodes of a graph): a filter that rejects just
      what the query likes leaves many rows, but few of them near;
    - its answer is not short;
    - its answer is settled: of its best 100 no more than the recall that may be missed came from the second half of the lists visited (or
      of the queue). A search that goes on finding has not found: about as many are missing as the last doubling of the effort brought;
    - and no greater part of it lay in the second half of the candidates that FAISS handed over: codes too coarse to tell apart what a
      filter leaves put the true best anywhere, also beyond the last candidate.

    Safe to call from several threads.
    """

    def __init__(
        self, exact: Index, approximate: FaissIndex, approval: Callable[[], Approval | None], exact_below: int = EXACT_BELOW
    ) -> None:
        """Combine two indexes of the same embeddings.

        Args:
            exact: answers exactly.
            approximate: answers where it may.
            approval: returns what was measured of `approximate`; None while that is not known. Only called when it matters.
            exact_below: so few allowed rows are always answered exactly.

        Raises:
            IndexMismatchError: they differ in size or width.
        """
        if (exact.size, exact.width) != (approximate.size, approximate.width):
            raise IndexMismatchError(
                f"The exact index holds {exact.size} rows {exact.width} wide, the approximate one {approximate.size} rows "
                f"{approximate.width} wide; both must be built from the same embeddings."
            )
        self._exact = exact
        self._approximate = approximate
        self._approval = approval
        self._exact_below = exact_below

    @property
    def size(self) -> int:
        """N."""
        return self._exact.size

    @property
    def width(self) -> int:
        """D."""
        return self._exact.width

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, rows never returned."""
        return self._exact.unusable

    @property
    def approximate(self) -> FaissIndex:
        """The FAISS side, for `doctor`."""
        return self._approximate

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the min(k, rows allowed) best rows not in `skip`, as `Index.search` promises; the best FAISS knows when it says so."""
        if skip.shape == (self.size,) and skip.dtype == np.bool_:  # the exact index refuses others
            nearest = self._approximated(query, k, skip)
            if nearest is not None:
                return nearest
        return self._exact.search(query, k, skip)

    def best_score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float | None:
        """Return the best cosine among `rows`, exactly; see `ExactIndex.best_score`."""
        return self._exact.best_score(query, rows)

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the exact cosine of each of `rows`; see `ExactIndex.scores`."""
        return self._exact.scores(query, rows)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `rows` at unit length; see `ExactIndex.vectors`."""
        return self._exact.vectors(rows)

    def _approximated(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors | None:
        """Return an answer of FAISS that can be trusted; None when there is none."""
        if not (self._approximate.takes_masks and self._approximate.is_faster_than_scan and self.size > self._exact_below):
            return None
        allowed = self.size - int(np.count_nonzero(skip | self.unusable))
        approval = self._approval() if allowed > self._exact_below else None
        if approval is None:
            return None
        effort = self._effort(approval, query, k, skip, allowed / self.size)
        if effort is None:
            return None
        found = self._approximate.find(query, k, skip, effort)
        if len(found.nearest.rows) >= min(k, allowed) and found.late <= approval.late_limit:
            return found.nearest
        logger.debug("hybrid.fell_back found=%d asked=%d allowed=%d late=%d", len(found.nearest.rows), k, allowed, found.late)
        return None

    def _effort(self, approval: Approval, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_], share: float) -> int | None:
        """Return the least effort that is enough for the share allowed everywhere and for that near the query; None when none is."""
        effort = approval.effort_for(share, k)
        while effort is not None:
            wanted = approval.effort_for(min(share, self._approximate.near_share(query, skip, effort)), k)
            if wanted is None or wanted <= effort:
                return None if wanted is None else effort
            effort = wanted
        return None


def answered_share(approval: Approval, size: int) -> float | None:
    """Return the smallest share of `size` rows at which FAISS answers; None when it never does."""
    if size <= EXACT_BELOW:
        return None
    least = EXACT_BELOW / size
    shares = (least, *(trial.share for trial in approval.trials if trial.share > least))
    return min((share for share in shares if approval.effort_for(share, FEW) is not None), default=None)
