"""How names of tagsets are read, and which of them belong to an index."""

from __future__ import annotations

from mcp_server.domain.filters import folded

INDEX_TAGSET = "CLIP Index ID"
"""The tagset that says which medium is at which row."""


def plain(name: str) -> str:
    """Return the name of a tagset as it is read: "Clip_Index_Id" and "CLIP Index ID" are one."""
    return " ".join(folded(name.replace("_", " ")).split())


def is_internal(name: str) -> bool:
    """True for tagsets that tie the collection to an index and say nothing about pictures: `CLIP Index ID` and the like."""
    return plain(name).endswith("index id")
