"""The walk from ids to something to look at: one picture, or a contact sheet of several."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcp_server.domain.search import Item
from mcp_server.engine.collection import Collection, Media
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import PictureUnavailableError, UnknownMediaError
from mcp_server.stores.thumbnails import PictureStore

if TYPE_CHECKING:
    from PIL import Image

    from mcp_server.pictures.contact_sheet import Tile

SHEET_SECONDS = 15.0
"""How long a sheet, or one picture, is waited for."""
JPEG = "image/jpeg"

_THREADS = 6
_THUMBNAIL_SIDE = 384
"""Up to this side a thumbnail is asked for first, above it the original."""
_LATE = "not there in time"


@dataclass(frozen=True)
class Picture:
    """A picture file of at most 700,000 bytes."""

    data: bytes
    mime_type: str


@dataclass(frozen=True)
class Sheet:
    """A contact sheet of at most 700,000 bytes, and what is on it in words, one line a tile."""

    data: bytes
    mime_type: str
    key: str


def picture(shelf: Shelf, collection: str | None, media: int, side: int, seconds: float = SHEET_SECONDS) -> Picture:
    """Return the picture of `media` as JPEG: upright, transparent parts on white, longest side at most `side`, never enlarged.

    Raises:
        UnknownCollectionError: no such collection.
        UnknownMediaError: the collection has no such item.
        PictureUnavailableError: its picture cannot be had, or not within `seconds`.
        CollectionError: the collection cannot be read.
    """
    from mcp_server.pictures.viewing import as_jpeg

    def work(opened: Collection) -> Picture:
        item = _items(opened, [media]).get(media)
        if item is None:
            raise UnknownMediaError(f'No indexed item has id {media} in "{opened.name}". Take ids from "id" of hits.')
        seen = _looks(opened.media, {media: item}, side, 255, seconds)[media]
        if isinstance(seen, str):
            raise PictureUnavailableError(f"Item {media} is there, but its picture cannot be shown: {seen}. Its tags can still be read.")
        return Picture(as_jpeg(seen), JPEG)

    return shelf.with_collection(collection, work)


def contact_sheet(shelf: Shelf, collection: str | None, ids: Sequence[int], seconds: float = SHEET_SECONDS) -> Sheet:
    """Return the pictures of `ids` on one sheet, in that order, each once, numbered from 1 and labelled with their ids.

    Where there is no picture, or none within `seconds`, the tile says why.

    Raises:
        UnknownCollectionError: no such collection.
        UnknownMediaError: none of the ids is an indexed item.
        CollectionError: the collection cannot be read.
    """
    from mcp_server.pictures.contact_sheet import draw_sheet
    from mcp_server.pictures.viewing import as_jpeg

    wanted = list(dict.fromkeys(ids))

    def work(opened: Collection) -> Sheet:
        items = _items(opened, wanted)
        if not items:
            raise UnknownMediaError(f'None of these ids is an indexed item of "{opened.name}". Take ids from "id" of hits.')
        tiles = _tiles(opened.media, wanted, items, seconds)
        key = [f"{place} = {_in_words(one, items.get(one), tile)}" for place, (one, tile) in enumerate(zip(wanted, tiles, strict=True), 1)]
        if len(wanted) < len(ids):
            key.append("Ids given twice are shown once.")
        return Sheet(as_jpeg(draw_sheet(tiles)), JPEG, "\n".join(key))

    return shelf.with_collection(collection, work)


def _items(collection: Collection, ids: Sequence[int]) -> dict[int, Item]:
    rows = collection.catalog.rows_of(ids).rows
    return {int(item.id): item for item in collection.catalog.items_at(rows, "concise")}


def _tiles(media: Media, ids: Sequence[int], items: dict[int, Item], seconds: float) -> list[Tile]:
    from mcp_server.pictures.contact_sheet import GROUND, SHEET_SIDE, Tile

    side = SHEET_SIDE if len(ids) == 1 else SHEET_SIDE // 2 if len(ids) <= 4 else _THUMBNAIL_SIDE
    looks = _looks(media, items, side, GROUND, seconds)
    tiles: list[Tile] = []
    for place, one in enumerate(ids, 1):
        seen = looks.get(one, "unknown id")
        label = f"{place}: id {one}"
        tiles.append(Tile(label, None, seen) if isinstance(seen, str) else Tile(label, seen))
    return tiles


def _looks(media: Media, items: Mapping[int, Item], side: int, ground: int, seconds: float) -> dict[int, Image.Image | str]:
    """Return what `_look` says of each of `items`; they are looked at side by side, since web servers take their time."""
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="picture")
    deadline = time.monotonic() + seconds
    try:
        looks = {one: pool.submit(_look, media, item, side, ground, deadline) for one, item in items.items()}
        wait(looks.values(), timeout=seconds)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {one: look.result() if look.done() and not look.cancelled() else _LATE for one, look in looks.items()}


def _look(media: Media, item: Item, side: int, ground: int, deadline: float) -> Image.Image | str:
    """Return the picture of `item`, or in a few words why it cannot be had; none is begun to be decoded after `deadline`."""
    from mcp_server.pictures.viewing import TooLateError, UnviewableError, viewed

    sources: list[tuple[PictureStore, str]] = [(media.thumbnails, item.thumbnail_uri), (media.originals, item.uri)]
    reason = "no picture"
    for store, uri in sources if side <= _THUMBNAIL_SIDE else reversed(sources):
        data = store.read(uri) if uri else None
        if data is None:
            continue
        try:
            return viewed(data, side, ground, deadline - time.monotonic())
        except TooLateError:
            return _LATE
        except UnviewableError as error:
            reason = str(error)
    return reason


def _in_words(media: int, item: Item | None, tile: Tile) -> str:
    if item is None:
        return f"id {media}: not in this collection"
    group = f" (group {item.group})" if item.group is not None else ""
    return f"id {media}: {' '.join(item.title.split())[:80]}{group}{f' [{tile.reason}]' if tile.picture is None else ''}"
