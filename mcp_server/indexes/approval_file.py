"""Keeps what was measured of a FAISS file between starts: in its note when it was built or checked here, else in the cache."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, cast

from mcp_server.errors import CollectionError
from mcp_server.indexes.approval import Approval, approval_from
from mcp_server.indexes.fingerprints import fingerprint_of, noted_recall, write_json

logger = logging.getLogger(__name__)

CACHED_NAME = "faiss.json"
"""Its name in the cache folder, after the collection's."""


def read_approval(faiss_file: Path, target: float, embeddings_file: Path | None = None, cached: Path | None = None) -> Approval | None:
    """Return what was measured of `faiss_file` for `target`; None when nothing was."""
    found = approval_from(noted_recall(faiss_file), target)
    if found is not None or cached is None:
        return found
    try:
        kept = json.loads(cached.read_text(encoding="utf-8"))
        key = key_of(faiss_file, embeddings_file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, CollectionError) as error:
        logger.warning("faiss.unreadable file=%s error=%s", cached, error)
        return None
    fields = cast("dict[str, Any]", kept) if isinstance(kept, dict) else {}
    return approval_from(fields.get("recall"), target) if fields.get("of") == key else None


def key_of(faiss_file: Path, embeddings_file: Path | None) -> dict[str, Any]:
    """Return what an approval in the cache is known by: the two files as they are now.

    Raises:
        OSError: there is no `faiss_file`.
        CollectionError: the embeddings are gone.
    """
    stat = faiss_file.stat()
    embeddings = None if embeddings_file is None else fingerprint_of(embeddings_file)
    return {"bytes": stat.st_size, "modified": stat.st_mtime_ns, "embeddings": embeddings}


def cache_approval(cached: Path | None, key: dict[str, Any], approval: Approval) -> None:
    """Keep `approval` in the file `cached`, nowhere when that is None. `key` is of the files as they were before they were measured.

    Raises:
        OSError: it cannot be written.
    """
    if cached is not None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_json(cached, {"of": key, "recall": approval.as_json()})
