"""Time and memory of publishing a large collection out of its ledger: python tests/benchmarks/bench_publish.py [--count 200000]

Fills a ledger with made-up pictures, without decoding or embedding any, publishes all of them, then ten more. Prints seconds and the most
memory the process held.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from mcp_server.ingest.ledger import Ledger
from mcp_server.ingest.pictures.results import Picture
from mcp_server.ingest.publish import publish
from mcp_server.ingest.wishes import Wishes

BATCH = 1_000


def facts(number: int) -> dict[str, object]:
    """Return what a photograph typically says."""
    return {
        "folder": [f"{number // 5_000:04}", f"{number // 5_000:04}/{number // 500 % 10}", f"{number // 500 % 10}"],
        "filename": f"IMG_{number:07}.jpg",
        "extension": "jpg",
        "file_size": 1_000_000 + number * 37 % 4_000_000,
        "file_date": f"20{number % 20:02}-0{number % 9 + 1}-1{number % 9}",
        "width": 4032,
        "height": 3024,
        "orientation": "landscape",
        "megapixels": 12.2,
        "colors": [["blue", "gray", "white"][number % 3], "green"],
        "date_taken": f"20{number % 20:02}-0{number % 9 + 1}-1{number % 9}",
        "year": 2000 + number % 20,
        "month": number % 9 + 1,
        "hour": number % 24,
        "camera_make": "Canon",
        "camera_model": f"EOS {number % 12}",
        "focal_length": float(number % 60 + 24),
        "iso": 100 * (number % 32 + 1),
        "latitude": round(number * 7919 % 180_000 / 1000 - 90, 6),
        "longitude": round(number * 104729 % 360_000 / 1000 - 180, 6),
    }


def fill(ledger: Ledger, first: int, count: int, width: int) -> None:
    """Enter pictures `first` to `first + count - 1`."""
    rng = np.random.default_rng(first)
    for start in range(first, first + count, BATCH):
        many = range(start, min(start + BATCH, first + count))
        vectors = rng.standard_normal((len(many), width)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        sources = [f"{number // 5_000:04}/{number // 500 % 10}/IMG_{number:07}.jpg" for number in many]
        with ledger.transaction():
            ledger.database.executemany(
                "INSERT INTO files (source, id, size, mtime_ns, ctime_ns, todo, status) VALUES (?, ?, 1, 1, 1, 1, 'added')",
                [(source, number + 1) for source, number in zip(sources, many, strict=True)],
            )
        pictures = [
            Picture(source, np.empty((0, 0, 3), np.uint8), b"\0" * 6_000, f"{number:064x}", json.loads(json.dumps(facts(number))))
            for source, number in zip(sources, many, strict=True)
        ]
        ledger.commit(pictures, vectors, [])


def peak_mib() -> float:
    """Return the most memory this process held, in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


def main() -> None:
    """Print one line a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--near", type=float, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        destination = Path(place) / "collection"
        with Ledger.open(destination) as ledger:
            ledger.set("width", options.width)
            for first, count in ((0, options.count), (options.count, 10)):
                fill(ledger, first, count, options.width)
                started = time.perf_counter()
                publish(ledger, destination, Wishes(near=options.near))
                ledger.ended("{}")
                print(
                    f"{first + count:>9,} pictures published in {time.perf_counter() - started:.1f} s, peak {peak_mib():.0f} MiB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
