"""Reads pictures by the name a catalog gives them, from a folder, a zip or a web server, or says their web address."""

from __future__ import annotations

import logging
import os
import re
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from urllib.parse import quote

from mcp_server.config import wrong_with
from mcp_server.errors import clipped

try:
    from lzma import LZMAError
except ImportError:  # a Python that was built without it unpacks no such entries
    from zipfile import BadZipFile as LZMAError

logger = logging.getLogger(__name__)

MAX_PICTURE_BYTES = 64 * 2**20
"""Larger files are not read: no picture to look at needs more."""

_PIECE_BYTES = 2**20
_ZIP_ERRORS = (OSError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, MemoryError, RuntimeError, ValueError)
"""MemoryError: an entry may ask for 4 GiB to be unpacked in; RuntimeError: encrypted or oddly compressed; ValueError: names that are not in
the encoding they claim."""

_USER = re.compile(r"^(https?://)[^/?#]*@", re.IGNORECASE)
_ESCAPED = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*+")  # takes no way back, which would be kept in memory: 120 bytes a character


class PictureStore(ABC):
    """Pictures below one base: what `ThumbnailMediaURL` or `OriginalMediaURL` of a collection names. Safe to call from several threads."""

    @staticmethod
    def open(base: str) -> PictureStore:
        """Return the store for `base`: an http(s) URL, the path of a folder or of a zip, or "" for none. Never fails; see `problem`."""
        if base.lower().startswith(("http://", "https://")):
            return WebPictures(base)
        if not base:
            return NoPictures("")
        path = Path(base)
        wrong = wrong_with(path)
        if wrong is not None:
            return NoPictures(f"{base} {wrong}")
        if path.is_dir():
            return FolderPictures(path)
        return ZipPictures(path) if path.is_file() and zipfile.is_zipfile(path) else NoPictures(f"{base} is neither a folder nor a zip")

    @property
    def problem(self) -> str | None:
        """What is wrong with the base, for the person who runs the server; None when it is fine or there is none."""
        return None

    @abstractmethod
    def read(self, uri: str) -> bytes | None:
        """Return the bytes of picture `uri`, or None: not there, not readable, or not inside the base. A web server takes its time."""

    def url_of(self, uri: str) -> str | None:
        """Return the web address of picture `uri`, or None where it has none."""
        return None

    def close(self) -> None:  # noqa: B027 - most stores hold nothing open
        """Let go of open files. Reading afterwards opens them again."""


class NoPictures(PictureStore):
    """No base, or one that cannot be used."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    @property
    def problem(self) -> str | None:
        return self._problem or None

    def read(self, uri: str) -> bytes | None:
        return None

    def url_of(self, uri: str) -> str | None:
        """Without a base, a catalog's full web address stands for itself."""
        return uri if not self._problem and uri.lower().startswith(("http://", "https://")) else None


class FolderPictures(PictureStore):
    """Pictures that lie in a folder, at any depth. Links that lead out of it are not followed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def read(self, uri: str) -> bytes | None:
        if not _is_inside(uri):
            return None
        try:
            path = (self._folder / uri).resolve()
            if not path.is_relative_to(self._folder) or not path.is_file() or path.stat().st_size > MAX_PICTURE_BYTES:
                return None
            return path.read_bytes()
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
            _log_unreadable(uri, error)
            return None


class ZipPictures(PictureStore):
    """Pictures packed in a zip, under their names. The zip is opened at the first read and kept open."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._archive: zipfile.ZipFile | None = None

    def read(self, uri: str) -> bytes | None:
        if not _is_inside(uri):
            return None
        try:
            with self._lock:
                if self._archive is None:
                    self._archive = zipfile.ZipFile(self._file)
                entry = self._archive.getinfo(uri)
                return _unpacked(self._archive, entry) if entry.file_size <= MAX_PICTURE_BYTES and not entry.is_dir() else None
        except KeyError:
            return None
        except _ZIP_ERRORS as error:
            _log_unreadable(uri, error)
            return None

    def close(self) -> None:
        with self._lock:
            if self._archive is not None:
                self._archive.close()
                self._archive = None


class WebPictures(PictureStore):
    """Pictures on a web server. Only what lies below the configured address is ever fetched."""

    def __init__(self, base: str) -> None:
        self._base = base
        # a catalog's full addresses hardly ever have the password in them
        self._starts = (base, _USER.sub(r"\1", base))

    def read(self, uri: str) -> bytes | None:
        from mcp_server.stores.web_pictures import fetch

        url = self._below(self._base, uri)
        return None if url is None else fetch(url, self._base)

    def url_of(self, uri: str) -> str | None:
        """Return base and `uri` joined with one slash, unsafe characters escaped; None for what does not lie below the base.

        A user name and password in the base are for the server alone; they are left out.
        """
        return self._below(self._starts[1], uri)

    def _below(self, base: str, uri: str) -> str | None:
        joint = "" if base.endswith(("/", "=", "?", "&")) else "/"
        start = next((start for start in self._starts if uri.startswith(start + joint)), None)
        if start is not None:
            uri = uri[len(start) :]
        elif uri.lower().startswith(("http://", "https://")):
            return None
        below = uri.lstrip("/")
        if not below or ".." in PurePosixPath(below.partition("?")[0]).parts:
            return None
        # an address that is escaped already stays as it is; a bare % is a character of a file name
        return base + joint + quote(below, safe="/?=&%" if _ESCAPED.fullmatch(below) else "/?=&")


def _log_unreadable(uri: str, error: Exception) -> None:
    """Say so on one line, whatever characters a catalog has in its addresses."""
    logger.warning("picture.unreadable uri=%r reason=%r", clipped(uri, 80), clipped(error, 200))


def _unpacked(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Read `entry` piece by piece: at once, all that it really unpacks to would be held in memory, whatever size it claims."""
    with archive.open(entry) as opened:
        return b"".join(iter(partial(opened.read, _PIECE_BYTES), b""))


def _is_inside(uri: str) -> bool:
    """Tell whether `uri` is a plain relative path that does not climb."""
    if not uri or "\0" in uri or _has_drive(uri) or uri.startswith(("/", "\\")):
        return False
    return ".." not in PurePosixPath(uri).parts and ".." not in PureWindowsPath(uri).parts


def _has_drive(uri: str) -> bool:
    """Tell whether `uri` names a drive. "a:b.png" does so on Windows only; elsewhere it is a file's name."""
    return bool(PureWindowsPath(uri).drive) and (os.name == "nt" or uri[2:3] in ("/", "\\"))
