"""Exact search on a device against the plain index, on the same synthetic rows and masks, in one process.

python tests/benchmarks/bench_device.py [--device cuda:0] [--rows 1000000] [--width 1152] [--queries 20]
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from mcp_server.indexes.device_index import DeviceIndex
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex

SHARES = (1.0, 0.5, 0.2, 0.1, 0.01, 0.001)
BLOCK = 20_000


def main() -> None:
    """Print medians in milliseconds; every answer of the device must equal the plain one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument("--queries", type=int, default=20)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    topics = random.standard_normal((2_000, options.width)).astype(np.float32)

    def drawn(count: int) -> np.ndarray:
        """Unit vectors around topics, with a common mean."""
        vectors = 0.7 * topics[0] + topics[random.integers(0, len(topics), count)]
        vectors += 0.8 * random.standard_normal(vectors.shape, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    rows = np.empty((options.rows, options.width), np.float16)
    for start in range(0, len(rows), BLOCK):
        rows[start : start + BLOCK] = drawn(len(rows[start : start + BLOCK]))
    embeddings = Embeddings.from_rows(rows)
    plain = ExactIndex(embeddings)
    started = time.perf_counter()
    device = DeviceIndex(plain, embeddings, options.device)
    device.wait(600)
    print(f"on {options.device}: {device.is_on_device}, after {time.perf_counter() - started:.1f} s")
    print(f"{'allowed':>12} {'device ms':>10} {'plain ms':>9} {'times':>6}")
    for share in SHARES:
        took: dict[str, list[float]] = {"device": [], "plain": []}
        for query in drawn(options.queries):
            skip = random.random(len(rows)) >= share
            answers = {}
            for name, index in (("device", device), ("plain", plain)):
                started = time.perf_counter()
                answers[name] = index.search(query, 100, skip)
                took[name].append(1000 * (time.perf_counter() - started))
            assert answers["device"].rows.tolist() == answers["plain"].rows.tolist()
        there, here = median(took["device"]), median(took["plain"])
        print(f"{share * len(rows):>12,.0f} {there:>10.2f} {here:>9.2f} {here / there:>6.1f}")


if __name__ == "__main__":
    main()
