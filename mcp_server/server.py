"""The MCP server put together: tools, middleware, lifespan. Nothing here knows how a search works."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import MCPServer

from mcp_server import __version__
from mcp_server.engine.search import SearchEngine
from mcp_server.protocol.schemas import INSTRUCTIONS
from mcp_server.protocol.tools import build_tools, refuse_bad_names


def build_server(engine: SearchEngine, *, log_level: str = "INFO") -> MCPServer[None]:
    """Return an MCP server over `engine`; `engine` is closed when the server ends.

    Collections and models begin to load, in the background, after the first request has been answered, so that connecting is quick.
    """

    @asynccontextmanager
    async def lifespan(_: MCPServer[None]) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            engine.close()

    async def warm_up_after(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        try:
            return await call_next(ctx)
        finally:
            engine.shelf.warm_up()

    return MCPServer(
        "clip-search",
        title="CLIP image search",
        instructions=INSTRUCTIONS,
        version=__version__,
        website_url=None,
        tools=build_tools(engine),
        lifespan=lifespan,
        log_level=log_level,  # pyright: ignore[reportArgumentType] - checked against the same five names when the configuration is read
        middleware=[warm_up_after, refuse_bad_names],
    )
