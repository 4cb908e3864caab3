"""Finds out where a FAISS index may answer: from what was noted, else by measuring it once behind the calls."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from mcp_server.errors import CollectionError
from mcp_server.indexes.approval import Approval

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0
"""Left to the calls that opened the collection before measuring begins."""

Measure = Callable[[Callable[[int, int], None]], Approval]
"""Measures, and calls what it is given between two searches; lets through what that raises."""


class _BrokenOffError(Exception):
    """Whoever wanted to know is gone."""


@dataclass
class _State:
    """Shared with the thread, which must not keep the `Approving` alive."""

    approval: Approval | None
    gone: threading.Event = field(default_factory=threading.Event)


class Approving:
    """An approval, now or later. Safe to use from several threads; measuring ends when nobody holds this any more."""

    def __init__(
        self, approval: Approval | None, measure: Measure, keep: Callable[[Approval], None], pause_seconds: float = PAUSE_SECONDS
    ) -> None:
        """Hold `approval`; where it is None, `measure` it on the first call of `ready` and `keep` it for the next start."""
        self._state = _State(approval)
        self._measure, self._keep, self._pause = measure, keep, pause_seconds
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        weakref.finalize(self, self._state.gone.set)

    def ready(self) -> Approval | None:
        """Return the approval; None while it is not known."""
        if self._state.approval is None and self._thread is None:
            with self._lock:
                if self._thread is None:
                    arguments = (self._state, self._measure, self._keep, self._pause)
                    self._thread = threading.Thread(target=_measured, args=arguments, name="faiss-recall", daemon=True)
                    self._thread.start()
        return self._state.approval

    def wait(self, seconds: float) -> None:
        """Wait for measuring that is under way."""
        if self._thread is not None:
            self._thread.join(seconds)


def _measured(state: _State, measure: Measure, keep: Callable[[Approval], None], pause: float) -> None:
    last = time.perf_counter()

    def rest(_done: int, _total: int) -> None:
        """Leave every other moment to the calls."""
        nonlocal last
        if state.gone.wait(time.perf_counter() - last):
            raise _BrokenOffError
        last = time.perf_counter()

    if state.gone.wait(pause):
        return
    started = last = time.perf_counter()
    try:
        approval = measure(rest)
    except _BrokenOffError:
        return
    state.approval = approval
    smallest = approval.smallest_share
    logger.info(
        "faiss.measured target=%g used_from_share=%s seconds=%.0f",
        approval.target,
        "never" if smallest is None else f"{smallest:g}",
        time.perf_counter() - started,
    )
    try:
        keep(approval)
    except (OSError, CollectionError) as error:
        logger.warning("faiss.unkept error=%s It will be measured again at the next start.", error)
