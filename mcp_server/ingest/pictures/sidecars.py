"""Files beside a picture that say something about it: .json, .xmp and .txt, and what Google Takeout puts beside its pictures."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mcp_server.ingest.pictures import clean
from mcp_server.ingest.pictures.reading import UnreadableFileError, read_file
from mcp_server.ingest.pictures.suffixes import readable_suffixes
from mcp_server.ingest.pictures.xmp import BadXmpError, read_packet, xmp_facts

SIDECAR_LIMIT = 4 * 2**20
"""Largest sidecar that is read, in bytes."""

_KINDS = (".json", ".xmp", ".txt")
_TAKEOUT_NAME = "supplemental-metadata"
_TAKEOUT_LENGTH = 46
"""Takeout cuts the names of its files, without ".json", to so many characters."""
_NUMBERED = re.compile(r"(.+)(\(\d+\))", re.DOTALL)
_EDITED = re.compile(
    r"(.+)-(?:edited|bearbeitet|bewerkt|edytowane|modificato|modifi(?:\u00e9|e\u0301)|(?:ha )?editado|editat|編集済み)(\(\d+\)|)", re.DOTALL
)
"""What Takeout calls the edited copy of a picture, in some of its languages; the file about the picture is about both."""
_CLOCK = ("year", "month", "hour")
_WHEN = ("date_taken", *_CLOCK)
_MANY_CONTROLS = 0.05
_DEEPEST = 32


@dataclass(frozen=True)
class SidecarFacts:
    """What the sidecars of one picture say.

    Attributes:
        said: facts of .json files; they replace whatever else is known by that name.
        written: facts of .xmp and .txt files; they win over what the picture says, but keywords are united.
        notes: what was wrong with them, one sentence each.
        in_utc: `said` tells in UTC when the picture was taken, as Takeout does.
    """

    said: dict[str, Any] = field(default_factory=dict[str, Any])
    written: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    in_utc: bool = False


def sidecar_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the sidecars of every picture in one folder's listing; pictures without any are left out.

    `IMG_1.jpg` has IMG_1.jpg.json, IMG_1.json, the same with .xmp and .txt, and Takeout's IMG_1.jpg.supplemental-metadata.json, also cut
    short or numbered as Takeout does. Letter case of the sidecar's own ending is ignored. A sidecar named after the stem belongs to every
    picture of that stem. `IMG_1-edited.jpg`, without a .json of its own, has that of `IMG_1.jpg`. Order: json, xmp, txt; of each the one
    with the full name first.
    """
    listing = sorted(names)
    if not any(name.lower().endswith(_KINDS) for name in listing):
        return {}
    pictures = [name for name in listing if PurePosixPath(name).suffix.lower() in readable_suffixes()]
    whole, stems, cut = set(pictures), defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for picture in pictures:
        stems[PurePosixPath(picture).stem].append(picture)
        for name in _cut_names(picture):
            cut[name].append(picture)
    found: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for name in listing:
        kind = PurePosixPath(name).suffix.lower()
        if kind not in _KINDS:
            continue
        base = name[: -len(kind)]
        owners = [*_owners(base, whole, cut, kind), *((picture, 2) for picture in stems.get(base, ()))]
        for picture, distance in owners:
            found[picture].setdefault(name, (_KINDS.index(kind), distance))
    for picture in pictures:
        edited = _EDITED.fullmatch(PurePosixPath(picture).stem)
        if edited and not any(kind == 0 for kind, _ in found.get(picture, {}).values()):
            beside = (found.get(original, {}) for original in stems.get(edited[1] + edited[2], ()))
            about = {name: (0, 3) for files in beside for name, (kind, distance) in files.items() if kind == 0 and distance < 2}
            if len(about) == 1:
                found[picture].update(about)
    return {
        picture: tuple(sorted(found[picture], key=lambda name: (*found[picture][name], name))) for picture in pictures if picture in found
    }


def _owners(base: str, whole: set[str], cut: Mapping[str, Sequence[str]], kind: str) -> list[tuple[str, int]]:
    """Return the pictures whose full name a sidecar bears, with 0 for the plain way and 1 for Takeout's."""
    if base in whole:
        return [(base, 0)]
    if kind != ".json":
        return []
    numbered = _NUMBERED.fullmatch(base)
    plain, mark = (numbered[1], numbered[2]) if numbered else (base, "")
    picture, dot, tail = plain.rpartition(".")
    if dot and _TAKEOUT_NAME.startswith(tail) and (marked := _with_mark(picture, mark)) in whole:
        return [(marked, 1)]
    if mark and (marked := _with_mark(plain, mark)) in whole:  # IMG_1.jpg(1).json is about IMG_1(1).jpg
        return [(marked, 1)]
    bearers = cut.get(base, ()) if _TAKEOUT_LENGTH in (len(base), len(plain)) else ()
    if len(bearers) > 1 and not mark:
        bearers = [picture for picture in bearers if not _NUMBERED.fullmatch(PurePosixPath(picture).stem)]
    return [(bearers[0], 1)] if len(bearers) == 1 else []  # whose it is cannot be told when several pictures may bear it


def _cut_names(picture: str) -> set[str]:
    """Return how Takeout may call the file about a picture once it is cut; a number in the picture's name may come after the cut."""
    path = PurePosixPath(picture)
    numbered = _NUMBERED.fullmatch(path.stem)
    plain, mark = (f"{numbered[1]}{path.suffix}", numbered[2]) if numbered else (picture, "")
    return {f"{picture}.{_TAKEOUT_NAME}"[:_TAKEOUT_LENGTH], f"{plain}.{_TAKEOUT_NAME}"[:_TAKEOUT_LENGTH] + mark}


def _with_mark(picture: str, mark: str) -> str:
    path = PurePosixPath(picture)
    return f"{path.stem}{mark}{path.suffix}" if mark else picture


def sidecar_facts(files: Iterable[tuple[str, Path]]) -> SidecarFacts:
    """Return what `files`, pairs of name and place in the order of `sidecar_names`, say. Never raises for what a file can contain.

    A sidecar that is broken, gone or larger than `SIDECAR_LIMIT` is left out, with a note.
    """
    said: dict[str, Any] = {}
    packets: dict[str, Any] = {}
    caption: dict[str, Any] = {}
    notes: list[str] = []
    in_utc = False
    for name, place in files:
        kind = PurePosixPath(name).suffix.lower()
        try:
            data = read_file(place, SIDECAR_LIMIT).data
            if kind == ".json":
                row = _json_row(data)
                found = _takeout(row) if _is_takeout(row) else {key: value for key, value in row.items() if value is not None}
                in_utc = in_utc or (_is_takeout(row) and "date_taken" in found and not said)
                said = _united(said, found)
            elif kind == ".xmp":
                further = xmp_facts(read_packet(data))
                packets = {**(_without(further, _WHEN) if "year" in packets else further), **packets}
            else:
                caption = caption or _caption(data)
        except (UnreadableFileError, BadXmpError, ValueError) as error:
            notes.append(f"{PurePosixPath(name).name} is left out: {error}.")
    return SidecarFacts(said, caption | packets, tuple(notes), in_utc)


def with_sidecars(facts: Mapping[str, Any], beside: SidecarFacts) -> dict[str, Any]:
    """Return `facts` of the picture itself overlaid with what its sidecars say.

    A clock that says the moment of Takeout's UTC in local time is believed: what counts is what it showed where the picture was taken.
    """
    result = dict(facts)
    if "year" in beside.written:
        result = _without(result, _WHEN)  # those of another day
    result |= beside.written
    if result.get("rating") == 0:
        del result["rating"]  # whoever wrote the sidecar took it back
    said = beside.said
    if "date_taken" in said and beside.in_utc and _is_same_moment(said, result):
        said = _without(said, _WHEN)
    elif "date_taken" in said:
        result = _without(result, _CLOCK)
    if words := [*beside.written.get("keywords", ()), *facts.get("keywords", ())]:
        result["keywords"] = clean.keywords(words)
    return _united(said, result)


def _without(facts: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def _is_same_moment(utc: Mapping[str, Any], local: Mapping[str, Any]) -> bool:
    """Tell whether there is a time zone, UTC-12 to UTC+14, in which the moment `utc` is `local`, as far as that is known."""
    if "date_taken" not in local:
        return False
    days = (date.fromisoformat(local["date_taken"]) - date.fromisoformat(utc["date_taken"])).days
    if "hour" not in local:
        return abs(days) <= 1
    return -13 <= 24 * days + local["hour"] - utc["hour"] <= 15  # an hour more, since the minutes are not known


def _united(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; of a name that both have, letter case ignored, the one of `first`."""
    taken = {name.casefold() for name in first}
    return {**{name: value for name, value in second.items() if name.casefold() not in taken}, **first}


def _json_row(data: bytes) -> dict[str, Any]:
    """Return a JSON object. Raises ValueError with what is wrong."""
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=_nothing, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON text in UTF-8") from error
    if not isinstance(found, dict):
        raise ValueError("it is JSON, but no object")
    if _is_deep(cast("object", found)):
        raise ValueError(f"its objects are nested more than {_DEEPEST} deep")
    return cast("dict[str, Any]", found)


def _is_takeout(row: Mapping[str, Any]) -> bool:
    return isinstance(row.get("photoTakenTime"), dict)


def _nothing(_: str) -> None:
    """Stand for NaN and infinities, which are no JSON."""


def _finite(written: str) -> float | None:
    value = float(written)
    return value if math.isfinite(value) else None


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (cast("dict[str, object]", one).values() if isinstance(one, dict) else cast("list[object]", one))
        ]
    return bool(level)


def _takeout(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of a Takeout sidecar. Its title is the file's name and says nothing new."""
    facts = clean.moment_of_timestamp(row["photoTakenTime"].get("timestamp"))
    description = row.get("description")
    if isinstance(description, str) and (caption := clean.text(description)):
        facts["caption"] = caption
    places = (cast("dict[str, Any]", row[name]) for name in ("geoData", "geoDataExif") if isinstance(row.get(name), dict))
    positions = (clean.place(clean.number(one.get("latitude"), -90, 90), clean.number(one.get("longitude"), -180, 180)) for one in places)
    facts |= next((position for position in positions if position), {})
    people = cast("list[Any]", row["people"]) if isinstance(row.get("people"), list) else []
    names = [cast("dict[str, Any]", one).get("name") for one in people if isinstance(one, dict)]
    if known := clean.keywords(name for name in names if isinstance(name, str)):
        facts["people"] = known
    if row.get("favorited") is True:
        facts["favorited"] = "true"
    return facts


def _caption(data: bytes) -> dict[str, Any]:
    """Return the whole text as a caption. Raises ValueError with what is wrong."""
    try:
        written = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is not text in UTF-8") from error
    head = written[:4000]
    if "\0" in head or sum(ord(letter) < 32 and letter not in "\t\n\r\f" for letter in head) > _MANY_CONTROLS * len(head):
        raise ValueError("it is not text")
    caption = clean.text(written)
    return {"caption": caption} if caption else {}
