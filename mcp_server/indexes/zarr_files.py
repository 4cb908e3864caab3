"""Finds the one array of embeddings in a Zarr zip or folder, v2 or v3, and reads it. The one door to zarr, for reading.

Metadata is read as plain JSON: shape and type are known without touching the data and without importing zarr.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IndexMismatchError, clipped

_ARRAY_NAME = "embeddings"
_EXPECTED = "expected a Zarr array (N, D) of float16 or float32, or a group with such an array called 'embeddings'"
_V2_TYPES = {"f2": "float16", "f4": "float32", "f8": "float64"}
_BLOCK_BYTES = 32 * 2**20
# What zarr, its codecs and zipfile raise on damaged files; BadZipFile and zlib.error derive from Exception alone.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class ZarrArray:
    """Where an array of embeddings is and what it looks like.

    Attributes:
        path: the zip file or folder.
        inner: the array's path inside it, "" for the root.
        shape: (N, D), D at least 1.
        dtype: float16, float32 or float64.
    """

    path: Path
    inner: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Node:
    shape: tuple[int, ...] | None
    """None: a group."""
    dtype: str
    packing: str = ""
    """Its codecs, as JSON."""

    @property
    def is_embeddings(self) -> bool:
        return self.shape is not None and len(self.shape) == 2 and self.dtype in _V2_TYPES.values()


class _ZipFiles:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = set(archive.namelist())

    def text(self, name: str) -> str | None:
        return self._archive.read(name).decode() if name in self._names else None

    def children(self, prefix: str) -> list[str]:
        return sorted({name[len(prefix) :].split("/")[0] for name in self._names if name.startswith(prefix) and "/" in name[len(prefix) :]})


class _FolderFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def text(self, name: str) -> str | None:
        file = self._folder / name
        return file.read_text("utf-8") if file.is_file() else None

    def children(self, prefix: str) -> list[str]:
        return sorted(child.name for child in (self._folder / prefix).iterdir() if child.is_dir())


def find_array(path: Path) -> ZarrArray:
    """Return the array of embeddings in `path`, a zip store or a folder of any name. Reads metadata only.

    It is the root array; or a group's `embeddings`; or, failing that, the group's only 2-D float array. The store may lie inside the
    single top-level folder of the zip.

    Raises:
        CollectionError: nothing is there, it cannot be read as Zarr, or reading it would run a program in it.
        IndexMismatchError: it is Zarr, but of another shape or type.
    """
    if not path.exists():
        raise CollectionError(f"Embeddings not found: {path}; {_EXPECTED}. Check EmbeddingsFile in the configuration.")
    try:
        if path.is_dir():
            return _locate(path, _FolderFiles(path))
        with zipfile.ZipFile(path) as archive:
            return _locate(path, _ZipFiles(archive))
    except _DAMAGE as error:
        raise CollectionError(f"Embeddings cannot be read: {path} ({clipped(error, 120)}); {_EXPECTED}.") from error


def read_blocks(array: ZarrArray) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield (first row, block) until all rows are read, each chunk once, in blocks of some 32 MiB. The store is opened read-only.

    Raises:
        CollectionError: a chunk cannot be read.
    """
    try:
        with _opened(array) as stored:
            chunk_rows: int = (stored.shards or stored.chunks)[0]
            row_bytes = array.shape[1] * array.dtype.itemsize
            # whole chunks only: a part of a chunk costs as much to decode as all of it
            step = chunk_rows * max(1, _BLOCK_BYTES // max(1, chunk_rows * row_bytes))
            for start in range(0, array.shape[0], step):
                yield start, np.asarray(stored[start : start + step])
    except _DAMAGE as error:
        raise CollectionError(f"Embeddings are damaged: {array.path} ({clipped(error, 120)}). Write the file again.") from error


@contextmanager
def _opened(array: ZarrArray) -> Generator[Any]:
    import zarr
    from zarr.storage import LocalStore, ZipStore

    store = LocalStore(array.path, read_only=True) if array.path.is_dir() else ZipStore(array.path, mode="r")
    with store:
        yield cast("Any", zarr.open_array(store, path=array.inner, mode="r"))


def _locate(path: Path, files: _ZipFiles | _FolderFiles) -> ZarrArray:
    base = ""
    root = _node(files, base)
    if root is None:
        nested = {child: node for child in files.children("") if (node := _node(files, f"{child}/")) is not None}
        if len(nested) != 1:
            raise CollectionError(f"No Zarr metadata in {path}; {_EXPECTED}.")
        base, root = next((f"{child}/", node) for child, node in nested.items())
    if root.shape is not None:
        return _checked(path, base.rstrip("/"), root)
    members = {child: node for child in files.children(base) if (node := _node(files, f"{base}{child}/")) is not None}
    chosen = [_ARRAY_NAME] if _ARRAY_NAME in members else [child for child, node in members.items() if node.is_embeddings]
    if len(chosen) != 1:
        found = clipped(", ".join(f"{child} {node.shape}" for child, node in members.items() if node.shape is not None) or "no array", 120)
        raise IndexMismatchError(f"The Zarr group in {path} holds {found}; {_EXPECTED}.")
    return _checked(path, f"{base}{chosen[0]}", members[chosen[0]])


def _node(files: _ZipFiles | _FolderFiles, prefix: str) -> _Node | None:
    if (text := files.text(f"{prefix}zarr.json")) is not None:
        meta: dict[str, Any] = json.loads(text)
        is_array = meta["node_type"] == "array"
        return _Node(tuple(meta["shape"]), str(meta["data_type"]), json.dumps(meta.get("codecs"))) if is_array else _Node(None, "")
    if (text := files.text(f"{prefix}.zarray")) is not None:
        meta = json.loads(text)
        packing = json.dumps([meta.get("filters"), meta.get("compressor")])
        return _Node(tuple(meta["shape"]), _V2_TYPES.get(str(meta["dtype"])[1:], str(meta["dtype"])), packing)
    return _Node(None, "") if files.text(f"{prefix}.zgroup") is not None else None


def _checked(path: Path, inner: str, node: _Node) -> ZarrArray:
    if not node.is_embeddings or node.shape is None or node.shape[1] < 1:
        raise IndexMismatchError(f"The Zarr array in {path} has shape {node.shape} and type {clipped(node.dtype)}; {_EXPECTED}.")
    if "pickle" in node.packing:  # whether zarr reads such chunks depends on its version
        raise CollectionError(f"The Zarr array in {path} is packed with pickle, which can run programs. Write it with another codec.")
    return ZarrArray(path, inner, (node.shape[0], node.shape[1]), np.dtype(node.dtype))
