"""Where a FAISS index may answer: what was measured of it, share by share, held against the recall its collection asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

FORMAT = 2
"""Counts up when older measurements no longer say how this program searches, exactly or not."""
TARGET_RECALL = 0.99
FEW, MANY = 10, 100
"""The two lengths of answers that are measured; longer ones are always exact."""
CLEARLY = 1.25
"""So many times as fast as the exact search an approximate one must be, the answers it loses to the exact search counted in."""
_AS_GOOD_AS = 0.9
"""A share down to this part of a measured one counts as that one: a few unusable or seen items make no difference."""


@dataclass(frozen=True)
class Trial:
    """One run of all queries through a FAISS index and the exact one.

    Attributes:
        share: part of the rows a random filter lets through; 1.0 is no filter.
        allowed: how many rows that is.
        effort: lists visited (nprobe) or length of the queue (efSearch).
        recall_at_10, recall_at_100: mean part of the true nearest 10 and 100 that is found, of the worse of two kinds of queries; rows
            that score the same count alike.
        kept: part of the answers that pass the check of each answer (see `HybridIndex`); the others are searched again exactly.
        faiss_ms, exact_ms: median milliseconds a query for the best 100, measured one after the other in one process.
    """

    share: float
    allowed: int
    effort: int
    recall_at_10: float
    recall_at_100: float
    kept: float
    faiss_ms: float
    exact_ms: float

    def recall(self, k: int) -> float:
        """Return the recall measured for answers of up to `k` rows; 0 beyond what was measured."""
        return self.recall_at_10 if k <= FEW else self.recall_at_100 if k <= MANY else 0.0

    @property
    def is_faster(self) -> bool:
        """Whether it is clearly faster than the exact search, counting that some answers are searched twice."""
        return CLEARLY * (self.faiss_ms + (1 - self.kept) * self.exact_ms) <= self.exact_ms


@dataclass(frozen=True)
class Approval:
    """What was measured of one FAISS file on one collection for one target.

    Attributes:
        target: the recall that is asked for (`TargetRecall`), from 0.5 to 1; 1 approves nothing.
        queries: what was asked, in words.
        trials: from no filter to ever stricter ones, each share with ever more effort until that was enough or no faster.
    """

    target: float
    queries: str
    trials: tuple[Trial, ...]

    def effort_for(self, share: float, k: int) -> int | None:
        """Return the least effort with which `k` rows may be searched where `share` of all rows are allowed; None: search exactly.

        What holds at a share is what was measured at the next lower one: the fewer rows are allowed, the more of the best are missed.
        """
        measured = max((trial.share for trial in self.trials if _AS_GOOD_AS * trial.share <= share), default=None)
        if measured is None or self.target >= 1:
            return None
        enough = (t.effort for t in self.trials if t.share == measured and t.recall(k) >= self.target and t.is_faster)
        return min(enough, default=None)

    def is_used(self, trial: Trial) -> bool:
        """Whether this trial is the one that answers of 10 or of 100 rows go by."""
        return trial.effort in (self.effort_for(trial.share, FEW), self.effort_for(trial.share, MANY))

    @property
    def late_limit(self) -> int:
        """How many of the best 100 found may come from the second half of the effort, or of the candidates, see `HybridIndex`."""
        return int((1 - self.target) * MANY + 1e-9)

    @property
    def smallest_share(self) -> float | None:
        """The smallest measured share at which the FAISS index answers; None when it never does."""
        return min((trial.share for trial in self.trials if self.effort_for(trial.share, FEW) is not None), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return what `approval_from` reads."""
        return {"format": FORMAT, **asdict(self)}


def approval_from(found: object, target: float) -> Approval | None:
    """Return the approval in `found`, as read from JSON; None where it is none, of another target or of another format."""
    if not isinstance(found, dict):
        return None
    fields = cast("dict[str, Any]", found)
    if fields.get("format") != FORMAT or fields.get("target") != target:
        return None
    try:
        return Approval(float(fields["target"]), str(fields["queries"]), tuple(Trial(**trial) for trial in fields["trials"]))
    except (KeyError, TypeError, ValueError):
        return None
