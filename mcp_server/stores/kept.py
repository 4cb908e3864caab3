"""What was worked out from one content of a catalog, kept in side files for the next start."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.side_files import Arrays, SideFiles, SideSet
from mcp_server.stores.database import Database

logger = logging.getLogger(__name__)

FORMAT = 4
"""Counts up when an array of the catalog's sets gets another meaning, or is worked out in another way."""


class _OutdatedError(Exception):
    """The catalog has changed, and the set of the newer one may be there already."""


class Kept:
    """The sets of one opened catalog. Safe to call from several threads.

    A set is read and written only while the database has the content it had when this was made, so all that is read together fits.
    """

    def __init__(self, side: SideFiles | None, database: Database, size: int, unusable: NDArray[np.bool_] | None) -> None:
        """Look at the content of `database` now. With `side` None nothing is read or kept.

        Args:
            side: where the sets are.
            database: what they are worked out from.
            size: rows of the embeddings.
            unusable: (size,) bool, rows that count as not there.
        """
        self._side = side
        self._database = database
        self._content = database.content() if side is not None else None
        bad = b"" if unusable is None else np.packbits(unusable).tobytes()
        self._key = {
            "catalog": FORMAT,
            "content": self._content,
            "rows": size,
            "unusable": hashlib.blake2b(bad, digest_size=16).hexdigest() if any(bad) else "",
        }
        self._lock = Lock()
        self._turn = Lock()  # one set is written at a time, so that callers hardly notice
        self._writers: list[Thread] = []
        self._complained = False

    def read(self, name: str, **key: object) -> SideSet | None:
        """Return the set `name` that was kept for `key`; None when there is none that fits."""
        if self._side is None or not self._is_as_it_was():
            return None
        return self._side.read(name, self._key | key)

    def keep(self, name: str, arrays: Arrays, about: Mapping[str, Any], **key: object) -> None:
        """Keep a set for the next start, in a thread of its own: nobody waits for it. What cannot be written is logged, once.

        The arrays and `about` (JSON values) must not change any more.
        """
        if self._side is None or not self._is_as_it_was():
            return
        writer = Thread(target=self._write, args=(self._side, name, arrays, about, self._key | key), name=f"keep-{name}", daemon=True)
        with self._lock:
            self._writers = [one for one in self._writers if one.is_alive()]
            self._writers.append(writer)
        writer.start()

    def settle(self) -> None:
        """Wait until everything is written."""
        with self._lock:
            writers, self._writers = self._writers, []
        for writer in writers:
            writer.join()

    def _is_as_it_was(self) -> bool:
        return self._content is not None and self._database.content() == self._content

    def _write(self, side: SideFiles, name: str, arrays: Arrays, about: Mapping[str, Any], key: Mapping[str, Any]) -> None:
        try:
            with self._turn, side.writing(name, key) as draft:
                for array_name, array in arrays.items():
                    draft.put(array_name, array)
                draft.about.update(about)
                if not self._is_as_it_was():
                    raise _OutdatedError
        except _OutdatedError:
            logger.debug("catalog.not_kept file=%s reason=changed", self._database.path.name)
        except OSError as error:
            with self._lock:
                silent, self._complained = self._complained, True
            if not silent:
                logger.warning("catalog.not_kept file=%s folder=%s error=%s", self._database.path.name, side.folder, error)
