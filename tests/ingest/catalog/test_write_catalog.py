"""A catalog holds what the media say, whatever they say, in little memory and always in the same bytes."""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.config import demo_folder
from mcp_server.ingest.catalog.fields import Field, KindGuess, TagKind, field_key, is_reserved, values_of
from mcp_server.ingest.catalog.fitting import fitted
from mcp_server.ingest.catalog.stage import Remark
from mcp_server.ingest.catalog.write_catalog import MediaRow, write_catalog
from mcp_server.stores.catalog import Catalog

TAGS = """
SELECT g.media_id, s.name, y.description, t.id, coalesce(a.value, p.value, h.value, d.value, i.value, f.value, j.value)
FROM taggings g JOIN tags t ON t.id = g.tag_id JOIN tagsets s ON s.id = t.tagset_id JOIN tag_types y ON y.id = t.tagtype_id
LEFT JOIN alphanumerical_tags a ON a.id = t.id LEFT JOIN timestamp_tags p ON p.id = t.id LEFT JOIN time_tags h ON h.id = t.id
LEFT JOIN date_tags d ON d.id = t.id LEFT JOIN numerical_int_tags i ON i.id = t.id LEFT JOIN numerical_dec_tags f ON f.id = t.id
LEFT JOIN json_tags j ON j.id = t.id
"""


def query(file: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(sql).fetchall()


def medias_of(rows: Sequence[Mapping[str, Any]]) -> list[MediaRow]:
    return [MediaRow(number, f"{number}.png", row=number - 1, fields=fields) for number, fields in enumerate(rows, start=1)]


def tags_of(file: Path) -> set[tuple[int, str, Any]]:
    return {(media, name, value) for media, name, _, _, value in query(file, TAGS) if name != "CLIP Index ID"}


def test_media_groups_rows_and_gaps_are_written_as_they_are(tmp_path: Path) -> None:
    medias = [
        MediaRow(2, "a.png", thumbnail="a.webp", group=7, row=4),
        MediaRow(7, "video 1", source_type=5, fields={"year": 2020}),
        MediaRow(9, "b.png", group=7, row=0),
        MediaRow(10, "c\ud800.png", row=4),
        MediaRow(11, "d.png"),
    ]
    report = write_catalog(tmp_path / "c.db", medias)
    assert report.items == 3
    assert query(tmp_path / "c.db", "SELECT * FROM medias ORDER BY id") == [
        (2, "a.png", 1, "a.webp", 7),
        (7, "video 1", 5, None, None),
        (9, "b.png", 1, None, 7),
        (10, "c?.png", 1, None, None),
        (11, "d.png", 1, None, None),
    ]
    assert sorted(query(tmp_path / "c.db", TAGS)) == [
        (2, "CLIP Index ID", "numerical_int", 2, 4),
        (7, "year", "numerical_int", 3, 2020),
        (9, "CLIP Index ID", "numerical_int", 1, 0),
        (10, "CLIP Index ID", "numerical_int", 2, 4),
    ]


def test_tagsets_follow_the_first_appearance_of_fields_and_tags_the_order_of_values(tmp_path: Path) -> None:
    report = write_catalog(
        tmp_path / "c.db", medias_of([{"z": None, "b": "y", "only null": None}, {"a": [10, 9], "z": "v"}, {"b": ["x", "Ä"]}])
    )
    assert report.fields == (Field("z", "alphanumerical"), Field("b", "alphanumerical"), Field("a", "numerical_int"))
    assert query(tmp_path / "c.db", "SELECT id, name FROM tagsets ORDER BY id") == [(1, "CLIP Index ID"), (2, "z"), (3, "b"), (4, "a")]
    assert query(tmp_path / "c.db", "SELECT id, value FROM alphanumerical_tags ORDER BY id") == [(4, "v"), (5, "x"), (6, "y"), (7, "Ä")]
    assert query(tmp_path / "c.db", "SELECT id, value FROM numerical_int_tags ORDER BY id") == [(1, 0), (2, 1), (3, 2), (8, 9), (9, 10)]


def test_spellings_of_one_field_are_one_field_called_by_the_first(tmp_path: Path) -> None:
    report = write_catalog(tmp_path / "c.db", medias_of([{"Color": "red", "color": ["red", "blue"]}, {"COLOR ": "red"}]))
    assert report.fields == (Field("Color", "alphanumerical"),)
    assert tags_of(tmp_path / "c.db") == {(1, "Color", "red"), (1, "Color", "blue"), (2, "Color", "red")}


def test_numbers_in_a_field_of_text_keep_their_own_spelling(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c.db", medias_of([{"x": 1}, {"x": 1.0}, {"x": True}, {"x": 1e300}, {"x": -0.0}, {"x": "1"}, {"x": 2**70}]))
    assert tags_of(tmp_path / "c.db") == {
        (1, "x", "1"),
        (2, "x", "1.0"),
        (3, "x", "true"),
        (4, "x", "1e+300"),
        (5, "x", "0.0"),
        (6, "x", "1"),
        (7, "x", str(2**70)),
    }


def test_what_is_left_out_is_counted_with_an_example(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"Index ID": 1, " ": 2, "n": math.nan, "day": "2020-01-01", "year": "2020", "big": 1},
        {"n": [math.inf, 1], "day": "2020-02-30", "year": "unknown", "big": 2**64},
        {"n": 2, "day": ["2020-02-31", "2020-03-01"], "year": "unknown", "big": 3},
    ]
    report = write_catalog(tmp_path / "c.db", medias_of(rows), kinds={"YEAR": "numerical_int", "Month": "date", "Index ID": "date"})
    assert report.fields == (
        Field("n", "numerical_int"),
        Field("day", "date"),
        Field("year", "numerical_int"),
        Field("big", "alphanumerical"),
    )
    assert report.left_out == (" ", "Index ID")
    assert report.refused == (
        Remark("n", "not a finite number", 2, "nan"),
        Remark("day", "not a date", 2, "2020-02-30"),
        Remark("year", "not a whole number of 64 bits", 2, "unknown"),
    )
    assert report.notes == (Remark("big", "not a whole number of 64 bits, so that the field is text", 1, "18446744073709551616"),)
    assert report.unused_kinds == ("index id", "month")
    assert (1, "year", 2020) in tags_of(tmp_path / "c.db")


def test_a_field_none_of_whose_values_fits_the_kind_it_was_given_is_no_field(tmp_path: Path) -> None:
    report = write_catalog(tmp_path / "c.db", medias_of([{"a": "x", "b": 1}]), kinds={"a": "date"})
    assert report.fields == (Field("b", "numerical_int"),)
    assert report.refused == (Remark("a", "not a date", 1, "x"),)


def test_more_values_than_are_remembered_are_all_written(tmp_path: Path) -> None:
    rows = [{"n": number % 9000, "t": f"v{number}", "same": "x" * 200} for number in range(12_000)]
    write_catalog(tmp_path / "c.db", medias_of([*rows, *rows]))
    assert query(tmp_path / "c.db", "SELECT count(*) FROM tags WHERE tagset_id > 1") == [(9000 + 12_000 + 1,)]
    wanted = {(media, name, value) for media, row in enumerate([*rows, *rows], start=1) for name, value in row.items()}
    assert tags_of(tmp_path / "c.db") == wanted


def test_an_empty_catalog_is_a_catalog(tmp_path: Path) -> None:
    report = write_catalog(tmp_path / "c.db", [])
    assert (report.items, report.fields) == (0, ())
    assert query(tmp_path / "c.db", "SELECT name FROM tagsets") == [("CLIP Index ID",)]


@pytest.mark.parametrize("ids", [(1, 1), (2, 1), (0,)])
def test_ids_that_do_not_ascend_are_refused_and_nothing_stays(tmp_path: Path, ids: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="media ids must ascend from 1"):
        write_catalog(tmp_path / "c.db", [MediaRow(number, "x") for number in ids])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_the_media_leaves_no_file_and_what_lay_there_is_replaced(tmp_path: Path) -> None:
    def breaking() -> Iterator[MediaRow]:
        yield MediaRow(1, "x", fields={"a": 1})
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError, match="the power went"):
        write_catalog(tmp_path / "c.db", breaking())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "c.db").write_bytes(b"old")
    (tmp_path / "c.db.stage").write_bytes(b"left by a killed run")
    write_catalog(tmp_path / "c.db", [MediaRow(1, "x")])
    assert [file.name for file in tmp_path.iterdir()] == ["c.db"]
    assert query(tmp_path / "c.db", "PRAGMA integrity_check") == [("ok",)]


def test_the_finished_file_is_whole_analyzed_and_in_delete_mode(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c.db", medias_of([{"a": number % 7, "b": f"t{number}", "c": number / 7} for number in range(5000)]))
    assert query(tmp_path / "c.db", "PRAGMA integrity_check") == [("ok",)]
    assert query(tmp_path / "c.db", "PRAGMA foreign_key_check") == []
    assert query(tmp_path / "c.db", "PRAGMA journal_mode") == [("delete",)]
    assert query(tmp_path / "c.db", "PRAGMA freelist_count") == [(0,)]
    assert {name for (name,) in query(tmp_path / "c.db", "SELECT tbl FROM sqlite_stat1")} >= {"medias", "tags", "taggings"}


def test_the_same_media_give_the_same_bytes_in_another_process_too(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from mcp_server.ingest.catalog.write_catalog import MediaRow, write_catalog
rows = ({"n": i % 977, "t": f"{i} \u00e4", "l": [i / 3, i % 5], "d": f"2020-01-{i % 28 + 1:02}"} for i in range(20000))
write_catalog(Path(sys.argv[1]), (MediaRow(i + 1, f"{i}.png", row=i, fields=f) for i, f in enumerate(rows)))
"""
    digests: set[str] = set()
    for number in range(2):
        file = tmp_path / f"{'longer' * number}{number}.db"
        subprocess.run([sys.executable, "-c", code, str(file)], check=True, timeout=120)
        digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    file = tmp_path / "here.db"
    write_catalog(file, medias_of([{"other": "history"}] * 3000))
    rows = [{"n": i % 977, "t": f"{i} ä", "l": [i / 3, i % 5], "d": f"2020-01-{i % 28 + 1:02}"} for i in range(20_000)]
    write_catalog(file, (MediaRow(i + 1, f"{i}.png", row=i, fields=row) for i, row in enumerate(rows)))
    digests.add(hashlib.sha256(file.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_progress_counts_the_media_taken(tmp_path: Path) -> None:
    seen: list[int] = []
    write_catalog(tmp_path / "c.db", medias_of([{}] * 4500), progress=seen.append)
    assert seen == [2000, 4000, 4500]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no peak of this process alone")
def test_memory_does_not_grow_with_the_media(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from mcp_server.ingest.catalog.write_catalog import MediaRow, write_catalog
def medias():
    for i in range(1, 40_001):
        fields = {f"f{k}": f"value {i * 31 + k} of field {k}" for k in range(12)} | {f"n{k}": i * k % 1009 for k in range(12)}
        yield MediaRow(i, f"{i}.png", row=i - 1, fields=fields)
write_catalog(Path(sys.argv[1]), medias())
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))  # kB
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.db")], check=True, timeout=280, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) / 1024 < 300


def test_the_server_opens_what_was_written(tmp_path: Path) -> None:
    write_catalog(tmp_path / "c.db", [*medias_of([{"Color": "red"}, {"color": "blue"}]), MediaRow(9, "group", source_type=5)])
    with closing(Catalog.open(tmp_path / "c.db", 2)) as catalog:
        assert catalog.findings == ()
        assert catalog.indexed == 2


def test_the_demos_metadata_become_the_tags_that_ship(tmp_path: Path) -> None:
    with zipfile.ZipFile(demo_folder() / "metadata.zip") as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
    for row in rows:
        del row["file"]
        row.pop("group_id", None)
    write_catalog(tmp_path / "c.db", [MediaRow(number, "", fields=row) for number, row in enumerate(rows, start=1)])

    def counted(file: Path) -> Counter[Any]:
        return Counter((name, kind, value) for _, name, kind, _, value in query(file, TAGS) if name != "CLIP Index ID")

    assert counted(tmp_path / "c.db") == counted(demo_folder() / "collection.db")


# any media at all

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.sampled_from([0.0, -0.0, 1.0, 2.5, math.nan, math.inf])
    | st.floats()
    | st.sampled_from(
        ["red", "Red", " red", "1", "1.0", "true", "2020-01-02", "2020-02-31", "2020:01:02", "10:30", "2020-01-02T10:30Z", "\0", "\ud800"]
    )
    | st.text(max_size=4)
    | st.dictionaries(st.sampled_from("ab"), st.integers(0, 2), max_size=2)
)
NAMES = st.sampled_from(["Color", "color", "COLOR ", "size", "Size", "when", "x Index ID", "", "ß", "SS"])
FIELDS = st.dictionaries(NAMES, LEAVES | st.lists(LEAVES, max_size=3), max_size=4)
KINDS = st.dictionaries(
    st.sampled_from(["color", "SIZE", "When", "nowhere"]),
    st.sampled_from(("alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json")),
)


def model(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, TagKind]) -> tuple[list[Field], set[tuple[int, str, str, Any]], int]:
    """Return the fields, the (media, field, kind, value) of media 1 and up, and how many values are refused, by way of plain lists."""
    asked = {field_key(name): kind for name, kind in kinds.items()}
    names: dict[str, str] = {}
    values: dict[str, list[tuple[int, Any]]] = {}
    guesses: dict[str, KindGuess] = {}
    refused = 0
    for media, row in enumerate(rows, start=1):
        for name, raw in row.items():
            if not is_reserved(name):
                key = field_key(name)
                names.setdefault(key, name.strip())
                for shape, value in values_of(raw):
                    guesses.setdefault(key, KindGuess()).add(shape, value)
                    refused += shape == "endless"
                    if shape != "endless":
                        values.setdefault(key, []).append((media, value))
    fields: list[Field] = []
    tags: set[tuple[int, str, str, Any]] = set()
    for key, name in names.items():
        guessed = guesses[key].kind if key in guesses else None
        if guessed is not None:
            kind = asked.get(key, guessed)
            stored = [(media, value if guessed == kind == "json" else fitted(value, kind)) for media, value in values[key]]
            found = {(media, name, kind, value) for media, value in stored if value is not None}
            tags |= found
            refused += sum(value is None for _, value in stored)
            fields += [Field(name, kind)] if found else []
    return fields, tags, refused


@given(st.lists(FIELDS, max_size=6), KINDS)
def test_what_is_read_back_is_what_a_plain_model_says(rows: list[dict[str, Any]], kinds: dict[str, TagKind]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "c.db"
        report = write_catalog(file, medias_of(rows), kinds=kinds)
        fields, tags, refused = model(rows, kinds)
        assert list(report.fields) == fields
        found = [row for row in query(file, TAGS) if row[1] != "CLIP Index ID"]
        assert {(media, name, kind, value) for media, name, kind, _, value in found} == tags
        assert {type(value) for *_, value in found} <= {str, int, float}
        assert len(found) == len(tags)
        order = query(file, "SELECT id FROM tags ORDER BY id")
        assert [tag for (tag,) in order] == list(range(1, len(order) + 1))
        assert sum(one.count for one in report.refused) == refused
        assert query(file, "PRAGMA foreign_key_check") == []
