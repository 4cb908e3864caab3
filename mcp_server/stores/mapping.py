"""Reads which medium sits at which row of the embeddings, and what is odd about it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.tagset_names import INDEX_TAGSET, plain
from mcp_server.errors import CatalogError
from mcp_server.stores.database import Database
from mcp_server.stores.kept import Kept
from mcp_server.stores.rows import RowMap
from mcp_server.stores.schema import Schema, Tagset
from mcp_server.stores.taggings import read_taggings, read_tags

logger = logging.getLogger(__name__)

_WHOLE = re.compile(r"-?[0-9]{1,18}")

_UNREAD = -2

_SET = "media"

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Mapping:
    """Rows and media, and the sentences for `doctor` about what does not fit."""

    rows: RowMap
    findings: tuple[str, ...]


def read_mapping(database: Database, schema: Schema, size: int, unusable: NDArray[np.bool_] | None = None) -> Mapping:
    """Return the media of `size` rows.

    A medium has its lowest row only; of two media on one row, the lower id has it. Media whose row is `unusable`, or whose id is
    negative, have none.

    Raises:
        CatalogError: no tagset is called CLIP Index ID, or its values cannot be read.
    """
    findings: list[str] = []
    pairs = _claims(database, schema, size, findings)
    medias = database.integers(f"SELECT id, {_group(schema.media_group)} FROM medias ORDER BY id")
    medias = medias[np.argsort(medias[:, 0], kind="stable")]  # ids stored as text come as text is sorted: 10 before 9
    ids, groups = medias[:, 0], medias[:, 1]
    unread = int(np.count_nonzero(groups == _UNREAD))
    if unread:
        findings.append(f"{unread} values of group_id are not whole numbers from 0; their media are in no group.")
    pairs = _kept(pairs, np.isin(pairs[:, 0], ids), "{} CLIP Index IDs belong to media that do not exist.", findings)
    pairs = _kept(pairs, pairs[:, 0] >= 0, "{} media have an id below 0; they cannot be found.", findings)
    pairs = _kept(pairs, _is_first(pairs[:, 0]), "{} media claim more than one row; the lowest row counts.", findings)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    pairs = _kept(pairs, _is_first(pairs[:, 1]), "{} media claim a row that a medium with a lower id has; they cannot be found.", findings)

    unclaimed = size - len(pairs)
    if unusable is not None:
        pairs = pairs[~unusable[pairs[:, 1]]]
    media_of_row = np.full(size, -1, dtype=np.int64)
    group_of_row = np.full(size, -1, dtype=np.int64)
    media_of_row[pairs[:, 1]] = pairs[:, 0]
    group_of_row[pairs[:, 1]] = np.maximum(groups, -1)[np.searchsorted(ids, pairs[:, 0])]
    if unclaimed:
        findings.append(
            f"{unclaimed} of {size} rows of the embeddings belong to no medium, as those of removed pictures; they are never returned."
        )
    used = np.unique(group_of_row[group_of_row >= 0])
    lost = int(np.count_nonzero(~np.isin(used, ids)))
    if lost:
        findings.append(f"{lost} values of group_id point at media that do not exist; their members inherit no tags.")
    logger.info("catalog.mapped file=%s rows=%d media=%d findings=%d", database.path.name, size, len(pairs), len(findings))
    return Mapping(RowMap.of(media_of_row, group_of_row), tuple(findings))


def kept_mapping(kept: Kept) -> Mapping | None:
    """Return the mapping as it was kept; None when it was not."""
    found = kept.read(_SET)
    return None if found is None else Mapping(RowMap(**found.arrays), tuple(found.about["findings"]))


def keep_mapping(kept: Kept, mapping: Mapping) -> None:
    """Keep `mapping` for the next start."""
    kept.keep(_SET, vars(mapping.rows), {"findings": mapping.findings})


def _claims(database: Database, schema: Schema, size: int, findings: list[str]) -> Ints:
    """Return (n, 2) media ids and rows inside the array, ascending by medium, then row, without repeats."""
    tagset = _index_tagset(database, schema, findings)
    if tagset.kind is None:
        raise CatalogError(f"The catalog {database.path} has no values of CLIP Index ID; they belong into the table numerical_int_tags.")
    table = schema.tables[tagset.kind]
    tags, stored = read_tags(database, table, (tagset.id,))
    whole = [_whole(value) for value in stored]
    taggings = read_taggings(database, table, (tagset.id,))
    owner = tags.position(taggings[:, 1])
    taggings, owner = taggings[owner >= 0], owner[owner >= 0]
    rows = np.array([-1 if row is None or not 0 <= row < size else row for row in whole], dtype=np.int64)
    unread = sum(row is None for row in whole)
    if unread:
        findings.append(f"{unread} CLIP Index IDs are not whole numbers.")
    beyond = len(rows) - int(np.count_nonzero(rows >= 0)) - unread
    if beyond:
        findings.append(f"{beyond} CLIP Index IDs lie outside the {size} rows of the embeddings; their media cannot be found.")
    pairs = np.column_stack((taggings[:, 0], rows[owner]))
    return np.unique(pairs[pairs[:, 1] >= 0], axis=0)


def _index_tagset(database: Database, schema: Schema, findings: list[str]) -> Tagset:
    named = [tagset for tagset in schema.tagsets if plain(tagset.name) == plain(INDEX_TAGSET)]
    if not named:
        raise CatalogError(f"The catalog {database.path} has no tagset called CLIP Index ID, so no row of the embeddings has a medium.")
    if len(named) > 1:
        findings.append(f"{len(named)} tagsets are called CLIP Index ID; tagset {named[0].id} counts.")
    return named[0]


def _group(column: str) -> str:
    """Return SQL for a group: -1 for none, `_UNREAD` for what is no id. A comparison with a cast reads text that is a number as one."""
    number = f"CAST({column} AS INTEGER)"
    return f"CASE WHEN {column} IS NULL THEN -1 WHEN {column} = {number} AND {number} >= 0 THEN {number} ELSE {_UNREAD} END"


def _whole(value: object) -> int | None:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) else None


def _is_first(values: Ints) -> NDArray[np.bool_]:
    """True where a sorted value is the first of its run."""
    return np.concatenate((np.ones(min(len(values), 1), dtype=np.bool_), values[1:] != values[:-1]))


def _kept(pairs: Ints, keep: NDArray[np.bool_], sentence: str, findings: list[str]) -> Ints:
    dropped = pairs[~keep]
    if len(dropped):
        findings.append(sentence.format(len(np.unique(dropped[:, 0]))))
    return pairs[keep]
