"""Finds fields by name and loads them once, when first needed."""

from __future__ import annotations

import logging
from threading import Lock

from mcp_server.domain.filters import folded
from mcp_server.errors import FilterError, clipped
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.field_data import FieldData, load_field
from mcp_server.stores.field_file import keep_field, kept_field
from mcp_server.stores.fields import Field
from mcp_server.stores.suggestions import ambiguous_field, unknown_field

logger = logging.getLogger(__name__)


class FieldStore:
    """The fields of a catalog by name, and their data. Safe to call from several threads; a field is loaded by one of them only."""

    def __init__(self, catalog: Catalog) -> None:
        """Load nothing yet."""
        self.catalog = catalog
        self.fields = catalog.fields
        self._by_name = {folded(field.name): field for field in self.fields}
        self._type_of_tagset = {tagset.id: tagset.tagtype_id for tagset in catalog.layout.tagsets}
        self._field_of_tagset = {tagset: field for field in self.fields for tagset in field.tagset_ids}
        self._data: dict[Field, FieldData] = {}
        self._locks = {field: Lock() for field in self.fields}

    def field(self, name: str) -> Field:
        """Return the field called `name`, letter case and surrounding spaces ignored.

        Raises:
            UnknownFieldError: there is none, or there are several.
        """
        wanted = folded(name.strip())
        found = self._by_name.get(wanted)
        if found is not None:
            return found
        called = [field for field in self.fields if folded(field.bare_name) == wanted]
        raise ambiguous_field(name, called) if called else unknown_field(name, self.fields, lambda field: len(self.data(field).shown))

    def tagset(self, tagset_id: int, tagtype_id: int | None) -> Field:
        """Return the field that tagset `tagset_id` is of.

        Raises:
            FilterError: there is no such tagset, it cannot be filtered by, or it is not of type `tagtype_id`.
        """
        field = self._field_of_tagset.get(tagset_id)
        if field is None:
            raise FilterError(
                f"There is no tagset {clipped(tagset_id, 20)} to filter by. Use field names instead: describe_filters lists them."
            )
        known = self._type_of_tagset[tagset_id]
        if None not in (tagtype_id, known) and str(tagtype_id) != str(known):  # ids may be stored as text
            raise FilterError(
                f'Tagset {tagset_id} ("{clipped(field.name)}", {field.kind}) has tagtype_id {known}, '
                f"not {clipped(tagtype_id, 20)}. Correct it or leave it out."
            )
        return field

    def data(self, field: Field) -> FieldData:
        """Return the data of one of `fields`, loading it the first time.

        Raises:
            CatalogError: the file cannot be read.
        """
        found = self._data.get(field)
        if found is None:
            with self._locks[field]:
                found = self._data.get(field)
                if found is None:
                    found = self._data[field] = self._load(field)
        return found

    def _load(self, field: Field) -> FieldData:
        """Return the data of a field: as it was kept if the catalog is the same, else read from it and kept for the next start."""
        kept = self.catalog.kept
        found = kept_field(kept, field, len(self.catalog.mapped))
        origin = "side_files"
        if found is None:
            found, origin = load_field(self.catalog, field), "catalog"
            keep_field(kept, found)
        values = found.values
        logger.debug("filters.loaded tagset=%d from=%s values=%d taggings=%d", field.tagset_id, origin, values.size, len(values.rows))
        return found
