"""How the user wants a collection, remembered from run to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.fields import TagKind, parse_types
from mcp_server.ingest.grouping import Grouping, parse_grouping
from mcp_server.ingest.ledger import Ledger

NEAR = 0.97
"""Cosine from which pictures count as nearly the same unless the user says otherwise."""


@dataclass(frozen=True)
class Options:
    """What the user said, as on the command line; None: as in the last run, or the default.

    Attributes:
        metadata: JSON Lines, CSV or Parquet file with the user's own fields; "" for none any more.
        column: which of its columns names the picture.
        types: kinds of fields, as "field=date,other=text"; "" for none any more.
        group_by: folder, stem, a field or a regular expression; "" for none any more.
        near: cosine from which pictures are near-duplicates, or "off".
        only_own: leave out the fields that ingest finds out by itself.
        report: file to write what became of each file to; not remembered.
    """

    metadata: str | None = None
    column: str | None = None
    types: str | None = None
    group_by: str | None = None
    near: str | None = None
    only_own: bool | None = None
    report: str | None = None


@dataclass(frozen=True)
class Wishes:
    """How the user wants the collection.

    Attributes:
        metadata: the file with the user's own fields, if there is one.
        column: which of its columns names the picture; None: one of the usual ones.
        kinds: kinds of fields that are not to be guessed.
        grouping: what makes a group, beside the metadata's own groups; None: nothing.
        near: cosine from which two pictures count as nearly the same; None: only equal files are duplicates.
        only_own: leave out what ingest itself finds out about a picture.
        options: what to remember for the next run once this one has ended well.
    """

    metadata: Path | None = None
    column: str | None = None
    kinds: Mapping[str, TagKind] = field(default_factory=dict[str, TagKind])
    grouping: Grouping | None = None
    near: float | None = NEAR
    only_own: bool = False
    options: str = "{}"


def remembered(ledger: Ledger, options: Options) -> Wishes:
    """Return the wishes of `options`, completed by those of the last run that ended well.

    Raises:
        IngestError: one of them cannot be understood.
    """
    before = Options(**json.loads(ledger.setting("options", "{}")))
    said = asdict(options)
    if options.metadata is not None:
        said["metadata"] = str(Path(options.metadata).absolute()) if options.metadata else ""
        said["column"] = options.column or ""  # it belongs to the file
    now = Options(**{**{name: old if said[name] is None else said[name] for name, old in asdict(before).items()}, "report": None})
    wishes = Wishes(
        Path(now.metadata) if now.metadata else None,
        now.column or None,
        parse_types(now.types) if now.types else {},
        parse_grouping(now.group_by) if now.group_by else None,
        _near(now.near),
        bool(now.only_own),
        json.dumps(asdict(now)),
    )
    if now != before and ledger.pictures():
        ledger.set("dirty", 1)
    return wishes


def _near(text: str | None) -> float | None:
    if text is None:
        return NEAR
    if text.strip().lower() in ("off", "none", "no"):
        return None
    try:
        near = float(text)
    except ValueError:
        near = 0.0
    if not 0.5 <= near <= 1:
        raise IngestError(f"--near takes a cosine from 0.5 to 1, such as {NEAR}, or off; got {text!r}.")
    return near
