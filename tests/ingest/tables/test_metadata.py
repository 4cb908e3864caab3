"""How rows find their pictures, and what happens to rows that cannot be used."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mcp_server.errors import IngestError
from mcp_server.ingest.tables.metadata import FILE_KEYS, MatchedRow, MetadataReport, matched_rows
from tests.ingest.toys import write_rows

PICTURES = ["a/one.png", "a/two.png", "b/one.png", "b/three.png", "unique.png"]


def match(file: Path, folder: Path, pictures: list[str] = PICTURES, column: str | None = None) -> tuple[list[MatchedRow], MetadataReport]:
    report = MetadataReport()
    return list(matched_rows(file, folder, pictures, report, column)), report


def match_rows(folder: Path, rows: list[Any], column: str | None = None) -> tuple[list[MatchedRow], MetadataReport]:
    return match(write_rows(folder / "m.jsonl", rows), folder, column=column)


@pytest.mark.parametrize("key", [*FILE_KEYS, "File", "IMAGE_PATH", " Filename "])
def test_any_of_the_keys_in_any_letter_case_names_the_picture_and_is_no_field(tmp_path: Path, key: str) -> None:
    found, report = match_rows(tmp_path, [{key: "a/one.png", "color": "red"}])
    assert found == [MatchedRow("a/one.png", 1, None, {"color": "red"})]
    assert (report.matched, report.unmatched, report.bad.count) == (1, 0, 0)


def test_a_row_without_any_value_is_about_nothing_and_not_wrong(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("file,color\n,\na/one.png,red\n,\n,blue\n")
    found, report = match(tmp_path / "m.csv", tmp_path)
    assert found == [MatchedRow("a/one.png", 3, None, {"color": "red"})]
    assert [bad.number for bad in report.bad.first] == [5]


def test_the_first_key_with_a_value_counts_and_the_others_stay_fields(tmp_path: Path) -> None:
    found, _ = match_rows(tmp_path, [{"source": "BBC", "file": None, "path": "unique.png"}])
    assert found[0].source == "unique.png"
    assert found[0].fields == {"source": "BBC", "file": None}


def test_a_given_column_names_the_picture_and_no_other_does(tmp_path: Path) -> None:
    found, report = match_rows(tmp_path, [{"file": "unique.png", "Photo": "a/two.png"}, {"file": "unique.png"}], column="photo")
    assert [(row.source, row.fields) for row in found] == [("a/two.png", {"file": "unique.png"})]
    assert report.bad.first[0].reason == "has no photo"


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
        ("C:\\photos\\a\\one.png", "a/one.png"),
    ],
)
def test_a_row_finds_the_one_picture_it_can_mean(tmp_path: Path, name: str, picture: str) -> None:
    found, _ = match_rows(tmp_path, [{"file": name, "x": 1}])
    assert [row.source for row in found] == [picture]


def test_an_absolute_path_finds_its_picture(tmp_path: Path) -> None:
    found, _ = match_rows(tmp_path, [{"file": str(tmp_path / "b/one.png"), "x": 1}])
    assert [row.source for row in found] == ["b/one.png"]


def test_a_whole_number_is_a_name_too(tmp_path: Path) -> None:
    found, _ = match(write_rows(tmp_path / "m.jsonl", [{"file": 12}]), tmp_path, ["a/12"])
    assert [row.source for row in found] == ["a/12"]


def test_accents_composed_differently_are_the_same_name(tmp_path: Path) -> None:
    stored = unicodedata.normalize("NFD", "fjörður.png")
    rows = write_rows(tmp_path / "m.jsonl", [{"file": unicodedata.normalize("NFC", "fjörður.png")}])
    assert [row.source for row in match(rows, tmp_path, [stored])[0]] == [stored]


def test_a_name_that_two_pictures_bear_matches_neither(tmp_path: Path) -> None:
    found, report = match_rows(tmp_path, [{"file": "one.png"}, {"file": "c/two.png"}, {"file": "nowhere.png"}, {"file": "unique.png"}])
    assert report.unmatched == 3
    assert [row.source for row in found] == ["unique.png"]


def test_bad_lines_are_reported_by_number_and_the_rest_is_read(tmp_path: Path) -> None:
    found, report = match_rows(
        tmp_path,
        [
            {"file": "a/one.png", "x": 1},
            "{not json",
            {"color": "red"},
            {"file": True},
            {"file": " "},
            {"file": "a/one.png", "x": 2},
            {"file": "a/two.png", "group_id": [1], "x": 3},
        ],
    )
    assert [line.number for line in report.bad.first] == [2, 3, 4, 5, 6, 7]
    assert report.bad.first[1].reason == f"names no picture; give it one of {', '.join(FILE_KEYS)}"
    assert report.bad.first[4].reason == 'a second row for "a/one.png"; the first one counts'
    assert [(row.source, row.line, row.group, row.fields) for row in found] == [
        ("a/one.png", 1, None, {"x": 1}),
        ("a/two.png", 7, None, {"x": 3}),
    ]


def test_groups_are_text_or_whole_numbers_and_no_field(tmp_path: Path) -> None:
    groups = ["v 1 ", 7, None, "", 7.0]
    found, report = match_rows(tmp_path, [{"file": name, "Group_ID": group} for name, group in zip(PICTURES, groups, strict=True)])
    assert [row.group for row in found] == ["v 1", "7", None, None, "7"]
    assert not any(row.fields for row in found)
    assert report.bad.count == 0


def test_the_same_rows_in_three_formats_are_the_same_metadata(tmp_path: Path) -> None:
    rows = [
        {
            "file": name,
            "year": 2000 + number,
            "title": f"title {number}",
            "sharp": number % 2 == 0,
            "size": number + 0.5,
            "tags": ["x", "y"],
        }
        for number, name in enumerate(PICTURES)
    ]
    lines = write_rows(tmp_path / "m.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    with (tmp_path / "m.csv").open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "tags": '["x", "y"]'} for row in rows)
    wanted = [(row.source, row.fields) for row in match(lines, tmp_path)[0]]
    for name in ("m.parquet", "m.csv"):
        assert [(row.source, row.fields) for row in match(tmp_path / name, tmp_path)[0]] == wanted


def test_a_picture_kept_as_bytes_and_path_is_found_by_the_path(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([{"image": {"bytes": b"\xff", "path": "unique.png"}, "label": 3}]), tmp_path / "m.parquet")
    assert match(tmp_path / "m.parquet", tmp_path)[0] == [MatchedRow("unique.png", 1, None, {"label": 3})]


def test_rows_that_match_nothing_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        IngestError,
        match=r"None of the 2 rows .* names a picture .* first names 'x.png', the first picture is 'a/one.png'. Give each row a 'file'",
    ):
        match_rows(tmp_path, [{"file": "x.png"}, {"file": "y.png"}])


def test_a_file_without_any_usable_row_is_refused_by_its_first_line(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"No row of .* can be used; line 1: not a JSON object"):
        match_rows(tmp_path, ["[1]", {"color": "red"}])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="Cannot read the metadata file"):
        match(tmp_path / "none.jsonl", tmp_path)
