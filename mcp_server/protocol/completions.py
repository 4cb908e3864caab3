"""Completes what a person types into a resource's address or a prompt's argument."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import anyio.to_thread
import numpy as np
from mcp.server import MCPServer
from mcp.types import Completion, PromptReference, ResourceTemplateReference

from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import SearchServerError
from mcp_server.protocol import uris
from mcp_server.protocol.resources import SIDES
from mcp_server.stores.facets import field_page
from mcp_server.stores.fields import Field

MOST = 100
"""Values in one completion, the protocol's limit."""
MOST_TYPED = 1_000
"""Characters that are completed: no name, handle or argument is longer, and each value found would repeat what was typed."""
SECRET_PREFIX = 10
"""Characters of a handle that must be typed where sessions are not listed: 48 random bits, more than anyone can guess."""

_COUNTS = ("10", "25", "50", "100")
_PROMPT_ARGUMENTS = {
    "find_images": ("description", "collection", "count"),
    "curate": ("criteria", "count", "reject", "collection", "session"),
}
_TEMPLATE_VARIABLES = {
    uris.FILTERS: ("collection",),
    uris.MEDIA: ("collection", "id", "side"),
    uris.MEDIA_INFO: ("collection", "id"),
    uris.SESSION: ("session",),
    uris.SESSION_FILE: ("session", "file"),
}


def add_completions(server: MCPServer[Any], engine: SearchEngine, *, list_sessions: bool) -> None:
    """Complete every variable and argument on `server`.

    A handle is all that is needed to read a session. So sessions are listed only with `list_sessions`, where one user has the server to
    himself (stdio); elsewhere the first `SECRET_PREFIX` characters of a handle must be known.
    """

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:  # pyright: ignore[reportUnusedFunction] - registered by the decorator
        if not _knows(ref, argument.name) or len(argument.value) > MOST_TYPED:
            return _chosen((), "")
        given: dict[str, str] = (context.arguments or {}) if context is not None else {}
        work = partial(_values, engine, argument.name, argument.value.strip(), given.get("collection"), list_sessions)
        return await anyio.to_thread.run_sync(work)


def _knows(ref: object, argument: str) -> bool:
    if isinstance(ref, PromptReference):
        return argument in _PROMPT_ARGUMENTS.get(ref.name, ())
    return isinstance(ref, ResourceTemplateReference) and argument in _TEMPLATE_VARIABLES.get(ref.uri, ())


def _values(engine: SearchEngine, argument: str, typed: str, collection: str | None, list_sessions: bool) -> Completion:
    try:
        if argument == "id":
            return _ids(engine.shelf, collection, typed)
        if argument in ("description", "criteria", "reject"):
            return _chosen(_ideas(engine.shelf, collection, typed), "")
        known = {"collection": engine.shelf.names, "file": uris.SESSION_FILES, "side": SIDES, "count": _COUNTS}
        if argument != "session":
            return _chosen(known[argument], typed)
        enough = list_sessions or len(typed) >= SECRET_PREFIX
        return _chosen(engine.sessions.recent(typed, MOST + 1) if enough else (), typed)
    except SearchServerError:  # such as a collection that is not there: there is nothing to complete
        return _chosen((), "")


def _chosen(values: Iterable[str], typed: str) -> Completion:
    """Return the values that begin with what was typed, letter case ignored, then those that contain it."""
    folded = typed.casefold()
    listed = list(values)
    first = [value for value in listed if value.casefold().startswith(folded)]
    found = first + [value for value in listed if folded in value.casefold() and value not in first]
    return Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)


def _ids(shelf: Shelf, collection: str | None, typed: str) -> Completion:
    """Return the ids that begin with the digits typed, ascending."""
    if typed and not (typed.isascii() and typed.isdecimal() and len(typed) < 19):
        return _chosen((), "")
    with shelf.using(collection or (shelf.names[0] if shelf.names else None)) as opened:
        media = np.sort(opened.catalog.media_of_row[opened.catalog.mapped])
    if not typed:
        return Completion(values=[str(one) for one in media[:MOST].tolist()], total=len(media), has_more=len(media) > MOST)
    found: list[int] = []
    total = 0
    first, last = int(typed), int(typed) + 1
    while first <= int(media[-1] if len(media) else 0) and not (typed.startswith("0") and typed != "0"):
        low, high = np.searchsorted(media, (first, last))
        total += int(high - low)
        found += media[low : min(high, low + MOST)].tolist()
        if typed == "0":
            break
        first, last = first * 10, last * 10
    return Completion(values=[str(one) for one in found[:MOST]], total=total, has_more=total > MOST)


def _ideas(shelf: Shelf, collection: str | None, typed: str) -> list[str]:
    """Return common values of the collection's text fields that contain the last word typed, behind what stands before it."""
    before, _, word = typed.rpartition(" ")
    with shelf.using(collection or (shelf.names[0] if shelf.names else None)) as opened:
        counted: dict[str, int] = {}
        for field in opened.filters.fields:
            if _is_telling(field):
                for value in field_page(opened.filters, field.name, word or None, 20).values:
                    text = str(value.value)
                    if 2 < len(text) <= 40:
                        counted[text] = max(counted.get(text, 0), value.count)
    best = sorted(counted, key=lambda text: (not text.casefold().startswith(word.casefold()), -counted[text], text))[:20]
    return [f"{before} {text}".strip() for text in best]


def _is_telling(field: Field) -> bool:
    names = ("title", "caption", "keywords", "category", "subcategory", "tags", "description", "name", "scene", "subject")
    return field.kind == "text" and field.bare_name.casefold() in names
