"""The address by which SQLite opens a file with options."""

from __future__ import annotations

import os
from pathlib import PurePath
from urllib.parse import quote


def uri_of(path: PurePath) -> str:
    """Return the URI of the absolute `path`, to which options can be added.

    It never names a machine, as that of pathlib does for a file of a Windows network share: SQLite refuses such a URI.
    Source: https://www.sqlite.org/uri.html, section 3.
    """
    place = path.as_posix()
    return "file://" + quote(os.fsencode(place if place.startswith("/") else f"/{place}"), safe="/:")
