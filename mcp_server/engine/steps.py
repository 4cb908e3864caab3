"""The steps of one search over one collection: what is skipped, what is asked, what is nearest, what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import HiddenCounts, Hit, Item, Neighbors, SearchOutcome, SearchRequest
from mcp_server.engine.collection import Collection
from mcp_server.engine.group_caps import GroupCap
from mcp_server.engine.question import Examples, Question, ask, examples_of, query_key
from mcp_server.engine.relevance import largest_drop, match_probability
from mcp_server.engine.skips import SkipSet, build_skip_set
from mcp_server.stores.filter_index import Selection
from mcp_server.stores.rows import Found
from mcp_server.stores.sessions import Sessions

Waiting = Callable[[float], None]
"""Is called with the seconds passed, about once a second, while a call waits for the model."""


_NONE = np.empty(0, np.int64)


class Walk:
    """The steps of one call over one collection. What the caller can get wrong is found when it is made."""

    def __init__(self, sessions: Sessions, collection: Collection, request: SearchRequest) -> None:
        self._sessions = sessions
        self._collection = collection
        self._request = request
        self._selection: Selection = collection.filters.evaluate(request.filters)
        self._examples: Examples = examples_of(collection, request)
        self._excluded = _excluded(collection, request)
        self._seen: Found = collection.catalog.rows_of(request.seen)
        self._skip: SkipSet | None = None
        self._shown_media = self._shown_rows = self._excluded_media = _NONE
        if request.session is not None:
            sessions.check(request.session)

    def skip_set(self) -> SkipSet:
        """Return what must not be shown, as the session stands now."""
        shown, excluded = self._shown(), self._excluded_before()
        if self._skip is None or not (np.array_equal(shown, self._shown_media) and np.array_equal(excluded, self._excluded_media)):
            self._shown_media, self._excluded_media = shown, excluded
            self._shown_rows = self._rows(shown)
            self._skip = self._skip_set(self._rows(excluded))
        return self._skip

    def _skip_set(self, excluded_before: NDArray[np.int64]) -> SkipSet:
        cap = self._cap(self._shown_rows)
        return build_skip_set(
            self._selection.rejected(),
            self._selection.count,
            self._collection.catalog.indexed,
            np.concatenate([self._seen.rows, self._shown_rows]),
            np.concatenate([self._excluded.rows, self._examples.rows, excluded_before]),
            None if cap is None else cap.full(),
        )

    def ask(self, waiting: Waiting | None) -> Question:
        """Return the query vector."""
        return ask(self._collection, self._request, self._examples, waiting)

    def nearest(self, skip: SkipSet, question: Question | None) -> Neighbors:
        """Return the best allowed rows, whatever their score; `question` is None when no row was allowed before it was asked."""
        if question is None or skip.allowed == 0:
            return Neighbors(np.empty(0, np.int64), np.empty(0, np.float32))
        index, vector, n = self._collection.index, question.vector.vector, min(self._request.n, skip.allowed)
        cap = self._cap(self._shown_rows)
        return index.search(vector, n, skip.mask) if cap is None else cap.search(index, vector, n, skip.mask)

    def outcome(self, skip: SkipSet, question: Question | None, found: Neighbors) -> SearchOutcome:
        """Return the answer with those `found` that score enough, but for session and page."""
        collection, request = self._collection, self._request
        near = self._enough(found)
        items = collection.catalog.items_at(near.rows, request.detail)
        left = self._unseen(skip, near.rows)
        return SearchOutcome(
            session="",
            collection=collection.name,
            hits=_hits(collection, request, question, near, items),
            matching=skip.matching,
            unseen_left=left,
            hidden=HiddenCounts(skip.seen, skip.excluded, skip.filtered, skip.in_full_groups, self._best_hidden(skip, question)),
            filter_sentence=self._selection.sentence,
            approximation=near.approximation,
            short_reason=_short_reason(request, skip, len(items), len(near.rows) < len(found.rows)),
            warnings=tuple(self._warnings(skip, question)),
            largest_drop=largest_drop(near.scores),
            best_below_min_score=float(found.scores[len(near.rows)]) if len(near.rows) < len(found.rows) else None,
        )

    def _enough(self, found: Neighbors) -> Neighbors:
        least = self._request.min_score
        if least is None:
            return found
        enough = int(np.count_nonzero([round(float(score), 4) >= least for score in found.scores]))  # as the caller sees them
        return Neighbors(found.rows[:enough], found.scores[:enough], found.approximation)

    def _shown(self) -> NDArray[np.int64]:
        """Return the media that the session has shown and that `repeats` forbids to show again."""
        request = self._request
        if request.session is None or request.repeats == "allow":
            return _NONE
        query = query_key(request) if request.repeats == "query" else None
        return self._sessions.shown(request.session, self._collection.name, query)

    def _excluded_before(self) -> NDArray[np.int64]:
        """Return the media that `update_session` excluded for good."""
        if self._request.session is None:
            return _NONE
        return self._sessions.excluded(self._request.session, self._collection.name)

    def _rows(self, media: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of `media`, each there once, that still have one."""
        rows = self._collection.catalog.rows.lookup(media)
        return rows[rows >= 0]

    def _cap(self, shown: NDArray[np.int64]) -> GroupCap | None:
        most = self._request.max_per_group
        return None if most is None else GroupCap.after(self._collection.catalog, most, shown)

    def _unseen(self, skip: SkipSet, shown_now: NDArray[np.int64]) -> int:
        """Count the matches that can still come; with `repeats` "allow", what was shown before is no part of the skip set."""
        request = self._request
        gone, shown = shown_now, np.concatenate([self._shown_rows, shown_now])
        if request.session is not None and request.repeats == "allow":
            shown = np.union1d(self._rows(self._sessions.shown(request.session, self._collection.name)), shown_now)
            gone = shown[~skip.mask[shown]]
        cap = self._cap(shown)
        if cap is None:
            return skip.allowed - len(gone)
        left = ~skip.mask
        left[gone] = False
        return cap.room(left)

    def _best_hidden(self, skip: SkipSet, question: Question | None) -> float | None:
        if question is None or not (skip.seen + skip.excluded):
            return None
        rows = skip.hidden
        for example in self._examples.rows.tolist():
            rows = rows[rows != example]  # an example is the best match of itself
        return self._collection.index.best_score(question.vector.vector, rows) if len(rows) else None

    def _warnings(self, skip: SkipSet, question: Question | None) -> Iterable[str]:
        request = self._request
        if question is not None and question.truncated:
            yield f"The text is longer than the {question.token_limit} tokens the model reads; its end was ignored."
        unknown = {"seen": self._seen.unknown, "excluded": self._excluded.unknown, "excluded_groups": self._excluded.unknown_groups}
        for name, count in unknown.items():
            if count:
                are, they_were = ("is", "it was") if count == 1 else ("are", "they were")
                yield f"{count:,} of the ids in {name} {are} not in this collection's index; {they_were} ignored."
        if question is not None and self._collection.relevance() is None:
            yield "rel is still being measured for this collection; later answers have it."
        if skip.matching == 0 and request.filters is not None:
            yield self._collection.filters.explain_empty(request.filters)


@dataclass(frozen=True)
class _Excluded:
    """Rows of the items and groups a caller excluded, and how many of either have none."""

    rows: NDArray[np.int64]
    unknown: int
    unknown_groups: int


def _excluded(collection: Collection, request: SearchRequest) -> _Excluded:
    items = collection.catalog.rows_of(request.excluded)
    groups = collection.catalog.rows_of_groups(request.excluded_groups)
    return _Excluded(np.concatenate([items.rows, groups.rows]), items.unknown, groups.unknown)


def _hits(collection: Collection, request: SearchRequest, question: Question | None, near: Neighbors, items: list[Item]) -> tuple[Hit, ...]:
    """Return what is said of each item: its score, how that stands in the collection, and at detail "full" where it can be seen."""
    if question is None or not items:
        return ()
    query, index = question.vector, collection.index
    scale = collection.relevance(wait=question.from_words)
    rels = scale.judge(query, near.rows, index, near.scores) if scale is not None else None
    matches = None
    if query.text is not None:
        cosines = near.scores if query.vector is query.text else index.scores(query.text, near.rows)
        matches = match_probability(collection.encoder.logits, cosines)
    full, media = request.detail == "full", collection.media
    return tuple(
        Hit(
            item,
            float(score),
            rel=rels[at] if rels is not None else None,
            match=matches[at] if matches is not None else None,
            thumbnail_url=media.thumbnails.url_of(item.thumbnail_uri) if full else None,
            original_url=media.originals.url_of(item.uri) if full else None,
        )
        for at, (item, score) in enumerate(zip(items, near.scores, strict=True))
    )


def _short_reason(request: SearchRequest, skip: SkipSet, returned: int, some_score_less: bool) -> str | None:
    if returned >= request.n:
        return None
    if some_score_less:
        return "below_min_score"
    if request.filters is not None and returned == skip.matching:
        return f"filters_match_only_{skip.matching}"
    if request.max_per_group is not None and (skip.in_full_groups or skip.allowed > returned):
        return "groups_full"
    return "all_seen" if returned == 0 and skip.seen else "exhausted"
