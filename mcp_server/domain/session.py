"""What a session remembers: the answers it gave, the shortlist, what is excluded, and notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PageEntry:
    """What one answer showed.

    Attributes:
        query: key of what was asked; answers to the same question share it.
        question: what was asked, for people and models: `text`, `like`, `unlike` and `filters`, only what was given.
        ids, scores: the media in rank order and their cosines.
    """

    collection: str
    query: str
    question: dict[str, Any]
    ids: tuple[int, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Recorded:
    """Where an answer is kept."""

    session: str
    page: int


@dataclass(frozen=True)
class SessionChange:
    """What is to change in a session; None starts a new one.

    Attributes:
        collection: that of the ids, and of what is to be forgotten; needed for ids.
        keep: goes on the shortlist, in this order, and is no longer excluded.
        drop: is neither kept nor excluded any more.
        exclude: is not shown again in this session, and leaves the shortlist.
        forget_seen: what was shown may come again; of all collections if `collection` is None.
        fork: everything is copied to a new session first, and changed there; the old one stays as it is.
    """

    session: str | None
    collection: str | None = None
    keep: tuple[int, ...] = ()
    drop: tuple[int, ...] = ()
    exclude: tuple[int, ...] = ()
    forget_seen: bool = False
    note: str | None = None
    fork: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        """All media named."""
        return (*self.keep, *self.drop, *self.exclude)


@dataclass(frozen=True)
class SessionState:
    """A session in short: ids of the shortlist in order, and counts, by collection."""

    session: str
    kept: dict[str, list[int]]
    excluded: dict[str, int]
    seen: dict[str, int]
    pages: int
    notes: list[str]
    expires_hours: float


@dataclass(frozen=True)
class Page:
    """One answer as it was given; `at` in seconds since 1970, UTC."""

    page: int
    collection: str
    question: dict[str, Any]
    ids: tuple[int, ...]
    scores: tuple[float, ...]
    at: float


@dataclass(frozen=True)
class Kept:
    """One item of the shortlist. `page`, `question` and `score` are those of the answer that showed it first, None if none did."""

    collection: str
    id: int
    page: int | None = None
    question: dict[str, Any] | None = None
    score: float | None = None


@dataclass(frozen=True)
class SessionHistory:
    """A whole session, everything in the order it happened; `excluded` by collection."""

    session: str
    pages: tuple[Page, ...]
    kept: tuple[Kept, ...]
    excluded: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]
