"""What a picture file says about itself: its place, its shape, its colours, and what camera and owner wrote into it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mcp_server.ingest.pictures import clean
from mcp_server.ingest.pictures.colours import dominant_colours
from mcp_server.ingest.pictures.exif import exif_facts, orientation_of
from mcp_server.ingest.pictures.iptc import PHOTOSHOP_RESOURCE, iptc_facts
from mcp_server.ingest.pictures.tiff_tags import tiff_block
from mcp_server.ingest.pictures.xmp import BadXmpError, Packet, orientation_in, read_packet, xmp_facts

_IPTC_TAG = 33723
_EXIF_LIMIT = 2**22
_SQUARE = 0.02
_MILLION = 1_000_000
_TURNED_BY_CONTAINER = ("AVIF", "HEIF")  # their decoders leave in the EXIF data what is still to be done
_WHEN, _WHERE = ("year", "month", "hour", "date_taken"), ("latitude", "longitude")


def file_facts(source: str, size: int, modified: float) -> dict[str, Any]:
    """Return the facts folder, filename, extension, file_size and file_date.

    Args:
        source: path below the scanned folder, with "/". Every level above the file is a value of folder, by its bare name and by its path.
        size: in bytes.
        modified: seconds since 1970. file_date is the day in UTC, the same on every machine.
    """
    path = PurePosixPath(source)
    levels = path.parts[:-1]
    paths = ["/".join(levels[: depth + 1]) for depth in range(len(levels))]
    facts: dict[str, Any] = {"folder": list(dict.fromkeys([*levels, *paths]))} if levels else {}
    facts |= {"filename": path.name}
    if path.suffix:
        facts["extension"] = path.suffix[1:].lower()
    facts["file_size"] = size
    try:
        facts["file_date"] = datetime.fromtimestamp(modified, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return facts
    return facts


def shape_facts(width: int, height: int) -> dict[str, Any]:
    """Return the facts width, height, orientation and megapixels of an upright picture.

    The orientation is square when the sides differ by at most 2 %. Megapixels have one decimal, below one
    million pixels two, and are at least 0.01.
    """
    longer = "landscape" if width > height else "portrait"
    orientation = "square" if abs(width - height) <= _SQUARE * max(width, height) else longer
    pixels = width * height / _MILLION
    return {"width": width, "height": height, "orientation": orientation, "megapixels": max(0.01, round(pixels, 1 if pixels >= 1 else 2))}


def colour_facts(small: Image.Image, opacity: Image.Image | None) -> dict[str, Any]:
    """Return the fact colors of an RGB picture of thumbnail size; `opacity` is an "L" picture of the same size."""
    seen = cast("NDArray[np.uint8] | None", None if opacity is None else np.asarray(opacity))
    return {"colors": dominant_colours(np.asarray(small), seen)}


def embedded(image: Image.Image, data: bytes) -> tuple[dict[str, Any], int]:
    """Return what is written inside a picture file, and how the decoded picture must be turned (1 to 8, as in EXIF).

    Where several say different things, XMP wins over IPTC and IPTC over EXIF. When and where the picture was taken is the exception: there
    EXIF, the camera's own word, wins. Keywords are united. Never raises for anything a file can contain.

    Args:
        image: as Pillow opened it, loaded: PNG may keep its data behind the pixels.
        data: the whole file.
    """
    exif, packet = _exif_of(image, data), _packet_of(image)
    facts = merged([exif_facts(exif), iptc_facts(_iptc_of(image, data)), _packet_facts(packet) if packet else {}])
    if image.format == "TIFF":
        return facts, 1  # Pillow turns these itself
    orientation = orientation_of(exif)
    if orientation is None and packet is not None and image.format not in _TURNED_BY_CONTAINER:
        orientation = orientation_in(packet)
    return facts, orientation or 1


def _packet_facts(packet: Packet) -> dict[str, Any]:
    """Return the facts of a packet inside the file; cameras write there that nobody has rated the picture, which says nothing."""
    return {name: value for name, value in xmp_facts(packet).items() if (name, value) != ("rating", 0)}


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the facts of all `layers`: later ones win, but keywords are united and the first that knows when and where is believed."""
    facts: dict[str, Any] = {}
    words: list[str] = []
    for layer in layers:
        known = [names for names in (_WHEN, _WHERE) if names[0] in facts]
        facts |= {name: value for name, value in layer.items() if not any(name in names for names in known)}
        words = [*layer.get("keywords", ()), *words]
    if words:
        facts["keywords"] = clean.keywords(words)
    return facts


def _exif_of(image: Image.Image, data: bytes) -> bytes:
    """Return the block of EXIF data, b"" if there is none. A TIFF file is one itself."""
    if image.format == "TIFF":
        return data
    block = image.info.get("exif")
    if isinstance(block, bytes):
        return block if len(block) <= _EXIF_LIMIT else b""
    profile = image.info.get("Raw profile type exif")  # ImageMagick: a name and a length, then hexadecimal digits
    if isinstance(profile, str) and len(profile) <= _EXIF_LIMIT:
        try:
            return bytes.fromhex("".join(profile.split("\n")[3:]))
        except ValueError:
            return b""
    return b""


def _iptc_of(image: Image.Image, data: bytes) -> bytes:
    if image.format == "TIFF":
        block = tiff_block(data)
        tag = block.tags(block.first).get(_IPTC_TAG) if block else None
        return tag.octets() if tag else b""
    resources = image.info.get("photoshop")
    records = cast("dict[Any, Any]", resources).get(PHOTOSHOP_RESOURCE) if isinstance(resources, dict) else None
    return records if isinstance(records, bytes) else b""


def _packet_of(image: Image.Image) -> Packet | None:
    raw = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    try:
        if isinstance(raw, str):
            return read_packet(raw.encode("utf-8", "replace"))
        return read_packet(raw) if isinstance(raw, bytes) else None
    except BadXmpError:
        return None
