"""stdio transport in which every request gets an answer and every ending is clean.

The SDK's reader drops, without an answer, lines that its parser refuses: a lone surrogate, nesting past 199 levels, an integer of thousands
of digits. Here the server owns the reader and repairs such lines first, so that the tool itself can say what is wrong. SIGINT, SIGTERM and
end of input all end the process within a second; sessions are saved by every call, so nothing is left to save.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
from mcp.server import MCPServer
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

logger = logging.getLogger(__name__)

DEEPEST = 100
"""Nesting kept when a line is repaired: deeper than any argument may be, shallower than the SDK's parser allows."""
GRACE_SECONDS = 0.3
"""How long calls in flight may hold up the end of the process."""

_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL
)  # a string without an end runs to the end, so no byte is read twice


def serve_stdio(server: MCPServer[Any]) -> None:
    """Serve on stdin and stdout until end of input, SIGINT, SIGTERM or nobody reads. Nothing but protocol reaches stdout."""
    try:
        anyio.run(_serve, server)
    except* BrokenPipeError:
        logger.info("stdio.client_gone")


def exit_now() -> None:
    """End the process at once with status 0; a worker thread that is still busy (loading a model, say) cannot hold it up."""
    os._exit(0)


async def _serve(server: MCPServer[Any]) -> None:
    wire = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)  # children must not read the wire
    os.close(null)
    send, lines = anyio.create_memory_object_stream[str](16)
    low_level = server._lowlevel_server  # pyright: ignore[reportPrivateUsage] - the SDK has no public way to bring one's own reader
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_stop_on_signal, tasks.cancel_scope)
        async with stdio_server(stdin=lines) as (reading, writing):  # pyright: ignore[reportArgumentType] - only iterated over
            token = anyio.lowlevel.current_token()
            threading.Thread(target=_pump, args=(wire, send, writing, token), name="stdin", daemon=True).start()
            await low_level.run(reading, writing, low_level.create_initialization_options())
        tasks.cancel_scope.cancel()


def _pump(wire: int, send: Any, writing: Any, token: Any) -> None:
    """Read lines in a daemon thread, which never holds up the end of the process, and hand them to the event loop."""
    try:
        with os.fdopen(wire, "rb") as stream:
            for raw in stream:
                line = readable(raw)
                if isinstance(line, str):
                    anyio.from_thread.run(send.send, line, token=token)
                else:
                    anyio.from_thread.run(writing.send, SessionMessage(line), token=token)
        _end_soon()
        anyio.from_thread.run(send.aclose, token=token)
    except (RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        logger.debug("stdio.loop_ended")


async def _stop_on_signal(scope: anyio.CancelScope) -> None:
    async with _signals() as received:
        async for number in received:
            logger.info("stdio.signal name=%s", signal.Signals(number).name)
            _end_soon()
            scope.cancel()


@asynccontextmanager
async def _signals() -> AsyncGenerator[AsyncIterator[int]]:
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
            yield received
    except NotImplementedError:  # Windows' event loops have no signal handlers: Ctrl-C raises KeyboardInterrupt there
        yield _never()


async def _never() -> AsyncIterator[int]:
    await anyio.sleep_forever()
    yield 0


def _end_soon() -> None:
    timer = threading.Timer(GRACE_SECONDS, exit_now)
    timer.daemon = True
    timer.start()


def readable(raw: bytes) -> str | JSONRPCError:
    """Return a line that the SDK's parser takes and answers, made from what a client sent; or the error to answer with."""
    text = raw.decode("utf-8", "replace")
    if not text.strip() or (_is_message(text) and not _has_unusable_id(text)):
        return text
    try:
        message: Any = json.loads(without_depth(text), parse_int=_bounded, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return _error(None, PARSE_ERROR, "The line is not JSON.")
    repaired = json.dumps(message, ensure_ascii=False).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if _is_message(repaired) and not _has_unusable_id(repaired):
        return repaired
    number = message.get("id") if isinstance(message, dict) else None
    if isinstance(message, dict) and "id" not in message and "method" in message:
        return text  # a malformed notification: nobody waits for an answer
    usable = number if isinstance(number, str | int) and not isinstance(number, bool) else None
    return _error(usable, INVALID_REQUEST, "The line is not a JSON-RPC 2.0 request: it takes jsonrpc, id, method and params (an object).")


def without_depth(text: str, deepest: int = DEEPEST) -> str:
    """Return JSON `text` with everything nested deeper than `deepest` levels replaced by null. Linear, not recursive."""
    kept: list[str] = []
    depth, start = 0, 0
    for token in _TOKEN.finditer(text):
        mark = token.group()
        if mark in "[{":
            if depth == deepest:
                kept.append(text[start : token.start()] + "null")
            depth += 1
        elif mark in "]}":
            depth -= 1
            if depth == deepest:
                start = token.end()
    return "".join(kept) + (text[start:] if depth <= deepest else "")


def _is_message(text: str) -> bool:
    try:
        jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValueError:
        return False
    return True


def _has_unusable_id(text: str) -> bool:
    """Tell whether a message has an id that is neither text nor a whole number: the SDK takes it for a notification and never answers."""
    if '"id"' not in text:
        return False
    message: Any = json.loads(text)
    return "method" in message and "id" in message and (isinstance(message["id"], bool) or not isinstance(message["id"], str | int))


def _bounded(digits: str) -> int:
    """Cut an integer to what the parser takes; it stays far larger than any argument may be."""
    return int(digits[:1_000])


def _error(number: str | int | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=message))
