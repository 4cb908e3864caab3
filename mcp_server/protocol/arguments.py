"""From what models send to a checked request. Every optional argument takes null, "" and JSON text; every refusal says the way out."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.filters import Filter
from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import Detail, Repeats, SearchRequest
from mcp_server.errors import BadArgumentError, clipped, whole

MOST_TEXT = 1_000
MOST_HITS = 100
MOST_IDS = 100_000
MOST_VALUES = 100
MOST_OFFSET = 10_000_000
LARGEST_ID = 2**63 - 1

_WHOLE = re.compile(r"[+-]?[0-9]+")

OTHER_NAMES: Mapping[str, Mapping[str, str]] = {
    "clip_search": {
        **dict.fromkeys(("top_k", "topk", "limit", "k", "num_results", "max_results", "count", "size", "page_size"), "n"),
        **dict.fromkeys(("query", "prompt", "q", "search", "search_query", "description"), "text"),
        **dict.fromkeys(("filter", "where", "filter_by", "metadata_filter"), "filters"),
        **dict.fromkeys(("session_id", "sessionid", "cursor", "page_token", "handle"), "session"),
        **dict.fromkeys(("exclude", "exclude_ids", "excluded_ids", "skip"), "excluded"),
        **dict.fromkeys(("seen_ids", "shown"), "seen"),
        **dict.fromkeys(("exclude_groups", "excluded_group", "group_ids"), "excluded_groups"),
        **dict.fromkeys(("collection_name", "index", "dataset"), "collection"),
        **dict.fromkeys(("page", "offset"), "session"),
    },
    "describe_filters": {
        **dict.fromkeys(("top_k", "limit", "k", "count", "page_size"), "n"),
        **dict.fromkeys(("filter", "where"), "filters"),
        **dict.fromkeys(("name", "filter_name", "field_name", "tagset", "column"), "field"),
        **dict.fromkeys(("query", "text", "search", "value", "contains"), "match"),
        **dict.fromkeys(("collection_name", "index", "dataset"), "collection"),
        **dict.fromkeys(("page", "start", "skip"), "offset"),
    },
}
"""What models call our arguments, by tool."""


@dataclass(frozen=True)
class FilterQuestion:
    """One call of describe_filters, checked for form."""

    collection: str | None
    field: str | None
    match: str | None
    n: int
    offset: int
    filters: Filter | None


def search_request(raw: Mapping[str, Any]) -> SearchRequest:
    """Return the request that the arguments of `clip_search` ask for.

    Raises:
        CallerError: one of them cannot be used.
    """
    return SearchRequest(
        text=_text(raw.get("text")),
        collection=_name("collection", raw.get("collection")),
        n=_whole("n", raw.get("n"), default=10, least=1, most=MOST_HITS, hint=" To see more, page on with the returned session."),
        filters=parse_filter(raw.get("filters")),
        session=_name("session", raw.get("session")),
        repeats=_choice("repeats", raw.get("repeats"), get_args(Repeats)),
        seen=_ids("seen", raw.get("seen")),
        excluded=_ids("excluded", raw.get("excluded")),
        excluded_groups=_ids("excluded_groups", raw.get("excluded_groups")),
        detail=_choice("detail", raw.get("detail"), get_args(Detail), default="concise"),
    )


def filter_question(raw: Mapping[str, Any]) -> FilterQuestion:
    """Return the question that the arguments of `describe_filters` ask.

    Raises:
        CallerError: one of them cannot be used.
    """
    return FilterQuestion(
        collection=_name("collection", raw.get("collection")),
        field=_name("field", raw.get("field")),
        match=_name("match", raw.get("match")),
        n=_whole("n", raw.get("n"), default=20, least=1, most=MOST_VALUES, hint=" Page on with offset."),
        offset=_whole("offset", raw.get("offset"), default=0, least=0, most=MOST_OFFSET),
        filters=parse_filter(raw.get("filters")),
    )


def refused_names(tool: str, names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return why the first of `names` that is not in `known` is refused, or None when all are known."""
    wrong = next((name for name in names if name not in known), None)
    if wrong is None:
        return None
    folded = wrong.lower().replace("-", "_").strip("_ ")
    right = OTHER_NAMES[tool].get(folded) or next((name for name in known if _alike(folded, name)), None)
    hint = f'use "{right}"' if right else "leave it out"
    note = " (a session pages on by itself)" if right == "session" and folded in ("page", "offset") else ""
    return f'Unknown argument "{clipped(wrong)}"; {hint}{note}. {tool} takes: {", ".join(known)}.'


def _alike(name: str, known: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, name, known).ratio() >= 0.75


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "none", "undefined"))


def _text(value: object) -> str:
    if not isinstance(value, str):
        kind = "it is missing" if value is None else f"got {_kind(value)}"
        raise BadArgumentError(f'text takes words for the picture, 1 to {MOST_TEXT:,} characters; {kind}. For example "a red apple".')
    text = whole(value).strip()
    if not text:
        raise BadArgumentError('text is blank. Describe what the picture shows, for example "a red apple on a table".')
    if len(text) > MOST_TEXT:
        raise BadArgumentError(f"text has {len(text):,} characters; it takes 1 to {MOST_TEXT:,}. Use one or two sentences.")
    return text


def _name(argument: str, value: object) -> str | None:
    if _absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadArgumentError(f"{argument} takes a name in quotes, or leave it out; got {_kind(value)}.")
    text = whole(str(value)).strip()
    if len(text) > MOST_TEXT:
        raise BadArgumentError(f"{argument} has {len(text):,} characters; it takes at most {MOST_TEXT:,}.")
    return text


def _whole(argument: str, value: object, *, default: int, least: int, most: int, hint: str = "") -> int:
    if _absent(value):
        return default
    number = value
    if isinstance(value, str):
        number = int(value.strip()[:1_000]) if _WHOLE.fullmatch(value.strip()) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        shown = f'"{clipped(value, 24)}"' if isinstance(value, str) else _kind(value)
        raise BadArgumentError(f"{argument} takes a whole number from {least} to {most:,}; got {shown}.{hint}")
    return number


def _choice(argument: str, value: object, choices: tuple[Any, ...], default: str | None = None) -> Any:
    if _absent(value):
        return default or choices[0]
    if isinstance(value, str) and value.strip().lower() in choices:
        return value.strip().lower()
    listed = ", ".join(f'"{choice}"' for choice in choices)
    shown = f'"{clipped(value)}"' if isinstance(value, str) else _kind(value)
    raise BadArgumentError(f"{argument} takes one of {listed}; got {shown}.")


def _ids(argument: str, value: object) -> tuple[MediaId, ...]:
    if _absent(value):
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = str(value).replace(",", " ").split()
    values: list[object] = list(value) if isinstance(value, list) else [value]
    if len(values) > MOST_IDS:
        raise BadArgumentError(f"{argument} takes at most {MOST_IDS:,} ids; got {len(values):,}. Use a session to skip what was shown.")
    return tuple(MediaId(_id(argument, each)) for each in values)


def _id(argument: str, value: object) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20 else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        shown = f'"{clipped(value)}"' if isinstance(value, str) else _kind(value)
        raise BadArgumentError(f'{argument} takes a list of ids, such as [104, 2077], from "id" or "group" of the hits; got {shown}.')
    return max(-LARGEST_ID, min(LARGEST_ID, number))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value}" if abs(value) < 10**20 else "a huge number"
    if isinstance(value, str):
        return "text"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"
