"""The real server over HTTP as a process of its own, for programs that test it from outside."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mcp_server.config import demo_folder

STARTS_WITHIN = 60.0


@contextmanager
def http_server(folder: Path) -> Generator[str]:
    """Serve a copy of the demo, made in `folder`, on a free port; yield the address. What the server logs goes to a file there."""
    shutil.copytree(demo_folder(), folder / "demo")
    log = folder / "server.log"
    command = [sys.executable, "-m", "mcp_server", "serve", "--config", str(folder / "demo" / "config.ini"), "--http", "--port", "0"]
    with log.open("w") as out:
        process = subprocess.Popen(command, stderr=out, stdout=subprocess.DEVNULL)
    try:
        yield _address(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(r"http\.listening url=(\S+)", log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"the server did not start: {log.read_text()[-2000:]}")
