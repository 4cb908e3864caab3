"""Keeps a collection's scale of relevance between starts: a small JSON file that names what it was measured on."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from mcp_server.side_files import name_on_disk
from mcp_server.whole_files import write_whole

logger = logging.getLogger(__name__)

RELEVANCE_FILE = "relevance.json"
"""Its name beside the embeddings; in the state folder the collection's name comes first."""


def cached_file(folder: Path, collection: str, name: str = RELEVANCE_FILE) -> Path:
    """Return where the scale of `collection`, or what else is called `name`, is kept in `folder`."""
    return folder / f"{name_on_disk(collection)}.{name}"


def read_scale(files: Iterable[Path], key: dict[str, Any]) -> dict[str, Any] | None:
    """Return the scale in the first of `files` that was measured on `key`; None if there is none."""
    for file in files:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            logger.warning("relevance.unreadable file=%s error=%s", file, error)
            continue
        scale = cast("dict[str, Any]", found).get("scale") if isinstance(found, dict) and found.get("key") == key else None
        if isinstance(scale, dict):
            return scale
    return None


def write_scale(file: Path, key: dict[str, Any], scale: dict[str, Any]) -> None:
    """Write `scale`, measured on `key`, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    write_whole(file, json.dumps({"key": key, "scale": scale}) + "\n", with_folder=True)
