"""What a session found, for people and programs: the whole story as JSON, and its lists as JSON Lines or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

from mcp_server.domain.search import Item
from mcp_server.domain.session import SessionHistory
from mcp_server.engine.collection import Collection
from mcp_server.engine.question import in_words
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import CatalogBusyError, CollectionError, UnknownCollectionError
from mcp_server.stores.sessions import Sessions

Which = Literal["kept", "shown"]
Row = dict[str, Any]

COLUMNS = ("collection", "id", "title", "uri", "original_url", "score", "query", "page")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_Key = tuple[str, int]


def session_report(shelf: Shelf, sessions: Sessions, session: str) -> dict[str, Any]:
    """Return everything `session` did, in order: pages with their question and hits, the shortlist, what is excluded, notes.

    An item or collection that is gone meanwhile stays, without title and uri.

    Raises:
        UnknownSessionError: the handle is unknown or expired.
        CatalogBusyError: a collection cannot be read now; the same call works later.
    """
    history = sessions.history(session)
    found = _looked_up(shelf, history)
    return {
        "session": session,
        "pages": [
            {
                "page": page.page,
                "time": datetime.fromtimestamp(page.at, UTC).isoformat(timespec="seconds"),
                "collection": page.collection,
                **page.question,
                "hits": [
                    {"id": media, "score": round(score, 4), **_described(found, (page.collection, media))}
                    for media, score in zip(page.ids, page.scores, strict=True)
                ],
            }
            for page in history.pages
        ],
        "kept": [_kept_row(found, history, place) for place in range(len(history.kept))],
        "excluded": {name: list(ids) for name, ids in history.excluded.items()},
        "notes": list(history.notes),
    }


def export_rows(shelf: Shelf, sessions: Sessions, session: str, which: Which) -> list[Row]:
    """Return one row an item with the keys `COLUMNS`: the shortlist in its order, or all that was shown, by page and rank.

    `query` says in words what found the item, `score` and `page` belong to that answer. What is not known is None, "" for texts.

    Raises:
        UnknownSessionError: the handle is unknown or expired.
        CatalogBusyError: a collection cannot be read now; the same call works later.
    """
    history = sessions.history(session)
    found = _looked_up(shelf, history)
    if which == "kept":
        return [_kept_row(found, history, place) for place in range(len(history.kept))]
    return [
        _row(found, (page.collection, media), round(score, 4), in_words(page.question), page.page)
        for page in history.pages
        for media, score in zip(page.ids, page.scores, strict=True)
    ]


def as_jsonl(rows: Iterable[Row]) -> str:
    """Return one JSON object a line, values exact."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: Iterable[Row]) -> str:
    """Return CSV (RFC 4180) with a header. A text that a spreadsheet would take for a formula gets a leading apostrophe."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_safe(value) if isinstance(value := row[name], str) else value for name in COLUMNS])
    return out.getvalue()


class _Found:
    """Items and their web addresses by collection and id."""

    def __init__(self) -> None:
        self.items: dict[_Key, Item] = {}
        self.urls: dict[_Key, str] = {}


def _looked_up(shelf: Shelf, history: SessionHistory) -> _Found:
    wanted: defaultdict[str, set[int]] = defaultdict(set)
    for page in history.pages:
        wanted[page.collection].update(page.ids)
    for kept in history.kept:
        wanted[kept.collection].add(kept.id)
    found = _Found()
    for name, ids in wanted.items():
        try:
            shelf.with_collection(name, partial(_look_up, name, sorted(ids), found))
        except CatalogBusyError:
            raise
        except (UnknownCollectionError, CollectionError):
            continue  # it is no longer served: ids are all there is to say
    return found


def _look_up(name: str, ids: Sequence[int], found: _Found, collection: Collection) -> None:
    rows = collection.catalog.rows_of(ids).rows
    for item in collection.catalog.items_at(rows, "concise"):
        key = (name, int(item.id))
        found.items[key] = item
        url = collection.media.originals.url_of(item.uri)
        if url is not None:
            found.urls[key] = url


def _described(found: _Found, key: _Key) -> Row:
    item = found.items.get(key)
    return {"title": item.title if item else "", "uri": item.uri if item else ""}


def _row(found: _Found, key: _Key, score: float | None, query: str, page: int | None) -> Row:
    place = {"collection": key[0], "id": key[1], **_described(found, key)}
    return {**place, "original_url": found.urls.get(key, ""), "score": score, "query": query, "page": page}


def _kept_row(found: _Found, history: SessionHistory, place: int) -> Row:
    kept = history.kept[place]
    score = None if kept.score is None else round(kept.score, 4)
    return _row(found, (kept.collection, kept.id), score, in_words(kept.question or {}), kept.page)


def _safe(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text
