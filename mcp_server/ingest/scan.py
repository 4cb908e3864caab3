"""Finds the pictures below a folder."""

from __future__ import annotations

import logging
import os
from pathlib import Path, PurePath
from typing import Literal

from mcp_server.errors import IngestError

logger = logging.getLogger(__name__)

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})


def scan(folder: Path) -> list[str]:
    """Return the pictures below `folder` as relative paths with "/", sorted by code point, none twice.

    A picture is a file whose name ends in one of `PICTURE_SUFFIXES`, letter case ignored. Hidden files and folders are left out. Links are
    followed; a folder that was already visited is not entered again, so loops end. Folders that cannot be read are logged and left out.

    Raises:
        IngestError: `folder` is not a folder, or no picture is below it.
    """
    if not folder.is_dir():
        raise IngestError(f"There is no folder {folder}. Give the folder that holds the pictures.")
    found: list[str] = []
    visited: set[tuple[int, int]] = set()
    waiting = [(folder, "")]
    while waiting:
        here, prefix = waiting.pop()
        entries = _entries(here, visited)
        found.extend(prefix + entry.name for entry in entries if _is_picture(entry))
        folders = [entry for entry in entries if _is(entry, "folder")]
        waiting.extend((Path(entry.path), f"{prefix}{entry.name}/") for entry in reversed(folders))
    if not found:
        kinds = ", ".join(sorted(suffix[1:] for suffix in PICTURE_SUFFIXES))
        raise IngestError(f"No picture is below {folder}. Files ending in {kinds} are read; hidden ones are not.")
    return sorted(found)


def _entries(folder: Path, visited: set[tuple[int, int]]) -> list[os.DirEntry[str]]:
    """Return what lies in `folder`, sorted by name, without hidden names; nothing if it was visited or cannot be read."""
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in visited:
            return []
        visited.add(identity)
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        logger.warning("ingest.folder_unreadable folder=%s reason=%s", folder, error.strerror)
        return []


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return PurePath(entry.name).suffix.lower() in PICTURE_SUFFIXES and _is(entry, "file")


def _is(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Tell whether `entry`, links followed, is of that kind; a link in a circle is neither."""
    try:
        return entry.is_file() if kind == "file" else entry.is_dir()
    except OSError:
        return False
