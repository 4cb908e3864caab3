"""The optional audit log of a collection (`LogDirectory`): one JSON line a search."""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mcp_server.side_files import name_on_disk

logger = logging.getLogger(__name__)


class AuditLog:
    """Appends to `<folder>/<collection>.searches.jsonl`, which its owner alone can read.

    Safe to call from several threads; never fails a search.
    """

    def __init__(self, folder: Path, collection: str) -> None:
        self._file = folder / f"{name_on_disk(collection)}.searches.jsonl"
        self._lock = threading.Lock()
        self._missed = 0

    def write(self, **fields: Any) -> None:
        """Append one line with the time (UTC) and `fields`.

        The log of the program tells of the first line that cannot be written, and how many were missed once one can be again.
        """
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}, ensure_ascii=False) + "\n"
        with self._lock:
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open(self._file, "a", encoding="utf-8", errors="replace", opener=_for_its_owner) as out:
                    out.write(line)
            except OSError as error:
                if not self._missed:
                    logger.warning("audit.off file=%s error=%r", self._file, error)
                self._missed += 1
                return
            if self._missed:
                logger.warning("audit.on file=%s missed=%d", self._file, self._missed)
                self._missed = 0


def _for_its_owner(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)
