"""Builds a FAISS index from a collection's embeddings, block by block, and says whether it is worth using."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, clipped
from mcp_server.indexes.approval import TARGET_RECALL
from mcp_server.indexes.faiss_index import EF_SEARCH, NPROBE
from mcp_server.indexes.faiss_library import faiss_library
from mcp_server.indexes.fingerprints import fingerprint_of, write_note
from mcp_server.indexes.measuring import QUERIES, Measured, measure
from mcp_server.indexes.zarr_files import ZarrArray, find_array, read_blocks
from mcp_server.side_files import SideFiles

logger = logging.getLogger(__name__)

IndexKind = Literal["flat", "sq8", "ivf", "ivf_sq8", "hnsw", "hnsw_sq8"]
INDEX_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
"""flat, sq8: scans. ivf: lists of neighbours. hnsw: a graph. With sq8 a number takes one byte instead of four."""

Progress = Callable[[str, int, int], None]
"""Called with the step ("sample", "train", "add", "write", "measure"), how much of it is done, and how much there is."""

HNSW_LINKS = 32
HNSW_EF_CONSTRUCTION = 200
_LISTS_PER_ROOT = 4
_SAMPLE_PER_LIST = 39
"""FAISS asks for so many training vectors a list."""
_SCALAR_SAMPLE = 20_000
_ITERATIONS = 10
_ADDED_AT_ONCE = 16_384
_ASIDE = ".building"
_LEFT_SECONDS = 3600


@dataclass(frozen=True)
class BuildOptions:
    """How to build; None stands for what suits the number of rows.

    Attributes:
        nlist: lists of an IVF index: 4 * sqrt(N), at most N / 39.
        nprobe: lists a search visits, kept in the file: 64, and the server visits no fewer.
        links: neighbours a node of an HNSW graph has.
        ef_construction: length of the queue while building an HNSW graph.
        ef_search: length of the queue while searching it, kept in the file: 128, and the server uses no shorter one.
        seed: of the training sample and of the queries that measure.
        queries: how many queries measure; 0 leaves measuring out.
        target_recall: the recall that servers ask of it; measuring tries harder until it is reached.
    """

    nlist: int | None = None
    nprobe: int | None = None
    links: int = HNSW_LINKS
    ef_construction: int = HNSW_EF_CONSTRUCTION
    ef_search: int | None = None
    seed: int = 0
    queries: int = QUERIES
    target_recall: float = TARGET_RECALL

    def __post_init__(self) -> None:
        """Raises ValueError for a number that makes no sense."""
        for name in ("nlist", "nprobe", "links", "ef_construction", "ef_search"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        if self.links < 2 or self.queries < 0:
            raise ValueError("links must be at least 2, and queries at least 0.")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be at least 0 and below 2**31; got {self.seed}.")


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        kind: as asked for.
        parameters: what was used, such as {"nlist": 400}.
        rows, width: N and D.
        unusable: rows that are not finite or have no length; they lie in the index as zeros and are never returned.
        bytes: size of the file.
        seconds: reading, training, adding and writing, without measuring.
        measured: how good and fast it is; None when it was not measured.
        suggestion: what to do with it, in a sentence or two.
    """

    kind: IndexKind
    file: Path
    parameters: dict[str, int]
    rows: int
    width: int
    unusable: int
    bytes: int
    seconds: float
    measured: Measured | None
    suggestion: str


def build_index(
    embeddings_file: Path,
    target: Path,
    kind: IndexKind,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    side: SideFiles | None = None,
) -> BuildReport:
    """Build an inner-product index of unit vectors whose ids are row positions, put it at `target`, and measure it.

    The file appears at once, complete and on disk, or not at all: whatever breaks off leaves the file that was there. A note beside it,
    `TARGET.json`, says what it was built from. In memory are the index, one block and the training sample (for IVF some 160 * sqrt(N)
    vectors); measuring needs what a server needs. The same embeddings and options give the same file, but for HNSW only with one thread
    (OMP_NUM_THREADS=1): several threads link some nodes in another order. `side` as in `check_index_file`.

    Raises:
        CollectionError: the embeddings are missing or damaged, hold nothing to index or are replaced meanwhile, or the file cannot be
            written.
        IndexMismatchError: the embeddings have another shape or type.
        ValueError: an unknown `kind`.
    """
    if kind not in INDEX_KINDS:
        raise ValueError(f"kind must be one of {', '.join(INDEX_KINDS)}; got {kind!r}.")
    options = options or BuildOptions()
    tell = progress or _say_nothing
    started = time.perf_counter()
    array = find_array(embeddings_file)
    fingerprint = fingerprint_of(embeddings_file)
    size, width = array.shape
    index, parameters = _untrained(kind, size, width, options)
    if not index.is_trained:
        sample = _sample(array, parameters.get("nlist", 0), options.seed, tell)
        tell("train", 0, len(sample))
        index.train(sample)
        tell("train", len(sample), len(sample))
        del sample
    unusable = 0
    for start, vectors, usable in _unit_blocks(array):
        for first in range(0, len(vectors), _ADDED_AT_ONCE):
            part = vectors[first : first + _ADDED_AT_ONCE]
            index.add(part)
            tell("add", start + first + len(part), size)
        unusable += len(usable) - int(np.count_nonzero(usable))
    if unusable == size:
        raise CollectionError(f"There is nothing to index: {embeddings_file} holds no usable vector.")
    if fingerprint_of(embeddings_file) != fingerprint:
        raise CollectionError(f"{embeddings_file} was replaced while the index was being built from it. Build the index again.")
    facts = {"type": kind, "rows": size, "width": width, **parameters, "seed": options.seed}
    tell("write", 0, 1)
    written = _put(index, target, fingerprint, facts)
    tell("write", 1, 1)
    del index
    seconds = time.perf_counter() - started
    logger.info("index.built type=%s rows=%d width=%d bytes=%d seconds=%.1f", kind, size, width, written, seconds)
    measured = None
    if options.queries:
        measured = measure(embeddings_file, target, options.target_recall, options.seed, options.queries, tell, side)
    suggestion = measured.suggestion if measured else "Not measured: check it with `clip-search-mcp index check`."
    return BuildReport(kind, target, parameters, size, width, unusable, written, round(seconds, 1), measured, suggestion)


def lists_for(rows: int) -> int:
    """Return how many lists suit an IVF index of `rows` vectors."""
    return max(1, min(int(_LISTS_PER_ROOT * sqrt(rows)), rows // _SAMPLE_PER_LIST))


def _untrained(kind: IndexKind, size: int, width: int, options: BuildOptions) -> tuple[Any, dict[str, int]]:
    """Return an empty index and the parameters it has."""
    faiss = faiss_library()
    metric, eight_bits = faiss.METRIC_INNER_PRODUCT, faiss.ScalarQuantizer.QT_8bit
    if kind in ("flat", "sq8"):
        return (faiss.IndexFlatIP(width) if kind == "flat" else faiss.IndexScalarQuantizer(width, eight_bits, metric)), {}
    if kind in ("ivf", "ivf_sq8"):
        lists = min(options.nlist or lists_for(size), max(1, size))
        quantizer = faiss.IndexFlatIP(width)
        index: Any = (
            faiss.IndexIVFFlat(quantizer, width, lists, metric)
            if kind == "ivf"
            else faiss.IndexIVFScalarQuantizer(quantizer, width, lists, eight_bits, metric)
        )
        index.cp.seed, index.cp.niter, index.cp.spherical = options.seed, _ITERATIONS, True
        index.cp.min_points_per_centroid = 1  # fewer vectors than FAISS likes are no news to anybody: it prints a warning
        index.cp.max_points_per_centroid = 2**30
        index.nprobe = min(options.nprobe or NPROBE, lists)
        return index, {"nlist": lists, "nprobe": int(index.nprobe)}
    index = faiss.IndexHNSWFlat(width, options.links, metric) if kind == "hnsw" else _hnsw_sq8(width, options.links)
    index.hnsw.efConstruction = options.ef_construction
    index.hnsw.efSearch = options.ef_search or EF_SEARCH
    return index, {"links": options.links, "ef_construction": options.ef_construction, "ef_search": int(index.hnsw.efSearch)}


def _hnsw_sq8(width: int, links: int) -> Any:
    faiss = faiss_library()
    return faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_8bit, links, faiss.METRIC_INNER_PRODUCT)


def _sample(array: ZarrArray, lists: int, seed: int, tell: Progress) -> NDArray[np.float32]:
    """Return usable unit vectors from everywhere in `array`, some 40 a list."""
    size = array.shape[0]
    count = min(size, max(_SCALAR_SAMPLE, (_SAMPLE_PER_LIST + 1) * lists))
    chosen = np.sort(np.random.default_rng(seed).choice(size, count, replace=False))
    parts: list[NDArray[np.float32]] = []
    for start, vectors, usable in _unit_blocks(array):
        here = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + len(vectors))] - start
        parts.append(vectors[here[usable[here]]])
        tell("sample", start + len(vectors), size)
    sample = np.concatenate(parts) if parts else np.empty((0, array.shape[1]), np.float32)
    if len(sample) < max(1, lists):
        raise CollectionError(
            f"There is too little to index: {array.path} has {len(sample)} usable vectors to train {max(1, lists)} lists."
        )
    return sample


def _unit_blocks(array: ZarrArray) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield (first row, unit vectors, which of them are usable); the others are zeros."""
    for start, block in read_blocks(array):
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = block.astype(np.float32)
            lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        usable = np.isfinite(lengths) & (lengths > 0)
        vectors[~usable] = 0
        vectors /= np.where(usable, lengths, 1)[:, None].astype(np.float32)
        yield start, vectors, usable


def _put(index: Any, target: Path, fingerprint: str, facts: dict[str, Any]) -> int:
    """Write `index` aside, then rename it to `target`; return its size in bytes."""
    temporary = target.with_name(f"{target.name}.{os.getpid()}{_ASIDE}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(target)
        try:
            faiss_library().write_index(index, str(temporary))
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            size = temporary.stat().st_size
            temporary.replace(target)  # until the new note is there the old one makes it count as out of date, which is safe
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        write_note(target, fingerprint, facts)
    except (OSError, RuntimeError) as error:  # RuntimeError: what FAISS raises when it cannot write
        reason = clipped(error.strerror if isinstance(error, OSError) else error, 120)
        raise CollectionError(f"The index {target} cannot be written ({reason}). Check the folder and the room on the disk.") from error
    return size


def _remove_leftovers(target: Path) -> None:
    """Remove what builds that were killed left behind; one under way writes to its file all the time."""
    for file in target.parent.iterdir():
        if file.name.startswith(target.name) and file.name.endswith(_ASIDE) and file.stat().st_mtime < time.time() - _LEFT_SECONDS:
            file.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _say_nothing(_step: str, _done: int, _total: int) -> None:
    return
