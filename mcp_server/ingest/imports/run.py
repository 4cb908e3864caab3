"""Makes a collection of vectors that were made elsewhere: check, copy the vectors, write the catalog, put in place, configure."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcp_server.config import root_of
from mcp_server.encoders.models import model_width
from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.fields import Field, TagKind, field_key
from mcp_server.ingest.catalog.stage import Remark
from mcp_server.ingest.catalog.write_catalog import CatalogReport, write_catalog
from mcp_server.ingest.claim import alone, forget
from mcp_server.ingest.config_section import enter_section, value_in, with_section
from mcp_server.ingest.imports.blocks import CheckedVectors
from mcp_server.ingest.imports.exquisitor_json import find_exquisitor, read_exquisitor_json
from mcp_server.ingest.imports.items import Links, OrderedItems, check_counts, tables_of
from mcp_server.ingest.imports.vectors import VectorSource, open_vectors
from mcp_server.ingest.placing import absolute_model, check_place, collection_section
from mcp_server.ingest.write import (
    CATALOG_FILE,
    EMBEDDINGS_FILE,
    THUMBNAILS_FILE,
    check_writable,
    put_in_place,
    staging_folder,
    writing,
)
from mcp_server.ingest.write_archives import write_embeddings

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

UNUSABLE_LISTED = 1_000


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        items: media that a search can find.
        groups: groups they belong to; with Exquisitor's files all media that are not searchable.
        rows: vectors, N.
        width: D.
        dtype: how they are stored, "float32" or "float16".
        unusable: rows with NaN, infinity or only zeros, which no search finds; the first `UNUSABLE_LISTED`.
        unusable_count: how many those are in all.
        not_unit: usable rows that came with another length than 1.
        normalised: whether those have length 1 now.
        fields: the fields one can filter on, with their kinds.
        left_out: metadata columns that cannot be fields of a collection.
        refused: values that are not in the catalog, by field and reason.
        remarks: what one should know of fields and values that are in it.
        notes: what was odd, in sentences; says each thing once.
        seconds: how long it took.
    """

    items: int
    groups: int
    rows: int
    width: int
    dtype: str
    unusable: tuple[int, ...]
    unusable_count: int
    not_unit: int
    normalised: bool
    fields: tuple[Field, ...]
    left_out: tuple[str, ...]
    refused: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class _Written:
    """What came of writing the catalog."""

    catalog: CatalogReport
    groups: int
    notes: tuple[str, ...]


def import_vectors(
    embeddings: Path,
    metadata: Path | None,
    destination: Path,
    config_file: Path,
    name: str,
    model: str,
    *,
    root: Path | None = None,
    original_base: str | None = None,
    thumbnail_base: str | None = None,
    types: Mapping[str, TagKind] | None = None,
    column: str | None = None,
    replace: bool = False,
    normalise: bool = True,
    progress: Progress | None = None,
) -> ImportReport:
    """Make the collection `name` of vectors that `model` made, and enter it in `config_file`. No picture is read and no model loaded.

    All or nothing: until everything is written, what was there before stays as it is. Memory does not grow with the vectors.

    Args:
        embeddings: see `vectors.open_vectors`.
        metadata: a table (JSON Lines, JSON, CSV, Parquet) or a folder of numbered ones, row i for vector i; or Exquisitor's JSON files, in
            a folder or as one file. None: what is found beside or in the vectors, else items are called item-0, item-1 …
        destination: folder of the collection's files; made if it is not there.
        config_file: made if it is not there.
        name: section of the configuration, and what callers say.
        model: what made the vectors: open_clip name, `hf-hub:org/repo` or `local-dir:PATH` (from the working folder).
        root: folder that relative paths of the configuration start at; default: `config.root_of(config_file)`.
        original_base: what `OriginalMediaURL` says: a URL, folder or zip that sources are below; default: what it says now, if anything.
        thumbnail_base: what `ThumbnailMediaURL` says; default: what it says now, if anything.
        types: field to kind, as from `fields.parse_types`, for those that are not to be guessed.
        column: metadata column that names an item's source; default: the first of `import_items.SOURCE_KEYS`.
        replace: put the new collection in the place of an old one of that name.
        normalise: store unit vectors. Without, they are stored as they are, and a server normalises them each time it reads them.
        progress: called with (vectors copied, vectors in all) after each block.

    Raises:
        IngestError: with what to do: nothing to import, counts or widths that differ, a collection that is there, a full disk.
        ConfigError: there is no such model.
    """
    started = time.monotonic()
    destination, config_file, model = destination.absolute(), config_file.absolute(), absolute_model(model)
    check_place(destination, config_file, name, replace=replace)
    base = (root or root_of(config_file)).absolute()
    if original_base is None:
        original_base = _base_there(config_file, name, "OriginalMediaURL", base)
    if thumbnail_base is None:
        thumbnail_base = _base_there(config_file, name, "ThumbnailMediaURL", base)
        if thumbnail_base == str(destination / THUMBNAILS_FILE):  # an ingest's own, which the import takes away
            thumbnail_base = ""
    values = collection_section(destination, base, model, original_base, thumbnail_base)
    with_section(config_file, name, values)
    check_writable(config_file.resolve().parent, config_file, "--config")
    if metadata is not None and not metadata.exists():
        raise IngestError(f"There is no metadata at {metadata}. Name a table, a folder of tables, or leave it out.")
    source = open_vectors(embeddings, described=metadata is not None)
    if not source.count:
        raise IngestError(f"{embeddings} holds no vectors: it has 0 rows.")
    notes = [*source.findings, *_check_width(source, model, config_file.parent)]
    exquisitor = metadata is not None and find_exquisitor(metadata) is not None
    tables = () if exquisitor else tables_of(source, metadata)
    check_counts(tables)
    with alone(destination) if destination.exists() else nullcontext(), staging_folder(destination) as staging:
        vectors = CheckedVectors(source, normalise=normalise, progress=progress)
        with writing(destination):
            write_embeddings(staging / EMBEDDINGS_FILE, vectors.blocks(), source.count, source.width, vectors.dtype)
            if exquisitor and metadata is not None:
                written = _write_exquisitor(staging, metadata, vectors, types or {})
            else:
                links = Links(column, _folder(original_base), bool(thumbnail_base))
                written = _write_ordered(staging, OrderedItems(tables, source.count, source.width, links, staging), vectors, types or {})
        if destination.exists():
            forget(destination)  # what an ingest remembers is about other vectors
        put_in_place(staging, destination, thumbnails=False)
    enter_section(config_file, name, values)
    asked = {field_key(field) for field in types or {}}  # a tagset of Exquisitor's that no medium has is nobody's mistake
    notes += [
        *written.notes,
        *(f"--types names a field {field!r} that no item has" for field in written.catalog.unused_kinds if field in asked),
    ]
    report = _report(source, vectors, written, notes, normalise=normalise, seconds=time.monotonic() - started)
    logger.info(
        "import.done collection=%s items=%d rows=%d width=%d unusable=%d fields=%d seconds=%.1f",
        name,
        report.items,
        report.rows,
        report.width,
        report.unusable_count,
        len(report.fields),
        report.seconds,
    )
    return report


def _check_width(source: VectorSource, model: str, data_folder: Path) -> list[str]:
    expected = model_width(model, data_folder)
    if expected is None:
        return [f"how wide the vectors of {model} are is not known before it is loaded; these are {source.width} wide"]
    if expected != source.width:
        raise IngestError(
            f"The vectors are {source.width} wide, those of {model} {expected}: it did not make them. "
            "Give --model with the model that did, or its vectors."
        )
    return []


def _base_there(config_file: Path, name: str, key: str, root: Path) -> str:
    """Return what section [name] says of `key`, paths absolute; "" for nothing."""
    base = value_in(config_file, name, key) or ""
    if not base or base.lower().startswith(("http://", "https://")):
        return base
    return os.path.normpath(root / (Path(base).expanduser() if base.startswith("~") else base))


def _folder(original_base: str) -> Path | None:
    if not original_base or original_base.lower().startswith(("http://", "https://")):
        return None
    path = Path(os.path.normpath(Path(original_base).absolute()))
    return path if path.is_dir() else None


def _write_ordered(staging: Path, items: OrderedItems, vectors: CheckedVectors, kinds: Mapping[str, TagKind]) -> _Written:
    catalog = write_catalog(staging / CATALOG_FILE, items.medias(vectors.unusable), kinds=kinds)
    return _Written(catalog, items.groups, tuple(items.notes()))


def _write_exquisitor(staging: Path, metadata: Path, vectors: CheckedVectors, kinds: Mapping[str, TagKind]) -> _Written:
    count = len(vectors.unusable)
    with read_exquisitor_json(metadata, staging) as found:
        if not found.has_rows and found.images != count:
            raise IngestError(
                f"{metadata.name} has {found.images:,} images and no CLIP Index ID that says whose vector is where; there are {count:,} "
                "vectors. Add that tagset, or give each image one vector, in the order of medias."
            )
        catalog = write_catalog(staging / CATALOG_FILE, found.medias(vectors.unusable), kinds={**found.kinds, **kinds})
        if not catalog.items:
            raise IngestError(f"No medium of {metadata.name} has a vector among the {count:,}: a CLIP Index ID is a row, from 0.")
        notes = list(found.tally.sentences())
        unclaimed = count - found.tally.indexed - found.tally.unusable
        if unclaimed:
            notes.append(f"{unclaimed:,} vectors belong to no medium and are not searchable")
        return _Written(catalog, found.count - catalog.items, tuple(notes))


def _report(
    source: VectorSource, vectors: CheckedVectors, written: _Written, notes: list[str], *, normalise: bool, seconds: float
) -> ImportReport:
    unusable = np.flatnonzero(vectors.unusable)
    return ImportReport(
        items=written.catalog.items,
        groups=written.groups,
        rows=source.count,
        width=source.width,
        dtype=np.dtype(vectors.dtype).name,
        unusable=tuple(int(row) for row in unusable[:UNUSABLE_LISTED]),
        unusable_count=unusable.size,
        not_unit=vectors.not_unit,
        normalised=normalise,
        fields=written.catalog.fields,
        left_out=written.catalog.left_out,
        refused=written.catalog.refused,
        remarks=written.catalog.notes,
        notes=tuple(notes),
        seconds=seconds,
    )
