"""Fetches one picture from the web server that the configuration names: bounded in time and size, and never from elsewhere."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from mcp_server import __version__

if TYPE_CHECKING:
    from ssl import SSLContext

    import httpx

logger = logging.getLogger(__name__)

MOST_BYTES = 16 * 2**20
"""A larger picture is given up while it is being received."""
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
"""How long the server may keep silent."""
FETCH_SECONDS = 12.0
"""How long one picture may take in all."""
MOST_REDIRECTS = 3

_OK = 200
_ENCODINGS = "gzip, deflate"
"""What a picture may be packed in, once: a piece that was received becomes a thousand times as large at most."""
_PORTS = {"http": 80, "https": 443}


class _RefusedError(Exception):
    """Nothing is fetched, or what comes is not taken; the message is for the log and names no secrets."""


def fetch(url: str, base: str, seconds: float = FETCH_SECONDS) -> bytes | None:
    """Return what is at `url`, which lies below `base`; None when it cannot be had. Never raises for what a server does.

    Redirects are followed to addresses below `base` only: same scheme, host and port, and a path that begins with its path. No cookies
    are kept, and no proxy from the environment is used. Safe to call from several threads.
    """
    import httpx  # only who looks at pictures on the web pays for it

    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    headers = {"User-Agent": f"clip-search-mcp/{__version__}", "Accept": "image/*", "Accept-Encoding": _ENCODINGS}
    deadline = time.monotonic() + seconds
    try:
        with (
            httpx.Client(
                auth=_login(base), timeout=timeout, headers=headers, trust_env=False, follow_redirects=False, verify=_certificates()
            ) as client,
            _closed_after(seconds, client),
        ):
            for _ in range(MOST_REDIRECTS + 1):
                if not is_below(url, base):
                    raise _RefusedError("it lies outside the configured address")
                with client.stream("GET", url) as answer:
                    if answer.has_redirect_location:
                        url = urljoin(url, answer.headers["location"])
                        continue
                    if answer.status_code != _OK:
                        raise _RefusedError(f"the server answered {answer.status_code}")
                    return _received(answer, deadline)
        raise _RefusedError("it was redirected too often")
    except (httpx.HTTPError, httpx.InvalidURL, _RefusedError, ValueError, RuntimeError) as error:  # RuntimeError: closed by the timer
        logger.warning("picture.not_fetched host=%s reason=%s", _host(base), error if _is_plain(error) else type(error).__name__)
        return None


def is_below(url: str, base: str) -> bool:
    """Tell whether `url` is at the same scheme, host and port as `base`, and its path is that of `base` or goes on below it."""
    try:
        there, here = urlsplit(url), urlsplit(base)
        if _place(there) != _place(here):
            return False
    except ValueError:
        return False
    path = unquote(there.path)
    if ".." in PurePosixPath(path).parts or "\\" in path:
        return False
    folder = unquote(here.path)
    return path == folder or path.startswith(folder if folder.endswith("/") else f"{folder}/")


@cache
def _certificates() -> SSLContext:
    """Return the certificates that are trusted: reading them takes longer than most pictures, so all clients share them."""
    import httpx

    return httpx.create_ssl_context(trust_env=False)


def _login(base: str) -> tuple[str, str] | None:
    """Return the user name and password in `base`: a redirect to a full address leaves them out."""
    here = urlsplit(base)
    return None if here.username is None else (unquote(here.username), unquote(here.password or ""))


def _host(base: str) -> str | None:
    try:
        return urlsplit(base).hostname
    except ValueError:
        return None


def _place(url: SplitResult) -> tuple[str, str, int | None]:
    return url.scheme.lower(), (url.hostname or "").lower(), url.port or _PORTS.get(url.scheme.lower())


@contextmanager
def _closed_after(seconds: float, client: httpx.Client) -> Generator[None]:
    """Close `client` when time is up: a server that sends its headers bit by bit never keeps silent long enough for a time-out."""
    timer = threading.Timer(seconds, client.close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _received(answer: httpx.Response, deadline: float) -> bytes:
    packed = answer.headers.get("content-encoding", "").strip().lower()
    if packed not in ("", "identity", *_ENCODINGS.split(", ")):
        raise _RefusedError("it is packed in another way than asked for")
    received = bytearray()
    for part in answer.iter_bytes():
        received += part
        if len(received) > MOST_BYTES:
            raise _RefusedError(f"it is larger than {MOST_BYTES} bytes")
        if time.monotonic() > deadline:
            raise _RefusedError("it took too long")
    return bytes(received)


def _is_plain(error: Exception) -> bool:
    """Only our own words are certain to hold no address with a password in it."""
    return isinstance(error, _RefusedError)
