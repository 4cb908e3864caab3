"""The skip set: one mask, counts that add up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.engine.skips import build_skip_set


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[bool], list[bool], list[int], list[int]]:
    size = draw(st.integers(0, 40))
    flags = st.lists(st.booleans(), min_size=size, max_size=size)
    rows = st.lists(st.integers(0, size - 1), max_size=60) if size else st.just([])
    return draw(flags), draw(flags), draw(rows), draw(rows)


@given(_cases())
def test_the_mask_and_every_count_equal_plain_sets(case: tuple[list[bool], list[bool], list[int], list[int]]) -> None:
    searchable, passing, seen, excluded = case
    can = {row for row, yes in enumerate(searchable) if yes}
    matching = can & {row for row, yes in enumerate(passing) if yes}
    both = np.array(searchable, bool) & np.array(passing, bool)
    skip = build_skip_set(~both, len(matching), len(can), np.array(seen, np.int64), np.array(excluded, np.int64))
    hidden_seen = matching & set(seen)
    hidden_excluded = (matching & set(excluded)) - hidden_seen
    allowed = matching - hidden_seen - hidden_excluded
    assert set(np.flatnonzero(~skip.mask).tolist()) == allowed
    assert skip.hidden.tolist() == sorted(hidden_seen | hidden_excluded)
    assert (skip.matching, skip.filtered) == (len(matching), len(can) - len(matching))
    assert (skip.seen, skip.excluded, skip.allowed) == (len(hidden_seen), len(hidden_excluded), len(allowed))


def test_building_a_skip_set_changes_none_of_the_lists_and_no_group() -> None:
    rows, full = np.array([1, 1, 3], np.int64), np.zeros(5, bool)
    rows.flags.writeable = full.flags.writeable = False
    skip = build_skip_set(np.zeros(5, bool), 5, 5, rows, rows, full)
    assert skip.mask.tolist() == [False, True, False, True, False]
    assert (skip.seen, skip.excluded) == (2, 0)
    assert rows.tolist() == [1, 1, 3]


@pytest.mark.parametrize("count", [3, 4_000])
def test_lists_short_and_long_are_counted_alike(count: int) -> None:
    rejected = np.zeros(5_000, bool)
    rejected[::2] = True
    rows = np.arange(count, dtype=np.int64)[::-1]
    skip = build_skip_set(rejected, 2_500, 5_000, np.concatenate([rows, rows]), rows)
    assert skip.hidden.tolist() == list(range(1, count, 2))
    assert (skip.seen, skip.excluded, skip.matching, skip.allowed) == (count // 2, 0, 2_500, 2_500 - count // 2)
