"""Which rows pass a filter: evaluated on posting lists in memory, remembered by what the filter means."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filters import Filter, canonical
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.evaluation import Evaluator
from mcp_server.stores.explain import empty_reason
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.field_store import FieldStore
from mcp_server.stores.fields import Field

_CACHE_BYTES = 64 * 2**20
_CACHE_ENTRIES = 1_024


@dataclass(frozen=True)
class Selection:
    """What passes a filter.

    Attributes:
        mask: (N,) bool, read-only; True at rows that have a medium and pass.
        count: how many those are.
        sentence: the filter in words, such as `category is food and (color is red or color is orange)`; empty for no filter.
    """

    mask: NDArray[np.bool_]
    count: int
    sentence: str


class FilterIndex:
    """The fields of a collection and what passes filters on them. Safe to call from several threads.

    A medium has its own tags and those of its group, one level up; filters are evaluated on both together. Fields are read from the
    catalog when first asked for and kept, so what is written to the catalog later counts from the next start. Results are kept packed,
    up to 64 MiB of them, the least recently used dropped first.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Read nothing yet. `catalog` must stay open."""
        self.catalog = catalog
        self._store = FieldStore(catalog)
        self._evaluator = Evaluator(self._store)
        self._everything = Selection(catalog.mapped, catalog.indexed, "")
        self._lock = Lock()
        self._cache: OrderedDict[str, tuple[NDArray[np.uint8], int, str]] = OrderedDict()
        self._capacity = max(1, min(_CACHE_ENTRIES, _CACHE_BYTES // (len(catalog.mapped) // 8 + 1)))

    @property
    def fields(self) -> tuple[Field, ...]:
        """What can be filtered by, in the order of the catalog; internal tagsets are never among them."""
        return self._store.fields

    def field(self, name: str) -> Field:
        """Return the field called `name`, letter case ignored.

        Raises:
            UnknownFieldError: there is none, or there are several.
        """
        return self._store.field(name)

    def data(self, field: Field) -> FieldData:
        """Return the values of one of `fields` and their rows, loading them the first time.

        Raises:
            CatalogError: the file cannot be read.
        """
        return self._store.data(field)

    def evaluate(self, filter: Filter | None) -> Selection:  # noqa: A002 - the word of the package for this value
        """Return what passes `filter`; None passes every row that has a medium.

        Raises:
            UnknownFieldError, UnknownValueError: a name or a text value is not in the collection; the message has the nearest ones.
            FilterError: a condition does not suit its field's kind, a range is reversed, or a database id is wrong.
            CatalogError: the file cannot be read.
        """
        if filter is None:
            return self._everything
        key = canonical(filter)
        size = len(self.catalog.mapped)
        with self._lock:
            kept = self._cache.get(key)
            if kept is not None:
                self._cache.move_to_end(key)
        if kept is not None:
            mask = np.unpackbits(kept[0], count=size).view(np.bool_)
            mask.setflags(write=False)
            return Selection(mask, kept[1], kept[2])
        passed = self._evaluator.passed(filter)
        passed.mask.setflags(write=False)
        found = Selection(passed.mask, int(np.count_nonzero(passed.mask)), passed.sentence.clipped())
        with self._lock:
            self._cache[key] = (np.packbits(found.mask), found.count, found.sentence)
            while len(self._cache) > self._capacity:
                self._cache.popitem(last=False)
        return found

    def explain_empty(self, filter: Filter) -> str:  # noqa: A002 - as above
        """Say in at most 200 characters which condition of `filter` leaves nothing.

        Raises what `evaluate` raises.
        """
        return empty_reason(self._evaluator, filter, self.catalog.mapped)
