"""From an outcome to the answer a client gets: small JSON, the same as structured content and as text, never over the size limit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mcp.types import CallToolResult, ContentBlock, ResourceLink, TextContent

from mcp_server.domain.search import Detail, HiddenCounts, Hit, SearchOutcome, SearchRequest
from mcp_server.domain.session import SessionState
from mcp_server.protocol.uris import export_uri, media_uri

CHARACTERS_PER_TOKEN = 3.3
MOST_CHARACTERS = int(4_000 * CHARACTERS_PER_TOKEN)
MOST_TITLE = 80
MOST_CONCISE_TITLE = 26
MOST_TITLE_BESIDE_MATCH = 15
"""Ten concise hits take at most 300 tokens, ids and groups of six digits included; the whole title comes with detail "full"."""
MOST_URI = 160
MOST_TAG_VALUES = 20
MOST_SENTENCE = 400
MOST_LISTED = 300
"""So many ids of a shortlist are listed, the latest; all of them are in its export."""
MOST_NOTES_SHOWN = 4_000
"""Characters of notes that are shown, the latest."""

Json = dict[str, Any]

_LOWER: dict[Detail, tuple[Detail, ...]] = {"full": ("concise", "ids"), "concise": ("ids",), "ids": ()}


@dataclass(frozen=True)
class Answer:
    """One answer as JSON."""

    body: Json

    @cached_property
    def text(self) -> str:
        """The body as compact JSON on one line; the body must not change afterwards."""
        return compact(self.body)

    def result(self) -> CallToolResult:
        """Return the body as structured content and, for hosts that show the model only text, as the same JSON in text.

        Hits that name their resource are linked as well.
        """
        return _result(self.body, self.text)


def result_of(text: str) -> CallToolResult:
    """Return the result of an answer whose `text` is this."""
    return _result(json.loads(text), text)


def _result(body: Json, text: str) -> CallToolResult:
    links: list[ContentBlock] = [
        ResourceLink(type="resource_link", name=str(hit.get("title") or hit["id"]), uri=hit["resource"], mime_type="image/jpeg")
        for hit in body.get("hits", [])
        if "resource" in hit
    ]
    return CallToolResult(content=[TextContent(type="text", text=text), *links], structured_content=body)


def compact(body: object) -> str:
    """Return `body` as compact JSON; a value JSON has no word for (NaN, infinity) raises ValueError."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def search_answer(outcome: SearchOutcome, request: SearchRequest) -> Answer:
    """Return `outcome` at the detail asked for, or at the most detail that fits the size limit, saying so; hits are never cut."""
    answer = Answer(_search_body(outcome, request, request.detail))
    for level in _LOWER[request.detail]:
        if len(answer.text) <= MOST_CHARACTERS:
            break
        answer = Answer(_search_body(outcome, request, level))
        answer.body["warnings"].append(f'Shown at detail "{level}": "{request.detail}" would be too long. Ask for fewer with n.')
    return answer


def session_answer(state: SessionState) -> Answer:
    """Return what a session keeps."""
    body: Json = {
        "session": state.session,
        "kept": {name: ids[-MOST_LISTED:] for name, ids in state.kept.items()},
        "kept_count": sum(map(len, state.kept.values())),
        "excluded": state.excluded,
        "seen": state.seen,
        "pages": state.pages,
        "notes": _latest(state.notes),
        "expires_hours": round(state.expires_hours),
    }
    if body["kept_count"]:
        body["export"] = export_uri(state.session, "kept.csv")
    return Answer(body)


def _latest(notes: list[str]) -> list[str]:
    shown: list[str] = []
    for note in reversed(notes):
        if sum(map(len, shown)) + len(note) > MOST_NOTES_SHOWN:
            shown.append(f"({len(notes) - len(shown)} earlier notes: read the session's resource)")
            break
        shown.append(note)
    return shown[::-1]


def _search_body(outcome: SearchOutcome, request: SearchRequest, detail: Detail) -> Json:
    body: Json = {
        "session": outcome.session,
        "page": outcome.page,
        "collection": outcome.collection,
        "returned": len(outcome.hits),
        "matching": outcome.matching,
        "unseen_left": outcome.unseen_left,
        "exact": outcome.approximation is None,
    }
    if outcome.approximation is not None:
        body["approximation"] = outcome.approximation
    if outcome.short_reason is not None:
        body["short_reason"] = outcome.short_reason
    if outcome.largest_drop is not None:
        body["drop_after"] = outcome.largest_drop.after
    body["hits"] = [_hit(hit, outcome.collection, detail) for hit in outcome.hits]
    hiding = (request.session, request.filters, request.seen, request.excluded, request.excluded_groups, request.max_per_group)
    if any((*hiding, request.like, request.unlike)):  # examples are not shown either
        body["hidden"] = _hidden(outcome.hidden)
    if outcome.filter_sentence:
        body["filters"] = _short(outcome.filter_sentence, MOST_SENTENCE)
    body["warnings"] = list(outcome.warnings)
    next_step = _next(outcome, request)
    return body if next_step is None else body | {"next": next_step}


def _hidden(hidden: HiddenCounts) -> Json:
    best = hidden.best_hidden_score
    body: Json = {"seen": hidden.seen, "excluded": hidden.excluded, "filtered": hidden.filtered}
    if hidden.in_full_groups:
        body["in_full_groups"] = hidden.in_full_groups
    return body | {"best_hidden_score": None if best is None else round(best, 4)}


def _hit(hit: Hit, collection: str, detail: Detail) -> Json:
    item = hit.item
    body: Json = {"id": int(item.id), "score": round(hit.score, 4)}
    if hit.rel is not None:
        body["rel"] = hit.rel
    if hit.match is not None:
        body["match"] = round(hit.match, 3 if detail == "full" else 2)
    if detail == "ids":
        return body
    concise = MOST_CONCISE_TITLE if hit.match is None else MOST_TITLE_BESIDE_MATCH
    body["title"] = _short(item.title, MOST_TITLE if detail == "full" else concise)
    if item.group is not None:
        body["group"] = int(item.group)
    if detail == "full":
        body["uri"] = _short(item.uri, MOST_URI)
        body |= {name: url for name, url in (("thumbnail_url", hit.thumbnail_url), ("original_url", hit.original_url)) if url is not None}
        body["resource"] = media_uri(collection, int(item.id))
        body["tags"] = {name: [_value(value) for value in values[:MOST_TAG_VALUES]] for name, values in item.tags.items()}
    return body


def _value(value: str | float) -> str | float:
    return _short(value, MOST_URI) if isinstance(value, str) else value


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _next(outcome: SearchOutcome, request: SearchRequest) -> str | None:
    """Return what to do next where it is not the usual: the tool's description says that session brings more."""
    hidden = outcome.hidden
    if outcome.best_below_min_score is not None:
        return f"The others score {round(outcome.best_below_min_score, 4)} and less, below min_score; lower it for more."
    if outcome.unseen_left:
        return None if request.repeats != "allow" else 'Pass session and repeats "skip" for what was not shown yet.'
    if request.max_per_group is not None and outcome.matching > hidden.seen + hidden.excluded + len(outcome.hits):
        return "Every group has been shown max_per_group times; leave it out for the rest."
    if hidden.excluded and not hidden.seen and not outcome.hits:
        return "Every match is excluded; leave some out of excluded, excluded_groups, like or unlike, or drop them in update_session."
    if outcome.short_reason and outcome.short_reason.startswith("filters_match_only"):
        return "Loosen the filters for more; describe_filters counts values."
    return _when_all_is_shown(outcome, request)


def _when_all_is_shown(outcome: SearchOutcome, request: SearchRequest) -> str:
    """Return how to see more where no match is left; other words bring none of what was shown or is to be skipped whatever the words."""
    if not outcome.hits and (request.repeats == "allow" or (request.seen and request.session is None)):
        return f"Every match is in seen or excluded; leave some out{', or change filters' if request.filters is not None else ''}."
    if request.repeats == "allow":
        return f"All matches have been shown{'; change filters for others' if request.filters is not None else ''}."
    again = 'use repeats "allow" to see it again, or omit session to start anew'
    if request.repeats == "query":
        return f"Nothing is left for this text and these filters. Change text or filters, {again}."
    if request.filters is not None:
        return f"Nothing that passes these filters is left in this session. Change filters, {again}."
    return f"Nothing is left in this session, whatever the text: {again}."
