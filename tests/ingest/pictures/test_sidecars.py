"""Which files lie beside a picture, and what they say about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.ingest.pictures.sidecars import SidecarFacts, sidecar_facts, sidecar_names, with_sidecars

XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmp:Rating="4" exif:DateTimeOriginal="2011-05-06T07:08:09" exif:GPSLatitude="47,35.5N" exif:GPSLongitude="7,30,36W">
 <dc:subject><rdf:Bag><rdf:li>dog</rdf:li><rdf:li>beach</rdf:li></rdf:Bag></dc:subject>
 <dc:description><rdf:Alt><rdf:li xml:lang="x-default">From the packet</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
TAKEOUT: dict[str, Any] = {
    "title": "IMG_1.jpg",
    "description": "By the lake",
    "photoTakenTime": {"timestamp": "1556702583", "formatted": "1 May 2019, 09:23:03 UTC"},
    "geoData": {"latitude": 47.5, "longitude": 8.25, "altitude": 400.0},
    "people": [{"name": "Ada"}, {"name": "Grace"}, {"name": "Ada"}],
    "favorited": True,
    "url": "https://example.org/1",
}


def said(folder: Path, **files: str | bytes) -> SidecarFacts:
    """What files of these endings say; "json" is written as a.json."""
    places: list[tuple[str, Path]] = []
    for kind in ("json", "xmp", "txt"):
        if kind in files:
            content = files[kind]
            place = folder / f"a.{kind}"
            place.write_bytes(content.encode() if isinstance(content, str) else content)
            places.append((place.name, place))
    return sidecar_facts(places)


def test_the_files_of_a_picture_are_found_in_order_of_their_word() -> None:
    beside = ["IMG_1.txt", "IMG_1.XMP", "IMG_1.jpg.xmp", "IMG_1.json", "IMG_1.jpg.json", "IMG_1.jpg.supplemental-metadata.json"]
    assert sidecar_names(["IMG_1.jpg", "IMG_2.jpg", "IMG_12.json", "notes.txt", *beside]) == {
        "IMG_1.jpg": (
            "IMG_1.jpg.json",
            "IMG_1.jpg.supplemental-metadata.json",
            "IMG_1.json",
            "IMG_1.jpg.xmp",
            "IMG_1.XMP",
            "IMG_1.txt",
        )
    }


def test_a_file_named_after_the_stem_is_about_all_pictures_of_that_stem() -> None:
    assert sidecar_names(["a.jpg", "a.dng", "a.PNG", "a.xmp", "a.jpg.txt"]) == {"a.jpg": ("a.xmp", "a.jpg.txt"), "a.PNG": ("a.xmp",)}


@pytest.mark.parametrize(
    ("picture", "sidecar"),
    [
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
        ("IMG_1.jpg", "IMG_1.jpg.supplemental-met.json"),
        ("IMG_1.jpg", "IMG_1.jpg.s.json"),
        ("IMG_1.jpg", "IMG_1.jpg..json"),
        ("IMG_1(2).jpg", "IMG_1.jpg(2).json"),
        ("IMG_1(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json"),
        ("0123456789012345678901234567890123456789-long-name.jpg", "0123456789012345678901234567890123456789-long-.json"),
        ("0123456789012345678901234567890123456789ab.jpg", "0123456789012345678901234567890123456789ab.jpg.json"),
    ],
)
def test_takeouts_ways_to_name_its_files_are_understood(picture: str, sidecar: str) -> None:
    assert sidecar_names([picture, sidecar, "other.jpg"]) == {picture: (sidecar,)}


@pytest.mark.parametrize(
    ("edited", "original", "sidecar"),
    [
        ("IMG_1-edited.jpg", "IMG_1.jpg", "IMG_1.jpg.json"),
        ("IMG_1-bearbeitet.jpg", "IMG_1.HEIC", "IMG_1.HEIC.supplemental-metadata.json"),
        ("IMG_1-edited(2).jpg", "IMG_1(2).jpg", "IMG_1.jpg(2).json"),
        ("IMG_1-modifie\u0301.jpg", "IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json"),
    ],
)
def test_a_copy_edited_in_google_photos_has_the_takeout_file_of_its_picture(edited: str, original: str, sidecar: str) -> None:
    assert sidecar_names([original, edited, sidecar, "other.jpg"]) == {original: (sidecar,), edited: (sidecar,)}


def test_an_edited_copy_has_its_own_file_where_there_is_one_and_none_of_two() -> None:
    own = sidecar_names(["a.jpg", "a-edited.jpg", "a.jpg.json", "a-edited.jpg.json"])
    assert own == {"a.jpg": ("a.jpg.json",), "a-edited.jpg": ("a-edited.jpg.json",)}
    assert "a-edited.jpg" not in sidecar_names(["a.jpg", "a.png", "a-edited.jpg", "a.jpg.json", "a.png.json"])
    assert "a-edited.jpg" not in sidecar_names(["a.jpg", "a-edited.jpg", "a.json", "a.xmp"])


def test_a_takeout_name_cut_short_is_about_one_picture_or_none() -> None:
    long, other = "a" * 47, "b" * 47
    beside = ["a" * 46 + ".json", "a" * 46 + "(1).json", "b" * 46 + ".json"]
    assert sidecar_names([f"{long}.jpg", f"{long}(1).jpg", f"{other}1.jpg", f"{other}2.jpg", *beside]) == {
        f"{long}.jpg": (beside[0],),
        f"{long}(1).jpg": (beside[1],),
    }
    name = "Urlaub in Knaufspesch in der Schneifel (38).JPG"
    assert sidecar_names([name, name[:46] + ".json"]) == {name: (name[:46] + ".json",)}


def test_of_two_json_files_the_one_with_the_full_name_wins(tmp_path: Path) -> None:
    files = [("a.jpg.json", tmp_path / "a.jpg.json"), ("a.json", tmp_path / "a.json")]
    files[0][1].write_text('{"mood": "calm"}')
    files[1][1].write_text('{"Mood": "wild", "weather": "rain"}')
    assert sidecar_facts(files).said == {"mood": "calm", "weather": "rain"}


@pytest.mark.parametrize(
    ("inside", "clock"),
    [
        ({"date_taken": "2018-12-31", "year": 2018, "month": 12, "hour": 23}, ("2018-12-31", 2018, 23)),  # New York
        ({"date_taken": "2019-01-01", "year": 2019, "month": 1, "hour": 18}, ("2019-01-01", 2019, 18)),  # Kiritimati
        ({"date_taken": "2018-12-31", "year": 2018, "month": 12}, ("2018-12-31", 2018, None)),
        ({"date_taken": "2018-12-30", "year": 2018, "month": 12, "hour": 4}, ("2019-01-01", 2019, 4)),  # set right in Google Photos
        ({}, ("2019-01-01", 2019, 4)),
    ],
)
def test_a_camera_that_says_takeouts_moment_in_local_time_is_believed(
    tmp_path: Path, inside: dict[str, Any], clock: tuple[str, int, int | None]
) -> None:
    row = {**TAKEOUT, "photoTakenTime": {"timestamp": "1546317000"}}  # 2019-01-01 04:30 UTC
    facts = with_sidecars(inside, said(tmp_path, json=json.dumps(row)))
    assert (facts["date_taken"], facts["year"], facts.get("hour")) == clock
    assert facts["people"] == ["Ada", "Grace"]


@pytest.mark.parametrize(("written", "when"), [("1954", {"year": 1954}), ("1954-08", {"year": 1954, "month": 8})])
def test_a_sidecar_that_knows_a_year_or_a_month_takes_the_day_of_the_scan_away(tmp_path: Path, written: str, when: dict[str, Any]) -> None:
    inside = {"date_taken": "2019-08-17", "year": 2019, "month": 8, "hour": 10}
    facts = with_sidecars(inside, said(tmp_path, xmp=XMP.replace("2011-05-06T07:08:09", written)))
    assert {name: facts[name] for name in ("date_taken", "year", "month", "hour") if name in facts} == when


@pytest.mark.parametrize("written", ["0", "-1"])
def test_a_sidecar_takes_a_rating_back(tmp_path: Path, written: str) -> None:
    sidecar = said(tmp_path, xmp=XMP.replace('Rating="4"', f'Rating="{written}"'))
    assert "rating" not in with_sidecars({"rating": 5}, sidecar)
    assert with_sidecars({"rating": 5}, said(tmp_path, xmp=XMP.replace('xmp:Rating="4"', "")))["rating"] == 5


def test_files_about_something_else_are_nobodys() -> None:
    assert sidecar_names(["a.jpg", "b.json", "a.jpg.md", "a.jpeg.json", "metadata.jsonl", "a.supplemental.json", ".json"]) == {}


def test_takeouts_layout_is_recognised(tmp_path: Path) -> None:
    assert said(tmp_path, json=json.dumps(TAKEOUT)) == SidecarFacts(
        said={
            "date_taken": "2019-05-01",
            "year": 2019,
            "month": 5,
            "hour": 9,
            "caption": "By the lake",
            "latitude": 47.5,
            "longitude": 8.25,
            "people": ["Ada", "Grace"],
            "favorited": "true",
        },
        in_utc=True,
    )


def test_a_takeout_file_without_a_place_says_no_place(tmp_path: Path) -> None:
    row = {**TAKEOUT, "geoData": {"latitude": 0.0, "longitude": 0.0}, "people": None, "description": "", "favorited": False}
    assert set(said(tmp_path, json=json.dumps(row)).said) == {"date_taken", "year", "month", "hour"}


def test_any_other_object_says_what_it_says(tmp_path: Path) -> None:
    row = {"Artist": "Ada", "tags": ["a", "b"], "size": {"w": 1}, "nothing": None, "n": 2.5}
    assert said(tmp_path, json=json.dumps(row)).said == {"Artist": "Ada", "tags": ["a", "b"], "size": {"w": 1}, "n": 2.5}


def test_a_packet_beside_the_picture_is_read(tmp_path: Path) -> None:
    assert said(tmp_path, xmp=XMP).written == {
        "caption": "From the packet",
        "keywords": ["dog", "beach"],
        "rating": 4,
        "date_taken": "2011-05-06",
        "year": 2011,
        "month": 5,
        "hour": 7,
        "latitude": 47.591667,
        "longitude": -7.51,
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_text_is_the_caption(tmp_path: Path, encoding: str) -> None:
    assert said(tmp_path, txt="  Zwei Hälften\r\nunter\x07 Bäumen 🎉 \n".encode(encoding)).written == {
        "caption": "Zwei Hälften\nunter Bäumen 🎉"
    }


def test_a_long_text_is_cut_at_2000_characters(tmp_path: Path) -> None:
    assert said(tmp_path, txt="é" * 5000).written == {"caption": "é" * 2000}


def test_json_wins_over_packet_over_text_over_picture_and_keywords_are_united(tmp_path: Path) -> None:
    inside = {
        "caption": "inside",
        "keywords": ["cat", "Dog"],
        "title": "t",
        "rating": 1,
        "date_taken": "2001-01-01",
        "year": 2001,
        "hour": 5,
    }
    text = with_sidecars(inside, said(tmp_path, txt="text"))
    assert text == {**inside, "caption": "text"}
    packet = with_sidecars(inside, said(tmp_path, txt="text", xmp=XMP))
    assert packet["caption"] == "From the packet"
    assert packet["keywords"] == ["dog", "beach", "cat"]
    assert (packet["rating"], packet["title"], packet["date_taken"], packet["hour"]) == (4, "t", "2011-05-06", 7)
    both = with_sidecars(inside, said(tmp_path, txt="text", xmp=XMP, json=json.dumps({"Caption": "json", "KEYWORDS": ["one"]})))
    assert both["Caption"] == "json"
    assert both["KEYWORDS"] == ["one"]
    assert "caption" not in both
    assert "keywords" not in both
    assert both["rating"] == 4


def test_the_hour_of_another_day_is_forgotten(tmp_path: Path) -> None:
    inside = {"date_taken": "2001-01-01", "year": 2001, "month": 1, "hour": 5}
    dated = XMP.replace("2011-05-06T07:08:09", "2011-05-06")
    assert "hour" not in with_sidecars(inside, said(tmp_path, xmp=dated))


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("json", "{", "it is not JSON text in UTF-8"),
        ("json", b"\xff{}", "it is not JSON text in UTF-8"),
        ("json", "[" * 100_000, "it is not JSON text in UTF-8"),
        ("json", '{"a":' * 50 + "1" + "}" * 50, "its objects are nested more than 32 deep"),
        ("json", "[1]", "it is JSON, but no object"),
        ("json", "9" * 5000, "it is not JSON text in UTF-8"),
        ("xmp", "<a>", "not well-formed XML"),
        ("xmp", "", "not well-formed XML"),
        ("xmp", '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "uses XML entities"),
        ("xmp", "<a>" * 200_000, "not well-formed XML"),
        ("xmp", " " * (2**20 + 1), "larger than 1 MiB"),
        ("txt", b"\x00\x01", "it is not text"),
        ("txt", b"\xff\xd8\xff\xe0", "it is not text in UTF-8"),
        ("txt", " " * (4 * 2**20 + 1), "larger than 4 MiB"),
    ],
)
def test_a_broken_sidecar_is_left_out_with_a_note(tmp_path: Path, kind: str, content: str | bytes, reason: str) -> None:
    assert said(tmp_path, **{kind: content}) == SidecarFacts(notes=(f"a.{kind} is left out: {reason}.",))


def test_what_is_no_number_is_nothing(tmp_path: Path) -> None:
    assert said(tmp_path, json='{"a": NaN, "b": [Infinity, 1], "c": 1e999, "d": 1}').said == {"b": [None, 1], "d": 1}


SIMPLE = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
JSON = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from([*TAKEOUT, "a", "b"]), JSON), st.booleans())
def test_takeout_files_with_anything_in_them_never_fail(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any], taken: bool) -> None:
    row = {**row, "photoTakenTime": {"timestamp": row.get("a")}} if taken else row
    json.dumps(said(tmp_path_factory.getbasetemp(), json=json.dumps(row)).said)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_in_any_sidecar_never_fail(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    said(tmp_path_factory.getbasetemp(), json=content, xmp=content, txt=content)


NAMES = st.text(st.sampled_from("ab.()1/json"), max_size=12).map(lambda name: name + ".json") | st.sampled_from(
    ["a.jpg", "a(1).jpg", ".jpg"]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(NAMES))
def test_every_sidecar_named_is_in_the_listing(names: list[str]) -> None:
    for picture, beside in sidecar_names(names).items():
        assert picture in names
        assert set(beside) <= set(names)
        assert len(set(beside)) == len(beside)
