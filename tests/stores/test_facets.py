"""What describe_filters tells: counts that are true, pages that end, an example that works."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.errors import UnknownFieldError, UnknownValueError
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.facets import FieldSummary, Span, ValueCount, example_filter, field_page, overview
from mcp_server.stores.filter_index import FilterIndex
from tests import m3

TYPES = {
    "title": "alphanumerical",
    "color": "alphanumerical",
    "year": "numerical_int",
    "weight": "numerical_dec",
    "day": "date",
    "extra": "json",
}
COLORS = ["red", "green", "blue", "Red", "pink", "grey", "tan"]


def medias() -> list[m3.Media]:
    made = [m3.Media(900, None, None, {"year": [1990]})]
    for at in range(40):
        tags: dict[str, list[m3.Value]] = {
            "title": [f"picture {at:02}"],
            "color": [COLORS[at % 7]] if at % 3 else [],
            "year": [2000 + at % 4] if at % 2 else [],
            "weight": [f"{at}.50"],
            "day": [f"2021-01-{at % 28 + 1:02}"],
            "extra": ['{"a": 1}'] if at == 7 else [],
        }
        made.append(m3.Media(at + 1, at, 900 if at == 2 else None, tags))
    return made


@pytest.fixture(params=m3.LAYOUTS)
def index(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FilterIndex]:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias(), TYPES, layout=request.param), 41)) as catalog:
        yield FilterIndex(catalog)


def test_a_date_shown_with_a_count_passes_as_many(tmp_path: Path) -> None:
    days = ["2021", "2021", "2021-03", "2021-03-05", "2021-03-05T10:00", "2021-03-06", "2022-1", "2023-05-02", "2024-02", "2024-02-01"]
    for type_name in ("date", "timestamp"):
        made = [m3.Media(at + 1, at, tags={"day": [day]}) for at, day in enumerate(days)]
        with closing(Catalog.open(m3.build(tmp_path / f"{type_name}.db", made, {"day": type_name}), len(days))) as catalog:
            index = FilterIndex(catalog)
            shown = {str(each.value): each.count for each in field_page(index, "day").values}
            assert {value: index.evaluate(parse_filter({"day": value})).count for value in shown} == shown
            assert {"2021-01-01", "2021-03-01", "2021-03-05T00:00:00", "2022-1", "2023-05-02"} <= set(shown)
            assert index.evaluate(parse_filter({"day": "2021"})).count == 6


def expected_colors(allowed: set[int] | None = None) -> list[tuple[str, int]]:
    counts = Counter(
        str(value).lower()
        for media, tags in m3.own_and_inherited(medias()).items()
        for value in tags.get("color", [])
        if allowed is None or media in allowed
    )
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def line(index: FilterIndex, name: str) -> FieldSummary:
    return next(one for one in overview(index).fields if one.name == name)


def test_the_overview_counts_items_values_and_the_most_frequent(index: FilterIndex) -> None:
    seen = overview(index)
    assert seen.total == 40
    assert [one.name for one in seen.fields] == list(TYPES)
    color = line(index, "color")
    assert color.items == sum(count for _, count in expected_colors())
    assert color.distinct == 6
    assert [(str(one.value).lower(), one.count) for one in color.top] == expected_colors()[:5]
    assert color.span is None


def test_numbers_and_dates_show_their_span_instead_of_values(index: FilterIndex) -> None:
    year = line(index, "year")
    assert (year.items, year.distinct, year.top) == (21, 3, ())
    assert year.span == Span(1990, 2001, 2003)
    assert line(index, "weight").span == Span(0.5, 19.5, 39.5)
    assert line(index, "day").span == Span("2021-01-01", "2021-01-10", "2021-01-28")
    extra = line(index, "extra")
    assert (extra.items, extra.distinct, extra.span) == (1, 0, None)


def test_under_a_filter_only_its_items_are_counted(index: FilterIndex) -> None:
    selection = index.evaluate(parse_filter({"year": {"gte": 2001}}))
    seen = overview(index, selection.mask)
    allowed = {int(one) for one in index.catalog.media_of_row[selection.mask]}
    assert seen.total == len(allowed) == 20
    color = next(one for one in seen.fields if one.name == "color")
    assert [(str(one.value).lower(), one.count) for one in color.top] == expected_colors(allowed)[:5]
    page = field_page(index, "Color", n=100, mask=selection.mask)
    assert [(str(one.value).lower(), one.count) for one in page.values] == expected_colors(allowed)
    assert next(one for one in seen.fields if one.name == "year").span == Span(2001, 2001, 2003)


def test_nothing_is_counted_under_a_filter_that_nothing_passes(index: FilterIndex) -> None:
    seen = overview(index, index.evaluate(parse_filter({"year": 1})).mask)
    assert seen.total == 0
    assert all((one.items, one.distinct, one.top, one.span) == (0, 0, (), None) for one in seen.fields)


def test_pages_cover_all_values_once_most_frequent_first(index: FilterIndex) -> None:
    values: list[ValueCount] = []
    for offset in range(0, 60, 7):
        page = field_page(index, "title", n=7, offset=offset)
        values.extend(page.values)
        assert page.total == 40
        assert page.more == max(0, 40 - offset - len(page.values))
    assert [one.value for one in values] == [f"picture {at:02}" for at in range(40)]


def test_a_part_of_a_value_finds_it_in_any_letter_case(index: FilterIndex) -> None:
    page = field_page(index, "title", match="PICTURE 1")
    assert page.total == 10
    assert field_page(index, "year", match="200").total == 3 - 1
    assert field_page(index, "year", match="200").span == Span(1990, 2001, 2003)
    assert field_page(index, "color", match="zzz").values == ()
    assert field_page(index, "extra").values == ()


def test_numbers_are_listed_by_count_too(index: FilterIndex) -> None:
    assert field_page(index, "year").values == (ValueCount(2001, 10, "2001"), ValueCount(2003, 10, "2003"), ValueCount(1990, 1, "1990"))


def test_values_that_no_indexed_item_has_are_not_listed(tmp_path: Path) -> None:
    made = [m3.Media(1, 0, tags={"color": ["red"]}), m3.Media(2, None, tags={"color": ["blue"]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", made), 1)) as catalog:
        index = FilterIndex(catalog)
        assert field_page(index, "color").values == (ValueCount("red", 1, "red"),)
        assert overview(index).fields[0].distinct == 1


def test_an_unknown_field_is_refused_with_the_nearest(index: FilterIndex) -> None:
    with pytest.raises(UnknownFieldError, match='Nearest: "color"'):
        field_page(index, "colour")
    with pytest.raises(ValueError, match="at least"):
        field_page(index, "color", n=0)


def test_the_example_is_made_of_real_values_and_finds_something(index: FilterIndex) -> None:
    example = example_filter(index)
    assert next(iter(example)) == "color"
    assert index.evaluate(parse_filter(json.dumps(example))).count > 0


@pytest.mark.parametrize(
    ("tags", "types"),
    [
        ({}, {}),
        ({"any": ["x"]}, {}),
        ({"extra": ["{}"]}, {"extra": "json"}),
        ({"title": ["x"]}, {}),
        ({"a": ["x"], "b": ["y"]}, {}),
        ({"day": ["2021-01-01"]}, {"day": "date"}),
        ({"year": [5], "all": ["z"]}, {"year": "numerical_int"}),
        ({"a": ["true"]}, {}),
    ],
)
def test_an_example_is_empty_or_works_whatever_the_fields(tmp_path: Path, tags: dict[str, list[m3.Value]], types: dict[str, str]) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", [m3.Media(1, 0, tags=tags), m3.Media(2, 1)], types), 2)) as catalog:
        index = FilterIndex(catalog)
        example = example_filter(index)
        assert bool(example) == bool(set(tags) & {"title", "a", "day", "year"})
        if example:
            assert index.evaluate(parse_filter(example)).count == 1


@pytest.mark.parametrize("start", ["", "word " * 400])
def test_an_example_from_long_texts_is_short_and_works(tmp_path: Path, start: str) -> None:
    made = [m3.Media(at + 1, at, tags={"story": [f"{start}{at} " + "and so on " * 200]}) for at in range(3)]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", made), 3)) as catalog:
        index = FilterIndex(catalog)
        example = example_filter(index)
        assert len(str(example)) < 300
        assert index.evaluate(parse_filter(example)).count > 0


def test_the_most_frequent_of_thousands_of_values_are_right(tmp_path: Path) -> None:
    made = [m3.Media(at + 1, at, tags={"word": [f"w{at % 1_500:04}", f"c{at % 9}"]}) for at in range(3_000)]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", made), 3_000)) as catalog:
        index = FilterIndex(catalog)
        top = overview(index).fields[0].top
        assert top == field_page(index, "word", n=5).values
        assert [one.value for one in top] == ["c0", "c1", "c2", "c3", "c4"]


def test_long_values_are_cut_where_they_differ_and_can_be_written_as_they_are_shown(tmp_path: Path) -> None:
    start = "Café/Bilder/" + 14 * "ein langer Pfad/"
    captions = [f"{start}{end}" for end in ("", "a", "A very long end of it all, after which nothing comes that matters", "b", "Straße")]
    captions += ["x" * 119, "x" * 120, "y" * 300, "short", "short…", "Long again, and this time quite alone: " + "ß" * 90]
    made = [m3.Media(at + 1, at, tags={"caption": [caption]}) for at, caption in enumerate(captions)]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", made), len(made))) as catalog:
        index = FilterIndex(catalog)
        page = field_page(index, "caption", n=100)
        assert sorted(str(one.value) for one in page.values) == sorted(captions)
        assert len({one.short for one in page.values}) == len(captions)
        for one in page.values:
            row = captions.index(str(one.value))
            assert index.evaluate(parse_filter({"caption": one.short})).mask.nonzero()[0].tolist() == [row]
            assert index.evaluate(parse_filter({"caption": [one.short.upper()]})).count == 1
            if len(str(one.value)) > 120 and "ß" not in str(one.value):
                assert len(one.short) <= len(start) + 3
        assert {"y" * 119 + "…", "x" * 120, "short…"} <= {one.short for one in page.values}
        with pytest.raises(UnknownValueError, match="is not a value"):
            index.evaluate(parse_filter({"caption": start + "…"}))
        with pytest.raises(UnknownValueError) as caught:
            index.evaluate(parse_filter({"caption": "y" * 299}))
        suggested = re.findall(r'"(y+…)"', caught.value.message)
        assert index.evaluate(parse_filter({"caption": suggested[-1]})).count == 1
