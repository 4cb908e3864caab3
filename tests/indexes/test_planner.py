"""The way that costs least is taken, and what projections are worth is learnt from the searches themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.indexes.planner import Costs, Thinning, Way, are_picked_out, quickest

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("allowed", "occupied", "left", "expected"),
    [
        (MILLION, MILLION, 0.02, "scan projections"),
        (MILLION, MILLION, 0.9, "scan codes"),
        (MILLION, MILLION, None, "scan codes"),
        (100_000, MILLION, 0.1, "gather projections"),
        (100_000, MILLION, None, "gather codes"),
        (100_000, MILLION, 0.9, "gather codes"),
        (1_000, MILLION, 0.5, "gather rows"),
        (300_000, 300_032, 0.02, "scan projections"),
        (5_000, 60_000, 0.5, "gather codes"),
    ],
)
def test_the_way_that_costs_least_is_taken(allowed: int, occupied: int, left: float | None, expected: Way) -> None:
    assert quickest(Costs(), MILLION, allowed, occupied, 100, in_runs=False, coded=True, left=left) == expected


def test_rows_that_follow_each_other_are_looked_at_where_they_lie() -> None:
    ways = {runs: quickest(Costs(), MILLION, 300_000, 400_000, 100, in_runs=runs, coded=True, left=0.02) for runs in (False, True)}
    assert ways == {False: "scan projections", True: "gather projections"}


@pytest.mark.parametrize(("allowed", "expected"), [(MILLION, "scan rows"), (1_000, "gather rows")])
def test_without_codes_the_rows_are_looked_at(allowed: int, expected: Way) -> None:
    assert quickest(Costs(), MILLION, allowed, MILLION, 100, in_runs=False, coded=False) == expected


@given(
    allowed=st.integers(1, 20_000),
    k=st.integers(1, 100),
    stretches=st.integers(1, 1000),
    in_runs=st.booleans(),
    left=st.none() | st.floats(0, 1),
)
def test_where_rows_are_picked_out_no_scan_would_be_quicker_wherever_they_lie(
    allowed: int, k: int, stretches: int, in_runs: bool, left: float | None
) -> None:
    occupied = min(MILLION, max(allowed, 1024 * stretches))
    if are_picked_out(Costs(), MILLION, allowed, min(k, allowed)):
        way = quickest(Costs(), MILLION, allowed, occupied, min(k, allowed), in_runs=in_runs, coded=True, left=left)
        assert way.startswith("gather")


def test_a_few_of_a_million_are_picked_out_and_a_tenth_is_not() -> None:
    assert are_picked_out(Costs(), MILLION, 1_000, 10)
    assert not are_picked_out(Costs(), MILLION, 100_000, 10)


@given(allowed=st.integers(1, 10**8), k=st.integers(1, 1000), shares=st.lists(st.floats(0, 1), max_size=30))
def test_a_share_is_always_one_and_comes_near_what_was_seen(allowed: int, k: int, shares: list[float]) -> None:
    k = min(k, allowed)
    thinning = Thinning()
    assert 0 < thinning.share(allowed, k) <= 1
    for share in shares:
        thinning.note(allowed, k, share)
        assert 0 <= thinning.share(allowed, k) <= 1
    for _ in range(150):
        thinning.note(allowed, k, 0.5)
    assert thinning.share(allowed, k) == pytest.approx(0.5)


def test_a_query_that_projections_do_not_suit_leaves_the_next_to_them() -> None:
    thinning, costs = Thinning(), Costs()
    for _ in range(20):
        thinning.note(MILLION, 100, 0.03)
    thinning.note(MILLION, 100, 0.9)
    left = thinning.share(MILLION, 100)
    assert quickest(costs, MILLION, MILLION, MILLION, 100, in_runs=True, coded=True, left=left) == "scan projections"


def test_what_was_no_use_is_tried_again_after_a_while() -> None:
    thinning, costs = Thinning(), Costs()
    for _ in range(10):
        thinning.note(MILLION, 100, 1.0)
    ways: list[Way] = []
    for _ in range(300):
        ways.append(quickest(costs, MILLION, MILLION, MILLION, 100, in_runs=False, coded=True, left=thinning.share(MILLION, 100)))
        if ways[-1] == "scan projections":
            break
        thinning.fade(MILLION, 100)
    assert ways[0] == "scan codes"
    assert ways[-1] == "scan projections"
    assert 20 < len(ways) < 300
    assert thinning.share(1_000, 100) > thinning.share(MILLION, 100)  # what many rows for each asked for say is not said of few


@pytest.mark.parametrize(
    ("scan_code", "gather_code", "scan_projection", "gather_projection", "pass_row"),
    [(32.4, 125.7, 6.6, 36.3, 2.7), (24.7, 132.0, 5.4, 62.3, 3.7)],  # of one machine at rest, and while its disk was busy
)
def test_rows_in_a_row_are_picked_out_only_where_a_scan_would_pass_over_many_others(
    scan_code: float, gather_code: float, scan_projection: float, gather_projection: float, pass_row: float
) -> None:
    costs = replace(
        Costs(),
        scan_code=scan_code,
        gather_code=gather_code,
        scan_projection=scan_projection,
        gather_projection=gather_projection,
        pass_row=pass_row,
    )

    def way(allowed: int, left: float | None) -> Way:
        return quickest(costs, 1_000_000, allowed, allowed, 10, in_runs=True, coded=True, left=left)

    assert [way(allowed, 0.005) for allowed in (1_000_000, 700_000, 500_000)] == ["scan projections"] * 3
    assert [way(allowed, 0.005) for allowed in (150_000, 50_000)] == ["gather projections"] * 2
    assert [way(allowed, None) for allowed in (1_000_000, 700_000)] == ["scan codes"] * 2
    assert [way(allowed, None) for allowed in (150_000, 50_000)] == ["gather codes"] * 2
