"""Runs queries through a FAISS index and the exact one, and notes how much is found, and how fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.approval import FEW, MANY, Approval, Trial
from mcp_server.indexes.base import Index
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.faiss_index import FaissIndex

QUERIES = 200
SHARES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Parts of the rows that a random filter lets through."""
_NEAR_NOISE, _FAR_NOISE = 0.3, 2.0
"""Length of the noise added to a unit row. Near queries are like pictures; far ones spread their answers over as many lists as texts do,
which lie away from all pictures."""

Told = Callable[[int, int], None]
"""Called with how many searches are done, and how many there are at most."""
Clock = Callable[[], float]
"""Seconds, from whenever."""


@dataclass
class _Run:
    """What one effort found at one share."""

    few: list[float] = field(default_factory=list[float])
    many: list[float] = field(default_factory=list[float])
    milliseconds: list[float] = field(default_factory=list[float])
    kept: int = 0


def measured_approval(
    embeddings: Embeddings,
    index: FaissIndex,
    exact: Index,
    target: float,
    seed: int = 0,
    queries: int = QUERIES,
    shares: tuple[float, ...] = SHARES,
    told: Told | None = None,
    clock: Clock = time.perf_counter,
) -> Approval:
    """Measure `index` at each of `shares`, with ever more effort until `target` is reached or it is no faster than `exact`.

    Half of the `queries`, at least 2, are near the rows, half far; recall is that of the half that fares worse. The same seed gives the
    same recall. `told` may raise to break off.

    Raises:
        IndexMismatchError: `index` takes no masks.
    """
    random = np.random.default_rng(seed)
    near, far = _queries(embeddings, random, queries - queries // 2, _NEAR_NOISE), _queries(embeddings, random, queries // 2, _FAR_NOISE)
    vectors = np.concatenate([near, far])
    limit = Approval(target, "", ()).late_limit
    trials: list[Trial] = []
    total = len(shares) * len(index.efforts) * len(vectors)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if told is not None:
            told(done, total)

    for number, share in enumerate(shares):
        skip = embeddings.unusable | (random.random(embeddings.size) >= share)
        done = number * len(index.efforts) * len(vectors)
        if not skip.all():
            trials.extend(_ladder(index, exact, vectors, len(near), skip, share, target, limit, step, clock))
    if told is not None:
        told(total, total)
    cosines = " and ".join(f"{1 / np.sqrt(1 + noise**2):.2f}" for noise in (_NEAR_NOISE, _FAR_NOISE))
    words = f"{len(vectors)} sampled rows with noise added, at a cosine of about {cosines} to the row; seed {seed}"
    return Approval(target, words, tuple(trials))


def _queries(embeddings: Embeddings, random: np.random.Generator, count: int, noise: float) -> NDArray[np.float32]:
    usable = np.flatnonzero(~embeddings.unusable)
    rows = embeddings.rows[np.sort(random.choice(usable, count, replace=count > len(usable)))].astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows += noise * random.standard_normal(rows.shape) / np.sqrt(embeddings.width)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _ladder(
    index: FaissIndex,
    exact: Index,
    vectors: NDArray[np.float32],
    near: int,
    skip: NDArray[np.bool_],
    share: float,
    target: float,
    limit: int,
    step: Callable[[], None],
    clock: Clock,
) -> list[Trial]:
    truths: list[NDArray[np.float32]] = []
    exact_ms: list[float] = []
    trials: list[Trial] = []
    for effort in index.efforts:
        run = _Run()
        for number, vector in enumerate(vectors):
            if number == len(truths):
                started = clock()
                truths.append(exact.search(vector, MANY, skip).scores)
                exact_ms.append(1000 * (clock() - started))
            started = clock()
            index.near_share(vector, skip, effort)
            found = index.find(vector, MANY, skip, effort)
            run.milliseconds.append(1000 * (clock() - started))
            run.kept += len(found.nearest.rows) == len(truths[number]) and found.late <= limit
            run.many.append(_recall(found.nearest.scores, truths[number]))
            run.few.append(_recall(index.find(vector, FEW, skip, effort).nearest.scores, truths[number][:FEW]))
            step()
        trial = Trial(
            share=share,
            allowed=len(skip) - int(np.count_nonzero(skip)),
            effort=effort,
            recall_at_10=_worse(run.few, near),
            recall_at_100=_worse(run.many, near),
            kept=round(run.kept / len(vectors), 4),
            faiss_ms=round(float(np.median(run.milliseconds)), 3),
            exact_ms=round(float(np.median(exact_ms)), 3),
        )
        trials.append(trial)
        if (trial.recall_at_100 >= target and trial.is_faster) or trial.faiss_ms >= trial.exact_ms:
            break
    return trials


def _worse(recalls: list[float], near: int) -> float:
    return round(min(float(np.mean(part)) for part in (recalls[:near], recalls[near:]) if part), 4)


def _recall(found: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Return which part of the best is found; both score lists are exact, so a row as good as the last of them is one of them."""
    return min(int(np.count_nonzero(found >= truth[-1])), len(truth)) / len(truth)
