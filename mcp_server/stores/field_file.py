"""Keeps a field's data in a side set, and takes it from there as it lies on the disk: nothing is read before it is needed."""

from __future__ import annotations

from typing import Any

from mcp_server.side_files import Arrays
from mcp_server.stores.columns import Numbers, Texts
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.fields import Field
from mcp_server.stores.kept import Kept
from mcp_server.stores.postings import Blocks, Postings
from mcp_server.stores.taggings import Tags


def kept_field(kept: Kept, field: Field, row_count: int) -> FieldData | None:
    """Return the data of `field` over `row_count` rows; None when it was not kept."""
    found = kept.read(_name(field), **_key(field))
    if found is None:
        return None
    arrays = found.arrays
    keys, shown = _texts(arrays, "keys"), _texts(arrays, "shown")
    return FieldData(
        field,
        arrays["keys"] if keys is None else keys,
        Numbers(arrays["keys"]) if shown is None else shown,
        _postings(arrays, "values", row_count),
        Tags(arrays["tags.ids"], arrays["tags.tagsets"]),
        arrays["tags.values"],
        _postings(arrays, "taggings", row_count) if "taggings.rows" in arrays else None,
        arrays["present"],
    )


def keep_field(kept: Kept, data: FieldData) -> None:
    """Keep `data` for the next start."""
    arrays: dict[str, Any] = {"tags.ids": data.tags.ids, "tags.tagsets": data.tags.tagsets, "tags.values": data.value_of_tag}
    arrays |= {"present": data.present, **_posting_arrays("values", data.values)}
    arrays |= _text_arrays("keys", data.keys) if isinstance(data.keys, Texts) else {"keys": data.keys}
    if isinstance(data.shown, Texts):
        arrays |= _text_arrays("shown", data.shown)
    if data.tag_postings is not None:
        arrays |= _posting_arrays("taggings", data.tag_postings)
    kept.keep(_name(data.field), arrays, {"field": data.field.name}, **_key(data.field))


def _name(field: Field) -> str:
    return f"field-{field.tagset_id}"


def _key(field: Field) -> dict[str, object]:
    return {"tagsets": list(field.tagset_ids), "kind": field.kind}


def _texts(arrays: Arrays, name: str) -> Texts | None:
    return Texts(arrays[f"{name}.blob"], arrays[f"{name}.offsets"]) if f"{name}.blob" in arrays else None


def _text_arrays(name: str, texts: Texts) -> Arrays:
    return {f"{name}.blob": texts.blob, f"{name}.offsets": texts.offsets}


def _postings(arrays: Arrays, name: str, row_count: int) -> Postings:
    blocks = Blocks(arrays[f"{name}.block_starts"], arrays[f"{name}.block_stops"], arrays[f"{name}.block_bits"])
    return Postings(arrays[f"{name}.rows"], arrays[f"{name}.offsets"], blocks, row_count)


def _posting_arrays(name: str, postings: Postings) -> Arrays:
    blocks = postings.blocks
    return {
        f"{name}.rows": postings.rows,
        f"{name}.offsets": postings.offsets,
        f"{name}.block_starts": blocks.starts,
        f"{name}.block_stops": blocks.stops,
        f"{name}.block_bits": blocks.bits,
    }
