"""The walk from words to pictures. `SearchEngine.search` is the whole of it; read it first."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filters import canonical
from mcp_server.domain.search import EncodedText, HiddenCounts, Hit, Neighbors, SearchOutcome, SearchRequest
from mcp_server.engine.collection import Collection
from mcp_server.engine.shelf import Shelf
from mcp_server.engine.skips import SkipSet, build_skip_set
from mcp_server.stores.catalog import Found
from mcp_server.stores.sessions import Sessions

logger = logging.getLogger(__name__)


class SearchEngine:
    """Search over the collections of one server. Synchronous; safe to call from several threads."""

    def __init__(self, shelf: Shelf, sessions: Sessions) -> None:
        self.shelf = shelf
        self._sessions = sessions
        self._turns = _Turns()

    def search(self, request: SearchRequest, waiting: Callable[[float], None] | None = None) -> SearchOutcome:
        """Answer `request` and mark the answer as shown in its session; whatever raises marks nothing.

        `waiting` is called with the seconds passed, about once a second, while the model is still loading.

        Raises:
            CallerError: the request asks for what is not there.
            EncoderError: the model cannot answer now.
            SessionStoreError: the session cannot be saved.
            CollectionError: the collection cannot be read.
        """
        return self.shelf.with_collection(request.collection, lambda collection: self._walk(collection, request, waiting))

    def close(self) -> None:
        """Close the collections and the sessions."""
        self.shelf.close()
        self._sessions.close()

    def _walk(self, collection: Collection, request: SearchRequest, waiting: Callable[[float], None] | None) -> SearchOutcome:
        """Answer `request` from `collection`; what is read from its files is read before anything is marked as shown."""
        clock = _Clock()
        selection = collection.filters.evaluate(request.filters)
        query = _query_key(request)
        excluded = _excluded(collection, request)
        if request.session is not None:
            self._sessions.check(request.session)
        seen = collection.catalog.rows_of(request.seen)

        def skip_set() -> SkipSet:
            shown = self._shown(collection, request, query)
            return build_skip_set(collection.catalog.mapped, selection.mask, np.concatenate([seen.rows, shown]), excluded.rows)

        skip = skip_set()
        clock.lap("skip")
        text = collection.encoder.encode_text(request.text, waiting) if skip.allowed else None  # nothing allowed: no need of the model
        clock.lap("encode")
        warnings = tuple(_warnings(collection, request, skip, text, seen, excluded))
        with self._turns.of(request.session):
            while True:
                skip = skip_set()  # calls that had their turn meanwhile have shown more
                found = _nearest(collection, request, skip, text)
                clock.lap("index")
                items = collection.catalog.items_at(found.near.rows, request.detail)
                session = self._sessions.remember(request.session, collection.name, query, [item.id for item in items], request.repeats)
                clock.lap("items")
                if session is not None:  # else another call of this session showed one of them meanwhile: search again
                    break
        hits = tuple(Hit(item, float(score)) for item, score in zip(items, found.near.scores, strict=True))
        outcome = SearchOutcome(
            session=session,
            collection=collection.name,
            hits=hits,
            matching=skip.matching,
            unseen_left=self._unseen(collection, request, skip, found.near.rows),
            hidden=HiddenCounts(skip.seen, skip.excluded, skip.filtered, found.best_hidden),
            filter_sentence=selection.sentence,
            repeats=request.repeats,
            approximation=found.near.approximation,
            short_reason=_short_reason(request, skip, len(hits)),
            warnings=warnings,
        )
        _log(collection, request, outcome, clock)
        return outcome

    def _shown(self, collection: Collection, request: SearchRequest, query: str) -> NDArray[np.int64]:
        """Return the rows that the session has shown and that `repeats` forbids to show again."""
        if request.session is None or request.repeats == "allow":
            return np.empty(0, np.int64)
        shown = self._sessions.shown(request.session, collection.name, query if request.repeats == "query" else None)
        return collection.catalog.rows_of(shown).rows

    def _unseen(self, collection: Collection, request: SearchRequest, skip: SkipSet, shown_now: NDArray[np.int64]) -> int:
        """Count the matches not yet shown; with `repeats` "allow", what was shown before is no part of the skip set."""
        left = ~skip.mask
        left[shown_now] = False
        if request.session is not None and request.repeats == "allow":
            left[collection.catalog.rows_of(self._sessions.shown(request.session, collection.name)).rows] = False
        return int(np.count_nonzero(left))


@dataclass(frozen=True)
class _Excluded:
    """Rows of the items and groups a caller excluded, and how many of either have none."""

    rows: NDArray[np.int64]
    unknown: int
    unknown_groups: int


@dataclass(frozen=True)
class _Found:
    near: Neighbors
    best_hidden: float | None = None


def _nearest(collection: Collection, request: SearchRequest, skip: SkipSet, text: EncodedText | None) -> _Found:
    """Return the best allowed rows for `text`, which is None when no row was allowed before it was encoded."""
    if text is None or skip.allowed == 0:
        return _Found(Neighbors(np.empty(0, np.int64), np.empty(0, np.float32)))
    near = collection.index.search(text.vector, min(request.n, skip.allowed), skip.mask)
    hidden = collection.index.best_score(text.vector, np.flatnonzero(skip.hidden)) if skip.seen + skip.excluded else None
    return _Found(near, hidden)


def _excluded(collection: Collection, request: SearchRequest) -> _Excluded:
    items = collection.catalog.rows_of(request.excluded)
    groups = collection.catalog.rows_of_groups(request.excluded_groups)
    return _Excluded(np.concatenate([items.rows, groups.rows]), items.unknown, groups.unknown)


def _query_key(request: SearchRequest) -> str:
    """Name what `repeats="query"` means by the same query: text and filters; the collection is kept beside it."""
    words = " ".join(request.text.casefold().split())
    raw = json.dumps([words, "" if request.filters is None else canonical(request.filters)])
    return hashlib.sha256(raw.encode()).hexdigest()[:24]


def _short_reason(request: SearchRequest, skip: SkipSet, returned: int) -> str | None:
    if returned >= request.n:
        return None
    if returned == 0 and skip.matching and skip.seen == skip.matching:
        return "all_seen"
    if skip.matching < request.n and request.filters is not None and skip.seen + skip.excluded == 0:
        return f"filters_match_only_{skip.matching}"
    if skip.matching == 0 and request.filters is not None:
        return "filters_match_only_0"
    return "all_seen" if returned == 0 and skip.seen else "exhausted"


def _warnings(
    collection: Collection, request: SearchRequest, skip: SkipSet, text: EncodedText | None, seen: Found, excluded: _Excluded
) -> Iterable[str]:
    if text is not None and text.truncated:
        yield f"The text is longer than the {text.token_limit} tokens the model reads; its end was ignored."
    for name, count in (("seen", seen.unknown), ("excluded", excluded.unknown), ("excluded_groups", excluded.unknown_groups)):
        if count:
            yield f"{count:,} of the ids in {name} are not in this collection's index; they were ignored."
    if skip.matching == 0 and request.filters is not None:
        yield collection.filters.explain_empty(request.filters)


def _log(collection: Collection, request: SearchRequest, outcome: SearchOutcome, clock: _Clock) -> None:
    hidden = outcome.hidden
    logger.info(
        "search.done collection=%s n=%d returned=%d matching=%d seen=%d excluded=%d filtered=%d exact=%s %s",
        collection.name,
        request.n,
        len(outcome.hits),
        outcome.matching,
        hidden.seen,
        hidden.excluded,
        hidden.filtered,
        outcome.approximation is None,
        clock,
    )
    logger.debug("search.text text=%r filters=%r", request.text, outcome.filter_sentence)
    if collection.audit is not None:
        collection.audit.write(
            session=outcome.session,
            collection=collection.name,
            text=request.text,
            filters=outcome.filter_sentence,
            n=request.n,
            ids=[hit.item.id for hit in outcome.hits],
            scores=[round(hit.score, 4) for hit in outcome.hits],
            milliseconds=clock.milliseconds,
        )


class _Turns:
    """Calls of one session take turns, so that they need not search twice; calls of other sessions go on beside them."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._lock = threading.Lock()

    def of(self, session: str | None) -> _Turn:
        if session is None:
            return _Turn()
        with self._lock:
            turn = self._locks.get(session)
            if turn is None:
                turn = self._locks[session] = _Turn()
            return turn


class _Turn:
    """A lock that can be referred to weakly."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class _Clock:
    """Milliseconds per step, steps in order; a step timed twice adds up."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.milliseconds: dict[str, float] = {}

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.milliseconds[step] = round(self.milliseconds.get(step, 0.0) + 1000 * (now - self._last), 1)
        self._last = now

    def __str__(self) -> str:
        return " ".join(f"{step}_ms={spent}" for step, spent in self.milliseconds.items())
