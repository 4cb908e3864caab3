"""Reads a whole file, if it is one: no pipe, no device, nothing beyond a limit."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

_NO_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)

_WORDS = {
    errno.ENOENT: "the file is gone",
    errno.ENOTDIR: "the file is gone",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.EISDIR: "a folder, not a file",
    errno.ELOOP: "a link that leads in a circle",
    errno.ENAMETOOLONG: "its name is too long for this system",
    errno.ESTALE: "the file is gone",
    errno.EIO: "the disk reports an error where it lies",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
}


_PASSING = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})


class UnreadableFileError(Exception):
    """A file cannot be read; the message says why in a few words, without its path. `again`: it may be possible later."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True)
class FileBytes:
    """A file as it was read.

    Attributes:
        data: all of it.
        modified: seconds since 1970, UTC.
    """

    data: bytes
    modified: float


def read_file(path: Path, limit: int) -> FileBytes:
    """Read the regular file at `path`, links followed, at most `limit` bytes. Never waits for a pipe or a device.

    Raises:
        UnreadableFileError: it is gone, may not be read, is no regular file or larger than `limit`.
    """
    try:
        _check(path.stat(), limit)  # before it is opened: opening a device can do something to it
        handle = os.open(path, os.O_RDONLY | _NO_WAITING)
        with os.fdopen(handle, "rb", buffering=0) as opened:
            status = os.fstat(handle)
            _check(status, limit)
            data = _all_of(opened.fileno(), status.st_size, limit)
    except OSError as error:
        raise UnreadableFileError(_reason(error), again=error.errno in _PASSING) from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableFileError("its name is no name of a file") from error
    return FileBytes(data, status.st_mtime)


def _check(status: os.stat_result, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnreadableFileError(_WORDS[errno.EISDIR])
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableFileError("not a regular file")
    if status.st_size > limit:
        raise UnreadableFileError(_too_large(limit))


def _all_of(handle: int, size: int, limit: int) -> bytes:
    """Return everything up to the end; one read is enough unless the file grows meanwhile."""
    parts: list[bytes] = []
    total = 0
    while part := os.read(handle, max(size - total + 1, 65536)):
        parts.append(part)
        total += len(part)
        if total > limit:
            raise UnreadableFileError(_too_large(limit))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> str:
    return f"larger than {limit // 2**20} MiB"


def _reason(error: OSError) -> str:
    known = _WORDS.get(error.errno or 0)
    return known or f"cannot be read: {(error.strerror or 'unknown error').lower()}"
