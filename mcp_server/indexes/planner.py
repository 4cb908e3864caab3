"""Which way to the same exact answer is the quickest, by what a row costs on each of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Way = Literal["gather rows", "gather codes", "gather projections", "scan rows", "scan codes", "scan projections"]

LEADERS = 8
"""Among so many times k rows that projections put first, codes look for the k that are to set the bar."""
_REMEMBERED = 8
"""Searches: projections leave hardly a row of one query and nearly all of the next, so what they are worth is seen in the average."""
_LISTED = 2.5
"""Rows that follow each other are scanned where they lie; to list them, and to weigh them by that list, costs so many times passing one."""
_FADING = 0.99
_BY_FAR = 4


@dataclass(frozen=True)
class Costs:
    """Nanoseconds. Measured where the codes are made (`probes`); the defaults are of no particular machine.

    Attributes:
        gather_row, gather_code, gather_projection: for a row picked out.
        scan_row, scan_code, scan_projection: for a row in passing.
        pass_row: for a row of the collection that a scan does not even look at, and for a skipped one.
        turning: for a call that uses codes, whatever the number of rows: turning the query.
        looking: for each row that such a call is asked for: looking closely at what codes leave in the running, beyond what other calls do.
        projecting: for a call that uses projections, beside that.
    """

    gather_row: float = 250.0
    gather_code: float = 115.0
    scan_row: float = 110.0
    scan_code: float = 40.0
    gather_projection: float = 60.0
    scan_projection: float = 16.0
    pass_row: float = 2.0
    turning: float = 150_000.0
    looking: float = 2_500.0
    projecting: float = 100_000.0

    @classmethod
    def of(cls, about: dict[str, Any]) -> Costs:
        """Return the costs noted in `about`, defaults for those that are not there."""
        return cls(**{name: float(about[name]) for name in asdict(cls()) if isinstance(about.get(name), int | float)})

    def coding(self, k: int) -> float:
        """Return what a call for `k` rows costs for using codes, whatever the number of rows."""
        return self.turning + k * self.looking

    def noted(self) -> dict[str, float]:
        """Return what `of` reads."""
        return asdict(self)


class Thinning:
    """What share of rows projections leave in the running, by how many rows may be returned for each that was asked for: learnt.

    Any number of threads may use it at once; a note may get lost then.
    """

    def __init__(self) -> None:
        """Nothing was learnt yet."""
        self._shares: dict[int, float] = {}

    def share(self, allowed: int, k: int) -> float:
        """Return the share to expect, 0 to 1."""
        # as it was of a million unit rows like a CLIP model's
        return self._shares.get((allowed // k).bit_length(), min(1.0, 16 * (k / allowed) ** 0.7))

    def note(self, allowed: int, k: int, share: float) -> None:
        """Learn that it was `share`."""
        known = self.share(allowed, k)
        self._shares[(allowed // k).bit_length()] = known + (share - known) / _REMEMBERED

    def fade(self, allowed: int, k: int) -> None:
        """Expect a little less, where projections were not used: another query may suit them better."""
        self._shares[(allowed // k).bit_length()] = self.share(allowed, k) * _FADING


def are_picked_out(costs: Costs, size: int, allowed: int, k: int) -> bool:
    """Tell whether picking out codes is quicker by far than passing over `size` rows: no need to look where the `allowed` rows lie."""
    return (allowed * costs.gather_code + costs.coding(k)) * _BY_FAR < size * costs.pass_row


def quickest(costs: Costs, size: int, allowed: int, occupied: int, k: int, *, in_runs: bool, coded: bool, left: float | None = None) -> Way:
    """Return the way that costs least to the best `k` of `allowed` rows out of `size`, which lie in stretches of `occupied` rows together.

    Args:
        in_runs: whether most rows allowed follow each other.
        coded: whether there are codes.
        left: what share of the rows allowed projections are expected to leave in the running; None: there are none.
    """

    def picked(one: float, where_they_lie: float) -> float:
        return allowed * (min(one, where_they_lie) if in_runs else one)

    passed, listed = size * costs.pass_row, _LISTED * costs.pass_row
    ways: dict[Way, float] = {
        "gather rows": picked(costs.gather_row, 1.5 * costs.scan_row),
        "scan rows": occupied * costs.scan_row + passed,
    }
    coding = costs.coding(k)
    if coded:
        ways["gather codes"] = picked(costs.gather_code, costs.scan_code + listed) + coding
        ways["scan codes"] = occupied * costs.scan_code + passed + coding
    if left is not None:
        after = (allowed * left + min(LEADERS * k, allowed)) * costs.gather_code + coding + costs.projecting
        ways["gather projections"] = picked(costs.gather_projection, costs.scan_projection + listed) + after
        ways["scan projections"] = occupied * costs.scan_projection + passed + after
    return min(ways, key=ways.__getitem__)
