"""Every error this package raises on purpose.

SearchServerError
├── CallerError            the caller can do better: the message says what was refused, what is accepted, what to do next
│   ├── BadArgumentError       an argument has the wrong name, type or range
│   ├── UnknownCollectionError
│   ├── FilterError            the filter cannot be read
│   │   ├── UnknownFieldError
│   │   └── UnknownValueError
│   ├── UnknownSessionError    the handle is unknown or expired
│   ├── UnknownMediaError      the collection has no such media
│   └── PictureUnavailableError  there is such a medium, but no picture of it can be read
├── EncoderError           the model cannot answer; the caller's arguments are fine
│   ├── ModelLoadingError      not yet: it is still loading
│   └── ModelUnavailableError  it cannot be had on this server: download, cache, device
├── SessionStoreError      the server cannot keep sessions; the caller's arguments are fine
├── CollectionError        a collection cannot be opened or read: found by `doctor`
│   ├── CatalogError           the SQLite file
│   │   ├── CatalogReplacedError   another file took its place: begin again with that one
│   │   └── CatalogBusyError       another program is writing to it: try again later
│   └── IndexMismatchError     embeddings, index and model do not fit each other
├── IngestError            a folder cannot be turned into a collection
└── ConfigError            the configuration cannot be used: found when starting

Messages of `CallerError`, `EncoderError` and `SessionStoreError` are read by a model: at most `MESSAGE_LIMIT` characters, no path, SQL or
list of ids.
The other messages are for the person who runs the server and may name files.
"""

from __future__ import annotations

MESSAGE_LIMIT = 260
"""Longest message for a model, in characters; with the SDK's prefix it stays under 300."""


class SearchServerError(Exception):
    """Base of all errors of this package."""

    @property
    def message(self) -> str:
        """What was refused, what would be accepted, what to do next."""
        return str(self)


class CallerError(SearchServerError):
    """The call was wrong; a smarter caller could have avoided this."""


class BadArgumentError(CallerError):
    """An argument's name, type or range is wrong."""


class UnknownCollectionError(CallerError):
    """There is no collection of that name."""


class FilterError(CallerError):
    """The filter cannot be read."""


class UnknownFieldError(FilterError):
    """The collection has no field of that name."""


class UnknownValueError(FilterError):
    """The field has no such value."""


class UnknownSessionError(CallerError):
    """The session handle is unknown or has expired."""


class UnknownMediaError(CallerError):
    """The collection has no media of these ids."""


class PictureUnavailableError(CallerError):
    """The medium is known, but its picture cannot be had: none stored, not readable, not reachable."""


class EncoderError(SearchServerError):
    """The text or image encoder cannot answer; the arguments are fine."""


class ModelLoadingError(EncoderError):
    """The model is still loading."""


class ModelUnavailableError(EncoderError):
    """The model cannot be had on this server.

    Attributes:
        remedy: for the person who runs the server: what failed and what to do. May name files, addresses and settings.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy or message


class SessionStoreError(SearchServerError):
    """The server cannot read or write its sessions; the arguments are fine.

    Attributes:
        remedy: for the person who runs the server, as in `ModelUnavailableError`.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy or message


class CollectionError(SearchServerError):
    """A collection cannot be opened or read."""


class CatalogError(CollectionError):
    """The SQLite file is missing, damaged or not in a known schema."""


class CatalogReplacedError(CatalogError):
    """Another file has taken the catalog's place; a call that began on the old one can begin again on the new one."""


class CatalogBusyError(CatalogError):
    """Another program is writing to the catalog and lets nobody read meanwhile; the same call works when it has finished."""


class IndexMismatchError(CollectionError):
    """Embeddings, index, catalog and model do not fit each other."""


class IngestError(SearchServerError):
    """A folder of pictures cannot be turned into a collection."""


class ConfigError(SearchServerError):
    """The configuration cannot be used."""


def whole(text: str) -> str:
    """Return `text` with lone surrogates, which no UTF-8 message can carry, replaced by U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clipped(text: object, limit: int = 40) -> str:
    """Return `text` on one line, cut to `limit` characters, for quoting a caller's own words back to it."""
    line = " ".join(whole(str(text)[: 4 * limit]).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
