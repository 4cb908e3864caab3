"""Reads the rows of a metadata file, one by one: JSON Lines, a JSON list, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.tables.rows import BadLines, Row, read_lines

TABLE_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
"""The kinds of file that can be read, as `--metadata` names them."""


def read_table(file: Path, bad: BadLines) -> Iterator[tuple[int, Row]]:
    """Yield the rows of `file` with their numbers, in its order; nothing as large as the file is kept in memory.

    By the end of the name: .jsonl and .ndjson hold one JSON object a line; .json the same, or one list of objects, by itself or as the one
    list of objects in an object; .csv and .tsv a first line of names, see `read_csv`; .parquet see `read_parquet`. Letter case ignored.
    The number is that of the line the row starts at, for lists and Parquet that of the row; the first is 1. Text is UTF-8, a byte order
    mark may be there. Lines that are no row go to `bad`. Every row is a new dict, for the caller to keep.

    Raises:
        IngestError: the file cannot be read, is of no known kind, or not what its name says.
    """
    suffix = file.suffix.lower()
    try:
        if suffix in (".jsonl", ".ndjson"):
            yield from read_lines(file, bad)
        elif suffix == ".json":
            from mcp_server.ingest.tables.read_json import read_json

            yield from read_json(file, bad)
        elif suffix in (".csv", ".tsv"):
            from mcp_server.ingest.tables.read_csv import read_csv

            yield from read_csv(file, bad)
        elif suffix == ".parquet":
            from mcp_server.ingest.tables.read_parquet import read_parquet

            yield from read_parquet(file, bad)
        else:
            raise IngestError(f"Cannot read metadata from {file}: its name ends in none of {', '.join(TABLE_SUFFIXES)}.")
    except OSError as error:
        raise IngestError(f"Cannot read the metadata file {file}: {error.strerror or clipped(error, 80)}.") from error
