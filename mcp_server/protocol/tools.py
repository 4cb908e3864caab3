"""The tools: arguments to a request, one call of the engine, the outcome to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio.from_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from mcp_server.engine.search import SearchEngine
from mcp_server.protocol import schemas
from mcp_server.protocol.answers import search_answer
from mcp_server.protocol.arguments import filter_question, refused_names, search_request
from mcp_server.protocol.failures import told_to_the_model
from mcp_server.protocol.filter_answers import filter_answer

_READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)


def build_tools(engine: SearchEngine) -> list[Tool]:
    """Return the tools over `engine`, in the order clients list them."""

    def clip_search(
        ctx: Context,
        text: str,
        collection: Any = None,
        n: Any = None,
        filters: Any = None,
        session: Any = None,
        repeats: Any = None,
        seen: Any = None,
        excluded: Any = None,
        excluded_groups: Any = None,
        detail: Any = None,
    ) -> CallToolResult:
        with told_to_the_model():
            request = search_request(
                {
                    "text": text,
                    "collection": collection,
                    "n": n,
                    "filters": filters,
                    "session": session,
                    "repeats": repeats,
                    "seen": seen,
                    "excluded": excluded,
                    "excluded_groups": excluded_groups,
                    "detail": detail,
                }
            )
            outcome = engine.search(request, waiting=lambda seconds: _say_waiting(ctx, seconds))
            media = engine.shelf.collection(outcome.collection).media
            return search_answer(outcome, media, request.detail).result()

    def describe_filters(
        collection: Any = None,
        field: Any = None,
        match: Any = None,
        n: Any = None,
        offset: Any = None,
        filters: Any = None,
    ) -> CallToolResult:
        with told_to_the_model():
            question = filter_question(
                {"collection": collection, "field": field, "match": match, "n": n, "offset": offset, "filters": filters}
            )
            return filter_answer(engine.shelf, question).result()

    return [
        _tool(clip_search, "Search pictures", schemas.CLIP_SEARCH, schemas.CLIP_SEARCH_INPUT, schemas.CLIP_SEARCH_OUTPUT),
        _tool(
            describe_filters, "Describe filters", schemas.DESCRIBE_FILTERS, schemas.DESCRIBE_FILTERS_INPUT, schemas.DESCRIBE_FILTERS_OUTPUT
        ),
    ]


async def refuse_bad_names(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Middleware: answer a tool call with an unknown or missing argument name; the SDK drops unknown names without a word."""
    if ctx.method == "tools/call" and isinstance(ctx.params, dict):
        params: dict[str, Any] = ctx.params
        refusal = _refusal(params.get("name"), params.get("arguments"))
        if refusal is not None:
            return CallToolResult(content=[TextContent(type="text", text=refusal)], is_error=True)
    return await call_next(ctx)


def _refusal(name: object, arguments: object) -> str | None:
    schema = {"clip_search": schemas.CLIP_SEARCH_INPUT, "describe_filters": schemas.DESCRIBE_FILTERS_INPUT}.get(str(name))
    if schema is None:
        return None
    if arguments is not None and not isinstance(arguments, dict):
        return f'{name} takes its arguments as an object, such as {{"text": "a red apple"}}.'
    given: dict[str, Any] = arguments or {}
    refusal = refused_names(str(name), list(given), list(schema["properties"]))
    if refusal is None and name == "clip_search" and not isinstance(given.get("text"), str):
        return 'clip_search needs text: words that describe the picture, for example {"text": "a red apple on a table"}.'
    return refusal


def _tool(fn: Callable[..., CallToolResult], title: str, description: str, takes: schemas.Schema, gives: schemas.Schema) -> Tool:
    """Return `fn` as a tool that publishes hand-written schemas; the SDK's generated ones carry titles and miss bounds."""
    tool = Tool.from_function(fn, title=title, description=description, annotations=_READ_ONLY, structured_output=False)
    tool.parameters = takes
    tool.fn_metadata.output_schema = gives
    return tool


def _say_waiting(ctx: Context, seconds: float) -> None:
    """Report progress from a tool's worker thread."""
    anyio.from_thread.run(ctx.report_progress, seconds, None, f"loading the text encoder ({seconds:.0f} s so far)")
