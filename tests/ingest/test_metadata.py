"""How rows find their pictures, and what happens to lines that cannot be used."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mcp_server.errors import IngestError
from mcp_server.ingest.metadata import read_metadata
from tests.ingest.toys import write_rows

PICTURES = ["a/one.png", "a/two.png", "b/one.png", "b/three.png", "unique.png"]


@pytest.mark.parametrize("key", ["file", "path", "filename", "image"])
def test_any_of_the_four_keys_names_the_picture_and_is_no_field(tmp_path: Path, key: str) -> None:
    found = read_metadata(write_rows(tmp_path / "m.jsonl", [{key: "a/one.png", "color": "red"}]), tmp_path, PICTURES)
    assert found.rows == {"a/one.png": {"color": "red"}}


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("a/one.png", "a/one.png"),
        ("./a/one.png", "a/one.png"),
        ("a\\one.png", "a/one.png"),
        ("two.png", "a/two.png"),
        ("three.png", "b/three.png"),
        ("holiday/unique.png", "unique.png"),
        ("holiday/a/one.png", "a/one.png"),
    ],
)
def test_a_row_finds_the_one_picture_it_can_mean(tmp_path: Path, name: str, picture: str) -> None:
    found = read_metadata(write_rows(tmp_path / "m.jsonl", [{"file": name, "x": 1}]), tmp_path, PICTURES)
    assert list(found.rows) == [picture]


def test_an_absolute_path_finds_its_picture(tmp_path: Path) -> None:
    rows = [{"file": str(tmp_path / "b/one.png"), "x": 1}]
    assert list(read_metadata(write_rows(tmp_path / "m.jsonl", rows), tmp_path, PICTURES).rows) == ["b/one.png"]


def test_accents_composed_differently_are_the_same_name(tmp_path: Path) -> None:
    rows = [{"file": unicodedata.normalize("NFC", "fjörður.png")}]
    stored = unicodedata.normalize("NFD", "fjörður.png")
    assert list(read_metadata(write_rows(tmp_path / "m.jsonl", rows), tmp_path, [stored]).rows) == [stored]


def test_a_name_that_two_pictures_bear_matches_neither(tmp_path: Path) -> None:
    rows = [{"file": "one.png"}, {"file": "c/two.png"}, {"file": "nowhere.png"}, {"file": "unique.png"}]
    found = read_metadata(write_rows(tmp_path / "m.jsonl", rows), tmp_path, PICTURES)
    assert found.unmatched == 3
    assert list(found.rows) == ["unique.png"]


def test_bad_lines_are_reported_by_number_and_the_rest_is_read(tmp_path: Path) -> None:
    file = write_rows(
        tmp_path / "m.jsonl",
        [
            {"file": "a/one.png", "x": 1},
            "",
            "{not json",
            "[1, 2]",
            {"color": "red"},
            {"file": 7},
            {"file": "a/one.png", "x": 2},
            "[" * 100_000,
            '{"file": "a/two.png", "n": ' + "9" * 5000 + "}",
            {"file": "a/two.png", "group_id": [1], "x": 3},
        ],
    )
    with file.open("ab") as opened:
        opened.write(b'{"file": "b/three.png", "title": "\xff"}\n')
    found = read_metadata(file, tmp_path, PICTURES)
    assert [bad.number for bad in found.bad_lines] == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert found.bad_lines[2].reason == "names no picture; give it one of file, path, filename, image"
    assert found.rows == {"a/one.png": {"x": 1}, "a/two.png": {"x": 3}}
    assert found.groups == {}


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_bytes(b'\xef\xbb\xbf{"file": "unique.png", "x": 1}\r\n\r\n{"file": "a/two.png"}')
    found = read_metadata(tmp_path / "m.jsonl", tmp_path, PICTURES)
    assert list(found.rows) == ["unique.png", "a/two.png"]
    assert found.bad_lines == ()


def test_groups_are_text_or_whole_numbers(tmp_path: Path) -> None:
    rows = [{"file": name, "group_id": group} for name, group in zip(PICTURES, ["v 1 ", 7, None, "", "7"], strict=True)]
    found = read_metadata(write_rows(tmp_path / "m.jsonl", rows), tmp_path, PICTURES)
    assert found.groups == {"a/one.png": "v 1", "a/two.png": "7", "unique.png": "7"}


def test_rows_that_match_nothing_at_all_are_refused_before_the_long_part(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "m.jsonl", [{"file": "x.png"}, {"file": "y.png"}])
    with pytest.raises(
        IngestError, match=r"None of the 2 rows .* names a picture .* first names 'x.png', the first picture is 'a/one.png'"
    ):
        read_metadata(file, tmp_path, PICTURES)


def test_a_file_that_is_no_list_of_objects_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('[{"file": "unique.png"}]\n')
    with pytest.raises(IngestError, match=r"No line of .* can be used; line 1: not a JSON object. Give one JSON object a line"):
        read_metadata(tmp_path / "m.json", tmp_path, PICTURES)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="Cannot read the metadata file"):
        read_metadata(tmp_path / "none.jsonl", tmp_path, PICTURES)
