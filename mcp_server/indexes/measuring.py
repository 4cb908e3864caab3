"""Holds a FAISS file against the exact answer: how much it finds, how fast, and whether that is worth it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import CollectionError
from mcp_server.indexes.approval import CLEARLY, TARGET_RECALL, Approval, Trial
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.fingerprints import fingerprint_of, note_recall, noted
from mcp_server.indexes.hybrid import EXACT_BELOW, HybridIndex, answered_share
from mcp_server.indexes.opening import check_index
from mcp_server.indexes.side_vectors import exact_index
from mcp_server.indexes.trials import QUERIES, measured_approval
from mcp_server.side_files import SideFiles

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """How good and fast a FAISS file is.

    Attributes:
        approval: what was measured, and for which target.
        suggestion: what to do with the file, in a sentence or two.
    """

    approval: Approval
    suggestion: str

    @property
    def queries(self) -> str:
        """What was asked, in words."""
        return self.approval.queries

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Without a filter first, then with ever stricter ones, each with ever more effort."""
        return self.approval.trials

    def is_used(self, trial: Trial) -> bool:
        """Whether a server lets FAISS answer such a search."""
        return trial.allowed > EXACT_BELOW and self.approval.is_used(trial)


@dataclass(frozen=True)
class IndexCheck:
    """What `check_index_file` found.

    Attributes:
        type: FAISS's name of the innermost index; "" when it cannot be read.
        rows, width: of the embeddings.
        metric: "inner product", or "L2" on unit vectors; "" when it cannot be read.
        seconds_behind: how much older the FAISS file is than the embeddings; 0 or less when it is newer.
        of_these_embeddings: whether its note names these embeddings; None when it has none, as files of other makers.
        problem: why a server does not use it; None when it does.
        findings: what else is worth telling.
        measured: None when there is a problem or no queries were asked for.
    """

    file: Path
    type: str
    rows: int
    width: int
    metric: str
    seconds_behind: float
    of_these_embeddings: bool | None
    problem: str | None
    findings: tuple[str, ...]
    measured: Measured | None


def check_index_file(
    embeddings_file: Path,
    faiss_file: Path,
    seed: int = 0,
    queries: int = QUERIES,
    tell: Tell | None = None,
    target_recall: float = TARGET_RECALL,
    side: SideFiles | None = None,
) -> IndexCheck:
    """Hold `faiss_file` against the embeddings it should hold: rows, width, metric, ids, a sample found again, and recall.

    The same files and seed give the same findings and recall. What is measured is added to the note of a file that has one, for servers
    to go by. Needs the memory a server needs. `side`: where the server keeps its side files, so that what is measured is what it does.

    Raises:
        CollectionError: the embeddings are missing or damaged, or there is no `faiss_file`.
    """
    exact = exact_index(embeddings_file, side)
    embeddings = exact.embeddings
    if not faiss_file.is_file():
        raise CollectionError(f"There is no FAISS index {faiss_file}. Build one with `clip-search-mcp index build`.")
    behind = embeddings_file.stat().st_mtime - faiss_file.stat().st_mtime
    fingerprint = noted(faiss_file)
    is_of_these = None if fingerprint is None else fingerprint == fingerprint_of(embeddings_file)
    try:
        index = FaissIndex(faiss_file, embeddings)
    except CollectionError as error:
        return IndexCheck(faiss_file, "", embeddings.size, embeddings.width, "", behind, is_of_these, str(error), (), None)
    findings = check_index(HybridIndex(exact, index, lambda: None), embeddings)
    problem = (
        None
        if is_of_these is not False
        else "It was built from another version of the embeddings. Run `clip-search-mcp index build` again."
    )
    measured = None
    if queries and index.takes_masks and problem is None and not embeddings.unusable.all():
        measured = _measured(embeddings, index, exact, target_recall, seed, queries, tell)
        try:
            note_recall(faiss_file, measured.approval.as_json())
        except OSError as error:
            findings.append(f"What was measured cannot be noted beside the file ({error.strerror}); servers measure it for themselves.")
    return IndexCheck(
        faiss_file,
        index.type_name,
        embeddings.size,
        embeddings.width,
        index.metric,
        round(behind, 1),
        is_of_these,
        problem,
        tuple(findings),
        measured,
    )


def measure(
    embeddings_file: Path, faiss_file: Path, target_recall: float, seed: int, queries: int, tell: Tell, side: SideFiles | None = None
) -> Measured:
    """Run `queries` searches, at least 1, through the FAISS index as the server does and exactly, on the same masks, and note the outcome.

    Raises:
        CollectionError: a file is missing or damaged, they do not fit, or the note cannot be written.
    """
    exact = exact_index(embeddings_file, side)
    measured = _measured(exact.embeddings, FaissIndex(faiss_file, exact.embeddings), exact, target_recall, seed, queries, tell)
    try:
        note_recall(faiss_file, measured.approval.as_json())
    except OSError as error:
        raise CollectionError(f"The note beside {faiss_file} cannot be written ({error.strerror}). Check the folder.") from error
    return measured


def _measured(
    embeddings: Embeddings, index: FaissIndex, exact: ExactIndex, target: float, seed: int, queries: int, tell: Tell | None
) -> Measured:
    def told(done: int, total: int) -> None:
        if tell is not None:
            tell("measure", done, total)

    approval = measured_approval(embeddings, index, exact, target, seed, queries, told=told)
    return Measured(approval, _suggestion(approval, embeddings.size, index))


def _suggestion(approval: Approval, size: int, index: FaissIndex) -> str:
    if size <= EXACT_BELOW:
        return f"Keep IndexType = zarr: up to {EXACT_BELOW:,} items every search is answered exactly anyway."
    if not index.is_faster_than_scan:
        return f"Keep IndexType = zarr: this {index.type_name} visits every vector, as the exact search does."
    plain = [trial for trial in approval.trials if trial.share == max(one.share for one in approval.trials)]
    best = plain[-1]
    if approval.effort_for(best.share, 10) is None:
        if best.recall_at_10 < approval.target:
            return (
                f"Keep IndexType = zarr: this {index.type_name} finds {best.recall_at_10:.1%} of the ten nearest, TargetRecall is "
                f"{approval.target:g}. More lists visited, a longer queue or another type may find more."
            )
        return (
            f"Keep IndexType = zarr: the exact search takes {best.exact_ms:.1f} ms, this {index.type_name} {best.faiss_ms:.1f} ms and "
            f"{1 - best.kept:.0%} of its answers have to be searched again exactly; it should be {CLEARLY} times as fast."
        )
    used = next(trial for trial in plain if approval.effort_for(trial.share, 10) == trial.effort)
    return (
        f"Worth using: {used.exact_ms / used.faiss_ms:.1f} times as fast as the exact search and {used.recall_at_10:.1%} of the ten "
        f"nearest, where at least {answered_share(approval, size):.0%} of the items are allowed. "
        "Set IndexType = faiss and CLIPIndexFile to this file."
    )
