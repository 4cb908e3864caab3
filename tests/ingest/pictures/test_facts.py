"""What picture files say about themselves: EXIF, IPTC and XMP data, written by hand or by Pillow, read from real files."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import IFDRational

from mcp_server.ingest.pictures.decode import Facts, examine
from mcp_server.ingest.pictures.exif import exif_facts
from mcp_server.ingest.pictures.facts import file_facts, shape_facts
from mcp_server.ingest.pictures.iptc import iptc_facts
from mcp_server.ingest.pictures.tiff_tags import tiff_block
from mcp_server.ingest.pictures.xmp import BadXmpError, read_packet, xmp_facts

PICTURE = Image.new("RGB", (60, 40), (200, 20, 20))
PICTURE_FACTS = {"filename", "extension", "file_size", "file_date", "width", "height", "orientation", "megapixels", "colors", "folder"}
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
NAMESPACES = (
    'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:lr="http://ns.adobe.com/lightroom/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
)


def packet(body: str, attributes: str = "") -> bytes:
    description = f"<rdf:Description {NAMESPACES} {attributes}>{body}</rdf:Description>"
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}>{description}</rdf:RDF></x:xmpmeta>'.encode()


def records(*pairs: tuple[int, bytes]) -> bytes:
    """IPTC records of the application record."""
    return b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value for number, value in pairs)


def photoshop(block: bytes) -> bytes:
    """A JPEG segment that holds IPTC records."""
    padded = block + b"\0" * (len(block) % 2)
    body = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(block)) + padded
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body


def exif(main: dict[int, Any] | None = None, shot: dict[int, Any] | None = None, place: dict[int, Any] | None = None) -> Image.Exif:
    made = Image.Exif()
    made.update(main or {})
    for number, values in ((0x8769, shot), (0x8825, place)):
        if values:
            made.get_ifd(number).update(values)
            made[number] = made.get_ifd(number)  # TIFF is written with the directories that are listed
    return made


def said(file: Path) -> dict[str, Any]:
    """The facts of a file that are not about the file."""
    found = examine(file.parent, file.name, ())
    assert isinstance(found, Facts), found
    return {name: value for name, value in found.facts.items() if name not in PICTURE_FACTS}


def of_exif(tmp_path: Path, *directories: dict[int, Any] | None) -> dict[str, Any]:
    PICTURE.save(tmp_path / "a.jpg", exif=exif(*directories))
    return said(tmp_path / "a.jpg")


RICH = (
    {0x010E: "Boats in the harbour", 0x010F: "Canon\0", 0x0110: " Canon EOS R5 ", 0x4746: 4, 0x9C9B: "Häfen\0".encode("utf-16-le")}
    | {0x9C9E: "boat; sea;Boat;;日本".encode("utf-16-le"), 0x0132: "2022:01:01 00:00:00"},
    {0x9003: "2019:08:17 14:05:59", 0x9004: "2020:01:01 00:00:00", 0x829D: IFDRational(28, 10), 0x8827: 400, 0x920A: IFDRational(353, 10)}
    | {0xA434: "RF24-105mm F4 L"},
    {1: "S", 2: (IFDRational(33), IFDRational(51), IFDRational(3162, 100)), 3: "E", 4: (IFDRational(151), IFDRational(12), IFDRational(0))},
)
RICH_FACTS = {
    "date_taken": "2019-08-17",
    "year": 2019,
    "month": 8,
    "hour": 14,
    "camera_make": "Canon",
    "camera_model": "Canon EOS R5",
    "lens": "RF24-105mm F4 L",
    "focal_length": 35.3,
    "aperture": 2.8,
    "iso": 400,
    "latitude": -33.858783,
    "longitude": 151.2,
    "rating": 4,
    "title": "Häfen",
    "caption": "Boats in the harbour",
    "keywords": ["boat", "sea", "日本"],
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_what_the_camera_wrote_is_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    PICTURE.save(tmp_path / f"a.{suffix}", exif=exif(*RICH))
    assert said(tmp_path / f"a.{suffix}") == RICH_FACTS


def test_data_that_imagemagick_keeps_as_a_text_are_read(tmp_path: Path) -> None:
    text = PngInfo()
    block = exif(*RICH).tobytes()
    text.add_text("Raw profile type exif", f"\nexif\n    {len(block)}\n{block.hex()}\n", zip=True)
    PICTURE.save(tmp_path / "a.png", pnginfo=text)
    assert said(tmp_path / "a.png") == RICH_FACTS


def test_both_byte_orders_are_read() -> None:
    for order in ("II", "MM"):
        made = exif(*RICH)
        made.endian = "<" if order == "II" else ">"
        data = made.tobytes()
        assert data[6:8] == order.encode()
        assert exif_facts(data) == RICH_FACTS


def test_a_picture_without_any_data_says_nothing(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.jpg")
    assert said(tmp_path / "a.jpg") == {}


@pytest.mark.parametrize(
    ("main", "shot", "expected"),
    [
        ({}, {0x9004: "2020:01:02 03:04:05"}, {"date_taken": "2020-01-02", "year": 2020, "month": 1, "hour": 3}),
        ({0x0132: "2020:01:02 03:04:05"}, {}, {}),
        ({}, {0x9003: "0000:00:00 00:00:00", 0x9004: "2020-01-02"}, {"date_taken": "2020-01-02", "year": 2020, "month": 1}),
        ({}, {0x9003: "    :  :     :  :  "}, {}),
        ({}, {0x9003: "2019:02:30 10:00:00"}, {}),
        ({}, {0x9003: "2019:02:28 24:00:00"}, {"date_taken": "2019-02-28", "year": 2019, "month": 2}),
        ({}, {0x9003: "1019:02:28 12:00:00"}, {}),
        ({}, {0x9003: "yesterday"}, {}),
        ({}, {0x9003: "2019:08:17T23:59:59+02:00"}, {"date_taken": "2019-08-17", "year": 2019, "month": 8, "hour": 23}),
    ],
)
def test_only_moments_that_exist_count(tmp_path: Path, main: dict[int, Any], shot: dict[int, Any], expected: dict[str, Any]) -> None:
    assert of_exif(tmp_path, main, shot) == expected


def test_when_the_file_was_changed_counts_if_a_camera_wrote_it(tmp_path: Path) -> None:
    assert of_exif(tmp_path, {0x010F: "Nikon", 0x0132: "2020:01:02 03:04:05"})["date_taken"] == "2020-01-02"


@pytest.mark.parametrize(
    "shot",
    [
        {0x829D: IFDRational(28, 0), 0x920A: IFDRational(0, 1)},
        {0x829D: IFDRational(0, 10), 0x8827: 0},
        {0x829D: "abc", 0x8827: "abc", 0x920A: "wide"},
        {0xA434: "----", 0x9003: b"\xff\xfe\x00"},
        {0xA434: "\0\0\0"},
    ],
)
def test_values_that_make_no_sense_are_nothing(tmp_path: Path, shot: dict[int, Any]) -> None:
    assert of_exif(tmp_path, {}, shot) == {}


def test_several_speeds_give_the_first_and_a_saturated_one_the_true_one(tmp_path: Path) -> None:
    assert of_exif(tmp_path, {}, {0x8827: (200, 0)})["iso"] == 200
    assert of_exif(tmp_path, {}, {0x8827: 65535, 0x8832: 102400})["iso"] == 102400


def test_an_aperture_in_steps_is_turned_into_the_f_number(tmp_path: Path) -> None:
    assert of_exif(tmp_path, {}, {0x9202: IFDRational(6)})["aperture"] == 8.0


ZERO, TEN = (IFDRational(0),) * 3, (IFDRational(10), IFDRational(0), IFDRational(0))


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({1: "N", 2: TEN, 3: "W", 4: TEN}, {"latitude": 10.0, "longitude": -10.0}),
        ({1: "N", 2: ZERO, 3: "E", 4: TEN}, {"latitude": 0.0, "longitude": 10.0}),
        ({1: "N", 2: ZERO, 3: "E", 4: ZERO}, {}),
        ({2: TEN, 4: TEN}, {}),
        ({1: "N", 2: TEN}, {}),
        ({1: "N", 2: (IFDRational(91), IFDRational(0), IFDRational(0)), 3: "E", 4: TEN}, {}),
        ({1: "N", 2: (IFDRational(9), IFDRational(99), IFDRational(0)), 3: "E", 4: TEN}, {}),
        ({1: "N", 2: (IFDRational(9), IFDRational(9), IFDRational(9, 0)), 3: "E", 4: TEN}, {}),
        ({1: "E", 2: TEN, 3: "N", 4: TEN}, {}),
    ],
)
def test_only_real_places_count(tmp_path: Path, place: dict[int, Any], expected: dict[str, Any]) -> None:
    assert of_exif(tmp_path, {}, {}, place) == expected


@pytest.mark.parametrize(("stars", "expected"), [(5, {"rating": 5}), (0, {}), (6, {}), (65535, {}), ("3", {"rating": 3})])
def test_one_to_five_stars_are_a_rating(tmp_path: Path, stars: Any, expected: dict[str, Any]) -> None:
    assert of_exif(tmp_path, {0x4746: stars}) == expected


@pytest.mark.parametrize(
    "nothing",
    [
        "OLYMPUS DIGITAL CAMERA         ",
        "SONY DSC",
        "DCIM\\100MEDIA\\DJI_0001.JPG",
        "   ",
        "----",
        "Exif_JPEG_PICTURE",
        "default",
        "\x01\x02",
    ],
)
def test_what_cameras_write_by_themselves_is_no_caption(tmp_path: Path, nothing: str) -> None:
    assert of_exif(tmp_path, {0x010E: nothing}) == {}


@pytest.mark.parametrize("caption", ["Image of a dog", "Café 🎉", "Camera obscura, 1901", "日本の海", "a: b"])
def test_what_people_write_is_a_caption(caption: str) -> None:
    data = caption.encode() + b"\0"
    block = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x010E, 2, max(len(data), 5), 26) + b"\0\0\0\0" + data.ljust(5, b"\0")
    assert exif_facts(block) == {"caption": caption}


@pytest.mark.parametrize(
    "comment",
    [
        b"ASCII\0\0\0Two boats",
        b"UNICODE\0" + "Two boats".encode("utf-16-le"),
        b"UNICODE\0" + "Two boats".encode("utf-16-be"),
        b"\0" * 8 + b"Two boats",
    ],
)
def test_a_users_comment_is_the_caption_of_last_resort(tmp_path: Path, comment: bytes) -> None:
    assert of_exif(tmp_path, {}, {0x9286: comment}) == {"caption": "Two boats"}
    assert of_exif(tmp_path, {0x010E: "One"}, {0x9286: comment}) == {"caption": "One"}
    assert of_exif(tmp_path, {0x9C9C: "One".encode("utf-16-le")}, {0x9286: comment}) == {"caption": "One"}


def test_text_is_utf_8_where_it_can_be_and_latin_1_elsewhere(tmp_path: Path) -> None:
    for written in ("Müller".encode(), "Müller".encode("latin-1")):
        PICTURE.save(tmp_path / "a.jpg", extra=photoshop(records((5, written), (25, written))))
        assert said(tmp_path / "a.jpg") == {"title": "Müller", "keywords": ["Müller"]}


def test_newsroom_records_are_read_from_jpeg_and_tiff(tmp_path: Path) -> None:
    block = records(
        (5, b"Title"), (120, b"Line one\r\nline two"), (25, b"one"), (25, b"two"), (25, b"One"), (55, b"20180203"), (60, b"101112+0100")
    )
    expected = {"title": "Title", "caption": "Line one\nline two", "keywords": ["one", "two"]}
    expected |= {"date_taken": "2018-02-03", "year": 2018, "month": 2, "hour": 10}
    PICTURE.save(tmp_path / "a.jpg", extra=photoshop(block))
    assert said(tmp_path / "a.jpg") == expected
    PICTURE.save(tmp_path / "a.tif", tiffinfo={33723: block})
    assert said(tmp_path / "a.tif") == expected


def test_long_newsroom_records_are_read() -> None:
    assert iptc_facts(b"\x1c\x02\x78\x80\x04" + struct.pack(">I", 40_000) + b"x" * 40_000) == {"caption": "x" * 2000}


FULL = packet(
    "<dc:title><rdf:Alt><rdf:li xml:lang='de'>Hafen</rdf:li><rdf:li xml:lang='x-default'>Harbour</rdf:li></rdf:Alt></dc:title>"
    "<dc:description><rdf:Alt><rdf:li xml:lang='x-default'>Boats</rdf:li></rdf:Alt></dc:description>"
    "<dc:subject><rdf:Bag><rdf:li>boat</rdf:li><rdf:li>sea</rdf:li></rdf:Bag></dc:subject>"
    "<lr:hierarchicalSubject><rdf:Bag><rdf:li>Places|Italy|Rome</rdf:li><rdf:li>Things|Boat</rdf:li></rdf:Bag></lr:hierarchicalSubject>"
    "<xmp:Rating>3</xmp:Rating><exif:GPSLatitude>41,54,10N</exif:GPSLatitude><exif:GPSLongitude>12,29.5E</exif:GPSLongitude>"
    "<photoshop:DateCreated>2017-06-05T04:03:02.10Z</photoshop:DateCreated>"
)
FULL_FACTS = {
    "title": "Harbour",
    "caption": "Boats",
    "keywords": ["boat", "sea", "Rome"],
    "rating": 3,
    "date_taken": "2017-06-05",
    "year": 2017,
    "month": 6,
    "hour": 4,
    "latitude": 41.902778,
    "longitude": 12.491667,
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_packets_are_read_in_every_format(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    if suffix == "png":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", FULL.decode())
        PICTURE.save(file, pnginfo=text)
    elif suffix == "tif":
        PICTURE.save(file, tiffinfo={700: FULL})
    else:
        PICTURE.save(file, xmp=FULL)
    assert said(file) == FULL_FACTS


def test_attributes_and_elements_of_a_packet_mean_the_same() -> None:
    assert xmp_facts(read_packet(packet("<xmp:Rating>5</xmp:Rating>"))) == {"rating": 5}
    assert xmp_facts(read_packet(packet("", 'xmp:Rating="5" dc:title="Short"'))) == {"rating": 5, "title": "Short"}


def test_a_place_with_all_the_decimals_of_a_computer_is_read() -> None:
    place = 'exif:GPSLatitude="48,8.508333333333334N" exif:GPSLongitude="11,34.12300000000000466W"'
    assert xmp_facts(read_packet(packet("", place))) == {"latitude": 48.141806, "longitude": -11.568717}


def test_what_a_packet_says_of_other_pictures_is_not_about_this_one() -> None:
    other = "<rdf:Bag><rdf:li><rdf:Description dc:title='Other' xmp:Rating='1'/></rdf:li></rdf:Bag>"
    assert xmp_facts(read_packet(packet(f"<photoshop:Ingredients>{other}</photoshop:Ingredients>", 'dc:title="This"'))) == {"title": "This"}


@pytest.mark.parametrize("stars", ["-1", "0", "6", "many", "", "nan"])
def test_a_rejected_or_unrated_picture_has_no_rating(tmp_path: Path, stars: str) -> None:
    PICTURE.save(tmp_path / "a.jpg", xmp=packet("", f'xmp:Rating="{stars}"'))
    assert said(tmp_path / "a.jpg") == {}


@pytest.mark.parametrize(
    ("written", "when"),
    [
        ("1954", {"year": 1954}),
        ("1954-08", {"year": 1954, "month": 8}),
        ("1954-13", {}),
        ("0054", {}),
        ("about 1954", {}),
        ("1954-08-03", {"date_taken": "1954-08-03", "year": 1954, "month": 8}),
    ],
)
def test_a_date_may_be_a_year_or_a_month(written: str, when: dict[str, Any]) -> None:
    assert xmp_facts(read_packet(packet("", f'photoshop:DateCreated="{written}"'))) == when
    day = (written.replace("-", "") + "0000")[:8]
    assert iptc_facts(b"\x1c\x02\x37\x00\x08" + day.encode()) == when


def test_a_picture_is_turned_as_its_packet_says_if_the_camera_says_nothing(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.jpg", xmp=packet("", 'tiff:Orientation="6"'))
    found = examine(tmp_path, "a.jpg", ())
    assert isinstance(found, Facts)
    assert (found.facts["width"], found.facts["height"]) == (40, 60)
    PICTURE.save(tmp_path / "a.jpg", xmp=packet("", 'tiff:Orientation="6"'), exif=exif({0x0112: 1}))
    found = examine(tmp_path, "a.jpg", ())
    assert isinstance(found, Facts)
    assert (found.facts["width"], found.facts["height"]) == (60, 40)


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><a>&b;&b;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b"<a>" * 100_000,
        b"<a>" * 100_000 + b"</a>" * 100_000 + b"<",
        b"\xff\xfe<\0a\0",
        b"x" * (2**20 + 1),
    ],
)
def test_hostile_packets_are_refused_and_the_picture_is_read_all_the_same(tmp_path: Path, hostile: bytes) -> None:
    with pytest.raises(BadXmpError):
        read_packet(hostile)
    PICTURE.save(tmp_path / "a.webp", xmp=hostile)
    assert said(tmp_path / "a.webp") == {}


def test_a_very_deep_packet_is_harmless() -> None:
    assert xmp_facts(read_packet(b"<a>" * 100_000 + b"</a>" * 100_000)) == {}


def test_where_they_disagree_the_packet_wins_but_the_camera_knows_when_and_where(tmp_path: Path) -> None:
    newsroom = records((5, b"Newsroom"), (120, b"Newsroom's"), (25, b"news"), (55, b"20010101"))
    PICTURE.save(tmp_path / "a.jpg", exif=exif(*RICH), extra=photoshop(newsroom))
    found = said(tmp_path / "a.jpg")
    assert found == {**RICH_FACTS, "title": "Newsroom", "caption": "Newsroom's", "keywords": ["news", "boat", "sea", "日本"]}
    PICTURE.save(tmp_path / "a.jpg", exif=exif(*RICH), extra=photoshop(newsroom), xmp=FULL)
    words = {"title": "Harbour", "caption": "Boats", "rating": 3, "keywords": ["boat", "sea", "Rome", "news", "日本"]}
    assert said(tmp_path / "a.jpg") == {**RICH_FACTS, **words}


def test_values_are_cut_and_cleaned(tmp_path: Path) -> None:
    words = "".join(f"<rdf:li>word {number}</rdf:li>" for number in range(500))
    body = (
        f"<dc:subject><rdf:Bag>{words}</rdf:Bag></dc:subject><dc:description>{'é' * 5000}</dc:description><dc:title> a\n\n b\tc </dc:title>"
    )
    facts = xmp_facts(read_packet(packet(body)))
    assert facts["keywords"] == [f"word {number}" for number in range(200)]
    assert facts["caption"] == "é" * 2000
    assert facts["title"] == "a b c"


@pytest.mark.parametrize(
    ("source", "folder"),
    [
        ("rome.jpg", None),
        ("2023/rome.jpg", ["2023"]),
        ("2023/Italy/rome.jpg", ["2023", "Italy", "2023/Italy"]),
        ("a/a/a/rome.jpg", ["a", "a/a", "a/a/a"]),
    ],
)
def test_every_level_of_the_folder_is_a_value(source: str, folder: list[str] | None) -> None:
    facts = file_facts(source, 12, 86400 * 365)
    assert facts.get("folder") == folder
    assert facts | {"folder": 0} == {"folder": 0, "filename": "rome.jpg", "extension": "jpg", "file_size": 12, "file_date": "1971-01-01"}


def test_a_time_no_calendar_has_is_no_date() -> None:
    for modified in (1e18, float("nan"), -1e15):
        assert "file_date" not in file_facts("a.JPG", 0, modified)


def test_file_facts_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    PICTURE.save(tmp_path / "x" / "A.JPG")
    os.utime(tmp_path / "x" / "A.JPG", (0, 1_600_000_000))
    found = examine(tmp_path, "x/A.JPG", ())
    assert isinstance(found, Facts)
    assert found.facts == {
        "folder": ["x"],
        "filename": "A.JPG",
        "extension": "jpg",
        "file_size": (tmp_path / "x" / "A.JPG").stat().st_size,
        "file_date": "2020-09-13",
        "width": 60,
        "height": 40,
        "orientation": "landscape",
        "megapixels": 0.01,
        "colors": ["red"],
    }


@pytest.mark.parametrize(
    ("width", "height", "orientation", "megapixels"),
    [
        (100, 98, "square", 0.01),
        (100, 97, "landscape", 0.01),
        (97, 100, "portrait", 0.01),
        (800, 600, "landscape", 0.48),
        (4000, 3000, "landscape", 12.0),
    ],
)
def test_the_shape_is_told_in_words_and_megapixels(width: int, height: int, orientation: str, megapixels: float) -> None:
    assert shape_facts(width, height) == {"width": width, "height": height, "orientation": orientation, "megapixels": megapixels}


def test_tags_of_a_big_tiff_are_read(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "a.tif", big_tiff=True, exif=exif({0x010F: "Canon", 0x0110: "EOS"}))
    assert (tmp_path / "a.tif").read_bytes()[2] == 43
    assert said(tmp_path / "a.tif") == {"camera_make": "Canon", "camera_model": "EOS"}


def test_a_directory_that_is_its_own_subdirectory_ends() -> None:
    block = b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0x8769, 4, 1, 8) + struct.pack("<HHII", 0x8825, 4, 1, 8) + b"\0\0\0\0"
    assert exif_facts(block) == {}


TAGS = [
    0x010E,
    0x010F,
    0x0110,
    0x0112,
    0x0132,
    0x4746,
    0x8769,
    0x8825,
    0x9C9B,
    0x9C9C,
    0x9C9E,
    0x829D,
    0x8827,
    0x9003,
    0x9286,
    0x920A,
    1,
    2,
    3,
    4,
]


@settings(max_examples=300, deadline=None)
@given(
    order=st.sampled_from(["<", ">"]),
    entries=st.lists(
        st.tuples(st.sampled_from(TAGS), st.integers(0, 20), st.integers(0, 2**32 - 1) | st.integers(0, 9), st.integers(0, 400)),
        max_size=20,
    ),
    rest=st.binary(max_size=300),
)
def test_tags_of_any_kind_count_and_place_never_fail(order: str, entries: list[tuple[int, int, int, int]], rest: bytes) -> None:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    directory = b"".join(struct.pack(order + "HHII", *entry) for entry in entries)
    block = mark + struct.pack(order + "IH", 8, len(entries)) + directory + rest
    assert tiff_block(block) is not None
    check(exif_facts(block))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_as_records_or_packets_never_fail(data: bytes) -> None:
    check(iptc_facts(data))
    check(iptc_facts(b"\x1c\x02\x05" + data))
    check(exif_facts(data))
    try:
        check(xmp_facts(read_packet(data)))
    except BadXmpError:
        return


VALUES = st.integers(0, 65535) | st.text(max_size=20) | st.binary(max_size=20)
MAIN = st.dictionaries(st.sampled_from([0x010E, 0x010F, 0x0110, 0x4746, 0x9C9B, 0x9C9E]), VALUES)
SHOT = st.dictionaries(st.sampled_from([0x9003, 0x9286, 0xA434]), VALUES)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(MAIN, SHOT)
def test_files_with_any_values_in_their_tags_are_read(tmp_path: Path, main: dict[int, Any], shot: dict[int, Any]) -> None:
    try:
        made = exif(main, shot).tobytes()
    except (ValueError, TypeError, AttributeError, struct.error):
        return  # Pillow does not write what is no value of that tag
    PICTURE.save(tmp_path / "a.jpg", exif=made)
    check(said(tmp_path / "a.jpg"))


def check(facts: dict[str, Any]) -> None:
    """What facts must always be: known names, clean values in their ranges."""
    kinds = {name: type(value) for name, value in (RICH_FACTS | FULL_FACTS).items()}
    for name, value in facts.items():
        assert type(value) is kinds[name]
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                assert 0 < len(text) <= 2000
                assert text == text.strip()
                assert not any(ord(letter) < 32 and letter not in "\n\t" for letter in text)
                text.encode()
            else:
                assert np.isfinite(text)
