"""Says which group a picture belongs to, by its path or by one of its fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.catalog.fields import field_key, values_of

_MARKS = frozenset("\\.^$*+?{}[]|()")
_LONGEST_SOURCE = 1024


@dataclass(frozen=True)
class Grouping:
    """A way to put pictures into groups.

    Attributes:
        by: the folder a picture is in, its path without the extension, the value of a field, or what an expression finds in its path.
        field: name of the field, for "field" alone; whether any picture has it is for the caller to see.
        pattern: the expression, for "regex" alone.
    """

    by: Literal["folder", "stem", "field", "regex"]
    field: str | None = None
    pattern: re.Pattern[str] | None = None

    @property
    def drops_singles(self) -> bool:
        """Whether a group of one picture is to be none: every picture has a path without extension, few share it."""
        return self.by == "stem"

    def group_of(self, source: str, fields: Mapping[str, Any]) -> str | None:
        """Return the name of the group of the picture at `source`, a path with "/"; None if it has none.

        A field counts with its first value, letter case of its name ignored. An expression is searched in paths of up to 1,024 characters,
        longer ones have no group: this bounds the work of ordinary expressions, not of one with nested repeats such as "(a+)+$".
        """
        if self.by == "folder":
            name = PurePosixPath(source).parent.as_posix()
            return None if name == "." else name
        if self.by == "stem":
            return PurePosixPath(source).with_suffix("").as_posix()
        if self.pattern is not None:
            return _found(self.pattern, source)
        wanted = field_key(self.field or "")
        return next((_text(raw) for name, raw in fields.items() if field_key(name) == wanted and _text(raw) is not None), None)


def parse_grouping(text: str) -> Grouping:
    r"""Read what `--group-by` says: folder, stem, an expression (it has one of \.^$*+?{}[]|()), else the name of a field.

    Raises:
        IngestError: blank, or an expression that cannot be read or matches the empty text.
    """
    word = text.strip()
    if word.casefold() == "folder":
        return Grouping("folder")
    if word.casefold() == "stem":
        return Grouping("stem")
    if not word:
        raise IngestError("--group-by is blank. Give folder, stem, the name of a field, or a regular expression.")
    if _MARKS.isdisjoint(word):
        return Grouping("field", field=word)
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise IngestError(
            f"--group-by {clipped(text)!r} is no regular expression: {clipped(error, 80)}. Write, for example, '^([^_]+)_': "
            "its first group, or else the whole match, names the picture's group."
        ) from error
    if pattern.groups == 0 and pattern.fullmatch(""):
        raise IngestError(f"--group-by {clipped(text)!r} matches the empty text, so it names no group. Write, for example, '^([^_]+)_'.")
    return Grouping("regex", pattern=pattern)


def _found(pattern: re.Pattern[str], source: str) -> str | None:
    found = pattern.search(source) if len(source) <= _LONGEST_SOURCE else None
    if found is None:
        return None
    name = found[1] if pattern.groups else found[0]
    return name.strip() or None if name is not None else None


def _text(raw: Any) -> str | None:
    return next((str(value) for shape, value in values_of(raw) if shape not in ("endless", "object")), None)
