"""An index read from a FAISS file: fast, approximate, and candid about it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.faiss_file import open_faiss
from mcp_server.indexes.faiss_library import faiss_library, selector_of
from mcp_server.indexes.scoring import allowed_rows, best_first, checked_tie_keys, cosines, unit_query

logger = logging.getLogger(__name__)

NPROBE = 64
"""Inverted lists visited per query, unless the file asks for more."""
EF_SEARCH = 128
"""Length of the HNSW queue, unless the file asks for more, or four times the rows asked for is more."""
_OVERFETCH = 4
_SPARE = 64


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
                f"The FAISS index is a {self._file.name}, which cannot leave rows out while searching; every search is answered exactly "
                "from the embeddings instead. Use an IVF or HNSW index without FastScan, or set IndexType = zarr."
            ]
        if not self.is_faster_than_scan:
            return [f"The FAISS index is a {self._file.name}, no faster than the embeddings themselves; IndexType = zarr saves its memory."]
        return []

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return up to min(k, rows allowed) rows not in `skip`, best first, with exact scores; fewer when FAISS found no more.

        Raises:
            IndexMismatchError: the query is not D wide, the mask not N long, or this type takes no masks (see `takes_masks`).
            ValueError: k is less than 1, or the query is not finite or has no length.
        """
        unit = unit_query(query, self.width)
        allowed = allowed_rows(self._embeddings, k, skip)
        if not self.takes_masks:
            raise IndexMismatchError(f"A {self._file.name} cannot leave rows out while searching; search the embeddings instead.")
        count = int(np.count_nonzero(allowed))
        if count == 0:
            return Neighbors(np.empty(0, np.int64), np.empty(0, np.float32), self._approximation(0))
        k = min(k, count)
        # quantised codes misplace near neighbours: fetch more, then let the true scores decide
        fetch = min(count, max(_OVERFETCH * k, k + _SPARE))
        candidates = self._candidates(unit, fetch, allowed)
        best = best_first(candidates, cosines(self._embeddings, candidates, unit), self._ties, k)
        return Neighbors(best.rows, best.scores, self._approximation(fetch))

    def _candidates(self, unit: NDArray[np.float64], fetch: int, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        rows = self._file.rows
        vector = unit.astype(np.float32)[None]
        for transform in self._file.transforms:
            vector = transform.apply(vector)
        selector = selector_of(allowed if rows is None else allowed[rows])
        _, labels = self._file.core.search(vector, fetch, params=self._parameters(selector, fetch))
        found: NDArray[np.int64] = labels[0][labels[0] >= 0]  # FAISS pads with -1 when it finds fewer
        found = np.unique(found if rows is None else rows[found])
        return found[allowed[found]]  # some FAISS types pass over a selector in silence

    def _parameters(self, selector: Any, fetch: int) -> Any:
        faiss = faiss_library()
        if self._file.kind == "ivf":
            return faiss.SearchParametersIVF(sel=selector, nprobe=self._nprobe)
        if self._file.kind == "hnsw":
            # bounded_queue stays on: without it the selector is ignored
            return faiss.SearchParametersHNSW(sel=selector, efSearch=self._queue(fetch))
        return faiss.SearchParameters(sel=selector)

    def _queue(self, fetch: int) -> int:
        return max(self._ef_search, fetch)

    def _approximation(self, fetch: int) -> str:
        if self._file.kind == "ivf":
            return f"ivf nprobe={self._nprobe}"
        return f"hnsw ef={self._queue(fetch)}" if self._file.kind == "hnsw" else "flat"
