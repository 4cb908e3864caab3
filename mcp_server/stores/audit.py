"""The optional audit log of a collection (`LogDirectory`): one JSON line a search."""

from __future__ import annotations

import json
import logging
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


class AuditLog:
    """Appends to `<folder>/<collection>.searches.jsonl`. Safe to call from several threads; never fails a search."""

    def __init__(self, folder: Path, collection: str) -> None:
        safe = "".join(char if char.isalnum() or char in "-_." else "_" for char in collection)
        self._file = folder / f"{safe}.searches.jsonl"
        self._lock = threading.Lock()
        self._broken = False

    def write(self, **fields: Any) -> None:
        """Append one line with the time (UTC) and `fields`. A folder that cannot be written is reported once and then left alone."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}, ensure_ascii=False) + "\n"
        with self._lock:
            if self._broken:
                return
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8", errors="replace") as out:
                    out.write(line)
            except OSError as error:
                self._broken = True
                logger.warning("audit.off file=%s error=%r", self._file, error)
