"""Time and memory from the start of a process to its first answers: python tests/benchmarks/bench_start.py [--rounds 5] [--against FOLDER]

Two tables. Encoder: fresh interpreters that load the demo's model and encode one text, without open_clip and through it, and one that only
imports torch. Server: the real one over stdio with a copy of the demo, to the answers of `initialize`, `tools/list`, the first search (sent
right after `initialize`) and a second one; with --against, also the server of another checkout. Everything is interleaved, the medians of a
table belong together, and ratios are to its first row. `cold` is the first round, which may have to read files from disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.process.handshake import INITIALIZE

ROOT = Path(__file__).resolve().parents[2]
Times = dict[str, float]

LOADERS = {
    "without open_clip": "from mcp_server.encoders.towers import lean_tower\ntower = lean_tower(model, Path('unused'))",
    "through open_clip": "from mcp_server.encoders.library import tower_from_folder\ntower = tower_from_folder(model)",
    "import torch only": "tower = None",
}
_PROGRAM = """
import json, resource, sys, time
begun = time.perf_counter()
from pathlib import Path
import torch
model = sys.argv[1]
{loader}
loaded = time.perf_counter()
if tower is not None:
    with torch.inference_mode():
        tower.forward(torch.tensor([tower.tokenize("a red apple").ids]))
encoded = time.perf_counter()
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(json.dumps({{"ready s": loaded - begun, "encoded s": encoded - begun, "peak MB": memory}}))
"""


def encoder(name: str) -> Times:
    """Return what one fresh interpreter says of its start."""
    command = [sys.executable, "-c", _PROGRAM.format(loader=LOADERS[name]), f"local-dir:{ROOT / 'data' / 'demo' / 'model'}"]
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **_environment(ROOT)}
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def server(checkout: Path) -> Times:
    """Return seconds from starting the server of `checkout` to its answers."""
    with tempfile.TemporaryDirectory() as folder:
        demo = shutil.copytree(checkout / "data" / "demo", Path(folder) / "demo")
        command = [sys.executable, "-m", "mcp_server", "serve", "--config", str(demo / "config.ini")]
        begun = time.perf_counter()
        process = subprocess.Popen(
            command, env=_environment(checkout), cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        times: Times = {}
        try:
            for name, message in _conversation().items():
                _send(process, message)
                if "id" in message:
                    _answer(process, message["id"])
                    times[name] = time.perf_counter() - begun
            times["second search s"] -= times["first search s"]
            times["peak MB"] = _peak_megabytes(process.pid)
        finally:
            process.kill()
            process.communicate()
    return times


def _conversation() -> dict[str, dict[str, Any]]:
    def search(number: int, text: str) -> dict[str, Any]:
        arguments = {"text": text, "n": 5}
        return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": "clip_search", "arguments": arguments}}

    return {
        "initialize s": INITIALIZE,
        "": {"jsonrpc": "2.0", "method": "notifications/initialized"},
        "tools/list s": {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        "first search s": search(3, "a red apple"),
        "second search s": search(4, "a green tree"),
    }


def _send(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()


def _answer(process: subprocess.Popen[bytes], number: int) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        message = json.loads(line)  # a line that is not JSON ends the benchmark: stdout belongs to the protocol
        if message.get("id") == number:
            if "error" in message or message["result"].get("isError"):
                raise SystemExit(f"the server refused: {message}")
            return
    raise SystemExit("the server ended")


def _peak_megabytes(process: int) -> float:
    """Return the most memory that the process held; 0 where the system does not say."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}


def table(title: str, rows: dict[str, list[Times]], cold: str) -> None:
    """Print medians, with ratios to the first row, and what the first round took in column `cold`."""
    columns = list(next(iter(rows.values()))[0])
    print(f"\n{title}\n{'':24}" + "".join(f"{column:>22}" for column in [*columns, f"cold {cold}"]))
    first = {column: statistics.median(times[column] for times in next(iter(rows.values()))) for column in columns}
    for name, rounds in rows.items():
        medians = {column: statistics.median(times[column] for times in rounds) for column in columns}
        cells = "".join(f"{medians[column]:>14.3f} {medians[column] / (first[column] or 1):>6.2f}x" for column in columns)
        print(f"{name:24}{cells}{rounds[0][cold]:>22.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout of this project, to time its server beside this one")
    options = parser.parse_args()
    checkouts = {"this checkout": ROOT} | ({options.against.name: options.against.resolve()} if options.against else {})
    encoders: dict[str, list[Times]] = {name: [] for name in LOADERS}
    servers: dict[str, list[Times]] = {name: [] for name in checkouts}
    for _ in range(options.rounds):
        for name, rounds in encoders.items():
            rounds.append(encoder(name))
        for name, rounds in servers.items():
            rounds.append(server(checkouts[name]))
    table(f"Encoder of the demo, medians of {options.rounds} fresh interpreters", encoders, "encoded s")
    table(f"Server over stdio, medians of {options.rounds} starts", servers, "first search s")


if __name__ == "__main__":
    main()
