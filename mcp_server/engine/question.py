"""What a request asks, apart from where: its words and examples, as one query vector."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import SearchRequest
from mcp_server.engine.collection import Collection
from mcp_server.engine.query_vectors import QueryVector, compose
from mcp_server.errors import UnknownMediaError


@dataclass(frozen=True)
class Examples:
    """Rows of the media that are to be liked and unliked, each (M,) int64."""

    like: NDArray[np.int64]
    unlike: NDArray[np.int64]

    @property
    def rows(self) -> NDArray[np.int64]:
        """Both together."""
        return np.concatenate([self.like, self.unlike])


@dataclass(frozen=True)
class Question:
    """A query vector, and what to say about the words it came from."""

    vector: QueryVector
    truncated: bool
    token_limit: int
    from_words: bool
    """Whether the model was needed, and so is loaded."""


def examples_of(collection: Collection, request: SearchRequest) -> Examples:
    """Return the rows of `like` and `unlike`.

    Raises:
        UnknownMediaError: one of them is not in the index.
    """
    return Examples(_rows(collection, "like", request.like), _rows(collection, "unlike", request.unlike))


def ask(collection: Collection, request: SearchRequest, examples: Examples, waiting: Callable[[float], None] | None) -> Question:
    """Return the query vector of `request`; the model is needed only for words.

    Raises:
        EncoderError: the model cannot answer now.
        BadArgumentError: words and examples cancel each other out.
    """
    encoded = [(collection.encoder.encode_text(part.text, waiting), part.weight) for part in request.texts]
    index = collection.index
    vector = compose(
        [(text.vector, weight) for text, weight in encoded],
        index.vectors(examples.like),
        index.vectors(examples.unlike),
        collection.sample if len(examples.rows) else np.empty((0, index.width), np.float32),
    )
    limit = max((text.token_limit for text, _ in encoded), default=0)
    return Question(vector, any(text.truncated for text, _ in encoded), limit, bool(encoded))


def query_key(request: SearchRequest) -> str:
    """Name what `repeats="query"` means by the same query: words, examples and filters; the collection is kept beside it."""
    words = [(" ".join(part.text.casefold().split()), part.weight) for part in request.texts]
    plain = len(words) == 1 and words[0][1] == 1 and not request.like and not request.unlike
    asked: Any = words[0][0] if plain else [words, sorted(request.like), sorted(request.unlike)]
    raw = json.dumps([asked, "" if request.filters is None else request.filters.canonical])
    return hashlib.sha256(raw.encode()).hexdigest()[:24]


def record_of(request: SearchRequest, filter_sentence: str) -> dict[str, Any]:
    """Return what was asked, for the record of a session: `text`, `like`, `unlike` and `filters`, only what was given."""
    texts = [part.text if part.weight == 1 else f"{part.weight:g}: {part.text}" for part in request.texts]
    asked = {"text": texts, "like": list(request.like), "unlike": list(request.unlike), "filters": filter_sentence}
    return {name: value for name, value in asked.items() if value}


def in_words(question: Mapping[str, Any]) -> str:
    """Return what `record_of` gave as one line: `2: red car; -1: night; like 104, 2077; unlike 9; filters: category is food`."""
    parts = [str(text) for text in question.get("text", [])]
    parts += [f"{name} {', '.join(map(str, question[name]))}" for name in ("like", "unlike") if question.get(name)]
    if question.get("filters"):
        parts.append(f"filters: {question['filters']}")
    return "; ".join(parts)


def _rows(collection: Collection, argument: str, ids: tuple[MediaId, ...]) -> NDArray[np.int64]:
    found = collection.catalog.rows_of(ids)
    if found.unknown:
        unknown = collection.catalog.unknown(ids)
        listed = ", ".join(map(str, unknown[:3])) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        raise UnknownMediaError(f'{argument}: no indexed item has id {listed} in "{collection.name}". Take ids from "id" of hits.')
    return found.rows
