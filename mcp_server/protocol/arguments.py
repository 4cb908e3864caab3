"""From what models send to a checked request. Every optional argument takes null, "" and JSON text; every refusal says the way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.filters import Filter
from mcp_server.domain.ids import MediaId
from mcp_server.domain.query_text import parse_texts
from mcp_server.domain.search import Detail, Repeats, SearchRequest, WeightedText
from mcp_server.domain.session import SessionChange
from mcp_server.errors import BadArgumentError, clipped
from mcp_server.protocol.checks import absent, choice, cosine_or_none, flag, ids, name_or_none, note_or_none, whole_number, whole_or_none

MOST_HITS = 100
MOST_EXAMPLES = 100
MOST_MEMBERS = 1_000
MOST_PAGES = 10_000_000
MOST_VIEWED = 12
MOST_VALUES = 100
MOST_OFFSET = 10_000_000
LONGEST_NAME = 40
"""Characters of an unknown argument's name that are compared with the known ones: comparing takes time, and all are shorter."""
FACET_MATCHES = 500
"""describe_filters with text counts the values of so many of the best unseen matches."""

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
        **dict.fromkeys(("offset", "start"), "session"),
        **dict.fromkeys(("positive", "positives", "like_ids", "similar_to", "more_like", "examples"), "like"),
        **dict.fromkeys(("negative", "negatives", "unlike_ids", "not_like", "negative_text"), "unlike"),
        **dict.fromkeys(("threshold", "score_threshold", "minimum_score"), "min_score"),
        **dict.fromkeys(("group_size", "per_group", "limit_per_group"), "max_per_group"),
    },
    "describe_filters": {
        **dict.fromkeys(("top_k", "limit", "k", "count", "page_size"), "n"),
        **dict.fromkeys(("filter", "where"), "filters"),
        **dict.fromkeys(("name", "filter_name", "field_name", "tagset", "column"), "field"),
        **dict.fromkeys(("search", "value", "contains"), "match"),
        **dict.fromkeys(("query", "prompt"), "text"),
        **dict.fromkeys(("session_id", "handle"), "session"),
        **dict.fromkeys(("collection_name", "index", "dataset"), "collection"),
        **dict.fromkeys(("page", "start", "skip"), "offset"),
    },
    "view_media": {
        **dict.fromkeys(("id", "media", "media_id", "media_ids", "images", "items", "hits"), "ids"),
        **dict.fromkeys(("collection_name", "index", "dataset"), "collection"),
    },
    "update_session": {
        **dict.fromkeys(("session_id", "handle"), "session"),
        **dict.fromkeys(("add", "save", "select", "shortlist", "kept"), "keep"),
        **dict.fromkeys(("remove", "delete", "unkeep", "unexclude"), "drop"),
        **dict.fromkeys(("reject", "hide", "excluded", "exclude_ids", "skip"), "exclude"),
        **dict.fromkeys(("reset", "clear", "forget", "clear_seen"), "forget_seen"),
        **dict.fromkeys(("notes", "comment", "text", "memo"), "note"),
        **dict.fromkeys(("copy", "branch", "clone"), "fork"),
        **dict.fromkeys(("collection_name", "index", "dataset"), "collection"),
    },
}
"""What models call our arguments, by tool."""


@dataclass(frozen=True)
class FilterQuestion:
    """One call of describe_filters, checked for form. With `search`, the best unseen matches of that search are counted."""

    collection: str | None
    field: str | None
    match: str | None
    n: int
    offset: int
    filters: Filter | None
    search: SearchRequest | None = None


@dataclass(frozen=True)
class ViewRequest:
    """One call of view_media, checked for form."""

    collection: str | None
    ids: tuple[MediaId, ...]


def search_request(raw: Mapping[str, Any]) -> SearchRequest:
    """Return the request that the arguments of `clip_search` ask for.

    Raises:
        CallerError: one of them cannot be used.
    """
    request = SearchRequest(
        texts=_texts(raw),
        collection=name_or_none("collection", raw.get("collection")),
        n=whole_number("n", raw.get("n"), default=10, least=1, most=MOST_HITS, hint=" To see more, page on with the returned session."),
        filters=parse_filter(raw.get("filters")),
        session=name_or_none("session", raw.get("session")),
        repeats=choice("repeats", raw.get("repeats"), get_args(Repeats)),
        seen=ids("seen", raw.get("seen")),
        excluded=ids("excluded", raw.get("excluded")),
        excluded_groups=ids("excluded_groups", raw.get("excluded_groups")),
        detail=choice("detail", raw.get("detail"), get_args(Detail), default="concise"),
        like=ids("like", raw.get("like"), MOST_EXAMPLES, "Give the most typical ones."),
        unlike=ids("unlike", raw.get("unlike"), MOST_EXAMPLES, "Give the most typical ones."),
        max_per_group=whole_or_none("max_per_group", raw.get("max_per_group"), MOST_MEMBERS),
        min_score=cosine_or_none("min_score", raw.get("min_score")),
        page=whole_or_none("page", raw.get("page"), MOST_PAGES),
    )
    if not request.texts and not request.like and (request.page is None or request.session is None):
        if request.unlike:
            raise BadArgumentError("unlike alone says only what is not wanted. Add text or like to say what is.")
        if request.session is not None:
            raise BadArgumentError(
                "clip_search needs text or like beside session: repeat those of the search to go on with it, or give others; what the "
                "session has shown does not come again."
            )
        raise BadArgumentError(
            'clip_search needs text, words that describe the picture such as {"text": "a red apple on a table"}, or like, ids of pictures.'
        )
    return request


def filter_question(raw: Mapping[str, Any]) -> FilterQuestion:
    """Return the question that the arguments of `describe_filters` ask.

    Raises:
        CallerError: one of them cannot be used.
    """
    question = FilterQuestion(
        collection=name_or_none("collection", raw.get("collection")),
        field=name_or_none("field", raw.get("field")),
        match=name_or_none("match", raw.get("match")),
        n=whole_number("n", raw.get("n"), default=20, least=1, most=MOST_VALUES, hint=" Page on with offset."),
        offset=whole_number("offset", raw.get("offset"), default=0, least=0, most=MOST_OFFSET),
        filters=parse_filter(raw.get("filters")),
        search=_facet_search(raw),
    )
    if question.field is None and (question.match is not None or question.offset):
        raise BadArgumentError(
            "match and offset look through the values of one field: name it in field. Without field, all fields are listed."
        )
    return question


def view_request(raw: Mapping[str, Any]) -> ViewRequest:
    """Return what the arguments of `view_media` ask for.

    Raises:
        CallerError: one of them cannot be used.
    """
    wanted = ids("ids", raw.get("ids"), MOST_VIEWED, "Look at them in several calls.")
    if not wanted:
        raise BadArgumentError(f'view_media needs ids, 1 to {MOST_VIEWED} of them, from "id" of the hits: {{"ids": [104, 2077]}}.')
    return ViewRequest(name_or_none("collection", raw.get("collection")), wanted)


def session_change(raw: Mapping[str, Any]) -> SessionChange:
    """Return what the arguments of `update_session` change.

    Raises:
        CallerError: one of them cannot be used.
    """
    return SessionChange(
        session=name_or_none("session", raw.get("session")),
        collection=name_or_none("collection", raw.get("collection")),
        keep=ids("keep", raw.get("keep")),
        drop=ids("drop", raw.get("drop")),
        exclude=ids("exclude", raw.get("exclude")),
        forget_seen=flag("forget_seen", raw.get("forget_seen")),
        note=note_or_none(raw.get("note")),
        fork=flag("fork", raw.get("fork")),
    )


def refused_names(tool: str, names: Sequence[str], known: Sequence[str]) -> str | None:
    """Return why the first of `names` that is not in `known` is refused, or None when all are known."""
    wrong = next((name for name in names if name not in known), None)
    if wrong is None:
        return None
    folded = wrong[:LONGEST_NAME].lower().replace("-", "_").strip("_ ")
    right = OTHER_NAMES[tool].get(folded) or next((name for name in known if _alike(folded, name)), None)
    hint = f'use "{right}"' if right else "leave it out"
    note = " (a session pages on by itself)" if right == "session" and folded in ("offset", "start") else ""
    return f'Unknown argument "{clipped(wrong)}"; {hint}{note}. {tool} takes: {", ".join(known)}.'


def _alike(name: str, known: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, name, known).ratio() >= 0.75


def _texts(raw: Mapping[str, Any]) -> tuple[WeightedText, ...]:
    """Return the texts; words for nothing mean none where something else says what is wanted."""
    others = not absent(raw.get("like")) or not absent(raw.get("page"))
    return () if others and absent(raw.get("text")) else parse_texts(raw.get("text"))


def _facet_search(raw: Mapping[str, Any]) -> SearchRequest | None:
    """Return the search whose best matches are to be counted; None without text."""
    texts, session = () if absent(raw.get("text")) else parse_texts(raw.get("text")), name_or_none("session", raw.get("session"))
    if not texts:
        if session is not None:
            raise BadArgumentError("session counts only with text: give the text of the search whose unseen matches are to be counted.")
        return None
    return SearchRequest(
        texts, name_or_none("collection", raw.get("collection")), FACET_MATCHES, parse_filter(raw.get("filters")), session, detail="ids"
    )
