"""What can be read by address: collections, their filters, pictures with their data, and sessions."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.server.mcpserver.resources import FunctionResource, ResourceSecurity
from mcp.types import Annotations

from mcp_server.config import LOCAL_DIR
from mcp_server.domain.search import Item
from mcp_server.engine.collection import Collection
from mcp_server.engine.export import as_csv, as_jsonl, export_rows, session_report
from mcp_server.engine.pictures import JPEG, picture
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import CallerError, CollectionError, PictureUnavailableError, SearchServerError, UnknownMediaError
from mcp_server.protocol import uris
from mcp_server.protocol.answers import Json, compact
from mcp_server.protocol.arguments import filter_question
from mcp_server.protocol.failures import in_short, text_of
from mcp_server.protocol.filter_answers import filter_answer
from mcp_server.protocol.view import CALLS_AT_ONCE

JSON = "application/json"
SIDES = ("256", "1024")
"""Longest sides a picture may be asked for in, in pixels."""

_NAMES = ResourceSecurity(exempt_params={"collection"})
"""A collection's name is never a path: it is looked up among the names the server has."""
_FOR_MODELS = Annotations(audience=["assistant"])
_FOR_BOTH = Annotations(audience=["user", "assistant"])


def add_resources(server: MCPServer[Any], engine: SearchEngine) -> None:
    """Add everything that can be read by address to `server`; pages of collections are listed, the rest is found by template."""
    shelf = engine.shelf
    looking = anyio.CapacityLimiter(CALLS_AT_ONCE)
    listed: list[tuple[str, str, str, Callable[[], str]]] = [
        (uris.COLLECTIONS, "collections", "The collections of this server", lambda: _collections(engine))
    ]
    for name in shelf.names:
        listed.append((uris.filters_uri(name), f"{name} filters", f"What {name} can be filtered on", _filters_of(engine, name)))
    for uri, name, title, read in listed:
        server.add_resource(FunctionResource(uri=uri, name=name, title=title, mime_type=JSON, fn=read, annotations=_FOR_MODELS))

    def filters(collection: str) -> str:
        return _filters_of(engine, collection)()

    async def media(collection: str, id: str, side: str = "1024") -> bytes:  # noqa: A002 - the variable's name in the template
        with _told():
            if side not in SIDES:
                raise ResourceNotFoundError(f"side takes one of {', '.join(SIDES)}.")
            return (await anyio.to_thread.run_sync(picture, shelf, collection, _media_id(id), int(side), limiter=looking)).data

    def info(collection: str, id: str) -> str:  # noqa: A002 - as above
        with _told():
            number = _media_id(id)
            return compact(shelf.with_collection(collection, lambda opened: _info(opened, number)))

    def session(session: str) -> str:
        with _told():
            return compact(session_report(shelf, engine.sessions, session))

    def session_file(session: str, file: str) -> str:
        with _told():
            if file not in uris.SESSION_FILES:
                raise ResourceNotFoundError(f"A session has {', '.join(uris.SESSION_FILES)}; there is no other file.")
            which, _, form = file.partition(".")
            rows = export_rows(shelf, engine.sessions, session, "kept" if which == "kept" else "shown")
            return as_csv(rows) if form == "csv" else as_jsonl(rows)

    # an address that begins with clip://session/ is a collection's first: no handle is called filters or media
    for template, title, mime_type, audience, fn in (
        (uris.FILTERS, "Fields and values to filter on", JSON, _FOR_MODELS, filters),
        (uris.MEDIA_INFO, "All that is known about a picture", JSON, _FOR_MODELS, info),
        (uris.MEDIA, "A picture; side is its longest side in pixels", JPEG, _FOR_BOTH, media),
        (uris.SESSION, "What a session showed, keeps and excludes", JSON, _FOR_MODELS, session),
        (uris.SESSION_FILE, "The shortlist of a session, or all it showed, as a file", "text/plain", _FOR_BOTH, session_file),
    ):
        server.resource(
            template, name=fn.__name__, title=title, description=title, mime_type=mime_type, annotations=audience, security=_NAMES
        )(fn)


def _collections(engine: SearchEngine) -> str:
    found: list[Json] = []
    for name in engine.shelf.names:
        one: Json = {"name": name, "filters": uris.filters_uri(name)}
        try:
            with engine.shelf.using(name) as collection:
                one |= {"items": collection.catalog.indexed, "model": _model(collection.encoder.model)}
        except CollectionError as error:
            one["problem"] = in_short(error)
        found.append(one)
    return compact({"collections": found})


def _model(name: str) -> str:
    """Return the name of a model; of one in a folder, the folder's name only."""
    return re.split(r"[\\/]", name)[-1] if name.startswith(LOCAL_DIR) else name


def _filters_of(engine: SearchEngine, name: str) -> Callable[[], str]:
    def read() -> str:
        with _told():
            return filter_answer(engine, filter_question({"collection": name, "n": 20})).text

    return read


def _info(collection: Collection, number: int) -> Json:
    rows = collection.catalog.rows_of([number]).rows
    if not len(rows):
        raise UnknownMediaError(f'No indexed item has id {number} in "{collection.name}". Take ids from "id" of hits.')
    (item,) = collection.catalog.items_at(rows, "full")
    media = collection.media
    body: Json = {
        "id": number,
        "collection": collection.name,
        "title": item.title,
        "uri": item.uri,
        "picture": uris.media_uri(collection.name, number),
        "thumbnail_url": media.thumbnails.url_of(item.thumbnail_uri),
        "original_url": media.originals.url_of(item.uri),
        "tags": item.tags,
    }
    if item.group is not None:
        body["group"] = _group(collection, item)
    return {name: value for name, value in body.items() if value is not None}


def _group(collection: Collection, item: Item) -> Json:
    """Return the group of `item` with the items that belong to it, at most 100 of them."""
    assert item.group is not None
    rows = collection.catalog.rows_of_groups([item.group]).rows
    members = sorted(int(one) for one in collection.catalog.media_of_row[rows])
    return {"id": int(item.group), "size": len(members), "members": members[:100]}


def _media_id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ResourceNotFoundError("A picture's address ends with its id, digits only, as in clip://demo/media/104.")
    return int(text)


@contextmanager
def _told() -> Generator[None]:
    """Raise what the client may read: not found for what does not exist, else a resource error; no path or SQL."""
    try:
        yield
    except PictureUnavailableError as error:
        raise ResourceError(text_of(error)) from error
    except CallerError as error:
        raise ResourceNotFoundError(text_of(error)) from error
    except SearchServerError as error:
        raise ResourceError(text_of(error)) from error
