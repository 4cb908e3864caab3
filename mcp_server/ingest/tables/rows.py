"""A row of a table, what is wrong with some, and the plainest table: JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mcp_server.errors import clipped

Row = dict[str, Any]

BAD_LINES_KEPT = 1_000


@dataclass(frozen=True)
class BadLine:
    """What was wrong with one line or row of a metadata file; the first has number 1."""

    number: int
    reason: str


@dataclass
class BadLines:
    """The lines of a file that could not be used, wholly or in part: the first thousand of them, and how many there are."""

    first: list[BadLine] = field(default_factory=list[BadLine])
    count: int = 0

    def add(self, number: int, reason: str) -> None:
        """Take note of one line."""
        self.count += 1
        if len(self.first) < BAD_LINES_KEPT:
            self.first.append(BadLine(number, reason))


def read_lines(file: Path, bad: BadLines) -> Iterator[tuple[int, Row]]:
    """Yield the JSON objects of `file`, one a line; blank lines are passed over."""
    with file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            bare = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if not bare:
                continue
            try:
                row = json.loads(bare.decode("utf-8"))
            except UnicodeDecodeError:
                bad.add(number, "not UTF-8 text")
            except (ValueError, RecursionError) as error:
                bad.add(number, f"not JSON: {clipped(error, 60)}")
            else:
                if isinstance(row, dict):
                    yield number, cast("Row", row)
                else:
                    bad.add(number, "not a JSON object")
