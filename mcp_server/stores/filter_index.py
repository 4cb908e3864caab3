"""Which rows pass a filter: evaluated on posting lists in memory, remembered by what the filter means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from mcp_server.domain.filters import Filter
from mcp_server.stores.bits import Bits, Mask, count_bits, mask_of_bits
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.evaluation import Evaluator, kept_results
from mcp_server.stores.explain import empty_reason
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.field_store import FieldStore
from mcp_server.stores.fields import Field
from mcp_server.stores.latest import Latest


@dataclass(frozen=True)
class Selection:
    """What passes a filter.

    Attributes:
        bits: the rows that have a medium and pass, read-only.
        size: N, how many rows there are in all.
        count: how many pass.
        sentence: the filter in words, such as `category is food and (color is red or color is orange)`; empty for no filter.
    """

    bits: Bits
    size: int
    count: int
    sentence: str

    @cached_property
    def mask(self) -> Mask:
        """(N,) bool, read-only; True at the rows that pass. Made when first asked for."""
        mask = mask_of_bits(self.bits, self.size)
        mask.setflags(write=False)
        return mask

    def rejected(self) -> Mask:
        """Return a new (N,) bool, True at the rows that have no medium or do not pass."""
        return mask_of_bits(~self.bits, self.size)


class FilterIndex:
    """The fields of a collection and what passes filters on them. Safe to call from several threads.

    A medium has its own tags and those of its group, one level up; filters are evaluated on both together. Fields are read from the
    catalog when first asked for and kept, so what is written to the catalog later counts from the next start. The results of whole filters
    are kept, and those of their conditions for other filters, up to 32 MiB of either, the least recently used dropped first.
    """

    def __init__(self, catalog: Catalog) -> None:
        """Read nothing yet. `catalog` must stay open."""
        self.catalog = catalog
        self._store = FieldStore(catalog)
        self._evaluator = Evaluator(self._store)
        self._size = len(catalog.mapped)
        self._everything = Selection(self._evaluator.mapped, self._size, catalog.indexed, "")
        self._latest: Latest[Selection] = Latest(kept_results(self._size))

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
        found = self._latest.get(filter.canonical)
        if found is None:
            passed = self._evaluator.passed(filter)
            found = Selection(passed.bits, self._size, count_bits(passed.bits), passed.sentence.clipped())
            self._latest.keep(filter.canonical, found)
        return replace(found)  # the mask, eight times as large, is the caller's alone

    def explain_empty(self, filter: Filter) -> str:  # noqa: A002 - as above
        """Say in at most 200 characters which condition of `filter`, which nothing passes, is at fault.

        Raises what `evaluate` raises.
        """
        return empty_reason(self._evaluator, filter)
