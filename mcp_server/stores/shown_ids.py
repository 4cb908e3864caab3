"""Remembers what sessions have shown and how much, so that a long session is not read from its file again at every call."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

_MOST_SESSIONS = 64
"""With 100,000 ids each they take 50 MB."""


@dataclass
class _Known:
    """What is known of one session: lists by collection and query, and how many ids it has at the most, None if that was not counted."""

    lists: dict[tuple[str, str | None], Ids] = field(default_factory=dict)
    most: int | None = None


class ShownIds:
    """Lists of ids by session and by what they were asked for. Not for several threads at once: use it while the file is locked.

    Every list belongs to a version of the file: what another process writes makes all of them forgotten.
    """

    def __init__(self) -> None:
        self._version: Hashable = None
        self._sessions: OrderedDict[str, _Known] = OrderedDict()

    def get(self, version: Hashable, session: str, collection: str, query: str | None) -> Ids | None:
        """Return what `session` has shown of `collection`, for `query` if given; None when it is not known."""
        self._expect(version)
        known = self._sessions.get(session)
        return None if known is None else known.lists.get((collection, query))

    def keep(self, version: Hashable, session: str, collection: str, query: str | None, ids: Ids) -> None:
        """Remember what the file says. `ids` becomes read-only."""
        self._expect(version)
        ids.setflags(write=False)
        self._sessions.setdefault(session, _Known()).lists[(collection, query)] = ids
        self._sessions.move_to_end(session)
        while len(self._sessions) > _MOST_SESSIONS:
            self._sessions.popitem(last=False)

    def most(self, version: Hashable, session: str) -> int | None:
        """Return what `session` has shown at the most, of all collections and each query's counted; None when it is not known."""
        self._expect(version)
        known = self._sessions.get(session)
        return None if known is None else known.most

    def keep_count(self, version: Hashable, session: str, count: int) -> None:
        """Remember that the file has `count` ids of `session`, if anything else is known of it."""
        self._expect(version)
        known = self._sessions.get(session)
        if known is not None:
            known.most = count

    def add(self, session: str, collection: str, query: str, ids: Sequence[int]) -> None:
        """Add what has just been shown for `query` to the lists it belongs to."""
        known = self._sessions.get(session)
        if known is None:
            return
        if known.most is not None:
            known.most += len(ids)
        for key in ((collection, None), (collection, query)):
            before = known.lists.get(key)
            if before is not None:
                new = np.array(list(dict.fromkeys(ids)), dtype=np.int64)
                known.lists[key] = np.concatenate((before, new[~np.isin(new, before)]))
                known.lists[key].setflags(write=False)

    def forget(self, session: str | None = None) -> None:
        """Forget what is known of `session`, or of all."""
        if session is None:
            self._sessions.clear()
        else:
            self._sessions.pop(session, None)

    def _expect(self, version: Hashable) -> None:
        if version != self._version:
            self.forget()
            self._version = version
