"""Enters the user's metadata file into the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mcp_server.errors import IngestError
from mcp_server.ingest.ledger import Ledger, compact
from mcp_server.ingest.tables.metadata import MetadataReport, matched_rows
from mcp_server.ingest.wishes import Wishes


@dataclass(frozen=True)
class OwnMetadata:
    """What became of a metadata file.

    Attributes:
        report: rows matched, unmatched and unusable.
        without_row: files, those that cannot be read among them, that no row is about.
    """

    report: MetadataReport
    without_row: int


def enter_metadata(ledger: Ledger, folder: Path, wishes: Wishes) -> OwnMetadata | None:
    """Give each file in the ledger the fields and the group that the metadata file has for it, and nothing to the others.

    Returns None, and reads nothing, when neither the file nor the pictures changed since it was last done.

    Raises:
        IngestError: the file cannot be read, or names no picture.
    """
    file = wishes.metadata
    if file is None:
        if ledger.setting("metadata_stamp") != "none":
            with ledger.transaction():
                _forget(ledger)
                ledger.set("metadata_stamp", "none")
        return None
    try:
        status = file.stat()
    except OSError as error:
        raise IngestError(f"Cannot read the metadata file {file}: {error.strerror}. Name another with --metadata.") from error
    stamp = f"{file}:{wishes.column}:{status.st_size}:{status.st_mtime_ns}"
    if stamp == ledger.setting("metadata_stamp"):
        return None
    report = MetadataReport()
    known = "status NOT IN ('removed', 'gone')"
    with ledger.transaction():
        ledger.database.execute("CREATE TEMP TABLE IF NOT EXISTS said (source TEXT PRIMARY KEY, own TEXT, own_group TEXT)")
        ledger.database.execute("DELETE FROM said")
        sources = ledger.database.execute(f"SELECT source FROM files WHERE {known} ORDER BY source")
        for row in matched_rows(file, folder, _first(sources), report, wishes.column):
            ledger.database.execute("INSERT OR IGNORE INTO said VALUES (?, ?, ?)", (row.source, compact(row.fields), row.group))
        changed = ledger.database.execute(
            "UPDATE files SET (own, own_group) = (SELECT own, own_group FROM said WHERE said.source = files.source) "
            "WHERE (own, own_group) IS NOT (SELECT own, own_group FROM said WHERE said.source = files.source)"
        ).rowcount
        if changed:
            ledger.set("dirty", 1)
        ledger.set("metadata_stamp", stamp)
        without = ledger.database.execute(f"SELECT count(*) FROM files WHERE {known} AND own IS NULL").fetchone()[0]
    return OwnMetadata(report, without)


def _forget(ledger: Ledger) -> None:
    if ledger.database.execute("UPDATE files SET own = NULL, own_group = NULL WHERE own IS NOT NULL OR own_group IS NOT NULL").rowcount:
        ledger.set("dirty", 1)


def _first(rows: Iterator[tuple[str]]) -> Iterator[str]:
    for (value,) in rows:
        yield value
