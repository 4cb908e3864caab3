"""Filters on collections whose frames belong to videos: tags are inherited before the tree is evaluated."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from tests import m3

TYPES = {"Year": "numerical_int"}


def frames() -> list[m3.Media]:
    """Three videos of three frames; the first frame of each shows a dog; a photograph, an untagged one, an unindexed sound track."""
    medias = [m3.Media(video, None, None, {"Year": [2019 + video], "Channel": ["BBC"]}) for video in (1, 2, 3)]
    for video in (1, 2, 3):
        for frame in range(3):
            medias.append(m3.Media(video * 10 + frame, video * 3 + frame, video, {"Tags": ["dog"]} if frame == 0 else {}))
        medias.append(m3.Media(video * 10 + 9, None, video, {"Tags": ["sound"]}))
    return [*medias, m3.Media(90, 0, None, {"Tags": ["dog"], "Year": [2020]}), m3.Media(91, 1)]


def passing(index: FilterIndex, raw: object) -> set[int]:
    return {int(one) for one in index.catalog.media_of_row[index.evaluate(parse_filter(raw)).mask]}


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_not_dog_leaves_the_dog_frames_out_but_keeps_their_neighbours(tmp_path: Path, layout: m3.Layout) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", frames(), TYPES, layout=layout), 12)) as catalog:
        index = FilterIndex(catalog)
        assert passing(index, {"not": {"Tags": "dog"}}) == {11, 12, 21, 22, 31, 32, 91}
        assert passing(index, {"Tags": {"not": "dog"}, "Channel": "BBC"}) == {11, 12, 21, 22, 31, 32}


@pytest.mark.parametrize("layout", m3.LAYOUTS)
def test_a_year_on_the_video_and_a_dog_on_the_frame_meet(tmp_path: Path, layout: m3.Layout) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", frames(), TYPES, layout=layout), 12)) as catalog:
        assert passing(FilterIndex(catalog), {"Year": 2020, "Tags": "dog"}) == {10, 90}


def test_items_of_no_group_are_ordinary_items(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", frames(), TYPES), 12)) as catalog:
        index = FilterIndex(catalog)
        assert 90 in passing(index, {"Tags": "dog"})
        assert 91 in passing(index, {"not": {"Tags": "dog"}})


def test_an_item_without_any_tag_passes_every_not(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", frames(), TYPES), 12)) as catalog:
        index = FilterIndex(catalog)
        assert 91 in passing(index, {"Year": {"not": {"gte": 0}}})
        assert 91 in passing(index, {"not": [{"Tags": "dog"}, {"Channel": "BBC"}]})


def test_a_filter_that_only_unindexed_children_match_is_empty_not_fatal(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", frames(), TYPES), 12)) as catalog:
        assert passing(FilterIndex(catalog), {"Tags": "sound"}) == set()


def test_tags_are_inherited_one_level_and_not_upwards_or_sideways(tmp_path: Path) -> None:
    medias = [
        m3.Media(1, 0, None, {"a": ["series"]}),
        m3.Media(2, 1, 1, {"a": ["video"]}),
        m3.Media(3, 2, 2, {"a": ["frame"]}),
        m3.Media(4, 3, 2),
    ]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 4)) as catalog:
        index = FilterIndex(catalog)
        assert passing(index, {"a": "series"}) == {1, 2}
        assert passing(index, {"a": "video"}) == {2, 3, 4}
        assert passing(index, {"a": "frame"}) == {3}


def test_an_item_that_is_its_own_group_counts_once(tmp_path: Path) -> None:
    with closing(Catalog.open(m3.build(tmp_path / "c.db", [m3.Media(1, 0, 1, {"a": ["x"]})]), 1)) as catalog:
        index = FilterIndex(catalog)
        assert index.data(index.field("a")).values.counts().tolist() == [1]
        assert catalog.items_at([0], "full")[0].tags == {"a": ["x"]}


def test_thousands_of_matching_groups_pass(tmp_path: Path) -> None:
    videos = [m3.Media(one, None, None, {"a": ["x"]}) for one in range(1, 2_501)]
    medias = [*videos, *(m3.Media(10_000 + one, one - 1, one) for one in range(1, 2_501))]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 2_500)) as catalog:
        assert FilterIndex(catalog).evaluate(parse_filter({"a": "x"})).count == 2_500


def test_two_open_collections_do_not_mix_their_groups(tmp_path: Path) -> None:
    other = [m3.Media(1, 0, None, {"Tags": ["dog"]}), m3.Media(10, 1, 1)]
    with (
        closing(Catalog.open(m3.build(tmp_path / "a.db", frames(), TYPES), 12)) as first,
        closing(Catalog.open(m3.build(tmp_path / "b.db", other), 2)) as second,
    ):
        one, two = FilterIndex(first), FilterIndex(second)
        assert passing(two, {"Tags": "dog"}) == {1, 10}
        assert passing(one, {"Tags": "dog"}) == {10, 20, 30, 90}
        assert passing(two, {"Tags": "dog"}) == {1, 10}
