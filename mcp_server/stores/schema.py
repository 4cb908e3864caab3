"""Finds out how a catalog is laid out, by looking at the tables and columns that are there.

Two layouts are in use. The engine's has `medias.source`, `tag_types.description` and `<type>_tags(id, value, tagset_id)`; the published
one has `medias.uri`, `tag_types.name`, `categorical_tags` and `<type>_tags(id, tag_id, value)` with the tagset in `tags` only.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

from mcp_server.errors import CatalogError
from mcp_server.stores.database import Database

logger = logging.getLogger(__name__)

Kind = Literal["text", "integer", "number", "date", "time", "timestamp", "json"]

KIND_OF_TYPE: dict[str, Kind] = {
    "alphanumerical": "text",
    "categorical": "text",
    "numerical_int": "integer",
    "numerical_dec": "number",
    "date": "date",
    "time": "time",
    "timestamp": "timestamp",
    "json": "json",
}
"""What callers are told a field is, for each type that Exquisitor's catalogs have."""
_LOOKED_AT = frozenset(("medias", "tagsets", "taggings", "tags", "tag_types", *(f"{name}_tags" for name in KIND_OF_TYPE)))


@dataclass(frozen=True)
class ValueTable:
    """Where the values of one kind of tag are: in one table, or in several."""

    names: str
    """Tables and their columns of tag ids, for people."""
    source: str
    """SQL that yields (tag, value, tagset) as `t`, `v` and `s`; names in it are quoted."""


@dataclass(frozen=True)
class Tagset:
    """One row of `tagsets`. `kind` is None when its type has no table of values: it cannot be read."""

    id: int
    name: str
    tagtype_id: int | None
    kind: Kind | None


@dataclass(frozen=True)
class Schema:
    """The layout of one catalog.

    Attributes:
        description: short text of what was found, for logs and `doctor`.
        media_source, media_thumbnail, media_group: SQL expressions for these columns of `medias`, NULL where one is missing.
        tables: where the values of each kind are, by kind.
        tagsets: all of them, ascending by id, internal ones too.
        findings: what is odd, in sentences.
    """

    description: str
    media_source: str
    media_thumbnail: str
    media_group: str
    tables: dict[Kind, ValueTable]
    tagsets: tuple[Tagset, ...]
    findings: tuple[str, ...]


def read_schema(database: Database) -> Schema:
    """Look at the tables, columns, types and tagsets of `database`.

    Raises:
        CatalogError: it is no SQLite file, or a table or column is missing without which nothing works.
    """
    names = {str(name).casefold(): str(name) for (name,) in database.rows("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")}
    # of no others: a view of a table that is gone, or a table of a module that is not there, cannot be looked at
    columns = {key: _columns(database, name) for key, name in names.items() if key in _LOOKED_AT}
    _require(database, names, columns, "medias", "id")
    _require(database, names, columns, "tagsets", "id", "name")
    _require(database, names, columns, "taggings", "media_id", "tag_id")
    tables = _value_tables(names, columns)
    findings: list[str] = []
    tagsets = _tagsets(database, columns, tables, findings)
    medias = columns["medias"]
    source = next((column for column in ("source", "uri") if column in medias), None)
    if source is None:
        findings.append("medias has neither a source nor a uri column: items have no title and no address.")
    if not _has_index_on(database, names["taggings"], "media_id"):
        findings.append("taggings has no index that starts with media_id: reading the tags of one item is slow.")
    schema = Schema(
        description=_description(columns, source, tables),
        media_source=_optional(medias, source),
        media_thumbnail=_optional(medias, "thumbnail_uri"),
        media_group=_optional(medias, "group_id"),
        tables=tables,
        tagsets=tagsets,
        findings=tuple(findings),
    )
    logger.info("catalog.schema file=%s found=%s tagsets=%d", database.path.name, schema.description, len(tagsets))
    return schema


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _columns(database: Database, table: str) -> dict[str, str]:
    """Return the columns of `table`, those among them that SQLite computes, by their folded names."""
    return {str(name).casefold(): str(name) for (name,) in database.rows("SELECT name FROM pragma_table_xinfo(?)", table)}


def _optional(columns: dict[str, str], name: str | None) -> str:
    return _quoted(columns[name]) if name is not None and name in columns else "NULL"


def _require(database: Database, names: dict[str, str], columns: dict[str, dict[str, str]], table: str, *needed: str) -> None:
    where = f"The catalog {database.path}"
    if table not in columns:
        there = ", ".join(sorted(names)[:12]) or "no tables"
        raise CatalogError(f"{where} has no table {table}. It has: {there}. DatabaseFile must be an Exquisitor collection.")
    missing = [column for column in needed if column not in columns[table]]
    if missing:
        raise CatalogError(f"{where}: table {table} has no column {' or '.join(missing)}. It has: {', '.join(columns[table])}.")


def _value_tables(names: dict[str, str], columns: dict[str, dict[str, str]]) -> dict[Kind, ValueTable]:
    """Return the tables of each kind. Only names of `sqlite_master` reach SQL: data rows choose among the known kinds, no more."""
    found: defaultdict[Kind, list[tuple[str, str]]] = defaultdict(list)
    tags = columns.get("tags", {})
    for type_name, kind in KIND_OF_TYPE.items():
        key = f"{type_name}_tags"
        has = columns.get(key, {})
        tag = next((column for column in ("tag_id", "id") if column in has), None)
        if tag is None or "value" not in has:
            continue
        name, tag_column = _quoted(names[key]), _quoted(has[tag])
        if "tagset_id" in has:
            source = f"SELECT {tag_column} AS t, value AS v, tagset_id AS s FROM {name}"
        elif "id" in tags and "tagset_id" in tags:
            source = f"SELECT x.{tag_column} AS t, x.value AS v, g.tagset_id AS s FROM {name} x JOIN tags g ON g.id = x.{tag_column}"
        else:
            continue
        found[kind].append((f"{names[key]}({has[tag]})", source))
    return {
        kind: ValueTable(", ".join(name for name, _ in tables), " UNION ALL ".join(source for _, source in tables))
        for kind, tables in found.items()
    }


def _tagsets(
    database: Database, columns: dict[str, dict[str, str]], tables: dict[Kind, ValueTable], findings: list[str]
) -> tuple[Tagset, ...]:
    type_names = _type_names(database, columns)
    tagtype = _optional(columns["tagsets"], "tagtype_id")
    tagsets: list[Tagset] = []
    inferred: dict[int, Kind] | None = None
    whole = "ifnull(id = CAST(id AS INTEGER), 0)"  # a comparison with a cast reads text that is a number as one
    ((lost,),) = database.rows(f"SELECT count(*) FROM tagsets WHERE NOT {whole}")
    if lost:
        findings.append(f"{lost} rows of tagsets have no id that is a whole number: they are left out.")
    for id_, name, type_id in database.rows(f"SELECT id, name, {tagtype} FROM tagsets WHERE {whole} ORDER BY id"):
        type_name = type_names.get(str(type_id), "")
        kind = _kind_of(type_name)
        if kind is None:
            inferred = _kinds_by_value(database, tables) if inferred is None else inferred
            kind = inferred.get(int(id_))
        if kind is None or kind not in tables:
            findings.append(f"tagset {id_} ({name}) is of type {type_name or type_id}, whose values cannot be found: it is left out.")
            kind = None
        tagsets.append(Tagset(int(id_), "" if name is None else str(name), type_id, kind))
    return tuple(tagsets)


def _kind_of(type_name: str) -> Kind | None:
    return KIND_OF_TYPE.get(type_name.strip().casefold())


def _type_names(database: Database, columns: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return the name of each type by its id, which may be stored as text here and as a number there, as text.

    Of its two labels that is the one that is known, for the other may say anything; else the first.
    """
    has = columns.get("tag_types", {})
    if "id" not in has:
        return {}
    names: dict[str, str] = {}
    for id_, *stored in database.rows(f"SELECT id, {_optional(has, 'description')}, {_optional(has, 'name')} FROM tag_types"):
        labels = [str(label) for label in stored if label is not None]
        names[str(id_)] = next((label for label in labels if _kind_of(label) is not None), labels[0] if labels else "")
    return names


def _kinds_by_value(database: Database, tables: dict[Kind, ValueTable]) -> dict[int, Kind]:
    """Where no known type names a tagset's kind, the table its values are in does."""
    found: dict[int, Kind] = {}
    for kind, table in tables.items():
        for (tagset,) in database.rows(f"SELECT DISTINCT CAST(s AS INTEGER) FROM ({table.source})"):
            found.setdefault(tagset, kind)
    return found


def _has_index_on(database: Database, table: str, column: str) -> bool:
    sql = "SELECT i.name FROM pragma_index_list(?) l, pragma_index_info(l.name) i WHERE i.seqno = 0"
    return any(str(name).casefold() == column for (name,) in database.rows(sql, table))


def _description(columns: dict[str, dict[str, str]], source: str | None, tables: dict[Kind, ValueTable]) -> str:
    types = columns.get("tag_types", {})
    label = " and ".join(f"tag_types.{column}" for column in ("description", "name") if column in types) or "no tag_types"
    values = ", ".join(table.names for table in tables.values())
    return f"medias.{source or 'without source'}, {label}, {values or 'no values'}"
