"""Filters as plain sentences: `category is food and (color is red or color is orange)`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

SENTENCE_LIMIT = 300
"""Longest sentence for a whole filter, in characters."""

SPELLED_OUT = 5
"""So many values are named."""


@dataclass(frozen=True)
class Sentence:
    """Text, the word that joins its parts if it has several (it then needs brackets among others), and how its opposite is best said."""

    text: str
    joint: Literal["and", "or", ""] = ""
    opposite: Sentence | None = None

    def inside(self, joint: str) -> str:
        """Return the text as part of a longer sentence joined by `joint`."""
        return f"({self.text})" if self.joint and self.joint != joint else self.text

    def clipped(self, limit: int = SENTENCE_LIMIT) -> str:
        """Return the text on one line, cut to `limit` characters."""
        line = " ".join(self.text.split())
        return line if len(line) <= limit else line[: limit - 1] + "…"


EVERYTHING = Sentence("everything")
NOTHING = Sentence("nothing")


def joined(parts: Sequence[Sentence], joint: Literal["and", "or"]) -> Sentence:
    """Return the sentence for several; none at all say everything (and) or nothing (or)."""
    if not parts:
        return EVERYTHING if joint == "and" else NOTHING
    if len(parts) == 1:
        return parts[0]
    return Sentence(f" {joint} ".join(part.inside(joint) for part in parts), joint)


def values_sentence(field: str, values: Sequence[str], joint: Literal["and", "or"], count: int) -> Sentence:
    """Return `color is red or color is orange`; of `count` values, more than five, the first five of `values` are named."""
    if count <= SPELLED_OUT:
        return joined([Sentence(f"{field} is {value}", opposite=Sentence(f"{field} is not {value}")) for value in values], joint)
    some = ", ".join(values[:SPELLED_OUT])
    return Sentence(f"{field} is {'any' if joint == 'or' else 'each'} of {count} values ({some}, …)")


def negated(part: Sentence) -> Sentence:
    """Return the sentence for what `part` does not say."""
    if part == EVERYTHING:
        return NOTHING
    if part == NOTHING:
        return EVERYTHING
    return replace(part.opposite or Sentence(f"not ({part.text})"), opposite=replace(part, opposite=None))
