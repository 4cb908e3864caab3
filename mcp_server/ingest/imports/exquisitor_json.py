"""Reads a collection's metadata from Exquisitor's four JSON files: tagsets, tags, medias and taggings.

Source: README.md, ddl.sql and example/ of github.com/Ok2610/Simplified-M3-DB, the loader that Exquisitor's documentation builds on. There,
media are called by their source and tags by tagset and value. Files that are dumps of the tables, where ids stand for both, are read too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.tagset_names import INDEX_TAGSET
from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.fields import TagKind
from mcp_server.ingest.catalog.scratch import Scratch, scratch
from mcp_server.ingest.catalog.write_catalog import MediaRow
from mcp_server.ingest.imports.json_stream import elements, whole_object
from mcp_server.ingest.imports.medias import ExquisitorTally, MediaReader, TaggingReader
from mcp_server.ingest.imports.tagsets import Tagsets, is_whole, read_tagsets

_KEYS = ("tagsets", "tags", "medias", "taggings")
_FILE = re.compile(r"(?:.*[^a-z])?(tagsets|tags|medias|taggings)\.(?:json|jsonl|ndjson)", re.IGNORECASE)


@dataclass(frozen=True)
class ExquisitorMetadata:
    """A collection's media, on disk until they are read.

    Attributes:
        kinds: field to kind, for the tagsets that have a type.
        count: media.
        images: media that are images.
        has_rows: whether any medium says at which row its vector is; without, image i of the file is at row i.
        tally: what did not fit.
    """

    kinds: Mapping[str, TagKind]
    count: int
    images: int
    has_rows: bool
    tally: ExquisitorTally
    _tagsets: Tagsets = field(repr=False)
    _scratch: Scratch = field(repr=False)

    def medias(self, unusable: NDArray[np.bool_]) -> Iterator[MediaRow]:
        """Yield every medium by id, with its group, tags and row. `unusable`, (N,), marks vectors that no medium may claim.

        A medium without a vector is yielded without a row. Where two claim one row, the lower id has it.
        """
        taken = np.zeros(len(unusable), np.bool_)
        for one in self._scratch.joined():
            fields, rows = self._facts(one.facts)
            if not self.has_rows and one.medium.image is not None:
                rows = [one.medium.image]
            if one.medium.owner is not None and one.group is None:
                self.tally.unknown_groups += 1
            row = self._row(rows, taken, unusable)
            medium = one.medium
            yield MediaRow(
                id=one.id,
                source=medium.source,
                source_type=medium.type,
                thumbnail=medium.thumbnail,
                group=one.group,
                row=row,
                fields=fields,
            )

    def _facts(self, facts: Iterable[str]) -> tuple[dict[str, list[Any]], list[int]]:
        fields: dict[str, list[Any]] = {}
        rows: list[int] = []
        for name, value in (pair for text in facts for pair in self._pairs(json.loads(text))):
            if name == INDEX_TAGSET:
                rows += [int(value)] if _is_row(value) else []
            else:
                fields.setdefault(name, []).append(value)
        return fields, sorted(set(rows))

    def _pairs(self, fact: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(fact, dict):
            for name, values in cast("dict[str, list[Any]]", fact).items():
                yield from ((name, value) for value in values)
        else:
            yield from (self._tagsets.tags[number] for number in cast("list[str]", fact))

    def _row(self, rows: list[int], taken: NDArray[np.bool_], unusable: NDArray[np.bool_]) -> int | None:
        inside = [row for row in rows if row < len(taken)]
        free = [row for row in inside if not taken[row]]
        self.tally.rows_beyond += bool(rows) and not inside
        self.tally.rows_taken += bool(inside) and (not free or len(inside) > 1)
        if not free:
            return None
        taken[free[0]] = True
        if unusable[free[0]]:
            self.tally.unusable += 1
            return None
        self.tally.indexed += 1
        return free[0]


def find_exquisitor(path: Path) -> dict[str, Path] | None:
    """Return which of the four files is where, when `path` is a folder with them or one file with all; None when it is neither.

    A file may have a word before its name, as in `example_tagsets.json`. `medias` must be there, and one of the others.
    """
    if path.is_dir():
        found = {match[1].lower(): file for file in sorted(path.iterdir()) if (match := _FILE.fullmatch(file.name))}
        return found if "medias" in found and len(found) > 1 else None
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    whole = whole_object(path)
    keys = [key for key in _KEYS if isinstance((whole or {}).get(key), list)]
    return dict.fromkeys(keys, path) if "medias" in keys and len(keys) > 1 else None


@contextmanager
def read_exquisitor_json(folder_or_file: Path, scratch_folder: Path) -> Generator[ExquisitorMetadata]:
    """Read the files and yield what they say; until the end of the block, media and taggings lie in a database in `scratch_folder`.

    Tagsets and tags are held in memory; media and taggings are not, however many there are.

    Raises:
        IngestError: there are no such files, one cannot be read, or none has a medium.
    """
    files = find_exquisitor(folder_or_file)
    if files is None:
        raise IngestError(f"{folder_or_file} has no medias.json with tagsets.json, tags.json or taggings.json, nor is it one file of all.")
    tally = ExquisitorTally()
    tagsets = read_tagsets(elements(files["tagsets"], "tagsets") if "tagsets" in files else None, _elements(files, "tags"))
    tally.bad_entries = tagsets.bad
    with scratch(scratch_folder) as store:
        counter = MediaReader(tally)
        store.add_medias(counter.read(_elements(files, "medias")))
        if not counter.count:
            raise IngestError(
                f"{files['medias']} has no medium that can be used. Each needs a source and may have id, source_type and group."
            )
        taggings = TaggingReader(tagsets, tally)
        store.add_taggings(taggings.read(_elements(files, "taggings")))
        numbered = store.settle()
        tally.renumbered = numbered if counter.with_id else 0
        tally.unknown_media = store.lost_taggings()
        kinds: dict[str, TagKind] = {name: kind for name, kind in tagsets.kinds.items() if name != INDEX_TAGSET}
        yield ExquisitorMetadata(kinds, counter.count, counter.images, taggings.has_rows, tally, tagsets, store)


def _elements(files: Mapping[str, Path], key: str) -> Iterator[Any]:
    return elements(files[key], key) if key in files else iter(())


def _is_row(value: Any) -> bool:
    if isinstance(value, str):
        return is_whole(value.strip())
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value < 2**63 and value == int(value)
