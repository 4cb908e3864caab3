"""Our index beside other ways to answer the same call, in turns in one process: how many times faster than plain numpy, and how complete.

python tests/benchmarks/bench_search.py [--sizes 20000 100000 1000000] [--rounds 5] [--plot FILE.svg] [--json FILE] [--data FOLDER]

Needs the optional packages of `pip install -e '.[bench]'` for usearch, hnswlib and the plot; without them these are left out,
and a sentence says so. At a million rows of 1,152 it needs some 12 GB of memory.

In every round each contender in turn gets the same few calls (--calls), each with a query and a mask of its own, while the others rest.
A cell says how many times faster than the anchor the median call was, in brackets the same of the fastest calls, which a busy machine
disturbs less; then the recall against a float64 brute force where it is not 1. The bandwidth and the concurrency follow the tables.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from contenders import Anchor, Archive, Contender, Faiss, Hnswlib, Ours, Usearch, flat_index, float32_of, fp16_index
from numpy.typing import NDArray
from oracle import Oracle
from synthetic import SHAPES, Shape, Synthetic, default_folder, synthetic

SHARES = (0.0, 0.5, 0.9, 0.99, 0.999)
REST = 0.1
"""Seconds between two contenders, so that the threads of the one do not spin into the time of the next."""
CALLERS = 8


@dataclass
class Spent:
    """What one contender needed for one kind of call."""

    ms: list[float] = field(default_factory=list[float])
    recalls: list[float] = field(default_factory=list[float])


@dataclass
class Case:
    """One line of the table: all contenders at the same calls."""

    size: int
    shape: str
    share: float
    n: int
    spent: dict[str, Spent] = field(default_factory=dict[str, Spent])

    def ratio(self, name: str, anchor: str = Anchor.name) -> tuple[float, float]:
        """Return how many times faster than the anchor `name` was, by medians and by the fastest calls."""
        unit, own = self.spent[anchor].ms, self.spent[name].ms
        return median(unit) / median(own), min(unit) / min(own)


@dataclass(frozen=True)
class Call:
    """A query, by its number, and the mask it comes with."""

    query: int
    skip: NDArray[np.bool_]


def cases_of(sizes_n: list[int], shapes: list[Shape]) -> Iterator[tuple[Shape, float, int]]:
    """Yield (shape, share, n): every shape with the first n, random filters alone with the others; without a filter, no shape."""
    for number, n in enumerate(sizes_n):
        yield "random", 0.0, n
        for shape in shapes if number == 0 else shapes[:1]:
            for share in SHARES[1:]:
                yield shape, share, n


def run_case(case: Case, contenders: list[Contender], oracle: Oracle, queries: NDArray[np.float32], calls: list[list[Call]]) -> None:
    """Let every contender answer `calls`, a list for each round, in an order that moves on with the rounds; slow ones answer one round."""
    for number, turn in enumerate(calls):
        truths = [oracle.answer(call.query, case.n, call.skip).rows for call in turn]
        for at in range(len(contenders)):
            contender = contenders[(at + number) % len(contenders)]
            if isinstance(contender, Archive):
                if number:
                    continue
                turn_now = turn[:1]
            else:
                turn_now = turn
            spent = case.spent.setdefault(contender.name, Spent())
            time.sleep(REST)
            for call, truth in zip(turn_now, truths, strict=False):
                started = time.perf_counter()
                found = contender.search(queries[call.query], case.n, call.skip)
                spent.ms.append(1000 * (time.perf_counter() - started))
                spent.recalls.append(len(np.intersect1d(found, truth)) / max(1, len(truth)))


def make_contenders(collection: Synthetic, options: argparse.Namespace, place: Path) -> list[Contender]:
    """Return all that take part at this size, the anchor first, ours last."""
    flat, half = flat_index(collection), fp16_index(collection)
    contenders: list[Contender] = [Anchor(float32_of(flat))]
    for threads in options.faiss_threads:
        contenders += [Faiss("FAISS Flat", flat, threads), Faiss("FAISS SQ fp16", half, threads)]
    if collection.size <= options.hnsw_up_to:
        contenders += [kind(collection, options.data) for kind in (Usearch, Hnswlib) if _has(kind.__name__.lower())]
    if not options.no_archive:
        contenders.append(Archive(collection, options.data))
    return [*contenders, Ours(collection, place)]


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def read_limit(megabytes: int) -> tuple[float, float]:
    """Return GB/s, median and best, at which two threads read memory: the largest of bytes, the cheapest that numpy does to them."""
    block = np.ones(megabytes << 20, np.uint8)
    halves = np.array_split(block, 2)
    speeds: list[float] = []
    with ThreadPoolExecutor(2) as pool:
        for _ in range(9):
            started = time.perf_counter()
            list(pool.map(np.maximum.reduce, halves))
            speeds.append(block.nbytes / (time.perf_counter() - started) / 1e9)
    return median(speeds), max(speeds)


def bandwidth(collection: Synthetic, contender: Contender, queries: NDArray[np.float32], rounds: int) -> str:
    """Return a sentence: how fast our unfiltered call goes through one byte a number, and what share of the read limit that is."""
    skip = np.zeros(collection.size, np.bool_)
    touched = collection.rows.size
    ms: list[float] = []
    limits: list[tuple[float, float]] = []
    for number in range(max(rounds, 3)):
        limits.append(read_limit(touched >> 20 or 1))
        contender.search(queries[number % len(queries)], 100, skip)
        for at in range(3):
            started = time.perf_counter()
            contender.search(queries[(number + at) % len(queries)], 100, skip)
            ms.append(1000 * (time.perf_counter() - started))
    limit, best = median(one for one, _ in limits), max(one for _, one in limits)
    speed, fastest = touched / median(ms) / 1e6, touched / min(ms) / 1e6
    return (
        f"N = {collection.size:,}, nothing skipped, whole call: {touched / 1e6:,.0f} MB of one byte a number in {median(ms):.1f} ms "
        f"(fastest {min(ms):.1f}), {speed:.1f} GB/s (best {fastest:.1f}); two threads read memory at {limit:.1f} GB/s (best {best:.1f}): "
        f"a share of {speed / limit:.2f} (best to best {fastest / best:.2f})"
    )


def concurrency(collection: Synthetic, contender: Contender, queries: NDArray[np.float32], share: float, seconds: float) -> str:
    """Return a sentence: what 8 callers at once get done against one, and how evenly."""
    random = np.random.default_rng(11)
    skips = [collection.skip("random", share, queries[0], random) for _ in range(CALLERS)]
    alone, together = 0.0, 0.0
    latencies: list[float] = []
    counts: list[int] = []
    for _ in range(2):
        mine = _callers(contender, queries, skips, seconds, callers=1)
        alone += sum(map(len, mine)) / seconds
        all_of_them = _callers(contender, queries, skips, seconds)
        together += sum(map(len, all_of_them)) / seconds
        latencies += [one for caller in all_of_them for one in caller]
        counts += [len(caller) for caller in all_of_them]
    slowest, middle = max(latencies), median(latencies)
    return (
        f"N = {collection.size:,}, {share:.1%} skipped: {CALLERS} callers get {together / alone:.2f} times the answers of one "
        f"({alone / 2:.1f} a second); slowest call {slowest * 1000:.1f} ms, median {middle * 1000:.1f} ms, ratio {slowest / middle:.1f}; "
        f"answers a caller {min(counts)} to {max(counts)}"
    )


def _callers(
    contender: Contender, queries: NDArray[np.float32], skips: list[NDArray[np.bool_]], seconds: float, callers: int = CALLERS
) -> list[list[float]]:
    """Return the seconds of every call of each of the callers, who call again and again for `seconds`, with the masks in turns."""
    latencies: list[list[float]] = [[] for _ in range(callers)]
    start = threading.Barrier(callers)

    def call(number: int) -> None:
        start.wait()
        end = time.perf_counter() + seconds
        at = number
        while (began := time.perf_counter()) < end:
            contender.search(queries[at % len(queries)], 100, skips[at % len(skips)])
            latencies[number].append(time.perf_counter() - began)
            at += 1

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    return latencies


def table(cases: list[Case]) -> str:
    """Return the cases as a table in Markdown."""
    names = list(dict.fromkeys(name for case in cases for name in case.spent))
    others = [name for name in names if name != Anchor.name]
    lines = [
        "| N | filter | skipped | n | " + f"{Anchor.name}, ms (fastest) | " + " | ".join(others) + " |",
        "|---:|---|---:|---:|---:|" + "---:|" * len(others),
    ]
    for case in cases:
        unit = case.spent[Anchor.name].ms
        cells = [
            f"{case.size:,}",
            case.shape if case.share else "none",
            f"{case.share:.1%}",
            str(case.n),
            f"{median(unit):.1f} ({min(unit):.1f})",
        ]
        for name in others:
            if name not in case.spent:
                cells.append("-")
                continue
            by_median, by_best = case.ratio(name)
            recall = float(np.mean(case.spent[name].recalls))
            cells.append(f"{_figure(by_median)}x ({_figure(by_best)}x)" + ("" if recall >= 0.9995 else f" recall {recall:.3f}"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _figure(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.1f}" if ratio >= 1 else f"{ratio:.2f}"


def against(cases: list[Case], rivals: list[str]) -> str:
    """Return a sentence for every rival: where ours is slowest against it."""
    lines: list[str] = []
    for rival in rivals:
        shared = [case for case in cases if rival in case.spent]
        if not shared:
            continue
        worst = min(shared, key=lambda case: case.ratio(Ours.name, rival)[0])
        by_median, by_best = worst.ratio(Ours.name, rival)
        slower = sum(case.ratio(Ours.name, rival)[0] < 1 / 1.1 for case in shared)
        lines.append(
            f"- {rival}: ours is more than 10 % slower in {slower} of {len(shared)} cases; the worst for us is N = {worst.size:,}, "
            f"{worst.shape}, {worst.share:.1%} skipped, n = {worst.n}: {by_median:.2f}x its speed (fastest calls {by_best:.2f}x)"
        )
    return "\n".join(lines)


def plot(cases: list[Case], file: Path) -> None:
    """Draw speed over share skipped, a panel for each size, one line for each contender, for random filters and the first n."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = list(dict.fromkeys(case.size for case in cases))
    figure, axes = plt.subplots(1, len(sizes), figsize=(max(6, 4.2 * len(sizes)), 4.6), sharey=True, squeeze=False, layout="constrained")
    for panel, size in zip(axes[0], sizes, strict=True):
        drawn = [case for case in cases if case.size == size and case.shape == "random" and case.n == cases[0].n]
        for name in dict.fromkeys(name for case in drawn for name in case.spent):
            points = [(1 - case.share, case.ratio(name)[0]) for case in drawn if name in case.spent]
            own = {"color": "black", "linewidth": 2.5, "zorder": 3} if name == Ours.name else {"linewidth": 1.2}
            panel.plot(*zip(*points, strict=True), marker="o", label=name, **own)
        panel.set(xscale="log", yscale="log", title=f"N = {size:,}", xlabel="share of rows the filter keeps")
        panel.invert_xaxis()
        panel.grid(visible=True, alpha=0.3)
    axes[0][0].set_ylabel(f"times as fast as {Anchor.name}")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(file)


def machine() -> str:
    """Return what the figures were measured on, and how busy it was."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
        load = f", load average {os.getloadavg()[0]:.1f}"
    except OSError:
        load = ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores{load}; Python {platform.python_version()}, numpy {np.__version__}"


def measured(size: int, options: argparse.Namespace, place: Path) -> tuple[list[Case], list[str]]:
    """Return the cases and the sentences of one size; everything that holds memory is gone afterwards."""
    collection = synthetic(max(options.sizes), options.width, options.seed, options.data).first(size)
    calls = options.rounds * options.calls
    queries = collection.world.queries(calls)
    oracle = Oracle.of(collection.rows, queries)
    contenders = make_contenders(collection, options, place)
    cases: list[Case] = []
    for shape, share, n in cases_of(options.n, options.shapes):
        random = np.random.default_rng([options.seed, int(share * 10_000), n])
        made = [Call(number, collection.skip(shape, share, queries[number], random)) for number in range(calls)]
        turns = [made[start : start + options.calls] for start in range(0, calls, options.calls)]
        case = Case(size, shape, share, n)
        run_case(case, contenders, oracle, queries, turns)
        cases.append(case)
        print(table([case]).splitlines()[-1], flush=True)
    mine = contenders[-1]
    del contenders, oracle
    gc.collect()
    said = [bandwidth(collection, mine, queries, options.rounds)]
    said += [concurrency(collection, mine, queries, share, options.seconds) for share in (0.0, 0.9, 0.99)]
    return cases, said


def options_of() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=default_folder(), help="where made data is kept (default: %(default)s)")
    parser.add_argument("--n", type=int, nargs="+", default=[100, 10], help="all filters with the first, random ones with the others")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3, help="calls of one contender in a round")
    parser.add_argument("--hnsw-up-to", type=int, default=100_000, help="no graphs above so many rows: building them takes too long")
    parser.add_argument("--faiss-threads", type=int, nargs="+", default=[1, 2], help="FAISS takes part once with each so many")
    parser.add_argument("--no-archive", action="store_true", help="leave out reading the archive on every call, which takes seconds")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long callers call for each figure of concurrency")
    parser.add_argument("--plot", type=Path, help="draw the speeds into this .svg or .png")
    parser.add_argument("--json", type=Path, help="keep every single time in this file")
    return parser.parse_args()


def main() -> None:
    """Measure all sizes and print the tables."""
    options = options_of()
    print(f"Measured on {machine()}. Read the ratios: they hold on a busy machine better than milliseconds do.\n")
    missing = [name for name in ("usearch", "hnswlib") if not _has(name)]
    if missing:
        print(f"Not installed, left out: {', '.join(missing)}. pip install -e '.[bench]' has them.\n")
    if max(options.sizes) > options.hnsw_up_to:
        print(f"usearch and hnswlib take part up to {options.hnsw_up_to:,} rows; building their graphs takes too long above.\n")
    cases: list[Case] = []
    said: list[str] = []
    for size in sorted(options.sizes):
        with tempfile.TemporaryDirectory() as place:
            some, sentences = measured(size, options, Path(place))
        cases += some
        said += sentences
        gc.collect()
    rivals = list(dict.fromkeys(name for case in cases for name in case.spent if name not in (Ours.name, Anchor.name)))
    print(f"\n{table(cases)}\n\n{against(cases, rivals)}\n\n" + "\n".join(f"- {line}" for line in said))
    print(f"\nAt the end: {machine()}.")
    print("A contender with several threads suffers most from a busy machine, the anchor first: then every ratio to it comes out too high.")
    if options.json:
        options.json.write_text(json.dumps([asdict(case) for case in cases]), encoding="utf-8")
    if options.plot and not _has("matplotlib"):
        print("No plot: matplotlib is not installed. pip install -e '.[bench]' has it.")
    elif options.plot:
        plot(cases, options.plot)
        print(f"Plot: {options.plot}")


if __name__ == "__main__":
    main()
