"""The MCP server put together: tools, middleware, lifespan. Nothing here knows how a search works."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp.server import MCPServer

from mcp_server import __version__
from mcp_server.engine.search import SearchEngine
from mcp_server.protocol.completions import add_completions
from mcp_server.protocol.gallery import gallery
from mcp_server.protocol.prompts import build_prompts, right_codes
from mcp_server.protocol.resources import add_resources
from mcp_server.protocol.schemas import INSTRUCTIONS
from mcp_server.protocol.tools import build_tools, refuse_bad_names


def build_server(engine: SearchEngine, *, log_level: str = "INFO", list_sessions: bool = False) -> MCPServer[None]:
    """Return an MCP server over `engine`; `engine` is closed when the server ends.

    With `list_sessions`, recent sessions are offered as completions: only where one user has the server to himself.

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

    async def right_prompts(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        return await right_codes(ctx, call_next, prompts)

    prompts = build_prompts()
    server = MCPServer(
        "clip-search",
        title="CLIP image search",
        instructions=INSTRUCTIONS,
        version=__version__,
        website_url=None,
        tools=build_tools(engine),
        extensions=[gallery()],
        lifespan=lifespan,
        log_level=log_level,  # pyright: ignore[reportArgumentType] - checked against the same five names when the configuration is read
        middleware=[warm_up_after, refuse_bad_names, right_prompts],
    )
    for prompt in prompts:
        server.add_prompt(prompt)
    add_resources(server, engine)
    add_completions(server, engine, list_sessions=list_sessions)
    return server
