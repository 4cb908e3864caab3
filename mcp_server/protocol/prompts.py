"""Ready-made ways of working for an agent: find pictures, curate a selection."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from mcp import MCPError
from mcp.server.mcpserver.prompts import Prompt
from mcp.types import INVALID_PARAMS
from pydantic import Field

from mcp_server.errors import CallerError
from mcp_server.protocol.checks import absent, whole_number

MOST_WORDS = 1_000
"""Characters of one argument."""
MOST_PICTURES = 1_000

_TIPS = (
    'Describe what is visible, not ideas ("a red car parked outside a house", not "transportation"); add light and style '
    '("low light indoor portrait", "aerial drone shot"). Plain English first.'
)

Collection = Annotated[str | None, Field(description="Collection to search; needed only if there are several")]


def build_prompts() -> list[Prompt]:
    """Return the prompts, in the order clients list them."""
    return [
        Prompt.from_function(find_images, title="Find images", description="Find pictures that show something, and look at them."),
        Prompt.from_function(
            curate, title="Curate a selection", description="Collect pictures that meet criteria, page by page, into a shortlist."
        ),
    ]


def find_images(
    description: Annotated[str, Field(description="What the pictures should show")],
    collection: Collection = None,
    count: Annotated[str | None, Field(description="How many pictures, 1 to 1,000; default 10")] = None,
) -> str:
    """Return the way from a wish to pictures that were looked at."""
    wish, where, number = _words("description", description), _where(collection), _count(count, 10)
    return (
        f"Find {number} pictures that show: {wish}{where}\n\n"
        f"1. Put the wish into words for clip_search. {_TIPS}\n"
        "2. Call clip_search. If the hits are mixed, call describe_filters with the same text: it shows which values the best matches "
        "have; narrow with filters.\n"
        "3. Look before you judge: call view_media with up to 12 ids at a time. Good hits as like, others as unlike, bring you closer.\n"
        "4. For more, pass session; stop when rel is weak or after drop_after. If all is weak, try other words, then say that the "
        "collection does not have it.\n"
        "5. Answer with ids and titles, what you saw, and what is missing."
    )


def curate(
    criteria: Annotated[str, Field(description="What a picture must show or be to belong to the selection")],
    count: Annotated[str | None, Field(description="How many pictures are wanted, 1 to 1,000; default 25")] = None,
    reject: Annotated[str | None, Field(description="What rules a picture out")] = None,
    collection: Collection = None,
    session: Annotated[str | None, Field(description="Session of an earlier curation, to go on with it")] = None,
) -> str:
    """Return the way to a shortlist, with pauses and restarts."""
    wish, where, number = _words("criteria", criteria), _where(collection), _count(count, 25)
    unwanted = f"\nRule out: {_words('reject', reject)}" if not absent(reject) else ""
    begin = (
        f"Go on in session {_words('session', session)}: update_session with it alone shows the shortlist and notes."
        if not absent(session)
        else "Begin with clip_search; note the session it returns and pass it in every call."
    )
    return (
        f"Select {number} pictures. Criteria: {wish}{where}{unwanted}\n\n"
        f"1. {begin}\n"
        f"2. Call clip_search in several wordings. {_TIPS} describe_filters with text and session shows how to narrow; max_per_group=1 "
        "avoids near copies.\n"
        "3. Look at every page with view_media, 12 ids at a time, and decide by what you see. Call update_session with keep for what "
        "belongs and exclude for what is ruled out; put doubts and decisions into note.\n"
        "4. Page on with session. Use kept ids as like and rejected ones as unlike. Leave a wording when rel is weak on two pages.\n"
        f"5. Stop at {number}, or when nothing new is fair or strong. If an answer is lost, ask for its page again.\n"
        "6. Report: how many kept of how many seen, their ids, what was hard to find, the session, and the export resource "
        "clip://session/SESSION/kept.csv."
    )


async def right_codes(ctx: Any, call_next: Callable[[Any], Awaitable[Any]], prompts: list[Prompt]) -> Any:
    """Middleware: an unknown prompt, an unknown or a missing argument is the client's error (-32602), not the server's."""
    if ctx.method == "prompts/get" and isinstance(ctx.params, dict):
        name, given = ctx.params.get("name"), ctx.params.get("arguments")
        prompt = next((one for one in prompts if one.name == name), None)
        if prompt is None:
            raise MCPError(INVALID_PARAMS, f"There is no prompt of that name. Prompts: {', '.join(one.name for one in prompts)}.")
        arguments: dict[str, Any] = given if isinstance(given, dict) else {}
        known = [one.name for one in prompt.arguments or []]
        missing = [one.name for one in prompt.arguments or [] if one.required and absent(arguments.get(one.name))]
        if not arguments.keys() <= set(known):
            raise MCPError(INVALID_PARAMS, f"The prompt {prompt.name} takes {', '.join(known)}.")
        if missing:
            raise MCPError(INVALID_PARAMS, f"The prompt {prompt.name} needs {', '.join(missing)}.")
    return await call_next(ctx)


def _words(argument: str, text: str | None) -> str:
    """Return what the user wrote in quotes on one line, so that it cannot be taken for a step."""
    words = " ".join((text or "").split())
    if not 1 <= len(words) <= MOST_WORDS:
        raise MCPError(INVALID_PARAMS, f"{argument} takes 1 to {MOST_WORDS:,} characters; got {len(words):,}.")
    return json.dumps(words, ensure_ascii=False)


def _where(collection: str | None) -> str:
    return "" if absent(collection) else f" in collection {_words('collection', collection)}"


def _count(count: str | None, default: int) -> int:
    try:
        return whole_number("count", count, default=default, least=1, most=MOST_PICTURES)
    except CallerError as error:
        raise MCPError(INVALID_PARAMS, error.message) from error
