"""The one place that turns an error into text for a model."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

from mcp.server.mcpserver.exceptions import ToolError

from mcp_server.errors import (
    MESSAGE_LIMIT,
    CallerError,
    CatalogBusyError,
    CollectionError,
    EncoderError,
    SearchServerError,
    SessionStoreError,
    whole,
)

logger = logging.getLogger(__name__)

_COLLECTION_TEXT = (
    "This collection cannot be opened on the server. Your arguments are fine. "
    "Tell the user to run `clip-search-mcp doctor`, which says what is wrong; other collections, if there are any, still work."
)
_BUSY_TEXT = (
    "The catalog of this collection is being written to on the server. Your arguments are fine. "
    "Try again in a minute; other collections, if there are any, still work."
)


@contextmanager
def told_to_the_model() -> Generator[None]:
    """Raise `ToolError` with a sentence to act on for every error this package raises on purpose. Anything else is a bug and rises."""
    try:
        yield
    except SearchServerError as error:
        raise ToolError(text_of(error)) from error


def in_short(error: CollectionError) -> str:
    """Return what is said of a collection in a list of several."""
    if isinstance(error, CatalogBusyError):
        return "is being written to; try again in a minute"
    return "cannot be opened; tell the user to run clip-search-mcp doctor"


def text_of(error: SearchServerError) -> str:
    """Return what a model may read of `error`: at most `MESSAGE_LIMIT` characters, no path, SQL or traceback."""
    if isinstance(error, CallerError | EncoderError | SessionStoreError):
        message = whole(error.message)
        return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
    if isinstance(error, CatalogBusyError):
        logger.warning("collection.busy reason=%s", error)
        return _BUSY_TEXT
    if isinstance(error, CollectionError):
        logger.error("collection.failed reason=%s", error)
        return _COLLECTION_TEXT
    logger.error("server.failed reason=%s", error)
    return "The server is not set up correctly. Tell the user to run `clip-search-mcp doctor`."
