"""Turns the entries of Exquisitor's medias and taggings, by name or by id, into media and facts; counts what does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from mcp_server.domain.tagset_names import INDEX_TAGSET, plain
from mcp_server.ingest.catalog.scratch import KEY_MARK, Medium
from mcp_server.ingest.imports.tagsets import Tagsets, as_id, id_of, is_whole, text_of

_TYPES = ("image", "video", "audio", "text", "other")
"""In the order of their ids, from 1. Source: ddl.sql of github.com/Ok2610/Simplified-M3-DB."""
_IMAGE, _OTHER = 1, 5
_MEDIA_KEYS = ("media_source", "media_src", "source", "media_uri", "uri")
_ID_LIMIT = 2**63 - 2**32
"""Ids from here on are not kept: media without an id are numbered after the highest, and those numbers are to fit in 64 bits too."""
_NO_FACTS = ("media_source", "media_src", "source", "media_uri", "uri", "media_id", "comment")


@dataclass
class ExquisitorTally:
    """What did not fit, counted while reading. The counts of `medias` are complete when it has been read to the end."""

    bad_entries: int = 0
    unknown_tagsets: dict[str, int] = field(default_factory=dict[str, int])
    unknown_tags: int = 0
    unknown_media: int = 0
    unknown_groups: int = 0
    renumbered: int = 0
    rows_taken: int = 0
    rows_beyond: int = 0
    unusable: int = 0
    indexed: int = 0

    def sentences(self) -> Iterator[str]:
        """Yield one sentence for each thing that was found."""
        for count, words in (
            (self.bad_entries, "entries of the JSON files are no tagset, tag, medium or tagging"),
            (self.unknown_media, "taggings are about a medium that is not in medias"),
            (self.unknown_tags, "taggings name a tag that is not in tags"),
            (self.unknown_groups, "media name a group that is not in medias; they have none now"),
            (self.renumbered, "media have an id that cannot be kept; they were numbered after the others"),
            (self.rows_taken, f"media claim a {INDEX_TAGSET} that another has, or a second one; the first counts"),
            (self.rows_beyond, f"media have a {INDEX_TAGSET} beyond the last vector; they are not searchable"),
        ):
            if count:
                yield f"{count:,} {words}"
        if self.unknown_tagsets:
            names = ", ".join(sorted(self.unknown_tagsets)[:5])
            yield f"{sum(self.unknown_tagsets.values()):,} values belong to tagsets that are not in tagsets and were left out: {names}"


class MediaReader:
    """Turns the elements of medias into media, counting."""

    def __init__(self, tally: ExquisitorTally) -> None:
        self.count = self.images = self.with_id = 0
        self._tally = tally

    def read(self, entries: Iterable[Any]) -> Iterator[Medium]:
        for one in entries:
            number = id_of(one, ("id", "media_id"))
            source = text_of(one, ("source", "uri", "path", "file")) or (number and f"media-{number}")
            if source is None or not isinstance(one, dict):
                self._tally.bad_entries += 1
                continue
            type_id = _type_id(cast("dict[str, Any]", one).get("source_type"))
            owner = id_of(one, ("group_id",))
            yield Medium(
                id=int(number) if number is not None and is_whole(number) and 0 < int(number) < _ID_LIMIT else None,
                place=self.count,
                image=self.images if type_id == _IMAGE else None,
                key=_key(number) if number is not None else None,
                source=source,
                type=type_id,
                thumbnail=text_of(one, ("thumbnail", "thumbnail_uri")),
                owner=_key(owner) if owner is not None else text_of(one, ("group",)),
            )
            self.count += 1
            self.images += type_id == _IMAGE
            self.with_id += number is not None


class TaggingReader:
    """Turns the elements of taggings into (medium, fact), facts with known tagsets and tags only."""

    def __init__(self, tagsets: Tagsets, tally: ExquisitorTally) -> None:
        self.has_rows = False
        self._tagsets = tagsets
        self._tally = tally

    def read(self, entries: Iterable[Any]) -> Iterator[tuple[str, str]]:
        for one in entries:
            number = id_of(one, ("media_id",))
            subject = _key(number) if number is not None else text_of(one, _MEDIA_KEYS)
            if subject is None:
                self._tally.bad_entries += 1
            elif tags := _tag_ids(one):
                known = [tag for tag in tags if tag in self._tagsets.tags]
                self._tally.unknown_tags += len(tags) - len(known)
                self.has_rows = self.has_rows or any(self._tagsets.tags[tag][0] == INDEX_TAGSET for tag in known)
                yield subject, json.dumps(known)
            elif named := self._named(cast("dict[str, Any]", one)):
                self.has_rows = self.has_rows or INDEX_TAGSET in named
                yield subject, json.dumps(named)

    def _named(self, one: dict[str, Any]) -> dict[str, list[Any]]:
        """Return tagset to values. They stand under "tagsets" or, in older files, beside the name of the medium."""
        inner = one.get("tagsets")
        facts = cast("dict[str, Any]", inner) if isinstance(inner, dict) else {key: one[key] for key in one if key not in _NO_FACTS}
        named: dict[str, list[Any]] = {}
        for name, raw in facts.items():
            values = cast("list[Any]", raw) if isinstance(raw, list) else [raw]
            tagset = self._tagsets.name_of(name)
            if tagset is not None:
                named.setdefault(tagset, []).extend(values)
            elif plain(name) != "comment":
                self._tally.unknown_tagsets[name] = self._tally.unknown_tagsets.get(name, 0) + len(values)
        return named


def _tag_ids(one: Any) -> list[str]:
    if not isinstance(one, dict):
        return []
    entry = cast("dict[str, Any]", one)
    raw = entry.get("tag_id", entry.get("tag_ids"))
    values = cast("list[Any]", raw) if isinstance(raw, list) else [raw]
    return [as_id(value) for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)]


def _type_id(raw: Any) -> int:
    """Return the number of a source type from its number or name; without one it is an image."""
    text = as_id(raw).casefold() if isinstance(raw, str | int | float) and not isinstance(raw, bool) else ""
    if is_whole(text):
        return int(text) if 1 <= int(text) <= len(_TYPES) else _OTHER
    return (_TYPES.index(text) + 1 if text in _TYPES else _OTHER) if text else _IMAGE


def _key(number: str) -> str:
    """Return how a medium is called by its id, which no source can be mistaken for."""
    return f"{KEY_MARK}{number}"
