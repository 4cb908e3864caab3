"""An index read from a FAISS file: fast, approximate, and candid about it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.faiss_file import open_faiss
from mcp_server.indexes.faiss_library import faiss_library, selector_of
from mcp_server.indexes.inverted_lists import InvertedLists
from mcp_server.indexes.scoring import allowed_rows, best_first, checked_tie_keys, cosines, unit_query

logger = logging.getLogger(__name__)

NPROBE = 64
"""Inverted lists visited per query, unless the file asks for more."""
EF_SEARCH = 128
"""Length of the HNSW queue, unless the file asks for more, or four times the rows asked for is more."""
_OVERFETCH = 4
_SPARE = 64
_WATCHED = 100
"""So many of the best found are asked where in the search they turned up."""
_STEPS = (1, 2, 4, 8)
_LEAST_QUEUE = 256
"""Half of the shortest queue that is approved still holds all that are watched."""


@dataclass(frozen=True)
class Found:
    """An approximate answer, and how settled the search was when it ended.

    Attributes:
        nearest: the best rows found; `approximation` names type and parameters.
        late: how many of the best 100 found the first half of the effort does not find. About as many of the true best are missing: what
            doubling the effort brought last is a measure of what doubling it again would bring. Or, where that is more, how many in a
            hundred of `nearest` FAISS's own order had in the second half of what it handed over: codes too coarse for rows so alike.
    """

    nearest: Neighbors = field(repr=False)
    late: int


class FaissIndex:
    """The candidates a FAISS index finds, scored anew from the embeddings. Implements `Index`, but may return fewer rows than allowed.

    What is returned is never skipped, never twice, and in the right order with the right scores; a nearer row may be missing. Search
    parameters and the mask travel with each call; the shared FAISS index is never written to, so any number of threads may search.
    """

    def __init__(
        self,
        path: Path,
        embeddings: Embeddings,
        tie_keys: NDArray[np.int64] | None = None,
        *,
        nprobe: int = NPROBE,
        ef_search: int = EF_SEARCH,
    ) -> None:
        """Open the file at `path`, built from the rows of `embeddings`. The file's own nprobe or efSearch is used where it is larger.

        Raises:
            CollectionError: nothing is there, or it is damaged.
            IndexMismatchError: it does not fit the embeddings, or there is not one tie key per row.
        """
        self._embeddings = embeddings
        self._ties = checked_tie_keys(embeddings, tie_keys)
        self._file = open_faiss(path, embeddings)
        core = self._file.core
        self._nprobe = min(max(nprobe, int(core.nprobe)), int(core.nlist)) if self._file.kind == "ivf" else 0
        self._ef_search = max(ef_search, int(core.hnsw.efSearch)) if self._file.kind == "hnsw" else 0
        self._lists = InvertedLists(core.invlists) if self._file.kind == "ivf" else None
        logger.info("faiss.opened file=%s type=%s rows=%d takes_masks=%s", path, self._file.name, self.size, self.takes_masks)

    @property
    def size(self) -> int:
        """N."""
        return self._embeddings.size

    @property
    def width(self) -> int:
        """D, before any transform in the file."""
        return self._embeddings.width

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, rows never returned."""
        return self._embeddings.unusable

    @property
    def type_name(self) -> str:
        """FAISS's name of the innermost index, such as "IndexIVFFlat"."""
        return self._file.name

    @property
    def metric(self) -> str:
        """How the innermost index compares: "inner product" or "L2"."""
        return "inner product" if self._file.core.metric_type == faiss_library().METRIC_INNER_PRODUCT else "L2"

    @property
    def takes_masks(self) -> bool:
        """False: this type refuses selectors, or is not known to honour them, and `search` raises."""
        return self._file.kind != "other"

    @property
    def is_faster_than_scan(self) -> bool:
        """False where every vector is visited anyway, so that the exact index costs no more."""
        return self._file.kind in ("ivf", "hnsw")

    @property
    def findings(self) -> list[str]:
        """What the person who runs the server should know about the file; empty when all is well."""
        if not self.takes_masks:
            return [
                f"The FAISS index is an {self._file.name}, which cannot leave rows out while searching; every search is answered exactly "
                "from the embeddings instead. Use HNSW, or IVF with Flat, SQ or PQ and no FastScan, or set IndexType = zarr."
            ]
        if not self.is_faster_than_scan:
            return [
                f"The FAISS index is an {self._file.name}, no faster than the embeddings themselves; IndexType = zarr saves its memory."
            ]
        return []

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return up to min(k, rows allowed) rows not in `skip`, best first, with exact scores; fewer when FAISS found no more.

        Raises:
            IndexMismatchError: the query is not D wide, the mask not N long, or this type takes no masks (see `takes_masks`).
            ValueError: k is less than 1, or the query is not finite or has no length.
        """
        return self.find(query, k, skip).nearest

    @property
    def efforts(self) -> tuple[int, ...]:
        """How hard a search may try, ascending: lists visited, or the length of the queue; (0,) where every vector is visited anyway."""
        if self._file.kind == "ivf":
            return tuple(dict.fromkeys(min(step * self._nprobe, int(self._file.core.nlist)) for step in _STEPS))
        return tuple(step * max(self._ef_search, _LEAST_QUEUE) for step in _STEPS) if self._file.kind == "hnsw" else (0,)

    def near_share(self, query: NDArray[np.float32], skip: NDArray[np.bool_], effort: int) -> float:
        """Return the part of the rows near `query` that is neither skipped nor unusable; 1 where every vector is visited anyway.

        Near are, with lists, the rows in those that `effort` visits, and in a graph the `effort` nearest found without a mask.
        Raises what `search` raises.
        """
        unit = unit_query(query, self.width)
        allowed = allowed_rows(self._embeddings, 1, skip)
        vector = self._transformed(unit)
        if self._lists is not None:
            ids = self._lists.ids_in(self._visited(vector, effort))
        elif self._file.kind == "hnsw":
            ids = self._labels(vector, min(effort, self.size), None, effort)
        else:
            return 1.0
        rows = ids if self._file.rows is None else self._file.rows[ids]
        return float(np.count_nonzero(allowed[rows])) / max(1, len(rows))

    def find(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_], effort: int | None = None) -> Found:
        """Return what `search` returns, searched with `effort` (default: the file's or the constructor's), and how settled it is.

        Raises what `search` raises.
        """
        unit = unit_query(query, self.width)
        allowed = allowed_rows(self._embeddings, k, skip)
        if not self.takes_masks:
            raise IndexMismatchError(f"A {self._file.name} cannot leave rows out while searching; search the embeddings instead.")
        if effort is None:
            effort = self._ef_search if self._file.kind == "hnsw" else self._nprobe
        count = int(np.count_nonzero(allowed))
        if count == 0:
            return Found(Neighbors(np.empty(0, np.int64), np.empty(0, np.float32), self._approximation(effort, 0)), 0)
        k = min(k, count)
        # quantised codes misplace near neighbours: fetch more, then let the true scores decide
        fetch = min(count, max(_OVERFETCH * k, k + _SPARE, _WATCHED))
        vector = self._transformed(unit)
        selector = selector_of(allowed if self._file.rows is None else allowed[self._file.rows])
        labels = self._labels(vector, fetch, selector, effort)
        late = self._late(vector, labels[:_WATCHED], selector, self._queue(effort, fetch))
        handed = labels if self._file.rows is None else self._file.rows[labels]
        candidates = np.unique(handed)
        candidates = candidates[allowed[candidates]]  # some FAISS types pass over a selector in silence
        best = best_first(candidates, cosines(self._embeddings, candidates, unit), self._ties, k)
        if len(handed) == fetch < count:  # else all that the effort reaches was scored
            late = max(late, _WATCHED * int(np.count_nonzero(~np.isin(best.rows, handed[: fetch // 2]))) // k)
        return Found(Neighbors(best.rows, best.scores, self._approximation(effort, fetch)), late)

    def _transformed(self, unit: NDArray[np.float64]) -> NDArray[np.float32]:
        vector = unit.astype(np.float32)[None]
        for transform in self._file.transforms:
            vector = transform.apply(vector)
        return vector

    def _labels(self, vector: NDArray[np.float32], fetch: int, selector: Any, effort: int) -> NDArray[np.int64]:
        """Return the ids FAISS finds, best first by its own scores."""
        _, labels = self._file.core.search(vector, fetch, params=self._parameters(selector, self._queue(effort, fetch)))
        return labels[0][labels[0] >= 0]  # FAISS pads with -1 when it finds fewer

    def _late(self, vector: NDArray[np.float32], best: NDArray[np.int64], selector: Any, effort: int) -> int:
        if self._lists is not None:
            if effort >= self._lists.count:
                return 0  # nothing was left out
            first_half = self._visited(vector, effort // 2)
            return int(np.count_nonzero(~np.isin(self._lists.list_of[best], first_half)))
        if self._file.kind != "hnsw":
            return 0
        _, labels = self._file.core.search(vector, _WATCHED, params=self._parameters(selector, effort // 2))
        return int(np.count_nonzero(~np.isin(best, labels[0])))

    def _visited(self, vector: NDArray[np.float32], effort: int) -> NDArray[np.int64]:
        """Return the lists a search for `vector` visits, nearest first."""
        _, lists = self._file.core.quantizer.search(vector, max(1, effort))
        return lists[0][lists[0] >= 0]

    def _parameters(self, selector: Any, effort: int) -> Any:
        faiss = faiss_library()
        if self._file.kind == "ivf":
            return faiss.SearchParametersIVF(sel=selector, nprobe=effort)
        if self._file.kind == "hnsw":
            # bounded_queue stays on: without it the selector is ignored
            return faiss.SearchParametersHNSW(sel=selector, efSearch=effort)
        return faiss.SearchParameters(sel=selector)

    def _queue(self, effort: int, fetch: int) -> int:
        return max(effort, fetch) if self._file.kind == "hnsw" else effort

    def _approximation(self, effort: int, fetch: int) -> str:
        if self._file.kind == "ivf":
            return f"ivf nprobe={effort}"
        return f"hnsw ef={self._queue(effort, fetch)}" if self._file.kind == "hnsw" else "flat"
