"""Reads the IPTC records that newsrooms and photo managers write into JPEG and TIFF files.

Source: IPTC-NAA Information Interchange Model 4.2, chapter 1 and record 2.
"""

from __future__ import annotations

from typing import Any

from mcp_server.ingest.pictures import clean

PHOTOSHOP_RESOURCE = 0x0404
"""Number of the Photoshop resource that holds the records in a JPEG file."""

_MARK = 0x1C
_MOST_RECORDS = 5000
_TITLE, _KEYWORD, _DATE, _TIME, _CAPTION = 5, 25, 55, 60, 120
_WANTED = (_TITLE, _KEYWORD, _DATE, _TIME, _CAPTION)


def iptc_facts(block: bytes) -> dict[str, Any]:
    """Return the facts title, caption, keywords and date_taken, year, month, hour of a block of records, those that are there.

    Never raises: reading ends where the block stops making sense.
    """
    found = _records(block)
    facts: dict[str, Any] = {}
    for name, record in (("title", _TITLE), ("caption", _CAPTION)):
        values = [value for raw in found[record] if (value := (clean.line if record == _TITLE else clean.text)(raw))]
        if values:
            facts[name] = values[0]
    if words := clean.keywords(found[_KEYWORD]):
        facts["keywords"] = words
    return facts | _moment(found)


def _records(block: bytes) -> dict[int, list[bytes]]:
    """Return the values of the application record, by data set."""
    found: dict[int, list[bytes]] = {number: [] for number in _WANTED}
    place = 0
    for _ in range(_MOST_RECORDS):
        if place + 5 > len(block) or block[place] != _MARK:
            break
        record, number = block[place + 1], block[place + 2]
        size = int.from_bytes(block[place + 3 : place + 5], "big")
        place += 5
        if size & 0x8000:  # the size of the size of a long value
            width = size & 0x7FFF
            if width > 4:
                break
            size = int.from_bytes(block[place : place + width], "big")
            place += width
        if record == 2 and number in found and place + size <= len(block):
            found[number].append(bytes(block[place : place + size]))
        place += size
    return found


def _moment(found: dict[int, list[bytes]]) -> dict[str, Any]:
    day = found[_DATE][0].decode("latin-1")[:8] if found[_DATE] else ""
    if len(day) != 8 or not (day.isascii() and day.isdigit()):
        return {}
    written = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    clock = found[_TIME][0].decode("latin-1")[:6] if found[_TIME] else ""
    if len(clock) == 6 and clock.isascii() and clock.isdigit():
        written += f" {clock[:2]}:{clock[2:4]}:{clock[4:]}"
    return clean.moment(written) or clean.part_of_date(written.split("-00", 1)[0])  # 00 stands for what nobody knows
