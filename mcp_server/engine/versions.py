"""One collection over time: the version that is served, the next one being opened, the old ones still in use."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from threading import Condition

from mcp_server.engine.collection import Collection
from mcp_server.errors import CollectionError

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 1.0
"""How long a call waits for a version that another call is opening, before the old one answers it."""
REST = 10.0
"""A file that is written to again and again is read again at most every so many times the seconds reading took."""
RETRY_SECONDS = 10.0
"""After so long at least, a version that could not be opened is tried again even if nothing has changed."""


@dataclass(eq=False)
class Version:
    """One opening of a collection. Everything but `collection` belongs to `Versions`."""

    collection: Collection
    stamp: Hashable
    """The watched files as they were just before the opening."""
    rests_until: float
    users: int = 0
    retired: bool = False


@dataclass(frozen=True)
class _Refusal:
    """A version that could not be opened while an older one is served."""

    stamp: Hashable
    retry_at: float


class Versions:
    """Opens a collection when first asked for and anew when its files have changed. Safe to call from several threads.

    The first call that sees a change opens the new version; no other thread opens it again. Calls that begin meanwhile wait a little for
    it, then are answered from the old version. A version that cannot be opened leaves the old one in service. An old version is closed
    when the last call that uses it has ended.
    """

    def __init__(
        self,
        name: str,
        open_next: Callable[[], Collection],
        watched: Callable[[], Hashable],
        patience_seconds: float = PATIENCE_SECONDS,
        rest: float = REST,
    ) -> None:
        """Open nothing yet.

        Args:
            name: for the log.
            open_next: opens what the files hold now.
            watched: says what the files look like now; the catalog is watched anyway.
            patience_seconds: see PATIENCE_SECONDS.
            rest: see REST. A file that was replaced, and not written to in place, is not made to wait.
        """
        self._name = name
        self._open_next = open_next
        self._watched = watched
        self._patience = patience_seconds
        self._rest = rest
        self._changed = Condition()
        self._current: Version | None = None
        self._opening = False
        self._refused: _Refusal | None = None
        self._ended = False

    def borrow(self, outdated: Version | None = None) -> Version:
        """Return the version to use now; give it back after use. Never `outdated`.

        Raises:
            CollectionError: it cannot be opened, and there is no older one to go on with; the next call tries again.
        """
        deadline: float | None = None
        with self._changed:
            while True:
                if self._ended:
                    raise CollectionError(f"[{self._name}] the server is ending.")
                old = self._current
                at_hand = None if old is outdated else old
                if at_hand is not None and not self._is_due(at_hand):
                    at_hand.users += 1
                    return at_hand
                if not self._opening:
                    self._opening = True
                    break
                now = time.monotonic()
                deadline = deadline or now + self._patience
                if at_hand is None:
                    self._changed.wait()
                elif now < deadline:
                    self._changed.wait(deadline - now)
                else:
                    at_hand.users += 1
                    return at_hand
        try:
            return self._opened(old, at_hand)
        finally:
            with self._changed:
                self._opening = False
                self._changed.notify_all()

    def give_back(self, version: Version) -> None:
        """End one use of `version`; the last use of an old one closes it."""
        with self._changed:
            version.users -= 1
            unused = version.retired and version.users == 0
        if unused:
            _close(version.collection)

    def close(self) -> None:
        """Close the current version, once the calls under way have ended. Opening one under way is given up when it is done."""
        with self._changed:
            self._ended = True
            last, self._current = self._current, None
            self._changed.notify_all()
            unused = last is not None and _retire(last)
        if last is not None and unused:
            _close(last.collection)

    def _is_due(self, version: Version) -> bool:
        """Tell whether the files have changed since `version` was opened, and it is time to open them again."""
        database = version.collection.catalog.database
        watched = self._watched()
        if not database.is_changed and watched == version.stamp:
            return False
        refused = self._refused
        if refused is not None and refused.stamp == (watched, database.version_there()) and time.monotonic() < refused.retry_at:
            return False
        return database.is_replaced or time.monotonic() >= version.rests_until

    def _opened(self, old: Version | None, at_hand: Version | None) -> Version:
        """Open the next version and put it in the place of `old`; if it cannot be opened, go on with `at_hand` if there is one."""
        database = old.collection.catalog.database if old is not None else None
        watched = self._watched()
        there = database.version_there() if database is not None else None
        started = time.monotonic()
        try:
            collection = self._open_next()
            if old is not None:
                _load_index(collection)
        except Exception as error:  # such as no memory for two versions at once: the one at hand still answers
            if at_hand is None:
                raise
            return self._kept(at_hand, (watched, there), error, time.monotonic() - started)
        ended = time.monotonic()
        version = Version(collection, watched, ended + self._rest * (ended - started), users=1)
        with self._changed:
            if ending := self._ended:
                version.retired = True
            else:
                self._current, self._refused = version, None
            unused = old is not None and not ending and _retire(old)
        if ending:
            _close(collection)
            raise CollectionError(f"[{self._name}] the server is ending.")
        if old is not None:
            logger.info("collection.new_version name=%s items=%d", self._name, collection.catalog.indexed)
            if unused:
                _close(old.collection)
        return version

    def _kept(self, version: Version, stamp: Hashable, error: Exception, seconds: float) -> Version:
        with self._changed:
            known = self._refused is not None and self._refused.stamp == stamp
            self._refused = _Refusal(stamp, time.monotonic() + max(RETRY_SECONDS, self._rest * seconds))
            version.users += 1
        if not known:
            logger.error("collection.new_version_refused name=%s reason=%s", self._name, error)
        return version


def _load_index(collection: Collection) -> None:
    """Make `collection` ready to search, or close it."""
    try:
        _ = collection.index
    except BaseException:
        _close(collection)
        raise


def _retire(version: Version) -> bool:
    """Mark `version` as old; return whether nobody uses it."""
    version.retired = True
    return version.users == 0


def _close(collection: Collection) -> None:
    collection.close()
    collection.media.thumbnails.close()
    collection.media.originals.close()
