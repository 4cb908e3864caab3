"""Reads the `text` argument: one description, or a list of them with weights.

"a red car at night"                     one description, taken as it is
["2: red car", "- night", "rain"]        weights 2, -1 and 1; also as JSON text of the list
"""

from __future__ import annotations

import json
import re
from typing import cast

from mcp_server.domain.search import WeightedText
from mcp_server.errors import BadArgumentError, clipped, whole

MOST_TEXT = 1_000
"""Characters of one description."""
MOST_TEXTS = 16
"""Descriptions in one list."""
MOST_WEIGHT = 10.0

_MINUS = "\N{MINUS SIGN}"
"""As good a minus as the hyphen: typeset texts have it."""
_NUMBER = re.compile(rf"([+\-{_MINUS}]?\s*(?:\d+(?:\.\d*)?|\.\d+))\s*:(?!\d)\s*(.*)", re.DOTALL)  # "12:30 clock" has no weight
_SIGN = re.compile(rf"([+\-{_MINUS}])\s*(.*)", re.DOTALL)


def parse_texts(raw: object) -> tuple[WeightedText, ...]:
    """Return the descriptions in `raw`: a text, a list of texts or JSON text of such a list; none for None and words that mean none.

    Raises:
        BadArgumentError: it is something else, blank, too long, a list that is not JSON, or has a weight that is 0 or beyond 10.
    """
    if raw is None:
        return ()
    listed = _list_of(raw)
    if listed is None:
        if not isinstance(raw, str):
            raise BadArgumentError(
                f'text takes words for the picture, 1 to {MOST_TEXT:,} characters, or a list such as ["2: red car", "- night"]; '
                f"got {_kind(raw)}."
            )
        return (WeightedText(_checked(raw)),)
    if len(listed) > MOST_TEXTS:
        raise BadArgumentError(
            f"text lists at most {MOST_TEXTS} descriptions; got {len(listed)}. Put the most telling ones into one sentence."
        )
    return tuple(_weighted(each) for each in listed)


def _list_of(raw: object) -> list[object] | None:
    if isinstance(raw, str) and raw.lstrip().startswith("["):
        try:
            value: object = json.loads(raw)
        except (ValueError, RecursionError):
            if _looks_like_a_list(raw):
                raise BadArgumentError(
                    'text looks like a list but is not JSON. Write double quotes and no comma at the end: ["2: red car", "- night"]; '
                    "a single description needs no brackets."
                ) from None
            return None  # a description may begin with a bracket
        if not (isinstance(value, list) and all(isinstance(each, str) for each in cast("list[object]", value))):
            return None
        raw = cast("list[object]", value)
    return cast("list[object]", raw) if isinstance(raw, list) and raw else None


def _looks_like_a_list(raw: str) -> bool:
    """Tell whether `raw`, of any length, is quoted texts in brackets."""
    inside = raw.strip().removeprefix("[").removesuffix("]").strip().removesuffix(",").rstrip()
    return raw.rstrip().endswith("]") and len(inside) > 1 and inside[0] in "'\"" and inside[-1] in "'\""


def _weighted(raw: object) -> WeightedText:
    if not isinstance(raw, str):
        raise BadArgumentError(f'text lists descriptions in quotes, such as ["2: red car", "- night"]; got {_kind(raw)} among them.')
    part = raw.strip()  # blanks before a pattern that may begin with some would be tried at every length
    numbered, signed = _NUMBER.fullmatch(part), _SIGN.fullmatch(part)
    if numbered is not None:
        digits = re.sub(r"\s", "", numbered[1]).replace(_MINUS, "-")
        weight = float(digits) if len(digits) <= 20 else MOST_WEIGHT + 1
        if not 0 < abs(weight) <= MOST_WEIGHT:
            raise BadArgumentError(
                f'A weight in text goes from -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}, not 0; got "{clipped(raw)}". '
                'Write ["2: red car", "- night"], or "1: " before a text that begins with a number and a colon.'
            )
        return WeightedText(_checked(numbered[2]), weight)
    if signed is not None:
        return WeightedText(_checked(signed[2]), 1.0 if signed[1] == "+" else -1.0)
    return WeightedText(_checked(raw))


def _checked(raw: str) -> str:
    text = whole(raw).strip()
    if not text:
        raise BadArgumentError('text is blank. Describe what the picture shows, for example "a red apple on a table".')
    if len(text) > MOST_TEXT:
        raise BadArgumentError(f"text has {len(text):,} characters; it takes 1 to {MOST_TEXT:,}. Use one or two sentences.")
    return text


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "an object"
    return "null" if value is None else "a number"
