"""The tools: arguments to a request, one call of the engine, the outcome to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations

from mcp_server.domain.stopping import stoppable
from mcp_server.engine.curation import update_session as change_session
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import clipped
from mcp_server.protocol import schemas
from mcp_server.protocol.answers import result_of, search_answer, session_answer
from mcp_server.protocol.arguments import filter_question, refused_names, search_request, session_change, view_request
from mcp_server.protocol.failures import told_to_the_model
from mcp_server.protocol.filter_answers import filter_answer
from mcp_server.protocol.gallery import GALLERY_META
from mcp_server.protocol.view import CALLS_AT_ONCE, view_answer

_READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, open_world_hint=False)
_WRITES_SESSION = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
_EXAMPLES = {
    "clip_search": '{"text": "a red apple"}',
    "describe_filters": '{"field": "color"}',
    "view_media": '{"ids": [104, 2077]}',
    "update_session": '{"session": "s_...", "keep": [104]}',
}


def build_tools(engine: SearchEngine) -> list[Tool]:
    """Return the tools over `engine`, in the order clients list them."""
    looking = anyio.CapacityLimiter(CALLS_AT_ONCE)

    def clip_search(
        ctx: Context,
        text: Any = None,
        like: Any = None,
        unlike: Any = None,
        collection: Any = None,
        n: Any = None,
        filters: Any = None,
        session: Any = None,
        repeats: Any = None,
        seen: Any = None,
        excluded: Any = None,
        excluded_groups: Any = None,
        max_per_group: Any = None,
        min_score: Any = None,
        page: Any = None,
        detail: Any = None,
    ) -> CallToolResult:
        with told_to_the_model(), stoppable(anyio.from_thread.check_cancelled):
            request = search_request(
                {
                    "text": text,
                    "like": like,
                    "unlike": unlike,
                    "collection": collection,
                    "n": n,
                    "filters": filters,
                    "session": session,
                    "repeats": repeats,
                    "seen": seen,
                    "excluded": excluded,
                    "excluded_groups": excluded_groups,
                    "max_per_group": max_per_group,
                    "min_score": min_score,
                    "page": page,
                    "detail": detail,
                }
            )
            text = engine.answer(request, lambda outcome: search_answer(outcome, request).text, lambda seconds: _say_waiting(ctx, seconds))
            return result_of(text)

    def describe_filters(
        ctx: Context,
        collection: Any = None,
        field: Any = None,
        match: Any = None,
        n: Any = None,
        offset: Any = None,
        filters: Any = None,
        text: Any = None,
        session: Any = None,
    ) -> CallToolResult:
        with told_to_the_model(), stoppable(anyio.from_thread.check_cancelled):
            question = filter_question(
                {
                    "collection": collection,
                    "field": field,
                    "match": match,
                    "n": n,
                    "offset": offset,
                    "filters": filters,
                    "text": text,
                    "session": session,
                }
            )
            return filter_answer(engine, question, lambda seconds: _say_waiting(ctx, seconds)).result()

    async def view_media(collection: Any = None, ids: Any = None) -> CallToolResult:
        with told_to_the_model():
            request = view_request({"collection": collection, "ids": ids})
            return await anyio.to_thread.run_sync(view_answer, engine.shelf, request.collection, request.ids, limiter=looking)

    def update_session(
        session: Any = None,
        collection: Any = None,
        keep: Any = None,
        drop: Any = None,
        exclude: Any = None,
        forget_seen: Any = None,
        note: Any = None,
        fork: Any = None,
    ) -> CallToolResult:
        with told_to_the_model():
            change = session_change(
                {
                    "session": session,
                    "collection": collection,
                    "keep": keep,
                    "drop": drop,
                    "exclude": exclude,
                    "forget_seen": forget_seen,
                    "note": note,
                    "fork": fork,
                }
            )
            return session_answer(change_session(engine.shelf, engine.sessions, change)).result()

    return [
        _tool(clip_search, "Search pictures", schemas.CLIP_SEARCH, schemas.CLIP_SEARCH_OUTPUT, meta=GALLERY_META),
        _tool(describe_filters, "Describe filters", schemas.DESCRIBE_FILTERS),
        _tool(view_media, "Look at pictures", schemas.VIEW_MEDIA),
        _tool(update_session, "Keep a shortlist", schemas.UPDATE_SESSION, annotations=_WRITES_SESSION),
    ]


class _AsSent(FuncMetadata):
    """Arguments as the client sent them: `arguments` reads JSON text itself, and sees there what is lost once it is read."""

    def pre_parse_json(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return `data`."""
        return data


async def refuse_bad_names(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Middleware: answer a call of an unknown tool, whose name the SDK repeats whole, and of an unknown argument, which it drops unsaid."""
    if ctx.method == "tools/call" and isinstance(ctx.params, dict):
        params: dict[str, Any] = ctx.params
        refusal = _refusal(params.get("name"), params.get("arguments"))
        if refusal is not None:
            return CallToolResult(content=[TextContent(type="text", text=refusal)], is_error=True)
    return await call_next(ctx)


def _refusal(name: object, arguments: object) -> str | None:
    if not isinstance(name, str):
        return None
    schema = schemas.INPUTS.get(name)
    if schema is None:
        return f'There is no tool "{clipped(name)}". Tools: {", ".join(schemas.INPUTS)}.'
    if arguments is not None and not isinstance(arguments, dict):
        return f"{name} takes its arguments as an object, such as {_EXAMPLES[name]}."
    given: dict[str, Any] = arguments or {}
    return refused_names(name, list(given), list(schema["properties"]))


def _tool(
    fn: Callable[..., CallToolResult | Awaitable[CallToolResult]],
    title: str,
    description: str,
    gives: schemas.Schema | None = None,
    annotations: ToolAnnotations = _READ_ONLY,
    meta: dict[str, Any] | None = None,
) -> Tool:
    """Return `fn` as a tool that publishes hand-written schemas; the SDK's generated ones carry titles and miss bounds."""
    tool = Tool.from_function(fn, title=title, description=description, annotations=annotations, structured_output=False, meta=meta)
    tool.parameters = schemas.INPUTS[tool.name]
    tool.fn_metadata = _AsSent(**dict(tool.fn_metadata))
    if gives is not None:
        tool.fn_metadata.output_schema = gives
    return tool


def _say_waiting(ctx: Context, seconds: float) -> None:
    """Report progress from a tool's worker thread."""
    anyio.from_thread.run(ctx.report_progress, seconds, None, f"loading the text encoder ({seconds:.0f} s so far)")
