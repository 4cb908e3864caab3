"""Holds a FAISS file against the exact answer: how much it finds, how fast, and whether that is worth it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError
from mcp_server.indexes.embeddings import Embeddings, load_embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.fingerprints import fingerprint_of, noted
from mcp_server.indexes.hybrid import EXACT_BELOW, SMALLEST_SHARE, HybridIndex
from mcp_server.indexes.opening import check_index

QUERIES = 200
SHARES = (1.0, 0.5, 0.1, 0.01)
"""Parts of the rows that a random filter lets through."""
GOOD_RECALL = 0.95
_NOISE = 0.3
_TIMED = 50
_FEW, _MANY = 10, 100

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Trial:
    """One run of all queries.

    Attributes:
        share: part of the rows a random filter lets through; 1.0 is no filter.
        allowed: how many rows that is.
        recall_at_10, recall_at_100: mean part of the true nearest 10 and 100 that is found; rows that score the same count alike.
        faiss_ms, exact_ms: median milliseconds a query for the best 10, measured one after the other in one process.
        served_exactly: such a search never reaches the FAISS index: too few rows are allowed, or too small a share of them.
    """

    share: float
    allowed: int
    recall_at_10: float
    recall_at_100: float
    faiss_ms: float
    exact_ms: float
    served_exactly: bool


@dataclass(frozen=True)
class Measured:
    """How good and fast a FAISS file is.

    Attributes:
        queries: what was asked, in words.
        trials: without a filter first, then with ever stricter ones.
        suggestion: what to do with the file, in a sentence or two.
    """

    queries: str
    trials: tuple[Trial, ...]
    suggestion: str


@dataclass(frozen=True)
class IndexCheck:
    """What `check_index_file` found.

    Attributes:
        type: FAISS's name of the innermost index; "" when it cannot be read.
        rows, width: of the embeddings.
        metric: "inner product", or "L2" on unit vectors; "" when it cannot be read.
        seconds_behind: how much older the FAISS file is than the embeddings; 0 or less when it is newer.
        of_these_embeddings: whether its note names these embeddings; None when it has none, as files of other makers.
        problem: why a server does not use it; None when it does.
        findings: what else is worth telling.
        measured: None when there is a problem or no queries were asked for.
    """

    file: Path
    type: str
    rows: int
    width: int
    metric: str
    seconds_behind: float
    of_these_embeddings: bool | None
    problem: str | None
    findings: tuple[str, ...]
    measured: Measured | None


def check_index_file(
    embeddings_file: Path, faiss_file: Path, seed: int = 0, queries: int = QUERIES, tell: Tell | None = None
) -> IndexCheck:
    """Hold `faiss_file` against the embeddings it should hold: rows, width, metric, ids, a sample found again, and recall.

    The same files and seed give the same findings and recall. Needs the memory a server needs.

    Raises:
        CollectionError: the embeddings are missing or damaged, or there is no `faiss_file`.
    """
    embeddings = load_embeddings(embeddings_file)
    if not faiss_file.is_file():
        raise CollectionError(f"There is no FAISS index {faiss_file}. Build one with `clip-search-mcp index build`.")
    behind = embeddings_file.stat().st_mtime - faiss_file.stat().st_mtime
    fingerprint = noted(faiss_file)
    is_of_these = None if fingerprint is None else fingerprint == fingerprint_of(embeddings_file)
    try:
        index = FaissIndex(faiss_file, embeddings)
    except CollectionError as error:
        return IndexCheck(faiss_file, "", embeddings.size, embeddings.width, "", behind, is_of_these, str(error), (), None)
    exact = ExactIndex(embeddings)
    problem = (
        None
        if is_of_these is not False
        else "It was built from another version of the embeddings. Run `clip-search-mcp index build` again."
    )
    measured = None
    if queries and index.takes_masks and problem is None and not embeddings.unusable.all():
        measured = _measured(embeddings, index, exact, seed, queries, tell)
    return IndexCheck(
        faiss_file,
        index.type_name,
        embeddings.size,
        embeddings.width,
        index.metric,
        round(behind, 1),
        is_of_these,
        problem,
        tuple(check_index(HybridIndex(exact, index), embeddings)),
        measured,
    )


def measure(embeddings_file: Path, faiss_file: Path, seed: int, queries: int, tell: Tell) -> Measured:
    """Run `queries` searches, at least 1, through the FAISS index as the server does and exactly, on the same masks.

    Raises:
        CollectionError: a file is missing or damaged, or they do not fit.
    """
    embeddings = load_embeddings(embeddings_file)
    return _measured(embeddings, FaissIndex(faiss_file, embeddings), ExactIndex(embeddings), seed, queries, tell)


def _measured(embeddings: Embeddings, index: FaissIndex, exact: ExactIndex, seed: int, queries: int, tell: Tell | None) -> Measured:
    random = np.random.default_rng(seed)
    vectors = _queries(embeddings, random, queries)
    trials: list[Trial] = []
    for number, share in enumerate(SHARES):
        skip = embeddings.unusable | (random.random(embeddings.size) >= share)
        if skip.all():
            continue

        def told(done: int, before: int = number * queries) -> None:
            if tell is not None:
                tell("measure", before + done, len(SHARES) * queries)

        trials.append(_trial(index, exact, vectors, skip, share, told))
    told_apart = f"{queries} sampled rows with noise added, at a cosine of about {1 / np.sqrt(1 + _NOISE**2):.2f} to the row; seed {seed}"
    return Measured(told_apart, tuple(trials), _suggestion(trials[0], embeddings.size, index.type_name))


def _queries(embeddings: Embeddings, random: np.random.Generator, count: int) -> NDArray[np.float32]:
    usable = np.flatnonzero(~embeddings.unusable)
    rows = embeddings.rows[np.sort(random.choice(usable, count, replace=count > len(usable)))].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows += _NOISE * random.standard_normal(rows.shape) / np.sqrt(embeddings.width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _trial(
    index: FaissIndex, exact: ExactIndex, vectors: NDArray[np.float32], skip: NDArray[np.bool_], share: float, told: Callable[[int], None]
) -> Trial:
    few: list[float] = []
    many: list[float] = []
    faiss_ms: list[float] = []
    exact_ms: list[float] = []
    for done, vector in enumerate(vectors, 1):
        started = time.perf_counter()
        found = index.search(vector, _FEW, skip)
        faiss_ms.append(1000 * (time.perf_counter() - started))
        if done <= _TIMED:
            started = time.perf_counter()
            exact.search(vector, _FEW, skip)
            exact_ms.append(1000 * (time.perf_counter() - started))
        truth = exact.search(vector, _MANY, skip).scores
        few.append(_recall(found.scores, truth[:_FEW]))
        many.append(_recall(index.search(vector, _MANY, skip).scores, truth))
        told(done)
    allowed = len(skip) - int(np.count_nonzero(skip))
    return Trial(
        share,
        allowed,
        round(float(np.mean(few)), 4),
        round(float(np.mean(many)), 4),
        round(float(np.median(faiss_ms)), 3),
        round(float(np.median(exact_ms)), 3),
        not index.is_faster_than_scan or allowed <= EXACT_BELOW or allowed < SMALLEST_SHARE * len(skip),
    )


def _recall(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Return which part of the best is found; both score lists are exact, so a row as good as the last of them is one of them."""
    return min(int(np.count_nonzero(found >= truth[-1])), len(truth)) / len(truth)


def _suggestion(plain: Trial, size: int, type_name: str) -> str:
    if size <= EXACT_BELOW:
        return f"Keep IndexType = zarr: up to {EXACT_BELOW:,} items every search is answered exactly anyway."
    if plain.recall_at_10 < GOOD_RECALL:
        return (
            f"Keep IndexType = zarr: this {type_name} finds {plain.recall_at_10:.0%} of the ten nearest. "
            "More probes, a longer queue or another type may find more."
        )
    if plain.exact_ms <= plain.faiss_ms:
        return f"Keep IndexType = zarr: the exact search takes {plain.exact_ms:.1f} ms, this {type_name} {plain.faiss_ms:.1f} ms."
    return (
        f"Worth using: {plain.exact_ms / plain.faiss_ms:.1f} times as fast as the exact search and {plain.recall_at_10:.1%} of the ten "
        "nearest. Set IndexType = faiss and CLIPIndexFile to this file."
    )
