"""Which way to the same exact answer is the quickest, by what a row costs on each of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Way = Literal["gather rows", "gather codes", "scan rows", "scan codes"]


@dataclass(frozen=True)
class Costs:
    """Nanoseconds. Measured where the codes are made (`probes`); the defaults are of no particular machine.

    Attributes:
        gather_row, gather_code: for a row picked out.
        scan_row, scan_code: for a row in passing.
        pass_row: for a row of the collection that a scan does not even look at, and for a skipped one.
        coding: for a call that uses codes, whatever the number of rows: turning the query, looking closely at the contenders.
    """

    gather_row: float = 250.0
    gather_code: float = 115.0
    scan_row: float = 110.0
    scan_code: float = 40.0
    pass_row: float = 2.0
    coding: float = 400_000.0

    @classmethod
    def of(cls, about: dict[str, Any]) -> Costs:
        """Return the costs noted in `about`, defaults for those that are not there."""
        return cls(**{name: float(about[name]) for name in asdict(cls()) if isinstance(about.get(name), int | float)})

    def noted(self) -> dict[str, float]:
        """Return what `of` reads."""
        return asdict(self)


def quickest(costs: Costs, size: int, allowed: int, occupied: int, *, coded: bool) -> Way:
    """Return the way for `allowed` of `size` rows, which lie in stretches of `occupied` rows together; codes can be used if `coded`."""
    dense = allowed / max(1, occupied)  # rows that follow each other are picked out nearly as fast as they are scanned

    def picked(one: float, in_passing: float) -> float:
        return allowed * (one * (1 - dense) + min(one, 2 * in_passing) * dense)

    ways: dict[Way, float] = {
        "gather rows": picked(costs.gather_row, costs.scan_row),
        "scan rows": occupied * costs.scan_row + size * costs.pass_row,
    }
    if coded:
        ways["gather codes"] = picked(costs.gather_code, costs.scan_code) + costs.coding
        ways["scan codes"] = occupied * costs.scan_code + size * costs.pass_row + costs.coding
    return min(ways, key=ways.__getitem__)
