"""From an outcome to the answer a client gets: small JSON, the same as structured content and as text, never over the size limit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from mcp.types import CallToolResult, TextContent

from mcp_server.domain.search import Detail, Hit, SearchOutcome
from mcp_server.engine.collection import Media

CHARACTERS_PER_TOKEN = 3.3
MOST_CHARACTERS = int(4_000 * CHARACTERS_PER_TOKEN)
MOST_TITLE = 80
MOST_URI = 160
MOST_TAG_VALUES = 20
MOST_SENTENCE = 400

Json = dict[str, Any]

_LOWER: dict[Detail, tuple[Detail, ...]] = {"full": ("concise", "ids"), "concise": ("ids",), "ids": ()}


@dataclass(frozen=True)
class Answer:
    """One answer as JSON."""

    body: Json

    @property
    def text(self) -> str:
        """The body as compact JSON on one line."""
        return compact(self.body)

    def result(self) -> CallToolResult:
        """Return the body as structured content and, for hosts that show the model only text, as the same JSON in text."""
        return CallToolResult(content=[TextContent(type="text", text=self.text)], structured_content=self.body)


def compact(body: object) -> str:
    """Return `body` as compact JSON; a value JSON has no word for (NaN, infinity) raises ValueError."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def search_answer(outcome: SearchOutcome, media: Media, detail: Detail) -> Answer:
    """Return `outcome` for a client at `detail`, or at the most detail that fits the size limit, saying so; hits are never cut."""
    answer = Answer(_search_body(outcome, media, detail))
    for level in _LOWER[detail]:
        if len(answer.text) <= MOST_CHARACTERS:
            break
        answer = Answer(_search_body(outcome, media, level))
        answer.body["warnings"].append(f'Shown at detail "{level}": "{detail}" would be too long. Ask for fewer with n.')
    return answer


def _search_body(outcome: SearchOutcome, media: Media, detail: Detail) -> Json:
    hidden = outcome.hidden
    body: Json = {
        "session": outcome.session,
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
    best = hidden.best_hidden_score
    body |= {
        "hits": [_hit(hit, media, detail) for hit in outcome.hits],
        "hidden": {
            "seen": hidden.seen,
            "excluded": hidden.excluded,
            "filtered": hidden.filtered,
            "best_hidden_score": None if best is None else round(best, 4),
        },
        "filters": _short(outcome.filter_sentence, MOST_SENTENCE),
        "warnings": list(outcome.warnings),
        "next": _next(outcome),
    }
    return body


def _hit(hit: Hit, media: Media, detail: Detail) -> Json:
    item = hit.item
    body: Json = {"id": int(item.id), "score": round(hit.score, 4)}
    if detail == "ids":
        return body
    body["title"] = _short(item.title, MOST_TITLE)
    if item.group is not None:
        body["group"] = int(item.group)
    body["uri"] = _short(item.uri, MOST_URI)
    if detail == "full":
        for name, url in (
            ("thumbnail_url", media.thumbnails.url_of(item.thumbnail_uri)),
            ("original_url", media.originals.url_of(item.uri)),
        ):
            if url is not None:
                body[name] = url
        body["tags"] = {name: [_value(value) for value in values[:MOST_TAG_VALUES]] for name, values in item.tags.items()}
    return body


def _value(value: str | float) -> str | float:
    return _short(value, MOST_URI) if isinstance(value, str) else value


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _next(outcome: SearchOutcome) -> str:
    hidden = outcome.hidden
    if outcome.unseen_left:
        more = min(outcome.unseen_left, max(len(outcome.hits), 1))
        how = 'this session and repeats "skip"' if outcome.repeats == "allow" else "this session"
        return f"Call again with {how} for the next {more}."
    if hidden.excluded and not hidden.seen and not outcome.hits:
        return "Every match is in excluded or excluded_groups; leave some of them out."
    if outcome.short_reason and outcome.short_reason.startswith("filters_match_only"):
        return "Loosen the filters for more; describe_filters counts values."
    return 'Nothing is left in this session. Change text or filters, use repeats "allow" to see it again, or omit session to start anew.'
