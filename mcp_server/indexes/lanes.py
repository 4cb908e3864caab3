"""Two threads for the long part of a search, and turns: shared by all collections of the process, in the order of the calls.

Scanning is bound by the speed of memory, which two threads use up; more would only wait for each other. A search works on the thread that
called it, helped by one that all share. As many searches as there are lanes are under way at once and the others queue, so that none is
starved and the memory that searches hold is bounded.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache
from threading import Event, Lock

from mcp_server.domain.stopping import stop_if_unwanted

LANES = max(1, min(2, os.cpu_count() or 1))
_LOOK_UP_SECONDS = 0.02


def each(work: Callable[[int], None], pieces: Sequence[int]) -> None:
    """Call `work` with each of `pieces`, on this thread and at most one other. Returns when all is done.

    Raises what `work` raises, and what `stop_if_unwanted` does; either way the pieces not begun are left out. `work` must not call this
    function itself.
    """
    if len(pieces) < 2 or LANES == 1:
        for piece in pieces:
            stop_if_unwanted()
            work(piece)
        return
    waiting = list(reversed(pieces))
    lock = Lock()

    def lane(look_up: Callable[[], None] = lambda: None) -> None:
        try:
            while True:
                look_up()
                with lock:
                    if not waiting:
                        return
                    piece = waiting.pop()
                work(piece)
        except BaseException:
            with lock:
                waiting.clear()
            raise

    other = _pool().submit(lane)
    try:
        lane(stop_if_unwanted)
    except BaseException:
        if not other.cancel():
            wait([other])  # it is at the end of the piece it is at; it writes to what the caller holds
        raise
    if not other.cancel():  # else it has not even begun
        other.result()


@contextmanager
def turn() -> Generator[None]:
    """Wait until it is this call's turn, first come, first served, and keep it for the block. Raises what `stop_if_unwanted` raises."""
    turns = _turns
    turns.take()
    try:
        yield
    finally:
        turns.give_back()


class _Turns:
    """A semaphore that hands a turn over to the one who has waited longest, so that nobody slips in between."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = Lock()
        self._queue: deque[Event] = deque()

    def take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = Event()
            self._queue.append(mine)
        try:
            while not mine.wait(_LOOK_UP_SECONDS):
                stop_if_unwanted()
        except BaseException:
            with self._lock:
                handed_over = mine.is_set()
                if not handed_over:
                    self._queue.remove(mine)
            if handed_over:
                self.give_back()
            raise

    def give_back(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1


_turns = _Turns(LANES)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LANES - 1, thread_name_prefix="search-lane")


def _begin_anew() -> None:
    """Forget the threads and the turns of the process that this one was forked from: none of its threads is here."""
    global _turns  # noqa: PLW0603 - it belongs to the process, and this is another one
    _turns = _Turns(LANES)
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
