"""What goes into a search and what comes out, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filters import Filter
from mcp_server.domain.ids import MediaId

Repeats = Literal["skip", "query", "allow"]
Detail = Literal["ids", "concise", "full"]
Rel = Literal["strong", "fair", "weak"]
"""How a score stands against what unrelated queries reach in the same collection."""


@dataclass(frozen=True)
class Neighbors:
    """Rows nearest to a query.

    Attributes:
        rows: (M,) int64, no row twice, best first.
        scores: (M,) float32, cosine in [-1, 1], descending; equal scores by ascending tie key (media id, or row without one).
        approximation: None when the answer is exact, else how it was found, such as "ivf nprobe=64".
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    approximation: str | None = None


@dataclass(frozen=True)
class EncodedText:
    """A query as the model sees it.

    Attributes:
        vector: (D,) float32, unit length.
        truncated: True when the text was longer than the model reads and its end was cut.
        token_limit: how many tokens the model reads.
    """

    vector: NDArray[np.float32]
    truncated: bool
    token_limit: int


@dataclass(frozen=True)
class WeightedText:
    """One description and how much it counts; a negative weight leads away from it."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class SearchRequest:
    """One search, already checked for form. At least one of `texts` and `like` is there, unless only `page` is asked for.

    Attributes:
        like: media whose stored vectors join the query; neither they nor those of `unlike` are returned.
        max_per_group: how many members of one group may be shown, earlier answers of the session counted.
        min_score: hits with a lower score are neither shown nor marked.
        page: which answer of the session this is to be. One that was given already is given again as it was.
    """

    texts: tuple[WeightedText, ...] = ()
    collection: str | None = None
    n: int = 10
    filters: Filter | None = None
    session: str | None = None
    repeats: Repeats = "skip"
    seen: tuple[MediaId, ...] = ()
    excluded: tuple[MediaId, ...] = ()
    excluded_groups: tuple[MediaId, ...] = ()
    detail: Detail = "concise"
    like: tuple[MediaId, ...] = ()
    unlike: tuple[MediaId, ...] = ()
    max_per_group: int | None = None
    min_score: float | None = None
    page: int | None = None


@dataclass(frozen=True)
class Item:
    """What a caller may know about one medium."""

    id: MediaId
    title: str
    uri: str
    group: MediaId | None = None
    thumbnail_uri: str = ""
    tags: dict[str, list[str | int | float]] = field(default_factory=dict[str, "list[str | int | float]"])
    """Field name to values, own and inherited; filled at detail "full" only."""


@dataclass(frozen=True)
class Hit:
    """One answer: an item and its cosine to the query, float32, never NaN.

    Attributes:
        rel: None while the collection's scale is not known, and for queries of negative texts alone.
        match: the model's own probability that words and picture belong together; None for models that give none.
        thumbnail_url, original_url: web addresses, at detail "full" and where there are any.
    """

    item: Item
    score: float
    rel: Rel | None = None
    match: float | None = None
    thumbnail_url: str | None = None
    original_url: str | None = None


@dataclass(frozen=True)
class Drop:
    """Where the scores of an answer fall most: after the hit of rank `after` (from 1), by `by`."""

    after: int
    by: float


@dataclass(frozen=True)
class HiddenCounts:
    """Indexed items left out of an answer, each counted once: as filtered, else as seen, else as excluded, else for its group."""

    seen: int = 0
    excluded: int = 0
    filtered: int = 0
    in_full_groups: int = 0
    """Items whose group has been shown as often as `max_per_group` allows, before this answer."""
    best_hidden_score: float | None = None
    """Best cosine among the items that pass the filters but were skipped as seen or excluded; None when there are none, and when no
    item was left to search, so that the model was not asked."""


@dataclass(frozen=True)
class SearchOutcome:
    """The answer to one `SearchRequest`."""

    session: str
    collection: str
    hits: tuple[Hit, ...]
    matching: int
    """Items that pass the filters."""
    unseen_left: int
    """Of those, how many this session has neither shown (for `repeats` "query": by this query) nor been told to exclude."""
    hidden: HiddenCounts
    filter_sentence: str
    approximation: str | None = None
    short_reason: str | None = None
    warnings: tuple[str, ...] = ()
    page: int = 0
    """Which answer of the session this is, from 1."""
    largest_drop: Drop | None = None
    best_below_min_score: float | None = None
    """The best score among what `min_score` left out of this answer."""
