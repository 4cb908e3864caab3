"""How long work learns that nobody waits for its answer any more."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def stoppable(check: Callable[[], None]) -> Generator[None]:
    """Let the work of this block be stopped: `check` is called now and then, and raises when the answer is not wanted any more."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def stop_if_unwanted() -> None:
    """Raise what the `check` of `stoppable` raises, if the work of this thread is to stop."""
    check = _check.get()
    if check is not None:
        check()
