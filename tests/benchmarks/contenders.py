"""Other ways to answer the same call, each a class of a few lines: a query, k and a mask in, rows out, best first.

What depends on the mask is made inside the call, as it would be in a server: the mask is all that a filter leaves behind.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from ours import ours
from synthetic import Synthetic, zarr_file

from mcp_server.indexes.faiss_library import faiss_library

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]
Query = NDArray[np.float32]

_COPY = 65_536
OVERFETCH_UP_TO = 20_000


class Contender(Protocol):
    """Something that searches. `name` is its heading in the table."""

    name: str

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        ...


class Anchor:
    """A float32 product of all rows, then the mask, then argpartition: what one writes first. The unit of the table."""

    name = "numpy float32"

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows = rows

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        scores = self._rows @ query
        scores[skip] = -np.inf
        k = min(k, len(skip) - int(np.count_nonzero(skip)))
        if k == 0:
            return np.empty(0, np.int64)
        best = np.argpartition(scores, len(scores) - k)[len(scores) - k :]
        return best[np.argsort(-scores[best])]


class Ours:
    """The index a collection is served by."""

    name = "ours"

    def __init__(self, collection: Synthetic, folder: Path) -> None:
        self._index = ours(collection.rows, folder, heard=collection.world.asked_before())

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        return self._index.search(query, k, skip).rows


class Faiss:
    """A flat FAISS index with a bitmap made from the mask. FAISS answers one query on one core; with `threads`, each takes a part.

    A thread knows its part by its bitmap alone, so that all use one index; skipping a row costs some 3 ns.
    """

    def __init__(self, name: str, index: Any, threads: int) -> None:
        self.name = name if threads == 1 else f"{name}, {threads} threads"
        self.index = index
        self._threads = threads
        faiss = faiss_library()
        self._pool = ThreadPoolExecutor(threads, initializer=lambda: faiss.omp_set_num_threads(1)) if threads > 1 else None

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        bitmap = np.packbits(~skip, bitorder="little")
        if self._pool is None:
            faiss = faiss_library()
            threads = faiss.omp_get_max_threads()
            faiss.omp_set_num_threads(1)  # a second one would only wait for the first
            try:
                return self._among(bitmap, query, k)[1]
            finally:
                faiss.omp_set_num_threads(threads)
        borders = np.linspace(0, len(bitmap), self._threads + 1).astype(int)
        parts = [np.concatenate([np.zeros(start, np.uint8), bitmap[start:end]]) for start, end in pairwise(borders)]
        found = list(self._pool.map(lambda part: self._among(part, query, k), parts))
        scores, rows = (np.concatenate([part[side] for part in found]) for side in (0, 1))
        return rows[np.argsort(-scores)[:k]]

    def _among(self, bitmap: NDArray[np.uint8], query: Query, k: int) -> tuple[NDArray[np.float32], Rows]:
        faiss = faiss_library()
        parameters = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap))
        scores, rows = self.index.search(query[None], k, params=parameters)
        kept = rows[0] >= 0
        return scores[0][kept], rows[0][kept]


def flat_index(collection: Synthetic) -> Any:
    """Return an IndexFlatIP of the rows, in float32."""
    return _filled(faiss_library().IndexFlatIP(collection.rows.shape[1]), collection.rows)


def fp16_index(collection: Synthetic) -> Any:
    """Return an IndexScalarQuantizer of the rows as they are, in float16."""
    faiss = faiss_library()
    index = faiss.IndexScalarQuantizer(collection.rows.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    return _filled(index, collection.rows)


def float32_of(flat: Any) -> NDArray[np.float32]:
    """Return the rows that an IndexFlatIP holds, without a copy. They live as long as it does."""
    return faiss_library().rev_swig_ptr(flat.codes.data(), flat.codes.size()).view(np.float32).reshape(flat.ntotal, flat.d)


def _filled(index: Any, rows: NDArray[np.float16]) -> Any:
    index.is_trained = True
    code_size = index.code_size
    index.codes.resize(len(rows) * code_size)  # at once: growing by `add` would need twice the memory
    index.ntotal = len(rows)
    codes = faiss_library().rev_swig_ptr(index.codes.data(), len(rows) * code_size).reshape(len(rows), code_size)
    for start in range(0, len(rows), _COPY):
        block = rows[start : start + _COPY]
        codes[start : start + _COPY] = (block if code_size == rows.shape[1] * 2 else block.astype(np.float32)).view(np.uint8)
    return index


class Usearch:
    """usearch's HNSW in float16. It takes no filter: more is fetched than wanted, and more again, until enough are allowed."""

    name = "usearch HNSW"

    def __init__(self, collection: Synthetic, folder: Path) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=collection.rows.shape[1], metric="ip", dtype="f16", connectivity=16, expansion_add=128, expansion_search=200
        )
        file = folder / f"usearch-{collection.size}x{collection.rows.shape[1]}-seed{collection.world.seed}.index"
        if file.exists():
            self._index.load(str(file))
        else:
            self._index.add(np.arange(collection.size), np.asarray(collection.rows), threads=2)
            self._index.save(f"{file}.part")
            Path(f"{file}.part").rename(file)

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first; fewer than k where `OVERFETCH_UP_TO` was not enough."""
        allowed = len(skip) - int(np.count_nonzero(skip))
        most = min(len(skip), OVERFETCH_UP_TO)
        fetched = min(most, int(1.2 * k * len(skip) / max(allowed, 1)) + 1)
        while True:
            rows = self._index.search(query, fetched).keys.astype(np.int64)
            rows = rows[~skip[rows]][:k]
            if len(rows) >= min(k, allowed) or fetched >= most:
                return rows
            fetched = min(most, 2 * fetched)


class Hnswlib:
    """hnswlib with its filter, a function called for every node visited."""

    name = "hnswlib"

    def __init__(self, collection: Synthetic, folder: Path) -> None:
        import hnswlib

        size, width = collection.rows.shape
        self._index = hnswlib.Index(space="ip", dim=width)
        file = folder / f"hnswlib-{size}x{width}-seed{collection.world.seed}.index"
        if file.exists():
            self._index.load_index(str(file), max_elements=size)
        else:
            self._index.init_index(max_elements=size, M=16, ef_construction=128)
            for start in range(0, size, _COPY):
                self._index.add_items(collection.rows[start : start + _COPY].astype(np.float32), num_threads=2)
            self._index.save_index(f"{file}.part")
            Path(f"{file}.part").rename(file)
        self._index.set_ef(300)

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first; none where it finds fewer than k."""
        k = min(k, len(skip) - int(np.count_nonzero(skip)))
        if k == 0:
            return np.empty(0, np.int64)
        allowed = (~skip).tolist()  # a list answers the callback faster than an array
        try:
            rows, _ = self._index.knn_query(query, k=k, num_threads=1, filter=allowed.__getitem__)
        except RuntimeError:  # its way to say that it found fewer
            return np.empty(0, np.int64)
        return rows[0].astype(np.int64)


class Archive:
    """Reads and decodes the whole Zarr archive on every call, scores in float32, sorts everything."""

    name = "archive per query"

    def __init__(self, collection: Synthetic, folder: Path) -> None:
        self._file = zarr_file(collection, folder)

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        import zarr
        from zarr.storage import ZipStore

        with ZipStore(self._file, mode="r") as store:
            array: Any = zarr.open_array(store, mode="r")
            step = array.chunks[0]
            scores = np.concatenate([array[start : start + step].astype(np.float32) @ query for start in range(0, len(skip), step)])
        allowed = np.flatnonzero(~skip)
        return allowed[np.argsort(-scores[allowed])[:k]]
