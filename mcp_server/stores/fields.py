"""The fields a caller may filter by: tagsets under the names callers use."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from mcp_server.domain.filters import folded
from mcp_server.domain.tagset_names import is_internal
from mcp_server.stores.schema import Kind, Tagset


@dataclass(frozen=True, eq=False)  # each is made once: to compare and hash them as objects takes a fraction of the time
class Field:
    """A named field. Tagsets with the same name and kind are one field; with different kinds, the kind is part of the name."""

    name: str
    kind: Kind
    tagset_id: int
    """The lowest of `tagset_ids`."""
    tagset_ids: tuple[int, ...]
    bare_name: str
    """The tagset's own name, which `name` extends when two fields would otherwise be called the same."""


def fields_of(tagsets: Iterable[Tagset]) -> tuple[Field, ...]:
    """Return the fields made of `tagsets`, in the order of their lowest tagset id. Internal and unreadable tagsets are left out."""
    grouped: defaultdict[tuple[str, Kind], list[Tagset]] = defaultdict(list)
    for tagset in sorted(tagsets, key=lambda one: one.id):
        if tagset.kind is not None and not is_internal(tagset.name):
            grouped[(folded(tagset.name.strip()), tagset.kind)].append(tagset)
    shared = Counter(name for name, _ in grouped)
    taken = {name for name, count in shared.items() if count == 1}
    fields: list[Field] = []
    for (name, kind), members in grouped.items():
        bare = members[0].name.strip() or f"tagset {members[0].id}"
        shown = bare if shared[name] == 1 else f"{bare} ({kind})"
        while shared[name] > 1 and folded(shown) in taken:
            shown = f"{shown} #{members[0].id}"
        taken.add(folded(shown))
        fields.append(Field(shown, kind, members[0].id, tuple(member.id for member in members), bare))
    return tuple(sorted(fields, key=lambda field: field.tagset_id))
