"""The addresses of what can be read as a resource. Names of collections are percent-encoded; everything else is plain."""

from __future__ import annotations

from urllib.parse import quote

COLLECTIONS = "clip://collections"
FILTERS = "clip://{collection}/filters"
MEDIA = "clip://{collection}/media/{id}{?side}"
MEDIA_INFO = "clip://{collection}/media/{id}/info"
SESSION = "clip://session/{session}"
SESSION_FILE = "clip://session/{session}/{file}"
SESSION_FILES = ("kept.csv", "kept.jsonl", "shown.csv", "shown.jsonl")


def filters_uri(collection: str) -> str:
    """Return the address of what a collection can be filtered on."""
    return f"clip://{quote(collection, safe='')}/filters"


def media_uri(collection: str, media: int) -> str:
    """Return the address of a picture."""
    return f"clip://{quote(collection, safe='')}/media/{media}"


def export_uri(session: str, file: str) -> str:
    """Return the address of one of `SESSION_FILES`."""
    return f"clip://session/{session}/{file}"
