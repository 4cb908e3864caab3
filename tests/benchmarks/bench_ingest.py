"""Memory and speed of ingest as a folder grows: python tests/benchmarks/bench_ingest.py [--counts 1000 5000 20000]

Draws that many pictures, ingests them with the demo's model in a process of its own, and prints what it says of its time beside the most
memory that it and its decoding processes held. Then ingests again with nothing new. Peak memory must not grow with the folder.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

MODEL = Path(__file__).resolve().parents[2] / "data" / "demo" / "model"


def draw(folder: Path, count: int) -> None:
    """Write `count` different JPEG files of 240 x 180, 500 to a folder."""

    def one(number: int) -> None:
        rng = np.random.default_rng(number)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        file = folder / f"{number // 500:03}" / f"{number:06}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        small.resize((240, 180), Image.Resampling.BICUBIC).save(file, quality=85)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(count)))


def ingest(place: Path) -> tuple[float, int, int, str]:
    """Run the command; return seconds, peak bytes of its own and of all its children together, and what it printed."""
    command = [sys.executable, "-m", "mcp_server", "ingest", str(place / "pictures"), "--out", str(place / "out")]
    started = time.perf_counter()
    own = others = 0
    with subprocess.Popen([*command, "--model", f"local-dir:{MODEL}"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        process = psutil.Process(run.pid)
        while run.poll() is None:
            try:
                own = max(own, process.memory_info().rss)
                others = max(others, sum(child.memory_info().rss for child in process.children()))
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.05)
        assert run.stdout is not None
        said = run.stdout.read()
    assert run.returncode == 0, said
    return time.perf_counter() - started, own, others, said


def main() -> None:
    """Print one line a size, and what the command says of its time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1_000, 5_000, 20_000])
    counts = parser.parse_args().counts
    print(f"{'pictures':>9} {'seconds':>8} {'again s':>8} {'again':>6} {'own MiB':>8} {'decoders MiB':>13}")
    for count in counts:
        with tempfile.TemporaryDirectory() as place:
            draw(Path(place) / "pictures", count)
            seconds, own, others, said = ingest(Path(place))
            again, _, _, _ = ingest(Path(place))
            share = again / seconds
            memory = f"{own / 2**20:>8.0f} {others / 2**20:>13.0f}"
            print(f"{count:>9,} {seconds:>8.1f} {again:>8.2f} {share:>6.1%} {memory}   {said.splitlines()[2]}", flush=True)


if __name__ == "__main__":
    main()
