"""Says what tells the content of an SQLite file from any other it had or will have, without reading all of it."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

_HEADER_BYTES = 100
"""The header counts changes of content and schema. Source: https://www.sqlite.org/fileformat.html, section 1.3."""
_LARGEST_WAL = 64 * 2**20
_TICK_NS = 20_000_000
"""Two writes within one tick of the file system's clock may leave the same time; most clocks tick every 4 to 10 ms."""
_COARSE_TICK_NS = 2_100_000_000
"""File systems without fractions of a second tick every second or two."""

Content = dict[str, Any]


def content_of(file: int, path: Path) -> Content | None:
    """Return facts that are equal only while the content of the open `file`, an SQLite database at `path`, is the same.

    None when nothing can be said: it was written to a moment ago, so that the next write may leave the same times, or its write-ahead log
    is very large. Moves the position of `file`.
    """
    found = os.fstat(file)
    os.lseek(file, 0, os.SEEK_SET)
    header = os.read(file, _HEADER_BYTES)
    tick = _TICK_NS if found.st_mtime_ns % 1_000_000_000 else _COARSE_TICK_NS
    if time.time_ns() - found.st_mtime_ns < tick:
        return None
    try:
        log = _log_of(path)
    except OSError:
        return None
    if log is None:
        return None
    return {
        "file": [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns],
        "header": header.hex(),
        "log": log,
    }


def _log_of(path: Path) -> str | None:
    """Return what tells the write-ahead log from any other, "" without one, None for one too large to be read.

    Its bytes count, all of them: size and time stay the same when it is written again from its start within a tick.
    """
    log = path.with_name(f"{path.name}-wal")
    try:
        if log.stat().st_size > _LARGEST_WAL:
            return None
        content = log.read_bytes()
    except FileNotFoundError:
        return ""
    return hashlib.blake2b(content, digest_size=16).hexdigest() if content else ""
