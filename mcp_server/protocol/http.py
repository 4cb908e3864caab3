"""Streamable HTTP: loopback unless told otherwise, and then only with an allowlist of hosts and a bearer token."""

from __future__ import annotations

import hmac
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any

import uvicorn
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_server.config import Settings, is_loopback, too_open
from mcp_server.errors import ConfigError
from mcp_server.protocol.stdio import exit_now

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long calls in flight may hold up the end of the process: a picture server may let them wait much longer."""


def serve_http(server: MCPServer[Any], settings: Settings, host: str, port: int) -> None:
    """Serve Streamable HTTP at http://host:port/mcp until SIGINT or SIGTERM; port 0 picks a free one. GET /health answers {"status":"ok"}.

    Raises:
        ConfigError: the address cannot be used, or is open to others without an allowlist and a token.
    """
    logging.getLogger("mcp.server.streamable_http").addFilter(_is_no_farewell)
    app = http_app(server, settings, host)
    listener = listening(host, port)
    shown = f"[{host}]" if ":" in host else host
    logger.info("http.listening url=http://%s:%d/mcp", shown, listener.getsockname()[1])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _let_end)  # uvicorn ends on them, then raises them once more: this lets the process end with 0
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    _Server(config).run(sockets=[listener])


def http_app(server: MCPServer[Any], settings: Settings, host: str) -> ASGIApp:
    """Return the ASGI application that serves `server` on `host`.

    Raises:
        ConfigError: `host` is not loopback and AllowedHosts or Token is missing.
    """

    @server.custom_route("/health", methods=["GET"])
    async def health(_: Request) -> Response:  # pyright: ignore[reportUnusedFunction] - registered by the decorator
        return JSONResponse({"status": "ok"})

    if refused := too_open(settings, host):
        raise ConfigError(refused)
    local = is_loopback(host)
    names = _with_default_port(("127.0.0.1:*", "localhost:*", "[::1]:*") if local else ())
    origins = _as_sent(origin.rstrip("/") for origin in settings.allowed_origins)
    security = TransportSecuritySettings(
        allowed_hosts=[*names, *_with_default_port(_as_sent(settings.allowed_hosts))],
        allowed_origins=[*(f"http://{name}" for name in names), *origins],
    )
    app: ASGIApp = server.streamable_http_app(host=host, transport_security=security)
    if settings.token:
        app = BearerToken(app, settings.token)
    if origins:  # outermost: a browser's preflight request carries no token
        app = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=("Mcp-Session-Id",),
        )
    return Leaving(app)


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Obey a signal; sessions are saved by every call, so nothing is lost with a worker thread that is still busy."""
        super().handle_exit(sig, frame)
        timer = threading.Timer(GRACE_SECONDS, exit_now)
        timer.daemon = True
        timer.start()


def _let_end(_number: int, _frame: object) -> None:
    """Do nothing: the signal has been obeyed already."""


def _with_default_port(names: Iterable[str]) -> list[str]:
    """Return `names`, and for each that may have any port the name alone: clients leave out the port where it is the usual one."""
    return [each for name in names for each in ((name, name.removesuffix(":*")) if name.endswith(":*") else (name,))]


def _as_sent(names: Iterable[str]) -> list[str]:
    """Return `names` as they are written, and in the small letters that most clients turn the names of hosts into."""
    return list(dict.fromkeys(each for name in names for each in (name, name.lower())))


def _is_no_farewell(record: logging.LogRecord) -> bool:
    """Tell whether the SDK reports anything else than a client that left, which it takes for an error of its own."""
    return not (record.exc_info and isinstance(record.exc_info[1], ClientDisconnect))


class Leaving:
    """ASGI middleware: a client that leaves in the middle of its request is no error of the server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            logger.debug("http.client_left")


class BearerToken:
    """ASGI middleware: 401 for requests without the right bearer token; /health is open."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on if it may be answered."""
        if scope["type"] == "http" and scope["path"] != "/health":
            given = dict(scope["headers"]).get(b"authorization", b"")
            scheme, _, secret = given.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(secret.strip(), self._expected):
                refusal = JSONResponse({"error": "A bearer token is required."}, 401, {"WWW-Authenticate": "Bearer"})
                await refusal(scope, receive, send)
                return
        await self._app(scope, receive, send)


def listening(host: str, port: int, system: str = os.name) -> socket.socket:
    """Return a socket that listens on `host` and `port`, which nobody else does.

    Raises:
        ConfigError: it is in use, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if system == "posix":  # on Windows it means that several may listen on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = str(error).rstrip(".")
        raise ConfigError(f"Cannot listen on {host} port {port}: {reason}. Choose another with --host and --port.") from error
    return listener
