"""What filters pass, and what is said when they do not fit the collection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.errors import MESSAGE_LIMIT, FilterError, UnknownFieldError, UnknownValueError
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.taggings import read_tags
from tests import m3

TYPES = {
    "Category": "alphanumerical",
    "Year": "numerical_int",
    "Weight": "numerical_dec",
    "Day": "date",
    "Clock": "time",
    "At": "timestamp",
    "Extra": "json",
    "Audio Index ID": "numerical_int",
}
MEDIAS = [
    m3.Media(1, 0, tags={"Category": ["Food", "drink"], "Year": [1999], "Weight": ["9"], "Day": ["2021-01-01"], "Clock": ["09:59:59"]}),
    m3.Media(2, 2, tags={"Category": ["flag"], "Year": [2**60 + 1], "Weight": ["10.5"], "Day": ["2021-03-31"], "Clock": ["10:05"]}),
    m3.Media(3, 4, tags={"Category": ["food"], "At": ["2021-03-01T23:30:00-05:00"], "Extra": ['{"a": 1}'], "Day": ["2020-12-31"]}),
    m3.Media(4, 6, tags={"Category": ["Straße"], "At": ["2021-03-02 10:05:07.250"], "Day": ["unknown"]}),
    m3.Media(5, 8, tags={"At": ["2021-03-02T23:59:59Z", "2022"], "Weight": ["-0.5", "heavy"], "Audio Index ID": [3]}),
    m3.Media(6, 9),
    m3.Media(7, None, tags={"Category": ["harbour"], "Year": [1800]}),
]


@pytest.fixture(params=m3.LAYOUTS)
def index(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FilterIndex]:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", MEDIAS, TYPES, layout=request.param), 12)) as catalog:
        yield FilterIndex(catalog)


def passing(index: FilterIndex, raw: object) -> list[int]:
    mask = index.evaluate(parse_filter(raw)).mask
    return sorted(int(one) for one in index.catalog.media_of_row[mask])


def refused(index: FilterIndex, raw: object, error: type[FilterError] = FilterError) -> str:
    with pytest.raises(error) as caught:
        index.evaluate(parse_filter(raw))
    assert len(caught.value.message) <= MESSAGE_LIMIT
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"Category": '["food", "Drink"]'}, "Category is Food or Category is drink"),
        ({"Category": {"all": '["food", "Drink"]'}}, "Category is Food and Category is drink"),
        ({"Category": {"not": '["food", "Drink"]'}}, "not (Category is Food or Category is drink)"),
        ({"Year": " [1999, 2001]"}, "Year is 1999 or Year is 2001"),
    ],
)
def test_json_text_of_a_list_is_the_list(index: FilterIndex, raw: object, sentence: str) -> None:
    assert index.evaluate(parse_filter(raw)).sentence == sentence


def test_json_text_of_a_list_is_taken_as_it_is_where_it_is_a_value(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={"Shown": ['["a"]']}), m3.Media(2, 1, tags={"Shown": ["a"]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 2)) as catalog:
        assert passing(FilterIndex(catalog), {"Shown": '["a"]'}) == [1]


def test_what_is_wrong_in_json_text_of_a_list_is_named(index: FilterIndex) -> None:
    assert refused(index, {"Category": '["food", "flagg"]'}, UnknownValueError).startswith('"flagg" is not a value')
    assert "list inside a list" in refused(index, {"Category": "[" * 300 + "]" * 300})
    assert refused(index, {"Category": "[food]"}, UnknownValueError).startswith('"[food]" is not a value')
    assert 'got "soon"' in refused(index, {"Year": '["soon"]'})


def test_internal_tagsets_are_never_offered(index: FilterIndex) -> None:
    names = [field.name for field in index.fields]
    assert names == ["Category", "Year", "Weight", "Day", "Clock", "At", "Extra"]
    assert [field.kind for field in index.fields] == ["text", "integer", "number", "date", "time", "timestamp", "json"]
    for name in ("CLIP Index ID", "audio index id"):
        assert "Audio" not in refused(index, {name: 3}, UnknownFieldError).replace(name, "")
    assert "no tagset 9" in refused(index, {"root": {"kind": "leaf", "filter": {"id": 9, "constraint": {"value_ids": [100]}}}})


def test_no_filter_passes_every_mapped_row_and_no_other(index: FilterIndex) -> None:
    everything = index.evaluate(None)
    assert everything.count == 6
    assert everything.sentence == ""
    assert np.array_equal(everything.mask, index.catalog.mapped)


def test_rows_between_sparse_positions_never_pass(index: FilterIndex) -> None:
    for raw in ({"not": {"Category": "food"}}, {"Category": {"not": "food"}}, {"Year": {"exists": False}}, {"Category": {"all": []}}):
        selection = index.evaluate(parse_filter(raw))
        assert not np.any(selection.mask & ~index.catalog.mapped)
        assert not selection.mask.flags.writeable
        assert np.array_equal(selection.rejected(), ~selection.mask)
        assert selection.rejected().flags.writeable


@pytest.mark.parametrize(
    ("raw", "ids"),
    [
        ({"category": "FOOD"}, [1, 3]),
        ({"CATEGORY": ["food", "flag"]}, [1, 2, 3]),
        ({"Category": {"all": ["food", "drink"]}}, [1]),
        ({"Category": "STRASSE"}, [4]),
        ({"Category": {"contains": "Oo"}}, [1, 3]),
        ({"Category": {"contains": "zzz"}}, []),
        ({"Category": []}, []),
        ({"Category": "harbour"}, []),
        ({"Category": {"not": "food"}}, [2, 4, 5, 6]),
        ({"Category": {"exists": False}}, [5, 6]),
        ({"Extra": {"exists": True}}, [3]),
        ({"Year": 1999}, [1]),
        ({"Year": "1999"}, [1]),
        ({"Year": 1999.0}, [1]),
        ({"Year": 1999.5}, []),
        ({"Year": 4}, []),
        ({"Year": 2**60 + 1}, [2]),
        ({"Year": 2**60}, []),
        ({"Year": {"gt": 2**60}}, [2]),
        ({"Year": {"lt": 2**60 + 1}}, [1]),
        ({"Year": {"gte": 10**30}}, []),
        ({"Year": {"lte": 10**30}}, [1, 2]),
        ({"Year": {"gt": 1998.5, "lt": 1999.5}}, [1]),
        ({"Weight": {"gt": 9}}, [2]),
        ({"Weight": {"gte": "9.0"}}, [1, 2]),
        ({"Weight": {"lt": 0}}, [5]),
        ({"Weight": "-0.50"}, [5]),
        ({"Weight": {"exists": True}}, [1, 2, 5]),
        ({"Day": "2021-03-31"}, [2]),
        ({"Day": "2021"}, [1, 2]),
        ({"Day": 2021}, [1, 2]),
        ({"Day": "2021-03"}, [2]),
        ({"Day": {"gte": "2021"}}, [1, 2]),
        ({"Day": {"gt": "2021"}}, []),
        ({"Day": {"gt": "2020"}}, [1, 2]),
        ({"Day": {"lte": "2021-03"}}, [1, 2, 3]),
        ({"Day": {"lt": "2021"}}, [3]),
        ({"Day": {"lt": "2021-03"}}, [1, 3]),
        ({"Day": {"gte": "2021-03", "lte": "2021"}}, [2]),
        ({"Day": {"lte": "2021-03-31T00:00:00Z"}}, [1, 2, 3]),
        ({"Day": {"exists": True}}, [1, 2, 3, 4]),
        ({"Clock": "10"}, [2]),
        ({"Clock": {"lt": "10:05"}}, [1]),
        ({"Clock": {"gte": "09:59", "lt": "10:00"}}, [1]),
        ({"At": "2021-03-02"}, [3, 4, 5]),
        ({"At": "2021-03-02T04:30"}, [3]),
        ({"At": {"gte": "2021-03-01T23:30:00-05:00", "lt": "2021-03-02T05:00"}}, [3]),
        ({"At": {"gte": "2021-03-02T06:30+02", "lte": "2021-03-02T05:00+00"}}, [3]),
        ({"At": "2021-03-02T10:05:07"}, [4]),
        ({"At": {"gt": "2021"}}, [5]),
        ({"At": {"gte": "2021-03-02T12", "lte": "2021-06"}}, [5]),
        ({"At": {"gt": "2021-03-02", "lt": "2022"}}, []),
    ],
)
def test_values_compare_as_their_kind(index: FilterIndex, raw: object, ids: list[int]) -> None:
    assert passing(index, raw) == ids


@pytest.mark.parametrize(("lower", "upper"), [(0.1, "0.1"), ("0.3", 0.3), (10**23, 1e23), (2**53 + 1, str(2**53 + 1)), (10**300, "1e300")])
def test_a_number_and_the_same_number_as_text_are_a_range(index: FilterIndex, lower: object, upper: object) -> None:
    assert passing(index, {"Weight": {"gte": lower, "lte": upper}}) == []


def test_one_value_must_lie_inside_both_bounds(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={"Year": [1990, 2010]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias, {"Year": "numerical_int"}), 1)) as catalog:
        index = FilterIndex(catalog)
        assert passing(index, {"Year": {"gte": 2000, "lte": 2005}}) == []
        assert passing(index, {"all": [{"Year": {"gte": 2000}}, {"Year": {"lte": 2005}}]}) == [1]


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        ({"Categori": "food"}, ['no field "Categori"', 'Nearest: "Category"', "Year (integer)"]),
        ({"x" * 900: "food"}, ["no field", "Fields: Category (text)"]),
        ({"Category": "foood"}, ['"foood" is not a value of "Category"', '"Food" (2 items)']),
        ({"Category": "q" * 999}, ["Most frequent", '"Food" (2 items)', "describe_filters"]),
        ({"Category": {"not": "harbor"}}, ['"harbour" (0 items)']),
        ({"Category": {"all": ["food", "Foods"]}}, ['"Foods"', '"Food"']),
        ({"Category": {"gte": "a"}}, ['"Category" takes texts', '"gte"']),
        ({"Year": True}, ['"Year" takes whole numbers', 'got "true"']),
        ({"Year": "last year"}, ['"Year" takes whole numbers', '"last year"', "spans 1999 to"]),
        ({"Year": {"gte": "soon"}}, ["whole numbers", "soon"]),
        ({"Year": {"contains": "19"}}, ["whole numbers"]),
        ({"Weight": "heavy"}, ["numbers", "-0.5 to 10.5"]),
        ({"Day": "yesterday"}, ["dates", "2020-12-31 to 2021-03-31"]),
        ({"Day": "2021-02-30"}, ["dates"]),
        ({"Day": {"gte": "2021-13"}}, ["dates"]),
        ({"Clock": "25:00"}, ["times"]),
        ({"At": "10:05"}, ["times such as"]),
        ({"Extra": "a"}, ["exists"]),
        ({"Extra": {"contains": "a"}}, ["exists"]),
        ({"Extra": {"gte": 1}}, ["exists"]),
        ({"Day": {"gte": "2022-01-01T00:00", "lte": "2021"}}, ["reversed"]),
        ({"Day": {"gte": "2022-01-01", "lt": "2021-12-31"}}, ['"Day": the range from "2022-01-01" to "2021-12-31" is reversed. Swap']),
        ({"Year": {"gte": 5, "lte": 4}}, ['for outside them: {"any": [{"gte": "5"}, {"lte": "4"}]}']),
        ({"Weight": {"gt": "10", "lt": 9.5}}, ["reversed"]),
        ({"Clock": {"gte": "22:00", "lte": "06:00"}}, ["reversed"]),
        ({"any": [{"Category": "food"}, {"Category": "nowhere"}]}, ['"nowhere"']),
        ({"Category": [], "Nope": 1}, ['"Nope"']),
    ],
)
def test_what_does_not_fit_the_collection_is_refused_with_what_would(index: FilterIndex, raw: object, parts: list[str]) -> None:
    message = refused(index, raw)
    for part in parts:
        assert part in message, message


def test_with_many_fields_the_error_names_the_nearest_only(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={f"measurement number {n}": ["x"] for n in range(60)})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 1)) as catalog:
        message = refused(FilterIndex(catalog), {"measurement number": "x"}, UnknownFieldError)
        assert "for all 60 fields" in message
        assert "Nearest" in message


def test_long_names_of_fields_are_suggested_whole(tmp_path: Path) -> None:
    name = "distance between the sensor and the object in metres, measured "
    tags: dict[str, list[m3.Value]] = {f"{name}{how}": ["x"] for how in ("once", "twice", "thrice")}
    types = {f"{name}once": "alphanumerical", f"{name}ONCE": "date"}
    medias = [m3.Media(1, 0, tags={**tags, f"{name}ONCE": ["2021-01-01"]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias, types), 1)) as catalog:
        index = FilterIndex(catalog)
        message = refused(index, {f"{name}two times": "x"}, UnknownFieldError)
        assert f'Nearest: "{name}twice" (1 value). Call describe_filters for all 4 fields.' in message
        assert f'Write one of: "{name}once (text)", "{name}ONCE (date)".' in refused(index, {f"{name}once": "x"}, UnknownFieldError)


def test_without_fields_the_error_says_to_leave_filters_out(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", [m3.Media(1, 0)]), 1)) as catalog:
        assert "nothing to filter by" in refused(FilterIndex(catalog), {"Category": "x"}, UnknownFieldError)


def leaf(tagset: int, constraint: object, **more: object) -> dict[str, object]:
    return {"root": {"kind": "leaf", "filter": {"id": tagset, "constraint": constraint} | more}}


def test_tag_ids_are_checked_against_tagset_and_type(index: FilterIndex) -> None:
    food = index.data(index.field("Category")).tags.ids.tolist()
    assert passing(index, leaf(1, {"value_ids": food[:1]}, tagtype_id=1)) == [1]
    assert "no tagset 99" in refused(index, leaf(99, {"value_ids": food[:1]}))
    assert "tagtype_id 1, not 77" in refused(index, leaf(1, {"value_ids": food[:1]}, tagtype_id=77))
    assert "is not a tag of tagset 2" in refused(index, leaf(2, {"value_ids": food[:1]}))
    assert "1 of the value_ids" in refused(index, leaf(1, {"value_ids": [food[0], 2**62]}))
    assert "exists" in refused(index, leaf(7, {"value_ids": [1]}))
    assert "takes texts" in refused(index, leaf(1, {"lower_bound": 1}))
    assert "reversed" in refused(index, leaf(4, {"lower_bound": "2022", "upper_bound": "2021-05"}))


def tag_ids(index: FilterIndex, name: str) -> dict[object, int]:
    """The tag of each stored value of a field."""
    field = index.field(name)
    tags, stored = read_tags(index.catalog.database, index.catalog.layout.tables[field.kind], field.tagset_ids)
    return dict(zip(stored, tags.ids.tolist(), strict=True))


def test_repeated_tag_ids_count_once(index: FilterIndex) -> None:
    drink = tag_ids(index, "Category")["drink"]
    assert passing(index, leaf(1, {"value_ids": [drink] * 3, "operator": "AND"})) == [1]
    assert passing(index, leaf(1, {"value_ids": [], "operator": "AND"})) == [1, 2, 3, 4, 5, 6]
    assert passing(index, leaf(1, {"value_ids": []})) == []


def test_tag_ids_tell_tags_apart_that_are_one_value_by_name(index: FilterIndex) -> None:
    by_value = tag_ids(index, "Category")
    assert passing(index, leaf(1, {"value_ids": [by_value["food"]]})) == [3]
    assert passing(index, leaf(1, {"value_ids": [by_value["Food"]]})) == [1]


def test_not_in_either_spelling_is_honoured(index: FilterIndex) -> None:
    tree = leaf(2, {"lower_bound": 1999, "upper_bound": 1999})
    for key in ("not", "not_"):
        assert passing(index, {"root": tree["root"] | {key: True}}) == [2, 3, 4, 5, 6]  # pyright: ignore[reportOperatorIssue]
    assert passing(index, tree) == [1]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"category": "FOOD"}, "Category is Food"),
        ({"category": ["food", "flag"]}, "Category is Food or Category is flag"),
        ({"category": ["food", "flag"], "Year": {"gte": 2000}}, "(Category is Food or Category is flag) and Year >= 2000"),
        ({"category": {"not": "food"}}, "Category is not Food"),
        ({"not": {"category": {"not": "food"}}}, "Category is Food"),
        ({"category": {"not": ["food", "flag"]}}, "not (Category is Food or Category is flag)"),
        ({"category": {"all": ["food", "flag"]}, "Extra": {"exists": False}}, "Category is Food and Category is flag and has no Extra"),
        ({"Extra": {"not": {"exists": False}}}, "has Extra"),
        ({"not": {"not": {"Year": {"gt": 3}}}}, "Year > 3"),
        ({"Year": {"not": {"not": {"not": {"gt": 3}}}}}, "not (Year > 3)"),
        (
            {"not": {"Year": {"not": {"gt": 3, "lt": 9}}}, "any": [{"Year": 1}, {"Year": 2}]},
            "Year > 3 and Year < 9 and (Year is 1 or Year is 2)",
        ),
        (
            {"any": [{"Extra": {"exists": True}}, {"Year": {"not": {"not": {"gt": 3, "lt": 9}}}}]},
            "has Extra or (Year > 3 and Year < 9)",
        ),
        ({"Day": {"gt": "2020", "lte": "2021-03"}}, "Day > 2020 and Day <= 2021-03"),
        ({"category": {"contains": "oo"}}, 'Category contains "oo"'),
        ({"any": []}, "nothing"),
        ({"category": {"all": []}}, "everything"),
        ({"not": {"category": {"all": []}}}, "nothing"),
        ({"Year": list(range(7))}, "Year is any of 7 values (0, 1, 2, 3, 4, …)"),
    ],
)
def test_a_filter_is_said_in_the_collections_own_words(index: FilterIndex, raw: object, sentence: str) -> None:
    assert index.evaluate(parse_filter(raw)).sentence == sentence


def test_a_sentence_stays_short_whatever_the_filter(index: FilterIndex) -> None:
    raw = {"any": [{"Year": list(range(at, at + 9))} for at in range(200)]}
    assert len(index.evaluate(parse_filter(raw)).sentence) <= 300


def test_the_same_filter_written_otherwise_is_answered_alike(index: FilterIndex) -> None:
    first = index.evaluate(parse_filter({"Category": ["food", "flag"], "Year": {"exists": True}}))
    again = index.evaluate(parse_filter({"year": {"exists": True}, "category": {"any": ["Flag", "FOOD"]}}))
    assert np.array_equal(first.mask, again.mask)
    assert (first.count, first.sentence) == (again.count, again.sentence)
    assert not again.mask.flags.writeable


def test_many_threads_evaluate_at_once(index: FilterIndex) -> None:
    barrier = threading.Barrier(8)
    answers: list[list[int]] = []

    def work(number: int) -> None:
        barrier.wait()
        for at in range(30):
            answers.append(passing(index, {"Category": "food", "Year": {"not": 2000 + number * 30 + at}}))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[1, 3]] * 240


def test_blanks_around_a_value_are_passed_over(index: FilterIndex) -> None:
    assert passing(index, {"Category": " food "}) == passing(index, {"Category": "food"}) != []
    assert '"foo" is not a value' in refused(index, {"Category": " foo "}, UnknownValueError)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"Category": "food", "Year": {"gt": 2000}}, "Category is Food leaves 2; adding Year > 2000 leaves 0. Drop or change one."),
        ({"Category": "harbour"}, "No item passes: Category is harbour."),
        ({"Category": "food", "all": [{"Category": "flag"}, {"Year": 1999}]}, "leaves 1; adding Category is flag leaves 0"),
        ({"Category": {"all": ["drink", "flag"]}}, "leaves 1; adding"),
        ({"Category": "harbour", "Year": 4, "Day": "1900"}, "Category is harbour matches no item at all, nor does Year is 4. Drop or"),
        ({"Year": [3, 4], "Category": "harbour", "Day": "2000"}, "Year is 3 or Year is 4 matches no item at all, nor does Category"),
        ({"Category": "food", "Year": []}, "A list in the filter is empty, which no item passes."),
        (
            {"all": [{"Category": "drink"}, {"Category": "flag"}, {"Extra": {"exists": True}}, {"Weight": -0.5}]},
            "Alone they leave Category is drink: 1, Category is flag: 1, has Extra: 1, but no item passes even without one of them.",
        ),
    ],
)
def test_an_empty_answer_names_the_condition_that_did_it(index: FilterIndex, raw: object, said: str) -> None:
    parsed = parse_filter(raw)
    assert parsed is not None
    reason = index.explain_empty(parsed)
    assert said in reason
    assert len(reason) <= 200


def test_a_refused_filter_leaves_no_trace(index: FilterIndex) -> None:
    for _ in range(2):
        refused(index, {"Category": "nowhere"}, UnknownValueError)
    assert passing(index, {"Category": "food"}) == [1, 3]
