"""Exact search against the plain float32 product over all rows, side by side in one run: read the ratios, not the milliseconds.

python tests/benchmarks/bench_indexes.py [--rows 100000] [--width 1152] [--k 100] [--rounds 9] [--threads 1]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_library import faiss_library

SHARES = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


def collection(rows: int, width: int) -> NDArray[np.float16]:
    """Unit vectors in clusters around a common mean, in float16."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((200, width), np.float32) + 1
    made = np.empty((rows, width), np.float16)
    for start in range(0, rows, 10_000):
        count = min(10_000, rows - start)
        block = centres[random.integers(0, 200, count)] + 0.7 * random.standard_normal((count, width), np.float32)
        made[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return made


def plain(rows: NDArray[np.float32], query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> NDArray[np.int64]:
    scores = rows @ query
    scores[skip] = -np.inf
    k = min(k, int(np.count_nonzero(~skip)))
    best = np.argpartition(scores, -k)[-k:]
    return best[np.argsort(-scores[best])]


def interleaved(rounds: int, *variants: Callable[[], object]) -> list[float]:
    """Median milliseconds of each, taken in turns so that a busy machine slows all alike."""
    spent: list[list[float]] = [[] for _ in variants]
    for _ in range(rounds):
        for times, variant in zip(spent, variants, strict=True):
            start = time.perf_counter()
            variant()
            times.append(1000 * (time.perf_counter() - start))
    return [median(times) for times in spent]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 100_000), ("width", 1152), ("k", 100), ("rounds", 9), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    faiss_library().omp_set_num_threads(chosen.threads)
    half = collection(chosen.rows, chosen.width)
    single = half.astype(np.float32)
    stored = {"f16": ExactIndex(Embeddings.from_rows(half)), "f32": ExactIndex(Embeddings.from_rows(single))}
    random = np.random.default_rng(1)
    query = random.standard_normal(chosen.width).astype(np.float32)
    query /= np.linalg.norm(query)
    print(f"{chosen.rows:,} x {chosen.width}, k={chosen.k}; times faster than the plain product, same rows required")
    print(f"{'skipped':>8} {'plain ms':>9} " + " ".join(f"{name + ' x':>8}" for name in stored))
    for share in SHARES:
        skip = random.random(chosen.rows) < share
        if skip.all():
            continue
        for index in stored.values():
            found, expected = index.search(query, chosen.k, skip).rows, plain(single, query, chosen.k, skip)
            assert len(np.intersect1d(found, expected)) >= 0.98 * len(expected)  # the plain product may swap near-equal rows at the end
        variants = [lambda index=index, skip=skip: index.search(query, chosen.k, skip) for index in stored.values()]
        anchor, *times = interleaved(chosen.rounds, lambda skip=skip: plain(single, query, chosen.k, skip), *variants)
        print(f"{share:8.2%} {anchor:9.2f} " + " ".join(f"{anchor / spent:8.2f}" for spent in times))


if __name__ == "__main__":
    main()
