"""Programs from npm that judge the server from outside; see docs/testing.md. Where they are missing, tests are skipped with a message."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

VARIABLE = "CLIP_SEARCH_NODE_TOOLS"
OLDEST = (22, 19)
"""The Inspector needs this Node."""


def folder() -> Path:
    """Return the folder that `npm install` was run in."""
    return Path(os.environ.get(VARIABLE) or Path(__file__).resolve().parents[2] / ".ci")


def tool(name: str) -> list[str]:
    """Return the command that runs a program of the folder on a recent Node; skip the test where either is missing."""
    modules = folder() / "node_modules"
    program = modules / ".bin" / name
    if not program.exists():
        pytest.skip(f"{name} is not installed: run `npm install` in .ci, or name a folder in ${VARIABLE}")
    candidates = (str(modules / "node" / "bin" / "node"), shutil.which("node"))
    node = next((one for one in candidates if one and Path(one).is_file() and _is_recent(one)), None)
    if node is None:
        pytest.skip(f"Node {OLDEST[0]}.{OLDEST[1]} or newer is not installed")
    return [node, str(program.resolve())]


def _is_recent(node: str) -> bool:
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30)
    parts = done.stdout.strip().lstrip("v").split(".")
    return done.returncode == 0 and len(parts) == 3 and (int(parts[0]), int(parts[1])) >= OLDEST
