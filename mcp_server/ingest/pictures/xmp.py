"""Reads XMP packets: what photo managers write about a picture, in the file or beside it.

Source: ISO 16684-1 (XMP, part 1), 7; EXIF in XMP: ISO 16684-2 and CIPA DC-010.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mcp_server.ingest.pictures import clean

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

XMP_LIMIT = 2**20
"""Largest packet that is read, in bytes."""

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_TIFF = "{http://ns.adobe.com/tiff/1.0/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_LIGHTROOM = "{http://ns.adobe.com/lightroom/1.0/}"
_DEGREES = re.compile(r"(\d{1,3}),(\d{1,2}(?:\.\d{1,20})?)(?:,(\d{1,2}(?:\.\d{1,20})?))?([NSEW])", re.ASCII)
_MOST_VALUES = 1000


class BadXmpError(ValueError):
    """A packet cannot be read; the message says why in a few words."""


class Packet:
    """The properties of the picture itself that a packet gives."""

    def __init__(self, root: Element) -> None:
        self._values: dict[str, list[str]] = {}
        tops = (top for rdf in root.iter(f"{_RDF}RDF") for top in rdf.findall(f"{_RDF}Description"))
        for description in tops:  # what is nested deeper is about other pictures, such as those this one was made of
            for name, value in description.attrib.items():
                self._add(name, value)
            for child in description:
                for value in _values(child):
                    self._add(child.tag, value)

    def all(self, name: str) -> list[str]:
        """Return the values of a property, in order."""
        return self._values.get(name, [])

    def first(self, *names: str) -> str:
        """Return the first value that is not blank of the first property that has one, else ""."""
        return next((value for name in names for value in self.all(name) if value.strip()), "")

    def _add(self, name: str, value: str) -> None:
        values = self._values.setdefault(name, [])
        if len(values) < _MOST_VALUES:
            values.append(value)


def read_packet(data: bytes) -> Packet:
    """Read a packet of at most `XMP_LIMIT` bytes.

    Raises:
        BadXmpError: it is larger, not well-formed, or uses XML entities, which a packet never needs and a trap does.
    """
    import defusedxml
    from defusedxml import ElementTree

    if len(data) > XMP_LIMIT:
        raise BadXmpError(f"larger than {XMP_LIMIT // 2**20} MiB")
    try:
        root: Element = ElementTree.fromstring(data.strip(b"\0 \t\r\n"), forbid_dtd=True)
    except defusedxml.DefusedXmlException as error:
        raise BadXmpError("uses XML entities") from error
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
        raise BadXmpError("not well-formed XML") from error
    return Packet(root)


def xmp_facts(packet: Packet) -> dict[str, Any]:
    """Return the facts title, caption, keywords, rating, date_taken, year, month, hour, latitude, longitude, those that are there.

    A rating of 0 says that there is none, or that the picture is rejected. Of a date that is a year or a month there is no date_taken.
    """
    facts: dict[str, Any] = {}
    if title := clean.line(packet.first(f"{_DC}title")):
        facts["title"] = title
    if caption := clean.text(packet.first(f"{_DC}description")):
        facts["caption"] = caption
    leaves = (path.rsplit("|", 1)[-1] for path in packet.all(f"{_LIGHTROOM}hierarchicalSubject"))
    if words := clean.keywords([*packet.all(f"{_DC}subject"), *leaves]):
        facts["keywords"] = words
    if (rating := clean.number(packet.first(f"{_XMP}Rating"), -1, 5)) is not None:
        facts["rating"] = clean.stars(rating) or 0
    written = (packet.first(name) for name in (f"{_EXIF}DateTimeOriginal", f"{_PHOTOSHOP}DateCreated"))
    facts |= next((when for one in written if (when := clean.moment(one) or clean.part_of_date(one))), {})
    return facts | clean.place(_degrees(packet.first(f"{_EXIF}GPSLatitude"), "NS"), _degrees(packet.first(f"{_EXIF}GPSLongitude"), "EW"))


def orientation_in(packet: Packet) -> int:
    """Return how the picture must be turned, 1 to 8 as in EXIF; 1 if the packet does not say."""
    value = clean.number(packet.first(f"{_TIFF}Orientation"), 1, 8)
    return int(value) if value is not None else 1


def _values(child: Element) -> Iterator[str]:
    """Yield the values of one property: its text, or the items of its list, the default language first."""
    lists = [one for one in child if one.tag in (f"{_RDF}Bag", f"{_RDF}Seq", f"{_RDF}Alt")]
    if not lists:
        if child.text and child.text.strip():
            yield child.text
        return
    items = [item for one in lists for item in one if item.tag == f"{_RDF}li"]
    if lists[0].tag == f"{_RDF}Alt":
        items.sort(key=lambda item: item.get(_LANGUAGE) != "x-default")
    yield from (item.text for item in items if item.text)


def _degrees(written: str, letters: str) -> float | None:
    """Return the degrees that "52,30.5N" or "52,30,30N" stands for."""
    found = _DEGREES.fullmatch(written.strip().upper())
    if found is None or found[4] not in letters:
        return None
    degrees = int(found[1]) + float(found[2]) / 60 + float(found[3] or 0) / 3600
    return degrees if found[4] in "NE" else -degrees
