"""Reads the tagsets and tags of Exquisitor's JSON files: few enough to be held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mcp_server.domain.tagset_names import INDEX_TAGSET, plain
from mcp_server.ingest.catalog.fields import TagKind, storable

_KINDS: tuple[TagKind, ...] = ("alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json")
"""In the order of their ids, from 1. Source: ddl.sql of github.com/Ok2610/Simplified-M3-DB."""
_BY_NAME: dict[str, TagKind] = {
    **{kind: kind for kind in _KINDS},
    "categorical": "alphanumerical",
    "text": "alphanumerical",
    "string": "alphanumerical",
    "int": "numerical_int",
    "integer": "numerical_int",
    "float": "numerical_dec",
    "decimal": "numerical_dec",
    "datetime": "timestamp",
}
_TYPE_KEYS = ("tagtype", "type", "tagtype_id", "tag_type", "tag_type_id")
_NAME_KEYS = ("name", "description")


@dataclass(frozen=True)
class Tagsets:
    """Tagsets and the tags that are known by number.

    Attributes:
        kinds: tagset name to kind, in the order of the file, those without a usable type left out.
        names: plain form of a name to the name.
        tags: number of a tag to (tagset name, value).
        declared: whether there was a file of tagsets; without one every name is a tagset.
        bad: entries that are no tagset or tag, or name a tagset that does not exist.
    """

    kinds: Mapping[str, TagKind]
    names: Mapping[str, str]
    tags: Mapping[str, tuple[str, Any]]
    declared: bool
    bad: int

    def name_of(self, name: str) -> str | None:
        """Return the tagset that `name` means; letter case, "_" and double spaces do not matter. None when there is none."""
        return self.names.get(plain(name)) or (None if self.declared else name.strip() or None)


def read_tagsets(tagsets: Iterable[Any] | None, tags: Iterable[Any]) -> Tagsets:
    """Take in the elements of both files; `tagsets` is None when there is no such file."""
    kinds: dict[str, TagKind] = {}
    names: dict[str, str] = {plain(INDEX_TAGSET): INDEX_TAGSET}
    by_id: dict[str, str] = {}
    bad = 0
    for one in tagsets or ():
        name = text_of(one, _NAME_KEYS)
        if name is None:
            bad += 1
            continue
        name = names.setdefault(plain(name), name)
        if (number := id_of(one, ("id",))) is not None:
            by_id[number] = name
        kind = _kind(next((one[key] for key in _TYPE_KEYS if one.get(key) is not None), None))
        if kind is not None:
            kinds[name] = kind
    found: dict[str, tuple[str, Any]] = {}
    known = Tagsets(kinds, names, found, tagsets is not None, bad)
    for one in tags:
        bad += not _take_tag(one, known, by_id, found)
    return Tagsets(kinds, names, found, tagsets is not None, bad)


def text_of(one: Any, keys: Iterable[str]) -> str | None:
    """Return the first of `keys` that the object `one` has as text that is not blank."""
    if not isinstance(one, dict):
        return None
    values = (cast("dict[str, Any]", one).get(key) for key in keys)
    return next((storable(value.strip()) for value in values if isinstance(value, str) and value.strip()), None)


def id_of(one: Any, keys: Iterable[str]) -> str | None:
    """Return the first of `keys` that the object `one` has as a number or text, as text: 7 and "7" are one id."""
    if not isinstance(one, dict):
        return None
    values = (cast("dict[str, Any]", one).get(key) for key in keys)
    wanted = (value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool))
    return next((storable(text) for value in wanted if (text := as_id(value))), None)


def as_id(value: str | int | float) -> str:
    """Return an id as text, 7.0 as 7."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def is_whole(text: str) -> bool:
    """Tell whether `text` is a whole number, not negative and of no absurd length."""
    return text.isdecimal() and len(text) < 20


def _take_tag(one: Any, known: Tagsets, by_id: Mapping[str, str], found: dict[str, tuple[str, Any]]) -> bool:
    """Note a tag with an id; one that only declares values of a tagset needs no note, as taggings bring their values."""
    number = id_of(one, ("id", "tag_id"))
    name = text_of(one, ("tagset_name", "tagset", "name"))
    tagset = by_id.get(id_of(one, ("tagset_id", "tagset")) or "") or (name and known.name_of(name))
    if not tagset:
        return False
    if number is not None and "value" in one:
        found[number] = (tagset, one["value"])
        return True
    return any(isinstance(one.get(key), list) for key in ("tags", "values"))


def _kind(raw: Any) -> TagKind | None:
    if isinstance(raw, str) and not is_whole(raw.strip()):
        return _BY_NAME.get(raw.strip().casefold())
    number = int(raw) if isinstance(raw, int | str) and not isinstance(raw, bool) else 0
    return _KINDS[number - 1] if 1 <= number <= len(_KINDS) else None
