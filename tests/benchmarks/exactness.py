"""Proof by trial: every answer of our index equals a float64 brute force, id by id. Exits with 1 on any difference.

python tests/benchmarks/exactness.py [--rows 1000000] [--queries 25] [--masks 20] [--data FOLDER] [--only small|large]

Large: `--queries` x `--masks` random cases over one made-up collection (see synthetic.py): shares skipped from 0 to 100 %, filters random,
contiguous, aligned with the query and hostile to it, n from 1 to 100, texts, stored rows and their opposites as queries; several searches
at once.
Small: sizes around the borders of blocks, rows of nine kinds (copies of a few, one bit apart, not of unit length, not finite, ...), by the
way that the planner takes and by any other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from oracle import Oracle
from ours import ours
from synthetic import SHAPES, Synthetic, World, add_options, synthetic

from mcp_server.domain.search import Neighbors
from mcp_server.indexes.planner import Way

SMALL_SIZES = (1, 2, 63, 64, 65, 511, 512, 513, 4095, 4096, 4097)
LARGEST_N = 100
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass
class Tally:
    """How many answers were compared, and what was wrong with the others."""

    cases: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    rows: int = 0
    worst: float = 0.0

    def compare(self, kind: str, found: Neighbors, oracle: Oracle, query: int, n: int, skip: NDArray[np.bool_]) -> None:
        """Keep the difference between `found` and what the oracle answers."""
        expected = oracle.answer(query, n, skip)
        self.cases[kind] += 1
        self.rows += len(expected.rows)
        if not np.array_equal(expected.rows, found.rows):
            length = min(len(expected.rows), len(found.rows))
            at = int(np.argmin(np.append(expected.rows[:length] == found.rows[:length], False)))
            self.wrong.append(
                f"{kind}: n={n} skipped={np.count_nonzero(skip):,} of {len(skip):,}: {len(found.rows)} rows for {len(expected.rows)}, "
                f"first difference at {at}: {found.rows[at : at + 3]} {found.scores[at : at + 3]}, "
                f"expected {expected.rows[at : at + 3]} {expected.scores[at : at + 3]}"
            )
        elif len(found.rows):
            self.worst = max(self.worst, float(np.abs(found.scores - expected.scores).max()))
        if found.approximation is not None:
            self.wrong.append(f"{kind}: calls itself approximate: {found.approximation}")


def share_skipped(random: np.random.Generator) -> float:
    """Return a share, half of the time near 0 or 1, where the borders of a planner are."""
    kind = random.integers(0, 6)
    if kind == 0:
        return float(random.choice([0.0, 1.0]))
    if kind in (1, 2):
        return 1 - 10 ** -float(random.uniform(1, 6))
    return 10 ** -float(random.uniform(1, 6)) if kind == 3 else float(random.random())


def queries_of(collection: Synthetic, count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return (count, D): texts, and of every five one stored row and one opposite of a row."""
    queries = collection.world.queries(count)
    for at in range(count):
        if at % 5 >= 3:
            row = collection.rows[random.integers(collection.size)].astype(np.float32)
            queries[at] = (1 if at % 5 == 3 else -1) * row / np.linalg.norm(row)
    return queries


def large(collection: Synthetic, queries: int, masks: int, threads: int, seed: int, tally: Tally) -> None:
    """Compare `queries` x `masks` random cases; ties go to random keys, as media ids in another order than the rows."""
    random = np.random.default_rng([seed, 7])
    ties = random.permutation(collection.size)
    vectors = queries_of(collection, queries, random)
    started = time.perf_counter()
    oracle = Oracle.of(collection.rows, vectors, ties)
    print(f"{queries} queries scored in float64, {time.perf_counter() - started:.1f} s", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(threads) as pool:
        index = ours(collection.rows, Path(folder), ties, collection.world.asked_before())
        for query, vector in enumerate(vectors):
            shapes = [SHAPES[number % len(SHAPES)] for number in range(masks)]
            skips = [collection.skip(shape, share_skipped(random), vector, random) for shape in shapes]
            most = [int(n) for n in random.integers(1, LARGEST_N + 1, masks)]
            found = list(pool.map(index.search, [vector] * masks, most, skips))
            for shape, near, n, skip in zip(shapes, found, most, skips, strict=True):
                tally.compare(shape, near, oracle, query, n, skip)
        del index


def small_rows(size: int, width: int, random: np.random.Generator) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield collections of `size` rows that are hard to rank or to store in few bits."""
    world = World.of(int(random.integers(1000)), width)
    plain = world.chunk(0)[0][:size]
    yield "clustered", plain
    yield "copies of seven rows", plain[random.integers(0, min(7, size), size)]
    yield "all rows equal", np.repeat(plain[:1], size, axis=0)
    bits = np.repeat(plain[:1], size, axis=0).view(np.uint16)
    bits[np.arange(size), random.integers(0, width, size)] ^= 1
    yield "one bit apart", bits.view(np.float16)
    yield "float32", random.standard_normal((size, width)).astype(np.float32)
    yield "lengths 0.01 to 100", (plain.astype(np.float32) * 10 ** random.uniform(-2, 2, (size, 1))).astype(np.float32)
    axes = np.zeros((size, width), np.float16)
    axes[np.arange(size), random.integers(0, width, size)] = random.choice([-1, 1], size)
    yield "axes", axes
    yield "signs", (random.choice([-1, 1], (size, width)) / 8).astype(np.float16)
    broken = plain.copy()
    broken[random.random(size) < 0.3] = 0
    broken[random.random(size) < 0.1, 0] = np.nan
    broken[random.random(size) < 0.1, -1] = np.inf
    yield "a third unusable", broken


def small_masks(size: int, random: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """Yield masks: nothing, all, one survivor, one skipped, halves, and random ones."""
    yield np.zeros(size, np.bool_)
    yield np.ones(size, np.bool_)
    one = np.ones(size, np.bool_)
    one[random.integers(size)] = False
    yield one
    yield ~one
    yield np.arange(size) < size // 2
    yield np.arange(size) % 2 == 0
    for share in (0.3, 0.9, 0.99):
        yield random.random(size) < share


def alike(width: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Return (20, D) unit vectors that have much in common."""
    vectors = random.standard_normal(width) + random.standard_normal((20, width)) / 2
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def small(seed: int, tally: Tally) -> None:
    """Compare every size with every kind of rows and every mask, for n of 1, 10, 100 and one more than there are rows."""
    random = np.random.default_rng([seed, 8])
    for size in SMALL_SIZES:
        for width in (8, 37, 1152) if size < 4000 else (37, 256):
            for kind, rows in small_rows(size, width, random):
                usable = np.flatnonzero(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
                vectors = random.standard_normal((2, width)).astype(np.float32)
                if len(usable):
                    vectors[1] = rows[random.choice(usable)]
                vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
                ties = random.permutation(size) if size % 2 else None
                oracle = Oracle.of(rows, vectors, ties)
                with tempfile.TemporaryDirectory() as folder:
                    index = ours(rows, Path(folder), ties, alike(width, random) if size % 3 else None)
                    for skip in small_masks(size, random):
                        for query, n in ((0, 1), (1, 10), (0, 100), (1, size + 1)):
                            tally.compare(kind, index.search(vectors[query], n, skip), oracle, query, n, skip)
                            way = WAYS[random.integers(len(WAYS))]
                            tally.compare(way, index.search_by(way, vectors[query], n, skip), oracle, query, n, skip)
                    del index


def main() -> int:
    """Run, print counts, return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--queries", type=int, default=25)
    parser.add_argument("--masks", type=int, default=20, help="cases a query")
    parser.add_argument("--threads", type=int, default=4, help="searches of the large collection at once")
    parser.add_argument("--only", choices=("small", "large"))
    options = parser.parse_args()
    wrong = 0
    for name in ("small", "large"):
        if options.only not in (None, name):
            continue
        tally = Tally()
        started = time.perf_counter()
        if name == "small":
            small(options.seed, tally)
        else:
            collection = synthetic(options.rows, options.width, options.seed, options.data)
            print(f"{collection.size:,} x {options.width}")
            large(collection, options.queries, options.masks, options.threads, options.seed, tally)
        for kind, count in tally.cases.items():
            print(f"  {kind}: {count:,} cases")
        print(
            f"{name}: {tally.cases.total():,} cases, {tally.rows:,} ids compared, {len(tally.wrong)} differences; "
            f"largest difference of a score {tally.worst:.1e}; {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        for line in tally.wrong[:20]:
            print(f"  {line}")
        wrong += len(tally.wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
