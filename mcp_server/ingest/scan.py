"""Finds the pictures below a folder."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import IngestError
from mcp_server.ingest.pictures.sidecars import sidecar_names
from mcp_server.ingest.pictures.suffixes import readable_suffixes

logger = logging.getLogger(__name__)

_SKIPPED_FOLDERS = frozenset(
    {
        *("$RECYCLE.BIN", "System Volume Information", "__MACOSX"),  # Windows, macOS
        *("@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot"),  # disks on the network, Synology's and QNAP's
    }
)
"""Made by systems, not by people: small copies, waste bins, older states, resource forks."""


@dataclass(frozen=True)
class Found:
    """A file that looks like a picture by its name.

    Attributes:
        source: its path below the folder, with "/".
        size, mtime_ns, ctime_ns: as the file system says, links followed; size -1 when it cannot be asked.
        sidecars: files beside it that say something about it, as paths below the folder.
        sidecar_stamp: changes when one of these changes.
    """

    source: str
    size: int
    mtime_ns: int
    ctime_ns: int
    sidecars: tuple[str, ...]
    sidecar_stamp: str


@dataclass(frozen=True)
class Closed:
    """A folder that cannot be read.

    Attributes:
        prefix: its path below the folder, with "/" at its end.
        reason: why.
        is_link: it is a link to nothing, which may have been a folder once, or anything else.
    """

    prefix: str
    reason: str
    is_link: bool = False


def scan(folder: Path) -> Iterator[Found | Closed]:
    """Yield the pictures below `folder`, in no order, none twice by path.

    A picture is a file whose name ends in one of `readable_suffixes()`, letter case ignored. Hidden files and folders are left out. Links
    are followed; a folder that was already visited is not entered again, so loops end, and a folder is known by its real place rather than
    by a link to it. A link to nothing is yielded: it cannot be read, and somebody should know.

    Raises:
        IngestError: `folder` is not a folder.
    """
    if not folder.is_dir():
        raise IngestError(f"There is no folder {folder}. Give the folder that holds the pictures.")
    visited: set[tuple[int, int]] = set()
    waiting = [(folder, "")]
    links: list[tuple[Path, str]] = []
    while waiting or links:
        here, prefix = waiting.pop() if waiting else links.pop()
        try:
            status = here.stat()
            identity = (status.st_dev, status.st_ino)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(here) as listing:
                entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda entry: entry.name)
        except OSError as error:
            logger.warning("ingest.folder_unreadable folder=%s reason=%s", here, error.strerror)
            yield Closed(prefix, error.strerror or type(error).__name__)
            continue
        files: dict[str, os.DirEntry[str]] = {}
        folders: list[os.DirEntry[str]] = []
        for entry in entries:
            if not _is_folder(entry):
                files[entry.name] = entry
            elif entry.name not in _SKIPPED_FOLDERS:
                folders.append(entry)
        for entry in reversed(folders):
            (links if entry.is_symlink() else waiting).append((Path(entry.path), f"{prefix}{entry.name}/"))
        yield from (Closed(f"{prefix}{name}/", "a link to nothing", is_link=True) for name, entry in files.items() if _leads_nowhere(entry))
        yield from _pictures(files, prefix)


def _pictures(files: dict[str, os.DirEntry[str]], prefix: str) -> Iterator[Found]:
    suffixes = readable_suffixes()
    beside = sidecar_names(files)
    for name, entry in files.items():
        if os.path.splitext(name)[1].lower() in suffixes:  # noqa: PTH122 - half the time of the whole scan
            sidecars = beside.get(name, ())
            stamp = ";".join(f"{sidecar}:{_stamp(files[sidecar])}" for sidecar in sidecars)
            size, mtime_ns, ctime_ns = _status(entry)
            yield Found(prefix + name, size, mtime_ns, ctime_ns, tuple(prefix + sidecar for sidecar in sidecars), stamp)


def _status(entry: os.DirEntry[str]) -> tuple[int, int, int]:
    try:
        status = entry.stat()
    except OSError:
        return -1, 0, 0
    return (status.st_size if stat.S_ISREG(status.st_mode) else -1), status.st_mtime_ns, status.st_ctime_ns


def _stamp(entry: os.DirEntry[str]) -> str:
    return ":".join(map(str, _status(entry)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell whether `entry`, links followed, is a folder; a link in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _leads_nowhere(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink() or os.path.splitext(entry.name)[1].lower() in readable_suffixes():  # noqa: PTH122 - as above
        return False
    return not os.path.exists(entry.path)  # noqa: PTH110 - `Path.exists` raises for links in a circle
