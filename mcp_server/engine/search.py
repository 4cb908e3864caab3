"""The walk from words to pictures. `SearchEngine._walk` is the whole of it; read it first, then `steps`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import SearchOutcome, SearchRequest
from mcp_server.domain.session import PageEntry
from mcp_server.engine.collection import Collection
from mcp_server.engine.question import in_words, query_key, record_of
from mcp_server.engine.shelf import Shelf
from mcp_server.engine.steps import Waiting, Walk
from mcp_server.errors import BadArgumentError, clipped
from mcp_server.stores.sessions import Sessions

logger = logging.getLogger(__name__)


class SearchEngine:
    """Search over the collections of one server. Synchronous; safe to call from several threads."""

    def __init__(self, shelf: Shelf, sessions: Sessions) -> None:
        self.shelf = shelf
        self.sessions = sessions
        self._turns = _Turns()

    def search(self, request: SearchRequest, waiting: Waiting | None = None) -> SearchOutcome:
        """Answer `request` and mark the answer as shown in its session; whatever raises marks nothing. `request.page` is not looked at.

        Raises:
            CallerError: the request asks for what is not there.
            EncoderError: the model cannot answer now.
            SessionStoreError: the session cannot be saved.
            CollectionError: the collection cannot be read.
        """
        return self.shelf.with_collection(request.collection, lambda collection: self._walk(collection, request, None, waiting))

    def answer(self, request: SearchRequest, write: Callable[[SearchOutcome], str], waiting: Waiting | None = None) -> str:
        """Return what `write` makes of the outcome of `request`; the session keeps it, to give it again word for word.

        With `request.page`, the answer that has this number in the session is given if there is one, and if not, this call is to be it:
        a call that is repeated because its answer was lost changes nothing.

        Raises what `search` raises; BadArgumentError for a page too far on, or one that answered another question than `request` asks.
        """
        kept = self._kept(request)
        if kept is not None:
            return kept
        written: list[str] = []

        def keep(outcome: SearchOutcome) -> str:
            written[:] = [write(outcome)]
            return written[0]

        try:
            self.shelf.with_collection(request.collection, lambda collection: self._walk(collection, request, keep, waiting))
        except _PageMadeError:
            return self._again(request, request.session or "", request.page or 0)
        return written[0]

    def best_rows(self, collection: Collection, request: SearchRequest, waiting: Waiting | None = None) -> NDArray[np.int64]:
        """Return the rows of the best `request.n` matches that the session has not shown; nothing is marked.

        Raises what `search` raises.
        """
        walk = Walk(self.sessions, collection, request)
        skip = walk.skip_set()
        question = walk.ask(waiting) if skip.allowed else None
        return walk.nearest(skip, question).rows

    def close(self) -> None:
        """Close the collections and the sessions."""
        self.shelf.close()
        self.sessions.close()

    def _kept(self, request: SearchRequest) -> str | None:
        """Return the answer of page `request.page` if there is one; None when it is the next to be made."""
        if request.page is None or (request.session is None and request.page == 1):
            return None
        if request.session is None:
            raise BadArgumentError(
                "page needs the session whose answer it is. Pass session as an earlier answer gave it, or leave page out."
            )
        made = self.sessions.pages(request.session)
        if request.page <= made:
            return self._again(request, request.session, request.page)
        if request.page > made + 1:
            raise BadArgumentError(
                f"This session has {made:,} pages; the next is {made + 1:,}. Leave page out to go on, or ask for an earlier one."
            )
        if not request.texts and not request.like:
            raise BadArgumentError(
                f"Page {request.page:,} has not been asked for yet. Give text or like with it, or ask for page 1 to {made:,}."
            )
        return None

    def _again(self, request: SearchRequest, session: str, page: int) -> str:
        """Return the answer of `page` as it was given; a question that `request` asks must be the one it answered."""
        text = self.sessions.page(session, page)
        kept = self.sessions.asked(session, page)
        asks = request.texts or request.like or request.unlike or request.filters is not None
        if kept is not None and (asks or request.collection is not None):
            collection, question = kept

            def repeated(of: Collection) -> bool:
                return (of.name, record_of(request, of.filters.evaluate(request.filters).sentence) if asks else question) == kept

            if not self.shelf.with_collection(request.collection or collection, repeated):
                told = f'"{clipped(in_words(question), 60)}" in "{clipped(collection, 20)}"'
                raise BadArgumentError(
                    f"Page {page:,} of this session answered {told}; this call asks something else. "
                    "Leave out page to search, or text, like, unlike, filters and collection to have that answer again."
                )
        return text

    def _walk(
        self,
        collection: Collection,
        request: SearchRequest,
        write: Callable[[SearchOutcome], str] | None,
        waiting: Waiting | None,
    ) -> SearchOutcome:
        """Answer `request` from `collection`; what is read from its files is read before anything is marked as shown."""
        clock = _Clock()
        walk = Walk(self.sessions, collection, request)
        skip = walk.skip_set()
        clock.lap("skip")
        question = walk.ask(waiting) if skip.allowed else None  # nothing allowed: no need of the model
        clock.lap("encode")
        with self._turns.of(request.session):
            while True:
                after = None if request.session is None else self.sessions.pages(request.session)
                if write is not None and request.page is not None and after is not None and request.page <= after:
                    raise _PageMadeError
                skip = walk.skip_set()  # calls that had their turn meanwhile have shown more, or had what was shown forgotten
                question = question or (walk.ask(waiting) if skip.allowed else None)
                near = walk.nearest(skip, question)
                clock.lap("index")
                draft = walk.outcome(skip, question, near)
                entry = PageEntry(
                    collection=collection.name,
                    query=query_key(request),
                    question=record_of(request, draft.filter_sentence),
                    ids=tuple(int(hit.item.id) for hit in draft.hits),
                    scores=tuple(hit.score for hit in draft.hits),
                )
                made = self.sessions.record(request.session, entry, request.repeats, _writing(write, draft), after)
                clock.lap("items")
                if made is not None:  # else another process has answered a call of this session meanwhile: search again
                    break
        outcome = replace(draft, session=made.session, page=made.page)
        _log(collection, request, outcome, clock)
        return outcome


class _PageMadeError(Exception):
    """Another call has made the page that this one was to make: the first try of a call that is repeated, say."""


def _writing(write: Callable[[SearchOutcome], str] | None, draft: SearchOutcome) -> Callable[[str, int], str] | None:
    return None if write is None else lambda session, page: write(replace(draft, session=session, page=page))


def _plain(texts: list[str]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else texts


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
    question = record_of(request, outcome.filter_sentence)
    logger.debug("search.asked %r", question)
    if collection.audit is not None:
        collection.audit.write(
            session=outcome.session,
            page=outcome.page,
            collection=collection.name,
            text=_plain(question.get("text", [])),
            **{name: question[name] for name in ("like", "unlike") if name in question},
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
