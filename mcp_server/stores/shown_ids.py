"""Remembers what sessions have shown and how much, so that a long session is not read from its file again at every call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_MOST_SESSIONS = 64
"""With 100,000 ids each they take 50 MB."""


class ShownIds:
    """Lists of ids by session and by what they were asked for. Not for several threads at once: use it while the file is locked.

    Every list belongs to a version of the file: what another process writes makes all of them forgotten.
    """

    def __init__(self) -> None:
        self._version: Hashable = None
        self._sessions: OrderedDict[str, dict[tuple[str, str | None], Ids]] = OrderedDict()
        self._counts: dict[str, int] = {}

    def get(self, version: Hashable, session: str, collection: str, query: str | None) -> Ids | None:
        """Return what `session` has shown of `collection`, for `query` if given; None when it is not known."""
        self._expect(version)
        return self._sessions.get(session, {}).get((collection, query))

    def keep(self, version: Hashable, session: str, collection: str, query: str | None, ids: Ids) -> None:
        """Remember what the file says. `ids` becomes read-only."""
        self._expect(version)
        ids.setflags(write=False)
        self._sessions.setdefault(session, {})[(collection, query)] = ids
        self._sessions.move_to_end(session)
        while len(self._sessions) > _MOST_SESSIONS:
            gone, _ = self._sessions.popitem(last=False)
            self._counts.pop(gone, None)

    def most(self, version: Hashable, session: str) -> int | None:
        """Return what `session` has shown at the most, of all collections and each query's counted; None when it is not known."""
        self._expect(version)
        return self._counts.get(session)

    def keep_count(self, version: Hashable, session: str, count: int) -> None:
        """Remember that the file has `count` ids of `session`, if anything else is known of it."""
        self._expect(version)
        if session in self._sessions:
            self._counts[session] = count

    def add(self, session: str, collection: str, query: str, ids: Sequence[int]) -> None:
        """Add what has just been shown for `query` to the lists it belongs to."""
        if session in self._counts:
            self._counts[session] += len(ids)
        lists = self._sessions.get(session, {})
        for key in ((collection, None), (collection, query)):
            known = lists.get(key)
            if known is not None:
                new = np.array(list(dict.fromkeys(ids)), dtype=np.int64)
                lists[key] = np.concatenate((known, new[~np.isin(new, known)]))
                lists[key].setflags(write=False)

    def forget(self, session: str | None = None) -> None:
        """Forget what is known of `session`, or of all."""
        if session is None:
            self._sessions.clear()
            self._counts.clear()
        else:
            self._sessions.pop(session, None)
            self._counts.pop(session, None)

    def _expect(self, version: Hashable) -> None:
        if version != self._version:
            self.forget()
            self._version = version
