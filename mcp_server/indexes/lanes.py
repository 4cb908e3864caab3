"""Two threads for the long part of every search, shared by all collections of the process and served in the order of the calls.

Scanning is bound by the speed of memory, which two threads use up; more would only wait for each other. A call hands its pieces over and
waits; calls that come meanwhile queue behind it, so that none is starved and what the process does at once is bounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from threading import Lock

from mcp_server.domain.stopping import stop_if_unwanted

LANES = max(1, min(2, os.cpu_count() or 1))
_LOOK_UP_SECONDS = 0.02


def each(work: Callable[[int], None], pieces: Sequence[int]) -> None:
    """Call `work` with each of `pieces`, on up to two threads. Returns when all is done.

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

    def lane() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                piece = waiting.pop()
            try:
                work(piece)
            except BaseException:
                with lock:
                    waiting.clear()
                raise

    tasks = [_pool().submit(lane) for _ in range(LANES)]
    try:
        while wait(tasks, _LOOK_UP_SECONDS).not_done:
            stop_if_unwanted()
    except BaseException:
        with lock:
            waiting.clear()
        wait(tasks)  # each is at the end of the piece it is at, or has not begun; they write to what the caller holds
        raise
    for task in tasks:
        task.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(LANES, thread_name_prefix="search-lane")
