"""What rows come out of metadata files of each kind, and what is said of files that cannot be read."""

from __future__ import annotations

import csv
import json
import math
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.errors import IngestError
from mcp_server.ingest.tables.read import read_table
from mcp_server.ingest.tables.rows import BAD_LINES_KEPT, BadLines


def write(file: Path, text: str | bytes) -> Path:
    file.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return file


def read(file: Path) -> list[tuple[int, dict[str, Any]]]:
    bad = BadLines()
    rows = list(read_table(file, bad))
    assert bad.count == 0, bad.first
    return rows


def read_bad(file: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[tuple[int, str]]]:
    bad = BadLines()
    rows = list(read_table(file, bad))
    return rows, [(line.number, line.reason) for line in bad.first]


# JSON


@pytest.mark.parametrize("name", ["m.jsonl", "m.ndjson", "m.json", "M.JSON"])
def test_json_lines_keep_their_numbers_over_blank_lines_marks_and_windows_ends(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": "\xc3\xa9", "b": [1, {"c": null}]}')
    assert read(file) == [(1, {"a": 1}), (3, {"a": "é", "b": [1, {"c": None}]})]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json"])
def test_bad_json_lines_are_noted_and_the_rest_is_read(tmp_path: Path, name: str) -> None:
    lines = [b'{"a": 1}', b"{not json", b"[1, 2]", b'{"a": "\xff"}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}", b'{"a": 2}']
    rows, bad = read_bad(write(tmp_path / name, b"\n".join(lines)))
    assert rows == [(1, {"a": 1}), (7, {"a": 2})]
    assert [number for number, _ in bad] == [2, 3, 4, 5, 6]
    assert [reason for _, reason in bad][1:3] == ["not a JSON object", "not UTF-8 text"]


def test_a_list_of_objects_is_read_element_by_element(tmp_path: Path) -> None:
    rows: list[Any] = [{"a": number, "text": "x\n[{]}," * number} for number in range(3000)]
    rows[7] = "no object"
    found, bad = read_bad(write(tmp_path / "m.json", json.dumps(rows, indent=1)))
    assert [row for _, row in found] == [row for row in rows if row != "no object"]
    assert found[-1][0] == 3000
    assert bad == [(8, "not a JSON object")]


@pytest.mark.parametrize("indent", [None, 2])
def test_the_one_list_of_objects_in_an_object_is_what_is_read(tmp_path: Path, indent: int | None) -> None:
    whole = {"info": {"year": 2020}, "tags": ["x", "y"], "none": [], "images": [{"file": "a"}, {"file": "b", "n": 12}], "last": 12.5}
    assert read(write(tmp_path / "m.json", json.dumps(whole, indent=indent))) == [(1, {"file": "a"}), (2, {"file": "b", "n": 12})]


def test_an_object_without_a_list_of_objects_is_one_row_even_over_several_lines(tmp_path: Path) -> None:
    assert read(write(tmp_path / "m.json", json.dumps({"file": "a", "n": [1]}, indent=2))) == [(1, {"file": "a", "n": [1]})]


def test_lines_whose_first_object_holds_a_list_of_objects_stay_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "m.json", '{"file": "a", "faces": [{"x": 1}]}\n{"file": "b"}\n')
    assert [row["file"] for _, row in read(file)] == ["a", "b"]


def test_an_object_with_several_lists_is_refused_by_their_names(tmp_path: Path) -> None:
    file = write(tmp_path / "m.json", json.dumps({"images": [{"a": 1}], "annotations": [{"b": 1}]}))
    with pytest.raises(IngestError, match=r"several lists of objects: images, annotations. Give a file with one of them"):
        read(file)


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a": 2', '[{"a": 1} {"a": 2}]', '[{"a": 1}, nope]', '[{"a": 1}, {"a": "\\x"}]', '[{"a": 1},]']
)
def test_a_broken_list_is_refused_after_its_good_rows(tmp_path: Path, text: str) -> None:
    rows: list[object] = []
    with pytest.raises(IngestError, match=r"is not JSON: .* near .*mend it and start again"):
        rows.extend(read_table(write(tmp_path / "m.json", text), BadLines()))
    assert rows == [(1, {"a": 1})]


def test_values_of_a_list_may_end_anywhere_in_a_piece_of_the_file(tmp_path: Path) -> None:
    for size in range(65_500, 65_560):
        rows = [{"a": "x" * size}, {"é": 1234567}, {"b": -1.5e10}]
        assert [row for _, row in read(write(tmp_path / "m.json", json.dumps(rows, ensure_ascii=False)))] == rows


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), min_size=1, max_size=4)


@given(OBJECTS, st.sampled_from([None, 0, 3]), st.booleans(), st.booleans())
def test_whatever_objects_a_json_file_lists_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], indent: int | None, ascii_only: bool, wrapped: bool
) -> None:
    file = tmp_path_factory.mktemp("json") / "m.json"
    text = json.dumps({"n": 1, "rows": rows} if wrapped else rows, indent=indent, ensure_ascii=ascii_only)
    assert [row for _, row in read(write(file, text))] == rows


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.csv"])
def test_reading_a_large_file_takes_no_memory_to_speak_of(tmp_path: Path, name: str) -> None:
    rows = [{"file": f"{number}.png", "n": number, "text": "x" * 500} for number in range(8_000)]
    lines = [json.dumps(row) for row in rows]
    texts = {
        "m.jsonl": "\n".join(lines),
        "m.json": "[" + ",\n".join(lines) + "]",
        "m.csv": "\n".join(["file,n,text", *(",".join(map(str, row.values())) for row in rows)]),
    }
    file = write(tmp_path / name, texts[name])
    del lines, texts
    tracemalloc.start()
    try:
        found = sum(row["n"] for _, row in read_table(file, BadLines()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == sum(row["n"] for row in rows)
    assert peak < 1_000_000 < file.stat().st_size / 4


@pytest.mark.parametrize("text", ["", " \n ", "[]", "{}\n"])
def test_an_empty_json_file_has_no_rows_of_note(tmp_path: Path, text: str) -> None:
    assert [row for _, row in read(write(tmp_path / "m.json", text)) if row] == []


# CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_though_the_others_stand_in_cells(tmp_path: Path, delimiter: str) -> None:
    others = "".join(mark for mark in ",;\t|" if mark != delimiter)
    lines = [["file", "title", "n"], ["a.png", f"x{others[0]} y", "1"], ["b.png", f"{others}", "2"]]
    text = "\n".join(delimiter.join(f'"{cell}"' if set(cell) & set(others) else cell for cell in line) for line in lines)
    assert read(write(tmp_path / "m.csv", text)) == [
        (2, {"file": "a.png", "title": f"x{others[0]} y", "n": 1}),
        (3, {"file": "b.png", "title": others.strip(), "n": 2}),
    ]


def test_a_tsv_file_is_cut_at_tabs(tmp_path: Path) -> None:
    assert read(write(tmp_path / "m.tsv", "file\ta,b\nx,y,z\t1,5\n")) == [(2, {"file": "x,y,z", "a,b": "1,5"})]


def test_quoted_cells_may_hold_line_ends_and_the_number_is_that_of_the_first_line(tmp_path: Path) -> None:
    file = write(tmp_path / "m.csv", b'\xef\xbb\xbffile,title\r\na.png,"one\r\ntwo ""2"""\r\n\r\nb.png,three\r\n')
    assert read(file) == [(2, {"file": "a.png", "title": 'one\r\ntwo "2"'}), (5, {"file": "b.png", "title": "three"})]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "-2", " 3 ", ""], [1, -2, 3, None]),
        (["1", "2.5", "-3e2", ".5"], [1, 2.5, -300.0, 0.5]),
        (["true", "False", ""], [True, False, None]),
        (["true", "1"], ["true", "1"]),
        (["1", "2", "x"], ["1", "2", "x"]),
        (["007", "8"], ["007", "8"]),
        (["+49301234", "5"], ["+49301234", "5"]),
        (["9223372036854775807", "1"], [2**63 - 1, 1]),
        (["9223372036854775808", "1"], ["9223372036854775808", "1"]),
        (["9223372036854775808", "1.5"], ["9223372036854775808", "1.5"]),
        (["1", "NaN", "-inf", "2.5"], [1, None, None, 2.5]),
        (["nan", "x"], ["nan", "x"]),
        (["1e999", "1"], ["1e999", "1"]),
        (['["a", "b"]', "c"], [["a", "b"], "c"]),
        (["[1, 2.5]", "3"], [[1, 2.5], 3]),
        (['[{"a": 1}]', "[1"], ['[{"a": 1}]', "[1"]),
        (["2021-03-01", "-"], ["2021-03-01", "-"]),
        (["1_000", "2"], ["1_000", "2"]),
        (["٣", "2"], ["٣", "2"]),
    ],
)
def test_a_column_holds_numbers_or_truth_only_if_all_its_cells_do(tmp_path: Path, cells: list[str], values: list[Any]) -> None:
    file = tmp_path / "m.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([["file", "x"], *(["f", cell] for cell in cells)])
    found = [row["x"] for _, row in read(file)]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]


def test_rows_with_too_many_cells_are_noted_and_missing_ones_are_null(tmp_path: Path) -> None:
    rows, bad = read_bad(write(tmp_path / "m.csv", "file,a,,b\nx,1,,2\ny,1\nz,1,,2,3\nw,1,ignored,2,,\n"))
    assert rows == [(2, {"file": "x", "a": 1, "b": 2}), (3, {"file": "y", "a": 1, "b": None}), (5, {"file": "w", "a": 1, "b": 2})]
    assert bad == [(4, "has 5 cells; the first line names 4")]


def test_cells_too_long_for_a_wrong_delimiter_do_no_harm(tmp_path: Path) -> None:
    long = "x" * 100_000
    file = write(tmp_path / "m.csv", f"file;a;b\nf;{long};{long}\n")
    assert read(file) == [(2, {"file": "f", "a": long, "b": long})]


def test_one_column_alone_needs_no_delimiter(tmp_path: Path) -> None:
    assert read(write(tmp_path / "m.csv", "file\na.png\n")) == [(2, {"file": "a.png"})]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,title\na,\xe9\n".encode("latin-1"), r"is not UTF-8 text. Save it as UTF-8 \(in Excel: 'CSV UTF-8'\)"),
        ("file,title\na,b\n".encode("utf-16"), r"is not UTF-8 text"),
        (b"file,a,a\nx,1,2\n", r"has two columns called 'a'"),
        (b"", r"has no names of columns"),
        (b'file,a\nx,"' + b"y" * 200_000, r"cannot be read as CSV: .*Is a quote left open"),
    ],
)
def test_a_csv_file_that_cannot_be_read_is_refused_with_a_way_on(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(IngestError, match=says):
        read(write(tmp_path / "m.csv", content))


CELLS = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=6).filter(
    lambda text: not text.strip().startswith("[")
)


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=5))
def test_whatever_text_a_csv_file_holds_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    file = tmp_path_factory.mktemp("csv") / "m.csv"
    with file.open("w", encoding="utf-8", newline="") as opened:
        # the word keeps both columns text
        csv.writer(opened, lineterminator="\n").writerows([["a", "b"], ["word", "word"], *rows])
    wanted = [{"a": a.strip() or None, "b": b.strip() or None} for a, b in rows]
    assert [row for _, row in read(file)][1:] == wanted


# Parquet


def parquet(file: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), file, **options)
    return file


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1, None], pa.int32()), [1, None]),
        (pa.array([0.1, None, math.inf], pa.float32()), [0.1, None, math.inf]),
        (pa.array([0.1, None], pa.float64()), [0.1, None]),
        (pa.array([True, None]), [True, None]),
        (pa.array(["a", None]), ["a", None]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([["a", "b"], [], None]), [["a", "b"], [], None]),
        (pa.array([{"x": 1, "y": date(2020, 1, 2)}, None]), [{"x": 1, "y": "2020-01-02"}, None]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), [{"k": 1}]),
        (pa.array([datetime(2020, 1, 2, 3, 4, 5), None], pa.timestamp("ns")), ["2020-01-02T03:04:05", None]),
        (pa.array([1_577_934_245_123_456_789], pa.timestamp("ns")), ["2020-01-02T03:04:05.123456"]),
        (pa.array([datetime(2020, 1, 2, tzinfo=UTC)], pa.timestamp("ms", "UTC")), ["2020-01-02T00:00:00+00:00"]),
        (pa.array([11_045_123_456_789, None], pa.time64("ns")), ["03:04:05.123456", None]),
        (pa.array([90_000_000_001, None], pa.duration("ns")), [90.0, None]),
        (pa.array([[1_577_934_245_000_000_001], None], pa.list_(pa.timestamp("ns"))), [["2020-01-02T03:04:05"], None]),
        (pa.array([[1, None], None], pa.list_(pa.time64("ns"), 2)), [["00:00:00", None], None]),
        (pa.array([{"x": [90_000_000_001]}], pa.struct([("x", pa.large_list(pa.duration("ns")))])), [{"x": [90.0]}]),
        (pa.array([[0.1, None], None, [], [2.5]], pa.list_(pa.float32())), [[0.1, None], None, [], [2.5]]),
        (pa.array([date(2020, 1, 2)]), ["2020-01-02"]),
        (pa.array([time(3, 4, 5)]), ["03:04:05"]),
        (pa.array([timedelta(seconds=90)]), [90.0]),
        (pa.array([Decimal("12.50"), None], pa.decimal128(8, 2)), [12.5, None]),
        (pa.array([Decimal("12.00")], pa.decimal128(8, 2)), [12]),
        (pa.array([[b"ok", b"\xff"]]), [["ok", None]]),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value.type),
)
def test_parquet_values_come_out_as_json_would_hold_them(tmp_path: Path, column: Any, values: Sequence[Any]) -> None:
    found = [row["x"] for _, row in read(parquet(tmp_path / "m.parquet", {"x": column}))]
    assert found == list(values)
    assert [type(value) for value in found] == [type(value) for value in values]
    json.dumps(found)


def test_parquet_rows_are_numbered_over_row_groups_and_binary_columns_are_left_out(tmp_path: Path) -> None:
    pictures = [{"bytes": b"\xff", "path": f"{number}.png"} for number in range(3000)]
    columns = {"image": pa.array(pictures), "raw": pa.array([b"\xff"] * 3000), "n": pa.array(range(3000))}
    rows = read(parquet(tmp_path / "m.parquet", columns, row_group_size=700))
    assert rows == [(number + 1, {"image": {"path": f"{number}.png"}, "n": number}) for number in range(3000)]


def test_a_moment_that_python_cannot_hold_is_null_and_noted(tmp_path: Path) -> None:
    far = pa.array([0, 10**18, 86_400_000_000], pa.timestamp("us"))
    rows, bad = read_bad(parquet(tmp_path / "m.parquet", {"x": far}))
    assert [row["x"] for _, row in rows] == ["1970-01-01T00:00:00", None, "1970-01-02T00:00:00"]
    assert bad == [(2, "its x is a moment that cannot be written: outside the years 1 to 9999")]


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="cannot be read as Parquet"):
        read(write(tmp_path / "m.parquet", b"PAR1 no"))


# any kind


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.csv", "m.parquet"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(IngestError, match=r"Cannot read the metadata file .*: No such file"):
        read(tmp_path / name)


def test_a_file_of_an_unknown_kind_is_refused_by_naming_the_known(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"ends in none of .jsonl, .ndjson, .json, .csv, .tsv, .parquet"):
        read(write(tmp_path / "m.xlsx", ""))


def test_of_many_bad_lines_the_first_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    bad = BadLines()
    assert list(read_table(write(tmp_path / "m.jsonl", "x\n" * (BAD_LINES_KEPT + 5)), bad)) == []
    assert bad.count == BAD_LINES_KEPT + 5
    assert [bad.first[0].number, bad.first[-1].number] == [1, BAD_LINES_KEPT]
