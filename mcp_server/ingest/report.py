"""What an ingest did: as a value, and as a file with a line for each picture."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_server.errors import IngestError
from mcp_server.ingest.ledger import Counts, Ledger
from mcp_server.ingest.own_metadata import OwnMetadata
from mcp_server.ingest.pictures.results import Unreadable
from mcp_server.ingest.plan import Plan
from mcp_server.ingest.scan import Closed
from mcp_server.ingest.write import check_writable, writing_file

if TYPE_CHECKING:
    from mcp_server.ingest.catalog.write_catalog import CatalogReport


@dataclass
class Times:
    """Where the time went, in seconds.

    Attributes:
        total: from the first step to the last.
        loading: until the model was there.
        waiting: until decoded pictures were there.
        model: in the image tower.
        writing: in the ledger and in the files of the collection.
        decoding: processor time of the decoding processes, which work beside all that.
    """

    total: float = 0.0
    loading: float = 0.0
    waiting: float = 0.0
    model: float = 0.0
    writing: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        counts: files by what became of them since the last run that ended. A path is added, changed or removed also
            where a picture only moved there or away.
        pictures: how many the collection has now.
        groups: how many groups they form.
        failed: files that are not in it, with the reason, by path.
        closed: folders that could not be read; what was known below them is kept.
        embedded: pictures that went through the model in this run.
        metadata: what became of the metadata file; None when there is none or nothing had to be read.
        catalog: the fields one can filter on, and what could not become a field; None when nothing was written.
        times: where the time went.
        moved_from: where the folder was in the last run, if that was elsewhere.
    """

    counts: Counts
    pictures: int
    groups: int
    failed: tuple[Unreadable, ...]
    closed: tuple[Closed, ...]
    embedded: int
    metadata: OwnMetadata | None
    catalog: CatalogReport | None
    times: Times = field(default_factory=Times)
    moved_from: Path | None = None


def report_of(
    ledger: Ledger,
    plan: Plan,
    embedded: int,
    metadata: OwnMetadata | None,
    catalog: CatalogReport | None,
    times: Times,
    moved_from: Path | None,
) -> IngestReport:
    """Return what was done, from the ledger before `Ledger.ended` and from what the run itself knows."""
    failed = [Unreadable(line.source, line.reason or "") for line in ledger.report(lambda status: status == "failed")]
    counts = ledger.counts()
    return IngestReport(
        counts=dataclasses.replace(counts, failed=counts.failed + len(plan.unnamed)),
        pictures=ledger.pictures(),
        groups=int(ledger.database.execute("SELECT count(DISTINCT member_of) FROM files").fetchone()[0]),
        failed=tuple(sorted([*plan.unnamed, *failed], key=lambda one: one.source)),
        closed=plan.closed,
        embedded=embedded,
        metadata=metadata,
        catalog=catalog,
        times=times,
        moved_from=moved_from,
    )


def check_report(file: Path) -> None:
    """Refuse a place where no report can be written.

    Raises:
        IngestError: with what to do.
    """
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise IngestError(f"Cannot write the report {file}: name a file in a folder that is there.")
    if not file.exists():
        check_writable(file.absolute().parent, file, "--report")
    elif not os.access(file, os.W_OK):
        raise IngestError(f"Cannot write {file}: you may not. Name another with --report.")


def write_report(file: Path, ledger: Ledger, plan: Plan) -> None:
    """Write one JSON object a line: the summary, then each file.

    Raises:
        IngestError: the file cannot be written.
    """
    counts = ledger.counts()
    summary = {**asdict(counts), "failed": counts.failed + len(plan.unnamed), "pictures": ledger.pictures()}
    with writing_file(file, "--report"), file.open("w", encoding="utf-8") as opened:
        opened.write(json.dumps({"summary": summary}) + "\n")
        for one in plan.closed:
            opened.write(json.dumps({"folder": one.prefix, "status": "unreadable", "reason": one.reason}, ensure_ascii=False) + "\n")
        for failed in plan.unnamed:
            opened.write(json.dumps({"file": failed.source, "status": "failed", "reason": failed.reason}, ensure_ascii=False) + "\n")
        for line in ledger.report():
            told = {"file": line.source, "status": line.status, "id": line.id, "reason": line.reason, "notes": line.notes}
            told |= {"moved_from": line.moved_from}
            opened.write(json.dumps({key: value for key, value in told.items() if value}, ensure_ascii=False) + "\n")


def nothing_readable(ledger: Ledger, plan: Plan) -> IngestError:
    """Return the error for a folder of which no picture can be read."""
    failed = [*plan.unnamed, *(Unreadable(line.source, line.reason or "") for line in ledger.report(lambda status: status == "failed"))]
    if not failed and plan.closed:
        return IngestError(f"{plan.closed[0].prefix or 'The folder'} cannot be read: {plan.closed[0].reason}. Nothing was changed.")
    if not failed:
        return IngestError("No picture is left in the folder, so there is no collection to write; one that was there stays as it is.")
    return IngestError(f"None of the {plan.files} files can be read; the first, {failed[0].source}: {failed[0].reason}.")
