"""Reads what a camera wrote into a picture: EXIF data.

Source of tag numbers and meanings: EXIF 2.32 (JEITA CP-3451X), 4.6.4 to 4.6.8; the XP tags and the rating are Microsoft's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_server.ingest.pictures import clean
from mcp_server.ingest.pictures.tiff_tags import Tag, TiffBlock, tiff_block

_EXIF, _GPS = 0x8769, 0x8825
_DESCRIPTION, _MAKE, _MODEL, _ORIENTATION, _CHANGED, _RATING = 0x010E, 0x010F, 0x0110, 0x0112, 0x0132, 0x4746
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS = 0x9C9B, 0x9C9C, 0x9C9E
_APERTURE, _ISO, _RECOMMENDED_INDEX, _ISO_SPEED = 0x829D, 0x8827, 0x8832, 0x8833
_TAKEN, _DIGITIZED, _APEX_APERTURE, _FOCAL_LENGTH, _COMMENT, _LENS = 0x9003, 0x9004, 0x9202, 0x920A, 0x9286, 0xA434
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_SATURATED_ISO = 65535

_SAYS_NOTHING = re.compile(
    r"""olympus\ digital\ camera | sony\ dsc | samsung.{0,20} | (konica\ )?minolta\ digital\ camera | digital\ (still\ )?camera
    | kodak\ digital\ still\ camera | exif[_\ ]jpeg([_\ ]picture)? | jpeg | ascii | camera | image | picture | untitled | default
    | dcim[\\/].* | dji[_\ ].* | lead\ technologies.* | <kenox.* | vivo.{0,20} | oppo_\d+ | hdrpl | user\ comments? | binary\ comment
    | charset\s*=.* | created\ with\ (the\ )?gimp | file\ written\ by\ adobe.* | applemark | asc | my\ beautiful\ picture
    | ([\w-]+\s*:[^;]*;\s*){3,}.* | \{.*\} | [\x00-\x40\x5b-\x60\x7b-\x7f]*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
"""What cameras and telephones write into the caption when nobody wrote one."""

_COMMENT_CODES = {b"ASCII\0\0\0": "ascii", b"UNICODE\0": "utf-16", b"JIS\0\0\0\0\0": "iso2022_jp", b"\0" * 8: "ascii"}


def orientation_of(data: bytes) -> int | None:
    """Return how the picture must be turned, 1 to 8 as in EXIF; None if the block does not say."""
    block = tiff_block(data)
    tag = block.tags(block.first).get(_ORIENTATION) if block else None
    value = tag.number(1, 8) if tag else None
    return int(value) if value is not None else None


def exif_facts(data: bytes) -> dict[str, Any]:
    """Return the facts of a block of EXIF data (or of a whole TIFF file), those that are there and make sense.

    Facts: date_taken, year, month, hour, camera_make, camera_model, lens, focal_length (mm), aperture (f-number), iso, latitude, longitude,
    rating, title, caption, keywords. Never raises.
    """
    block = tiff_block(data)
    if block is None:
        return {}
    main = block.tags(block.first)
    shot, position = _sub(block, main, _EXIF), _sub(block, main, _GPS)
    facts = _moment(main, shot) | _camera(main, shot) | _exposure(shot) | _position(position) | _words(main, shot, block)
    if (tag := main.get(_RATING)) and (value := clean.stars(tag.number(1, 5))):
        facts["rating"] = value
    return facts


def _sub(block: TiffBlock, main: Mapping[int, Tag], number: int) -> Mapping[int, Tag]:
    tag = main.get(number)
    offset = tag.number(8, 2**63) if tag else None
    return block.tags(int(offset)) if offset is not None else {}


def _moment(main: Mapping[int, Tag], shot: Mapping[int, Tag]) -> dict[str, Any]:
    """Return when the picture was taken; when the file was changed counts only if a camera wrote it."""
    tags = [shot.get(_TAKEN) or main.get(_TAKEN), shot.get(_DIGITIZED) or main.get(_DIGITIZED)]
    if _line(main.get(_MAKE)):
        tags.append(main.get(_CHANGED))
    for tag in tags:
        if tag is not None and (facts := clean.moment(tag.text() or "")):
            return facts
    return {}


def _camera(main: Mapping[int, Tag], shot: Mapping[int, Tag]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for name, tag in (("camera_make", main.get(_MAKE)), ("camera_model", main.get(_MODEL)), ("lens", shot.get(_LENS))):
        written = _line(tag)
        if written and written.strip("-. ") and written.casefold() not in ("unknown", "n/a"):
            facts[name] = written
    return facts


def _exposure(shot: Mapping[int, Tag]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    length = _number(shot.get(_FOCAL_LENGTH), 0.05, 100_000)
    if length is not None:
        facts["focal_length"] = round(length, 2)
    aperture = _number(shot.get(_APERTURE), 0.1, 1000)
    apex = _number(shot.get(_APEX_APERTURE), 0.01, 20) if aperture is None else None
    if aperture is not None or apex is not None:
        facts["aperture"] = round(aperture if aperture is not None else 2 ** ((apex or 0) / 2), 2)
    for number in (_ISO, _ISO_SPEED, _RECOMMENDED_INDEX):
        speed = _number(shot.get(number), 1, 100_000_000)
        if speed is not None and (number != _ISO or speed < _SATURATED_ISO):
            facts["iso"] = round(speed)
            break
    return facts


def _position(tags: Mapping[int, Tag]) -> dict[str, float]:
    latitude = _degrees(tags.get(_LATITUDE), tags.get(_LATITUDE_REF), "N", "S")
    longitude = _degrees(tags.get(_LONGITUDE), tags.get(_LONGITUDE_REF), "E", "W")
    return clean.place(latitude, longitude)


def _degrees(tag: Tag | None, reference: Tag | None, positive: str, negative: str) -> float | None:
    """Return degrees, minutes and seconds as degrees; None without the letter that says on which side."""
    letter = ((reference.text() if reference else None) or "").upper()[:1]
    if tag is None or letter not in (positive, negative) or not letter:
        return None
    parts = tag.numbers()[:3]
    if (
        not parts
        or len(parts) < len(tag.data) // 8
        or any(not 0 <= part <= limit for part, limit in zip(parts, (180, 60, 60), strict=False))
    ):
        return None
    degrees = sum(part / scale for part, scale in zip(parts, (1, 60, 3600), strict=False))
    return degrees if letter == positive else -degrees


def _words(main: Mapping[int, Tag], shot: Mapping[int, Tag], block: TiffBlock) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    title = _wide(main.get(_XP_TITLE))
    if title:
        facts["title"] = " ".join(title.split())
    description = main.get(_DESCRIPTION)
    comments = (description.text() if description else None, _wide(main.get(_XP_COMMENT)), _comment(shot.get(_COMMENT), block))
    caption = next((one for one in comments if one and not _says_nothing(one, main)), None)
    if caption:
        facts["caption"] = caption
    if words := clean.keywords((_wide(main.get(_XP_KEYWORDS)) or "").split(";")):
        facts["keywords"] = words
    return facts


def _says_nothing(written: str, main: Mapping[int, Tag]) -> bool:
    return _SAYS_NOTHING.fullmatch(written) is not None or written in (_line(main.get(_MAKE)), _line(main.get(_MODEL)))


def _line(tag: Tag | None) -> str | None:
    written = tag.text() if tag else None
    return clean.line(written) if written else None


def _number(tag: Tag | None, low: float, high: float) -> float | None:
    return tag.number(low, high) if tag else None


def _wide(tag: Tag | None) -> str | None:
    """Return the text of an XP tag, which is UTF-16 in little-endian order whatever the rest is."""
    return clean.text(tag.octets().decode("utf-16-le", "ignore").split("\0", 1)[0]) if tag else None


def _comment(tag: Tag | None, block: TiffBlock) -> str | None:
    """Return the user comment; its first eight bytes name its code."""
    if tag is None:
        return None
    raw = tag.octets()
    code, body = _COMMENT_CODES.get(raw[:8]), raw[8:]
    if code is None:
        return clean.text(raw.split(b"\0", 1)[0]) if tag.kind == 2 else None
    if code == "ascii":
        return clean.text(body.strip(b"\0").split(b"\0", 1)[0])
    if code == "utf-16":
        code = _utf16(body, block)
    return clean.text(body.decode(code, "ignore").split("\0", 1)[0])


def _utf16(body: bytes, block: TiffBlock) -> str:
    """Return the byte order of a comment: its mark's, else the one that gives more plain letters, else the block's."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    little, big = body[1::2].count(0), body[0::2].count(0)
    if little == big:
        return "utf-16-le" if block.order == "<" else "utf-16-be"
    return "utf-16-le" if little > big else "utf-16-be"
