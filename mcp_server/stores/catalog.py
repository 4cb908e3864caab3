"""The SQLite side of a collection: which media there are, and at which rows of the embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Detail, Item
from mcp_server.side_files import SideFiles
from mcp_server.stores.database import Database
from mcp_server.stores.fields import Field, fields_of
from mcp_server.stores.items import ItemReader
from mcp_server.stores.kept import Kept
from mcp_server.stores.mapping import keep_mapping, kept_mapping, read_mapping
from mcp_server.stores.rows import Found, RowMap
from mcp_server.stores.schema import Schema, read_schema


class Catalog:
    """One catalog, opened read-only; the only place that translates between media ids and rows.

    Media ids, rows and groups are read once, when opening; details are read when asked for. Safe to call from several threads.

    Attributes:
        schema: short text of the layout found.
        media_of_row: (N,) int64, read-only; the media id at each row, -1 where no medium claims it.
        group_of_row: (N,) int64, read-only; the group id of that medium, -1 where it has none.
        mapped: (N,) bool, read-only; True where a medium claims the row and the row is usable.
        indexed: how many rows are mapped.
        findings: sentences for `doctor`; none of them stops the collection from working.
        fields: what can be filtered by.
        rows: lookups from ids to rows.
        database: reads for other parts of `stores`.
        layout: the layout in full, for other parts of `stores`.
        kept: what was worked out from this catalog before, for other parts of `stores`.
    """

    def __init__(self, database: Database, layout: Schema, rows: RowMap, findings: tuple[str, ...], kept: Kept) -> None:
        """Take what `open` read."""
        self.database = database
        self.kept = kept
        self.layout = layout
        self.rows = rows
        self.findings = findings
        self.schema = layout.description
        self.media_of_row: NDArray[np.int64] = rows.media_of_row
        self.group_of_row: NDArray[np.int64] = rows.group_of_row
        self.mapped: NDArray[np.bool_] = rows.media_of_row >= 0
        self.mapped.setflags(write=False)
        self.indexed = len(rows.media)
        self.fields: tuple[Field, ...] = fields_of(layout.tagsets)
        self._items = ItemReader(database, layout, rows, self.fields)

    @classmethod
    def open(cls, path: Path, size: int, unusable: NDArray[np.bool_] | None = None, side: SideFiles | None = None) -> Catalog:
        """Open the catalog of a collection whose embeddings have `size` rows.

        A medium at a row where `unusable`, (size,) bool, is True cannot be searched for, so it counts as not indexed everywhere.
        What takes long to work out is kept in `side`, and taken from there while the catalog is the same; None keeps nothing.

        Raises:
            CatalogError: the file is missing, is no SQLite database, lacks a table or column without which nothing works, or has no
                tagset called CLIP Index ID.
        """
        database = Database(path)
        try:
            kept = Kept(side, database, size, unusable)
            layout = read_schema(database)
            mapping = kept_mapping(kept)
            if mapping is None:
                mapping = read_mapping(database, layout, size, unusable)
                keep_mapping(kept, mapping)
        except BaseException:
            database.close()
            raise
        return cls(database, layout, mapping.rows, layout.findings + mapping.findings, kept)

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file when all that is to be kept has been written. Arrays stay usable; closing twice is fine."""
        self.kept.settle()
        self.database.close()

    def rows_of(self, ids: Iterable[int]) -> Found:
        """Return the rows of media ids, in the order given, each id once; ids of any size may be asked for.

        `unknown` counts the different ids without a row: media that do not exist or are not in the index.
        """
        return self.rows.rows_of(ids)

    def unknown(self, ids: Iterable[int]) -> list[int]:
        """Return those of `ids` that have no row, in the order given, each id once."""
        wanted = list(dict.fromkeys(ids))
        known = set(self.media_of_row[self.rows_of(wanted).rows].tolist())
        return [one for one in wanted if one not in known]

    def rows_of_groups(self, groups: Iterable[int]) -> Found:
        """Return the rows of all members of groups, group by group in the order given.

        `unknown` counts the different ids that are no group of any indexed medium.
        """
        return self.rows.rows_of_groups(groups)

    def items_at(self, rows: Sequence[int] | NDArray[np.int64], detail: Detail) -> list[Item]:
        """Return the items at `rows`, in that order.

        At "ids" only id and group are filled. At "concise" also `title`: the first value of a field called title, caption or name,
        own before inherited, else the last part of the source; `uri`, the source as stored; and `thumbnail_uri`, as stored. At "full"
        also `tags`: values by field, own before inherited, without internal and json fields.

        Raises:
            ValueError: a row has no medium or lies outside the embeddings.
            CatalogError: the file cannot be read.
        """
        return self._items.items_at(rows, detail)
