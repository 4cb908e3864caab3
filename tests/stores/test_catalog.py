"""Media ids and rows, groups, titles and tags, in both layouts and with everything that can be odd."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.errors import CatalogError
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from tests import m3

VIDEO = [
    m3.Media(1, None, None, {"title": ["The film"], "year": [2020]}),
    m3.Media(10, 2, 1, {"caption": ["A dog"]}),
    m3.Media(11, 0, 1, {"caption": []}),
    m3.Media(12, 3, None, {}, "https://host/a/b/photo%20one.jpg?size=2"),
    m3.Media(13, None, 1),
]
TYPES = {"year": "numerical_int", "weight": "numerical_dec", "extra": "json"}


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_rows_media_and_groups_are_read_in_both_layouts(tmp_path: Path, layout: m3.Layout) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO, TYPES, layout=layout), 5)) as catalog:
        assert catalog.media_of_row.tolist() == [11, -1, 10, 12, -1]
        assert catalog.group_of_row.tolist() == [1, -1, 1, -1, -1]
        assert catalog.mapped.tolist() == [True, False, True, True, False]
        assert catalog.indexed == 3
        assert not catalog.mapped.flags.writeable
        assert not catalog.media_of_row.flags.writeable
        assert ("medias.source" in catalog.schema) == (layout == "engine")
        assert ("categorical_tags(tag_id)" in catalog.schema) == (layout == "published")
        assert len(catalog.findings) == 1
        assert "2 of 5 rows" in catalog.findings[0]


def test_unknown_and_unindexed_ids_are_counted_and_never_fatal(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO), 5)) as catalog:
        found = catalog.rows_of([12, 999, 10, 1, 12, 999, 10**30, -5, -(10**30)])
        assert found.rows.tolist() == [3, 2]
        assert found.rows.dtype == np.int64
        assert found.unknown == 5
        assert catalog.unknown([12, 999, 10, 1, 12, 999, 10**30, -5]) == [999, 1, 10**30, -5]
        assert catalog.rows_of([]).rows.tolist() == []
        assert catalog.rows_of(np.array([11, 10])).rows.tolist() == [0, 2]
        many = catalog.rows_of(range(100_000))
        assert sorted(many.rows.tolist()) == [0, 2, 3]
        assert many.unknown == 100_000 - 3


def test_excluding_a_group_finds_its_indexed_members_only(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO), 5)) as catalog:
        found = catalog.rows_of_groups([1, 1, 12, 999, 2**80])
        assert found.rows.tolist() == [0, 2]
        assert found.unknown == 3


def test_an_item_excluded_by_id_does_not_exclude_its_group(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO), 5)) as catalog:
        assert catalog.rows_of([10]).rows.tolist() == [2]
        assert catalog.rows_of_groups([10]).rows.tolist() == []


def test_two_claims_on_a_row_and_two_rows_of_a_medium_are_settled_and_reported(tmp_path: Path) -> None:
    medias = [m3.Media(7, 3), m3.Media(5, 3), m3.Media(6, 1), m3.Media(8, None), m3.Media(9, 0, 404)]
    claims = [(6, 2), (8, 99), (8, -1), (777, 4)]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias, claims=claims), 5)) as catalog:
        assert catalog.media_of_row.tolist() == [9, 6, -1, 5, -1]
        told = " ".join(catalog.findings)
        for part in (
            "1 CLIP Index IDs belong to media that do not exist",
            "1 media claim more than one row",
            "1 media claim a row that a medium with a lower id has",
            "2 CLIP Index IDs lie outside the 5 rows",
            "2 of 5 rows",
            "1 values of group_id point at media that do not exist",
        ):
            assert part in told
        assert catalog.rows_of([7, 8]).unknown == 2
        assert catalog.rows_of_groups([404]).rows.tolist() == [0]


def test_media_with_a_negative_id_are_reported_and_give_way(tmp_path: Path) -> None:
    medias = [m3.Media(-5, 0), m3.Media(-1, 1), m3.Media(7, 1), m3.Media(8, 2, -5)]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 3)) as catalog:
        assert catalog.media_of_row.tolist() == [-1, 7, 8]
        assert catalog.indexed == 2
        assert catalog.findings[1:] == (
            "2 media have an id below 0; they cannot be found.",
            "1 of 3 rows of the embeddings belong to no medium, as those of removed pictures; they are never returned.",
        )


@pytest.mark.parametrize("type_name", ["INTEGER", "TEXT", ""])
def test_a_group_that_is_no_whole_number_is_none_and_is_reported(tmp_path: Path, type_name: str) -> None:
    stored = ["", "abc", "5.5", "-3", -3, 2.5, 2**63, "12x", None, 1, "1", " 1\r", 1.0, "0"]
    path = m3.build(tmp_path / "c.db", [m3.Media(one + 1, one) for one in range(len(stored))])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE medias DROP COLUMN group_id")
        connection.execute(f"ALTER TABLE medias ADD COLUMN group_id {type_name}")
        for one, group in enumerate(stored):
            connection.execute("UPDATE medias SET group_id = ? WHERE id = ?", (str(group) if group == 2**63 else group, one + 1))
    with closing(Catalog.open(path, len(stored))) as catalog:
        assert catalog.group_of_row.tolist() == [-1] * 9 + [1] * 4 + [0]
        assert any(one.startswith("8 values of group_id are not whole numbers from 0") for one in catalog.findings)


@pytest.mark.parametrize("name", ["clip index id", "CLIP INDEX ID", " Clip Index Id ", "Clip_Index_Id", "CLIP  Index_ID"])
def test_the_index_tagset_is_found_in_any_spelling(tmp_path: Path, name: str) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO, index_name=name), 5)) as catalog:
        assert catalog.indexed == 3
        assert [field.name for field in catalog.fields] == ["title", "year", "caption"]


def test_index_ids_stored_as_text_count_and_others_are_reported(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, claims=[(1, "4"), (13, "first")])
    with closing(Catalog.open(path, 5)) as catalog:
        assert catalog.media_of_row[4] == 1
        assert any("not whole numbers" in one for one in catalog.findings)


def test_without_an_index_tagset_the_error_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="no tagset called CLIP Index ID"):
        Catalog.open(m3.build(tmp_path / "c.db", VIDEO, index_name=""), 5)


@pytest.mark.parametrize("table", ["medias", "tagsets", "taggings"])
def test_a_missing_table_is_named(tmp_path: Path, table: str) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(CatalogError, match=f"no table {table}"):
        Catalog.open(path, 5)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE tagsets RENAME COLUMN name TO label")
    with pytest.raises(CatalogError, match="tagsets has no column name"):
        Catalog.open(path, 5)


def test_missing_optional_tables_and_columns_are_done_without(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("source_types", "tag_types", "tags", "json_tags", "date_tags", "time_tags"):
            connection.execute(f"DROP TABLE {table}")
        for column in ("source", "thumbnail_uri"):
            connection.execute(f"ALTER TABLE medias DROP COLUMN {column}")
    with closing(Catalog.open(path, 5)) as catalog:
        assert catalog.indexed == 3
        assert {(field.name, field.kind) for field in catalog.fields} == {("title", "text"), ("caption", "text"), ("year", "integer")}
        items = catalog.items_at([2, 3], "full")
        assert [(item.title, item.uri) for item in items] == [("A dog", ""), ("item 12", "")]
        assert any("neither a source nor a uri" in one for one in catalog.findings)


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_an_empty_second_table_of_texts_takes_nothing_away(tmp_path: Path, layout: m3.Layout) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES, layout=layout)
    with closing(sqlite3.connect(path)) as connection, connection:
        other = "categorical_tags" if layout == "engine" else "alphanumerical_tags"
        connection.execute(f"CREATE TABLE {other} (id INTEGER PRIMARY KEY, value TEXT, tagset_id INTEGER)")
    with closing(Catalog.open(path, 5)) as catalog:
        assert FilterIndex(catalog).evaluate(parse_filter({"caption": "a dog"})).mask.tolist() == [False, False, True, False, False]
        assert [item.title for item in catalog.items_at([0, 2], "full")] == ["The film", "A dog"]


def test_texts_of_two_types_in_two_tables_are_all_read(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE categorical_tags (id INTEGER PRIMARY KEY, value TEXT, tagset_id INTEGER)")
        connection.execute("INSERT INTO tag_types VALUES (8, 'categorical')")
        connection.execute("INSERT INTO tagsets VALUES (50, 'Place', 8)")
        connection.execute("INSERT INTO tags VALUES (900, 8, 50)")
        connection.execute("INSERT INTO categorical_tags VALUES (900, 'zoo', 50)")
        connection.execute("INSERT INTO taggings VALUES (10, 900)")
    with closing(Catalog.open(path, 5)) as catalog:
        assert FilterIndex(catalog).evaluate(parse_filter({"place": "zoo", "caption": "A dog"})).count == 1
        assert catalog.items_at([2], "full")[0].tags == {"title": ["The film"], "year": [2020], "caption": ["A dog"], "Place": ["zoo"]}
        assert "alphanumerical_tags(id), categorical_tags(id)" in catalog.schema


@pytest.mark.parametrize("layout", m3.LAYOUTS)
@pytest.mark.parametrize("other", ["'Values of some kind'", "NULL", "''"])
def test_a_type_is_known_by_whichever_of_its_two_labels_names_it(tmp_path: Path, layout: m3.Layout, other: str) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES, layout=layout)
    with closing(sqlite3.connect(path)) as connection, connection:
        label = "name" if layout == "engine" else "description"
        connection.execute(f"ALTER TABLE tag_types ADD COLUMN {label} TEXT")
        connection.execute(f"UPDATE tag_types SET {label} = {other}")
    with closing(Catalog.open(path, 5)) as catalog:
        assert catalog.indexed == 3
        assert {field.name: field.kind for field in catalog.fields} == {
            "year": "integer",
            "weight": "number",
            "extra": "json",
            "title": "text",
            "caption": "text",
        }
        assert "tag_types.description and tag_types.name" in catalog.schema


def test_types_with_unknown_names_go_by_where_the_values_are(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tag_types SET description = 'Type ' || id")
    with closing(Catalog.open(path, 5)) as catalog:
        assert catalog.indexed == 3
        assert {field.name: field.kind for field in catalog.fields} == {"year": "integer", "title": "text", "caption": "text"}


@pytest.mark.parametrize("layout", m3.LAYOUTS)
@pytest.mark.parametrize("type_name", ["TEXT", ""])
@pytest.mark.parametrize("typed", [True, False])
def test_ids_of_tags_and_tagsets_may_be_stored_as_text(tmp_path: Path, layout: m3.Layout, type_name: str, typed: bool) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES, layout=layout)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("alphanumerical_tags", "numerical_int_tags") if layout == "engine" else ("tags", "categorical_tags"):
            as_text(connection, table, type_name)
        if not typed:
            connection.execute("DROP TABLE tag_types")
    with closing(Catalog.open(path, 5)) as catalog:
        assert catalog.media_of_row.tolist() == [11, -1, 10, 12, -1]
        assert FilterIndex(catalog).evaluate(parse_filter({"caption": "a dog", "year": 2020})).count == 1
        assert catalog.items_at([2], "full")[0].tags == {"title": ["The film"], "year": [2020], "caption": ["A dog"]}


@pytest.mark.parametrize("table", ["tagsets", "tag_types"])
def test_types_are_known_by_ids_stored_as_text(tmp_path: Path, table: str) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        as_text(connection, table, "TEXT")
    with closing(Catalog.open(path, 5)) as catalog:
        assert {field.name for field in catalog.fields} == {"year", "weight", "extra", "title", "caption"}
        bounds = {"id": 1, "tagtype_id": m3.TYPE_IDS["numerical_int"], "constraint": {"lower_bound": 2020}}
        assert FilterIndex(catalog).evaluate(parse_filter({"kind": "leaf", "filter": bounds})).count == 2


def test_tags_with_ids_of_several_lengths_stored_as_text_keep_their_values(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", [m3.Media(one, one - 1, tags={"a": [f"v{one}"]}) for one in range(1, 1000)])
    with closing(sqlite3.connect(path)) as connection, connection:
        as_text(connection, "alphanumerical_tags", "TEXT")
    with closing(Catalog.open(path, 999)) as catalog:
        index = FilterIndex(catalog)
        for one in (1, 99, 500, 999):
            assert np.flatnonzero(index.evaluate(parse_filter({"a": f"v{one}"})).mask).tolist() == [one - 1]


@pytest.mark.parametrize("layout", m3.LAYOUTS)
@pytest.mark.parametrize("type_name", ["TEXT", ""])
def test_media_and_taggings_with_ids_stored_as_text_keep_groups_titles_and_addresses(
    tmp_path: Path, layout: m3.Layout, type_name: str
) -> None:
    media = [m3.Media(9, tags={"year": [2020]}), m3.Media(1000, tags={"year": [2021]})]
    media += [m3.Media(one, one - 10, 9 if one % 2 else 1000, {"title": [f"Frame {one}"]}) for one in range(10, 120)]
    path = m3.build(tmp_path / "c.db", media, {"year": "numerical_int"}, layout=layout)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("medias", "taggings"):
            as_text(connection, table, type_name)
    with closing(Catalog.open(path, 110)) as catalog:
        assert catalog.group_of_row.tolist() == [1000, 9] * 55
        assert np.flatnonzero(FilterIndex(catalog).evaluate(parse_filter({"year": 2020})).mask).tolist() == list(range(1, 110, 2))
        (item,) = catalog.items_at([99], "full")
        assert (item.title, item.uri, item.tags) == ("Frame 109", "pictures/109.jpg", {"title": ["Frame 109"], "year": [2020]})


def as_text(connection: sqlite3.Connection, table: str, type_name: str) -> None:
    """Make all columns of `table` ones of `type_name`, the ids in them text."""
    columns = [str(name) for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]
    stored = [name if name == "value" else f"CAST({name} AS TEXT)" for name in columns]
    connection.execute(f"CREATE TABLE copy ({', '.join(f'{name} {type_name}' for name in columns)})")
    connection.execute(f"INSERT INTO copy SELECT {', '.join(stored)} FROM {table}")
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"ALTER TABLE copy RENAME TO {table}")


def test_an_index_tagset_without_values_says_where_they_belong(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE numerical_int_tags")
    with pytest.raises(CatalogError, match="no values of CLIP Index ID; they belong into the table numerical_int_tags"):
        Catalog.open(path, 5)


def test_rows_without_an_id_cost_no_more_than_themselves(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("tagsets", "alphanumerical_tags"):
            as_text(connection, table, "")
        connection.execute("INSERT INTO tagsets VALUES (NULL, 'lost', 1), ('x', 'lost', 1), (NULL, NULL, NULL), (77, NULL, 1)")
        connection.execute("INSERT INTO alphanumerical_tags SELECT 'x', 'A cat', tagset_id FROM alphanumerical_tags")
    with closing(Catalog.open(path, 5)) as catalog:
        assert {field.name for field in catalog.fields} == {"year", "weight", "extra", "title", "caption", "tagset 77"}
        assert "3 rows of tagsets have no id that is a whole number: they are left out." in catalog.findings
        assert FilterIndex(catalog).evaluate(parse_filter({"caption": "a dog", "year": 2020})).count == 1


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_a_tag_of_no_tagset_is_passed_over(tmp_path: Path, layout: m3.Layout) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES, layout=layout)
    with closing(sqlite3.connect(path)) as connection, connection:
        tagged = "UPDATE alphanumerical_tags" if layout == "engine" else "UPDATE tags"
        connection.execute(f"{tagged} SET tagset_id = NULL WHERE id = (SELECT tag_id FROM taggings WHERE media_id = 10 ORDER BY 1 LIMIT 1)")
    with closing(Catalog.open(path, 5)) as catalog:
        assert [item.title for item in catalog.items_at([2], "concise")] == ["The film"]
        assert catalog.items_at([2], "full")[0].tags == {"title": ["The film"], "year": [2020]}


def test_what_else_is_in_the_file_may_be_broken(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE VIEW recent AS SELECT * FROM gone")
        connection.execute("PRAGMA writable_schema = 1")
        place = "('table', 'places', 'places', 0, 'CREATE VIRTUAL TABLE places USING no_such_module()')"
        connection.execute(f"INSERT INTO sqlite_master VALUES {place}")
    with closing(Catalog.open(path, 5)) as catalog:
        assert catalog.media_of_row.tolist() == [11, -1, 10, 12, -1]


def test_computed_columns_are_read_like_others(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("ALTER TABLE medias RENAME COLUMN source TO file")
        connection.execute("ALTER TABLE medias ADD COLUMN source TEXT AS ('originals/' || file)")
        connection.execute("ALTER TABLE alphanumerical_tags RENAME COLUMN value TO written")
        connection.execute("ALTER TABLE alphanumerical_tags ADD COLUMN value TEXT AS (upper(written))")
    with closing(Catalog.open(path, 5)) as catalog:
        (item,) = catalog.items_at([2], "full")
        assert (item.uri, item.tags["caption"]) == ("originals/pictures/10.jpg", ["A DOG"])


def test_a_type_name_from_the_data_never_becomes_sql(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", VIDEO, TYPES)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tag_types SET description = 'x; DROP TABLE medias; --' WHERE id = 1")
        connection.execute("UPDATE tag_types SET description = 'medias' WHERE id = 6")
    with closing(Catalog.open(path, 5)) as catalog:
        assert [field.name for field in catalog.fields] == ["year", "extra", "title", "caption"]
        assert sum("left out" in one for one in catalog.findings) == 1
        assert len(catalog.items_at([0, 2, 3], "full")) == 3


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_titles_come_from_own_tags_then_inherited_ones_then_the_source(tmp_path: Path, layout: m3.Layout) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO, TYPES, layout=layout), 5)) as catalog:
        items = catalog.items_at(np.array([3, 0, 2, 0]), "concise")
        assert [item.id for item in items] == [12, 11, 10, 11]
        assert [item.title for item in items] == ["photo%20one.jpg", "The film", "A dog", "The film"]
        assert [item.uri for item in items][1:3] == ["pictures/11.jpg", "pictures/10.jpg"]
        assert [item.group for item in items] == [None, 1, 1, 1]
        assert items[2].thumbnail_uri == "10.webp"
        assert items[2].tags == {}


@pytest.mark.parametrize(
    ("source", "title"), [("a/b/c.png", "c.png"), ("C:\\pics\\d.png", "d.png"), ("e/", "e"), ("f.png", "f.png"), ("", "item 1")]
)
def test_a_title_of_last_resort_is_the_last_part_of_the_source(tmp_path: Path, source: str, title: str) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", [m3.Media(1, 0, source=source)]), 1)) as catalog:
        assert catalog.items_at([0], "concise")[0].title == title


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_full_detail_shows_own_and_inherited_tags_but_nothing_internal(tmp_path: Path, layout: m3.Layout) -> None:
    medias = [
        m3.Media(1, None, None, {"color": ["blue", "red"], "year": [2020], "FAISS Index ID": [3]}),
        m3.Media(2, 0, 1, {"color": ["green", "red"], "weight": ["1.50"], "extra": ['{"a": 1}'], "Name": ["Two"]}),
    ]
    types = TYPES | {"FAISS Index ID": "numerical_int"}
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias, types, layout=layout), 1)) as catalog:
        item = catalog.items_at([0], "full")[0]
        assert item.tags == {"year": [2020], "weight": [1.5], "color": ["red", "green", "blue"], "Name": ["Two"]}
        assert item.title == "Two"
        assert catalog.items_at([0], "ids")[0].tags == {}


@pytest.mark.parametrize("row", [1, 4, 5, -1])
def test_asking_for_a_row_without_a_medium_is_a_mistake(tmp_path: Path, row: int) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", VIDEO), 5)) as catalog, pytest.raises(ValueError, match="rows must"):
        catalog.items_at([row], "ids")


def test_a_catalog_without_any_indexed_medium_opens(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", [m3.Media(1)]), 3)) as catalog:
        assert catalog.indexed == 0
        assert catalog.rows_of([1]).unknown == 1
        assert catalog.rows_of_groups([1]).unknown == 1
        assert catalog.items_at([], "full") == []
