"""The search on a graphics card beside the search without one, on the rows and filters of `synthetic.py`, in turns in one process.

python tests/benchmarks/bench_device.py [--device cuda:0] [--rows 1000000] [--n 100] [--rounds 5] [--calls 4] [--data FOLDER]

`unproven` is what one would write with PyTorch: one product in half precision on the card, the mask, topk. It says how fast the card can
be asked at all; its recall is held against the exact answer. The card's answer must be equal to the plain one, row for row. `numpy
float32` is the unit of `bench_search.py`. All times are medians in ms; each call begins with a query and a mask in memory of the machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import torch
from contenders import Anchor, Contender, Mask, Query, Rows
from numpy.typing import NDArray
from ours import ours
from synthetic import SHAPES, Synthetic, add_options, synthetic

from mcp_server.indexes.base import Index
from mcp_server.indexes.device_index import DeviceIndex

SHARES = (0.0, 0.5, 0.9, 0.99, 0.999)
PLAIN, CARD = "without", "on the card"
REST = 0.05
"""Seconds between two contenders, so that the threads of the one do not spin into the time of the next."""


class Served:
    """An index that a collection is served by."""

    def __init__(self, name: str, index: Index) -> None:
        self.name = name
        self._index = index

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        return self._index.search(query, k, skip).rows


class Unproven:
    """Half-precision scores as they come from the card, nothing scored anew."""

    name = "unproven"

    def __init__(self, rows: NDArray[np.float16], device: str) -> None:
        self._device = device
        self._rows = torch.from_numpy(np.array(rows)).to(device)

    def search(self, query: Query, k: int, skip: Mask) -> Rows:
        """Return the rows found, best first."""
        scores = torch.mv(self._rows, torch.from_numpy(query.astype(np.float16)).to(self._device))
        scores.masked_fill_(torch.from_numpy(skip).to(self._device), -torch.inf)
        return torch.topk(scores, k).indices.cpu().numpy()

    def gigabytes_per_second(self) -> float:
        """Return how fast the card reads the rows for one product, the best of 20."""
        if self._rows.device.type != "cuda":
            return float("nan")
        vector = self._rows[0].clone()
        took: list[float] = []
        for _ in range(20):
            torch.cuda.synchronize()
            started = time.perf_counter()
            torch.mv(self._rows, vector)
            torch.cuda.synchronize()
            took.append(time.perf_counter() - started)
        return self._rows.nbytes / 1e9 / min(took)


def table(collection: Synthetic, contenders: list[Contender], options: argparse.Namespace) -> None:
    """Print medians of each kind of filter; the answers with and without the card must be equal."""
    queries = collection.world.queries(64)
    random = np.random.default_rng(5)
    names = [contender.name for contender in contenders]
    print(f"| filter | skipped | {' | '.join(names)} | times without | recall unproven |")
    print("|---|---:|" + "---:|" * (len(names) + 2))
    for shape in SHAPES:
        for share in SHARES if shape == SHAPES[0] else SHARES[1:]:
            took, recalls = defaultdict[str, list[float]](list), list[float]()
            for number in range(options.rounds):
                chosen = random.integers(0, len(queries), options.calls)
                turn = [(queries[at], collection.skip(shape, share, queries[at], random)) for at in chosen]
                answers: dict[str, list[Rows]] = {}
                for at in range(len(contenders)):
                    contender = contenders[(at + number) % len(contenders)]
                    time.sleep(REST)
                    answers[contender.name] = []
                    for query, skip in turn:
                        started = time.perf_counter()
                        answers[contender.name].append(contender.search(query, options.n, skip))
                        took[contender.name].append(1000 * (time.perf_counter() - started))
                for plain, card, guess in zip(*(answers[name] for name in (PLAIN, CARD, Unproven.name)), strict=True):
                    assert plain.tolist() == card.tolist(), "the card answered something else"
                    recalls.append(len(np.intersect1d(plain, guess)) / len(plain))
            figures = " | ".join(f"{median(took[name]):.2f}" for name in names)
            ratio = median(took[PLAIN]) / median(took[CARD])
            print(f"| {shape if share else 'none'} | {share:.1%} | {figures} | {ratio:.1f}x | {np.mean(recalls):.3f} |", flush=True)


def main() -> None:
    """Copy the rows to the card, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4, help="calls of one contender in a round")
    options = parser.parse_args()
    collection = synthetic(options.rows, options.width, options.seed, options.data)
    with tempfile.TemporaryDirectory() as place:
        plain = ours(collection.rows, Path(place), heard=collection.world.asked_before())
        unproven = Unproven(collection.rows, options.device)
        print(f"a product reads {unproven.gigabytes_per_second():,.0f} GB/s of the rows, waiting for it included")
        started = time.perf_counter()
        card = DeviceIndex(plain, plain.embeddings, options.device)
        card.wait(600)
        print(f"rows on {options.device}: {card.is_on_device}, after {time.perf_counter() - started:.1f} s\n")
        anchor = Anchor(collection.rows.astype(np.float32))
        table(collection, [anchor, unproven, Served(PLAIN, plain), Served(CARD, card)], options)


if __name__ == "__main__":
    main()
