"""What is worked out once from the embeddings of a collection: its rows laid down plainly, codes of them, and what searching costs here.

The first opening lays down the rows, which takes about as long as reading them into memory; a thread then makes the codes while searches
are already answered from the rows, a little slower. Later openings map both. Where the cache cannot be written, the rows are read into
memory, and there are no codes.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock, Timeout
from numpy.typing import NDArray

from mcp_server.config import not_writable
from mcp_server.indexes import codes as coding
from mcp_server.indexes import probes
from mcp_server.indexes.codes import Codes, CodingStoppedError, write_codes
from mcp_server.indexes.embeddings import Embeddings, checked_count, embeddings_of, load_embeddings, log_oddities, measured, stored_type
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.fingerprints import content_of
from mcp_server.indexes.planner import Costs
from mcp_server.indexes.prefault import fill_memory, prefault
from mcp_server.indexes.projections import Projections
from mcp_server.indexes.query_axis import Lesson, key_of, with_axis, write_axis
from mcp_server.indexes.row_file import AT_MOST, RowFile
from mcp_server.indexes.zarr_files import find_array, read_blocks
from mcp_server.side_files import SideFiles, SideSet

logger = logging.getLogger(__name__)

CODED_FROM = 8_192
"""Fewer rows are scored from the rows themselves as quickly as from codes."""
_IN_ORDER = ("rows", "codes", "axis")
"""Each is made from those before it."""
_ROOM = 1.1
_ASK_AGAIN_SECONDS = 1.0
_TURN_SECONDS = 120.0
"""How long one waits for another that is laying down the rows, before it lays them down itself."""
_PREFAULT_AFTER_SECONDS = 0.5
_CHECK_AFTER_SECONDS = 10.0
"""By then the first searches, which reading everything would slow down, are over."""
_CHECKING = threading.Lock()
"""One thread checks at a time, however many collections there are."""


def exact_index(embeddings_file: Path, side: SideFiles | None) -> ExactIndex:
    """Return the exact index of `embeddings_file` as fast as it will be: with codes, made now if need be. With `side` None it has none.

    Raises:
        CollectionError: the embeddings cannot be read.
    """
    if side is None:
        return ExactIndex(load_embeddings(embeddings_file))
    vectors = SideVectors(side, embeddings_file)
    index = vectors.index(vectors.open(), None)
    vectors.complete()
    return index


class SideVectors:
    """The side files of one version of a collection's embeddings. Safe to call from several threads.

    What searches map is read through once, in the background, some time after it was opened. Where a byte is not as it was written, the set
    is passed over from then on, and whoever opens these side files anew is right again.
    """

    def __init__(self, side: SideFiles, embeddings_file: Path, on_damage: Callable[[], None] | None = None) -> None:
        """Look at `embeddings_file`; nothing is made yet. `on_damage` is called when what searches use turns out to be damaged.

        Raises:
            CollectionError: it cannot be read.
        """
        self._side = side
        self._on_damage = on_damage
        self._file = embeddings_file
        self._key = content_of(embeddings_file)
        self._is_laid_down = False
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    @property
    def content(self) -> dict[str, Any]:
        """What `content_of` says of the embeddings these side files belong to."""
        return self._key

    def open(self) -> Embeddings:
        """Return the embeddings, mapped if they can be; raises what `load_embeddings` raises."""
        self._side.sweep()
        found = self._side.read("rows", self._key) or self._laid_down()
        if found is None:
            return load_embeddings(self._file)
        rows = found.arrays["rows"]
        embeddings = embeddings_of(rows, np.array(found.arrays["norms"]), RowFile(rows) if rows.nbytes > AT_MOST else None)
        self._is_laid_down = True
        if embeddings.file is None:
            self._check("rows", found)
        log_oddities(embeddings, self._file)
        return embeddings

    def index(self, embeddings: Embeddings, tie_keys: NDArray[np.int64] | None) -> ExactIndex:
        """Return an index of what `open` returned, which uses codes as soon as there are any.

        Raises:
            IndexMismatchError: not one tie key per row.
        """
        index = ExactIndex(embeddings, tie_keys)
        if self._is_laid_down and embeddings.file is None:  # a larger file is read by position, and little of it stays mapped
            self._prefault([embeddings.rows])
        if embeddings.size < CODED_FROM or embeddings.unusable.all():
            return index
        if not (self._is_laid_down or self._side.read("rows", self._key)):
            return index
        if not self._adopted(index):
            self._start("codes", partial(self._make_codes, index))
        return index

    def there(self) -> tuple[bool, bool | None]:
        """Return whether the rows are laid down, and whether there are codes, None where none are needed."""
        rows = self._side.read("rows", self._key)
        if rows is not None and len(rows.arrays["rows"]) < CODED_FROM:
            return True, None
        return rows is not None, self._side.read("codes", self._codes_key) is not None

    def damaged(self) -> list[str]:
        """Return which of the rows and codes that are there are not as they were written. Reads all of them."""
        return [name for name, key in self._keys.items() if (found := self._side.read(name, key)) is not None and not found.is_whole()]

    def obstacle(self) -> str | None:
        """Return what keeps rows or codes that are not there from being made; None when nothing does. Writes nothing."""
        array = find_array(self._file)
        itemsize = 1 if self.there()[0] else stored_type(array.dtype).itemsize
        needed = _ROOM * array.shape[0] * array.shape[1] * itemsize
        if wrong := not_writable(self._side.folder):
            return wrong
        folder = next(path for path in (self._side.folder, *self._side.folder.parents) if path.exists())
        free = shutil.disk_usage(folder).free + sum(self._side.outdated_bytes(name, key) for name, key in self._keys.items())
        if free < needed:
            return f"they need {needed / 2**20:,.1f} MiB, and {free / 2**20:,.1f} MiB are free in {folder}"
        return None

    def complete(self) -> None:
        """Wait until the index uses codes, or they turned out not to be needed or not possible."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Make nothing any more."""
        self._ended.set()

    def _laid_down(self) -> SideSet | None:
        """Lay down the rows, or wait for another that does, and return them; None where there is no room for that."""
        lock = FileLock(self._side.folder / "rows.lock")
        try:
            self._side.make_folder()
            lock.acquire(timeout=_TURN_SECONDS)
            self._side.sweep("rows", 0)  # by servers that were stopped meanwhile: nobody else is laying down rows now
        except (OSError, NotImplementedError) as error:  # too long, or a file system without locks: two may do the same then
            logger.debug("rows.not_alone folder=%s error=%s", self._side.folder, error)
        try:
            return self._side.read("rows", self._key) or self._written()
        finally:
            lock.release()

    def _written(self) -> SideSet | None:
        """Write the rows as they are stored, one after the other, and return them; None where there is no room for that."""
        array = find_array(self._file)
        dtype = stored_type(array.dtype)
        if not self._has_room(array.shape[0] * array.shape[1] * dtype.itemsize):
            return None
        try:
            with self._side.writing("rows", self._key) as draft:
                stream = draft.stream("rows", array.shape, dtype)
                lengths = [np.empty(0, np.float64)]
                for rows, norms in measured(read_blocks(array), dtype):
                    stream.append(rows)
                    lengths.append(norms)
                checked_count(sum(map(len, lengths)), array.shape[0])
                draft.put("norms", np.concatenate(lengths))
                if content_of(self._file) != self._key:  # written to meanwhile: whoever opens it looks again
                    raise OSError("the embeddings changed while they were read")
        except OSError as error:
            logger.warning("side_files.not_written folder=%s error=%s Searches are slower without them.", self._side.folder, error)
            return None
        return self._side.read("rows", self._key)

    def _has_room(self, size: int) -> bool:
        folder = self._side.folder
        try:
            self._side.make_folder()
            if (free := shutil.disk_usage(folder).free) < size * _ROOM:
                for name, key in self._keys.items():
                    self._side.drop_outdated(name, key)
                free = shutil.disk_usage(folder).free
        except OSError as error:
            logger.warning("side_files.not_written folder=%s error=%s Searches are slower without them.", folder, error)
            return False
        if free < size * _ROOM:
            logger.warning("side_files.no_room folder=%s free=%d needed=%d Searches are slower without them.", folder, free, size * _ROOM)
            return False
        return True

    def _adopted(self, index: ExactIndex) -> bool:
        found = self._side.read("codes", self._codes_key)
        if found is None:
            return False
        self._check("codes", found)
        codes = Codes.of(found)
        costs = self._costs(index, codes)
        projections = codes.projections
        if projections is None:
            self._use(index, codes, costs)
        elif not self._adopted_axis(index, codes, projections, costs):
            lesson = Lesson(projections)

            def heard(unit: NDArray[np.float64]) -> None:
                direction = lesson.hear(unit)
                if direction is not None:
                    self._start("axis", partial(self._make_axis, index, codes, projections, costs, direction))

            self._use(index, codes, costs, heard)
        logger.info("codes.ready file=%s rows=%d", self._file, index.size)
        return True

    def _adopted_axis(self, index: ExactIndex, codes: Codes, projections: Projections, costs: Costs) -> bool:
        found = self._side.read("axis", self._axis_key(projections))
        if found is None:
            return False
        self._use(index, replace(codes, projections=with_axis(projections, found)), costs)
        return True

    def _use(self, index: ExactIndex, codes: Codes, costs: Costs, heard: Callable[[NDArray[np.float64]], None] | None = None) -> None:
        index.adopt(codes, costs, heard)
        self._prefault(codes.arrays)

    @property
    def _keys(self) -> dict[str, dict[str, Any]]:
        """The sets that take room on the disk, and what they are made for."""
        return {"rows": self._key, "codes": self._codes_key}

    @property
    def _codes_key(self) -> dict[str, Any]:
        return {**self._key, "codes": coding.FORMAT}

    def _axis_key(self, projections: Projections) -> dict[str, Any]:
        return {**self._codes_key, **key_of(projections)}

    def _costs(self, index: ExactIndex, codes: Codes) -> Costs:
        """Return what ways of searching cost on this machine, measured the first time."""
        key = {**self._codes_key, "costs": probes.FORMAT, "machine": platform.machine(), "cpus": os.cpu_count()}
        found = self._side.read("costs", key)
        if found is not None:
            return Costs.of(found.about)
        costs = probes.measure_costs(index.embeddings, codes)
        try:
            with self._side.writing("costs", key) as draft:
                draft.about |= costs.noted()
        except OSError as error:
            logger.debug("costs.not_written error=%s", error)
        return costs

    def _prefault(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Map `arrays` in, a little later: a search that waits for the collection to open comes first."""

        def run() -> None:
            if not self._ended.wait(_PREFAULT_AFTER_SECONDS):
                prefault(arrays, lambda: not self._ended.is_set())

        threading.Thread(target=run, name="prefault", daemon=True).start()

    def _check(self, what: str, found: SideSet) -> None:
        """Read `found`, which is `what`, through, later; if it is damaged, pass over it and what may have been made from it."""

        def run() -> None:
            if self._ended.wait(_CHECK_AFTER_SECONDS) or fill_memory(found.arrays.values()):
                return
            with _CHECKING:
                whole = found.is_whole(lambda: not self._ended.is_set())
            if whole:
                return
            logger.error("side_files.damaged set=%s It is passed over and made anew. Check the disk.", found.folder)
            for name in _IN_ORDER[_IN_ORDER.index(what) :]:
                self._side.pass_over(name)
            if self._on_damage is not None:
                self._on_damage()

        threading.Thread(target=run, name="check", daemon=True).start()

    def _start(self, what: str, work: Callable[[], None]) -> None:
        """Do `work`, which makes `what`, in a thread of its own; whatever keeps it from being done only costs speed."""

        def run() -> None:
            try:
                with self._turn():
                    work()
            except CodingStoppedError:
                logger.info("%s.stopped file=%s", what, self._file)
            except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
                logger.warning("%s.not_written folder=%s error=%s Searches are slower without them.", what, self._side.folder, error)

        self._thread = threading.Thread(target=run, name=what, daemon=True)
        self._thread.start()

    def _make_codes(self, index: ExactIndex) -> None:
        self._side.sweep("codes", 0)  # by a server that was stopped meanwhile: nobody else is making codes now
        if self._adopted(index) or not self._has_room(index.size * index.width):
            return
        logger.info("codes.started file=%s rows=%d", self._file, index.size)
        with self._side.writing("codes", self._codes_key) as draft:
            write_codes(index.embeddings, draft, lambda: not self._ended.is_set())
        self._adopted(index)

    def _make_axis(self, index: ExactIndex, codes: Codes, projections: Projections, costs: Costs, direction: NDArray[np.float64]) -> None:
        if not self._adopted_axis(index, codes, projections, costs):
            with self._side.writing("axis", self._axis_key(projections)) as draft:
                write_axis(index.embeddings, projections, direction, draft, lambda: not self._ended.is_set())
            self._adopted_axis(index, codes, projections, costs)
        logger.info("axis.ready file=%s", self._file)

    def _turn(self) -> AcquireReturnProxy[FileLock]:
        """Return a lock that one process at a time holds, taken. Raises CodingStoppedError when nothing is to be made any more."""
        lock = FileLock(self._side.folder / "codes.lock")
        while True:
            if self._ended.is_set():
                raise CodingStoppedError
            try:
                return lock.acquire(timeout=_ASK_AGAIN_SECONDS)
            except Timeout:
                continue
