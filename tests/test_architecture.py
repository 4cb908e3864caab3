"""The house stands: imports point down, each heavy library has one door, starting is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mcp_server"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "demo" not in path.relative_to(PACKAGE).parts)

LEVEL = {
    **dict.fromkeys(("errors", "whole_files"), 0),
    **dict.fromkeys(("domain", "config", "side_files"), 1),
    **dict.fromkeys(("encoders", "indexes", "stores", "pictures"), 2),
    **dict.fromkeys(("engine", "ingest"), 3),
    "protocol": 4,
    "top": 5,
}
SIDE_BY_SIDE = {"encoders", "indexes", "stores", "pictures", "engine", "ingest"}
DOORS = {
    "mcp": ("protocol/", "server.py"),
    "uvicorn": ("protocol/http.py",),
    "starlette": ("protocol/http.py",),
    "torch": ("encoders/", "indexes/device_rows.py"),
    "open_clip": ("encoders/",),
    "transformers": ("encoders/",),
    "faiss": ("indexes/",),
    "simsimd": ("indexes/kernels.py",),
    "zarr": ("indexes/", "ingest/write_archives.py"),
    "sqlite3": ("stores/", "ingest/ledger.py", "ingest/write.py", "ingest/catalog/"),
    "platformdirs": ("config.py",),
    "pyarrow": ("ingest/tables/", "ingest/imports/"),
    "defusedxml": ("ingest/pictures/",),
    "pi_heif": ("ingest/pictures/", "pictures/"),
    "PIL": ("ingest/", "pictures/", "encoders/", "engine/pictures.py"),
    "httpx": ("stores/web_pictures.py",),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def room(name: str) -> str:
    first = name.split("/", maxsplit=1)[0].split(".", maxsplit=1)[0]
    return first if first in LEVEL else "top"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down_and_heavy_libraries_enter_by_their_door(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    here = room(name)
    for imported in imports(path):
        top, _, rest = imported.partition(".")
        if top == "mcp_server" and rest and rest != "__version__":
            there = room(rest.replace(".", "/"))
            if there == here:
                continue
            assert LEVEL[there] <= LEVEL[here], f"{name} reaches up to {imported}"
            assert not (LEVEL[there] == LEVEL[here] and {here, there} <= SIDE_BY_SIDE), f"{name} reaches over to {imported}"
        elif top in DOORS:
            assert name.startswith(DOORS[top]), f"{name} imports {top}, which enters by {DOORS[top]}"


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not path.name.startswith("cli") and path.name != "__main__.py"],
    ids=str,
)
def test_only_the_command_line_prints(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_serving_starts_without_any_heavy_library() -> None:
    code = """
import sys
import mcp_server.cli, mcp_server.server, mcp_server.engine.opening, mcp_server.protocol.stdio
heavy = [name for name in ("torch", "open_clip", "transformers", "faiss", "zarr", "PIL.Image") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_describing_filters_never_loads_torch() -> None:
    code = """
import sys
from mcp_server.cli import main
assert main(["filters", "--json"]) == 0
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.PIPE)
