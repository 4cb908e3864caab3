"""`clip-search-mcp doctor`: hold configuration, models, catalogs, embeddings and indexes against each other. Reads, never writes.

Loads no model: whether the weights are there, and whole, is read from disk.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mcp_server.config import LOCAL_DIR, CollectionConfig, Settings, not_writable, too_open, wrong_with
from mcp_server.encoders.cache import read_record
from mcp_server.encoders.checkpoints import weights_in_folder
from mcp_server.encoders.models import cache_paths, model_width
from mcp_server.engine.opening import EmbeddingsReader, open_files, trust_of, width_mismatch
from mcp_server.errors import CollectionError, ConfigError, ModelUnavailableError, clipped
from mcp_server.side_files import SideFiles, bytes_in
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.fields import Field
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.schema import Kind
from mcp_server.stores.sessions import SESSIONS_FILE
from mcp_server.stores.taggings import read_tags
from mcp_server.stores.values import stored_key

if TYPE_CHECKING:
    from mcp_server.indexes.embeddings import Embeddings

Level = Literal["ok", "note", "PROBLEM"]

_ROOM_FOR_SESSIONS = 2**18
"""Bytes that an empty file of sessions and what SQLite keeps beside it take."""

_READ: dict[Kind, str] = {
    "integer": "whole numbers such as 2021",
    "number": "numbers such as 1.5",
    "date": "dates such as 2021-03-15",
    "time": "times such as 10:05:30",
    "timestamp": "times such as 2021-03-15T10:05:30, and dates",
}


@dataclass(frozen=True)
class Finding:
    """One line of the report: what is said about what, and how bad it is."""

    level: Level
    about: str
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield findings in the order a person would look: configuration, models, then each collection."""
    for warning in settings.warnings:
        yield Finding("note", "configuration", warning)
    if refused := too_open(settings, settings.host):
        yield Finding("note", "configuration", f"`clip-search-mcp serve --http` does not start: {refused}")
    for name, reason in settings.refused:
        yield Finding("PROBLEM", name, reason)
    if not settings.collections and not settings.refused:
        yield Finding("PROBLEM", "configuration", "No collection is enabled. Set Enabled = True in one, or ingest a folder.")
    for model in dict.fromkeys(config.model for config in settings.collections):
        yield from _model(model, settings)
    for config in settings.collections:
        yield from _collection(config, settings)
    yield from _left_over(settings)
    yield from _sessions(settings)


def _left_over(settings: Settings) -> Iterator[Finding]:
    """Find side files, which may be gigabytes, of collections that were renamed or taken out."""
    if settings.side_folder is None or not settings.side_folder.is_dir():
        return
    names = [*(config.name for config in settings.collections), *(name for name, _ in settings.refused)]
    used = {SideFiles.of(settings.side_folder, name).folder for name in names}
    for folder in sorted(path for path in settings.side_folder.iterdir() if path.is_dir() and path not in used):
        text = f"{folder} ({bytes_in(folder) / 2**20:,.1f} MiB) is of no collection that is enabled here."
        yield Finding("note", "side files", f"{text} Delete it, unless another configuration uses it.")


def _sessions(settings: Settings) -> Iterator[Finding]:
    file = settings.state_folder / SESSIONS_FILE
    text = f"The server does not start: sessions cannot be kept in {file}:"
    if file.exists() and not os.access(file, os.R_OK | os.W_OK):
        yield Finding("PROBLEM", "sessions", f"{text} this user may not write to it. Make it writable.")
    elif shutil.disk_usage(settings.state_folder).free < _ROOM_FOR_SESSIONS:
        yield Finding("PROBLEM", "sessions", f"{text} the disk is full. Make room on it.")
    else:
        yield Finding("ok", "sessions", f"kept in {file}")


def _model(model: str, settings: Settings) -> Iterator[Finding]:
    try:
        width = model_width(model, settings.cache_folder)
        if model.startswith(LOCAL_DIR):
            yield Finding("ok", "model", f"{model}, {width} wide, {weights_in_folder(model).name} read in place")
            return
    except ConfigError as error:
        yield Finding("PROBLEM", "model", str(error))
        return
    paths = cache_paths(model, settings.cache_folder)
    state = "not cached yet"
    if paths.weights.exists():
        from mcp_server.encoders.towers import own_paths

        usual = paths.weights
        try:
            paths = own_paths(model, settings.cache_folder)
        except ModelUnavailableError as error:
            yield Finding("PROBLEM", "model", error.remedy)
            return
        if paths.weights != usual:
            text = f"{usual} is a program that another tool has pickled, as an Exquisitor engine does; it is left alone and not loaded."
            yield Finding("ok", "model", text)
    if paths.weights.exists():
        if read_record(paths, model) is not None:
            yield Finding("ok", "model", f"{model}, {width} wide, text encoder cached in {paths.weights}")
            return
        state = "its cache is damaged or was made by another version"
    wide = f", {width} wide" if width else ""
    yield Finding("note", "model", f"{model}{wide}, {state}: the first search downloads it and writes {paths.weights}")


def _collection(config: CollectionConfig, settings: Settings) -> Iterator[Finding]:
    files = (("DatabaseFile", config.database_file), ("EmbeddingsFile", config.embeddings_file), ("CLIPIndexFile", config.faiss_file))
    missing = [
        Finding("PROBLEM", config.name, f"{key} {wrong}: {file}. Correct it, or set Enabled = False.")
        for key, file in files
        if file is not None and (wrong := wrong_with(file) or ("is a folder" if key != "EmbeddingsFile" and file.is_dir() else None))
    ]
    yield from missing
    if missing:
        return
    try:
        yield from _contents(config, settings)
    except CollectionError as error:
        yield Finding("PROBLEM", config.name, str(error))
    for key, base in (("ThumbnailMediaURL", config.thumbnail_base), ("OriginalMediaURL", config.original_base)):
        if base and "://" not in base and (wrong := wrong_with(Path(base))):
            yield Finding("note", config.name, f"{key} {wrong}: {base}")
    if config.log_directory is not None and (wrong := not_writable(config.log_directory)):
        yield Finding("PROBLEM", config.name, f"LogDirectory cannot be written; no search is logged: {wrong}. Correct it, or leave it out.")


def _contents(config: CollectionConfig, settings: Settings) -> Iterator[Finding]:
    opened = open_files(config, EmbeddingsReader(config, None))
    embeddings = opened.embeddings
    size, width = embeddings.rows.shape
    yield Finding("ok", config.name, f"embeddings: {size:,} rows, {width} wide, {embeddings.rows.dtype}")
    try:
        mismatch = width_mismatch(config, settings, width)
    except ConfigError:
        mismatch = None  # already reported with the model
    if mismatch is not None:
        yield Finding("PROBLEM", config.name, mismatch)
    with closing(opened.catalog) as catalog:
        yield Finding("ok", config.name, f"catalog: {catalog.indexed:,} indexed items, {catalog.schema}")
        for finding in catalog.findings:
            yield Finding("note", config.name, finding)
        yield from _round_trip(config, catalog)
        fields = FilterIndex(catalog).fields
        yield Finding("ok", config.name, f"fields: {', '.join(field.name for field in fields) or 'none'}")
        for field in fields:
            yield from _unreadable(config, catalog, field)
        yield from _index(config, embeddings, catalog)
    if config.index_type == "faiss":
        yield from recall_findings(config, settings, embeddings.size)
    yield from _side_files(config, settings)


def _unreadable(config: CollectionConfig, catalog: Catalog, field: Field) -> Iterator[Finding]:
    """Tell of stored values that are not of their field's kind, which no filter and no count speaks of."""
    if field.kind not in _READ:
        return
    _, stored = read_tags(catalog.database, catalog.layout.tables[field.kind], field.tagset_ids)
    odd = [value for value in stored if value is not None and stored_key(field.kind, value) is None]
    if odd:
        counts = f"{len(odd):,} of {len(stored):,} stored values cannot be filtered by"
        text = f'field {field.name}: {counts}, such as "{clipped(odd[0])}"; what is read: {_READ[field.kind]}.'
        yield Finding("note", config.name, text)


def _side_files(config: CollectionConfig, settings: Settings) -> Iterator[Finding]:
    from mcp_server.indexes.side_vectors import CODED_FROM, SideVectors

    if settings.side_folder is None:
        return
    side = SideFiles.of(settings.side_folder, config.name)
    vectors = SideVectors(side, config.embeddings_file)
    if damaged := vectors.damaged():
        text = f"side files: {' and '.join(damaged)} are not as they were written, so searches may miss items."
        yield Finding("PROBLEM", config.name, f"{text} Delete {side.folder}, start the server again, and check the disk.")
        return
    rows, codes = vectors.there()
    needed = "rows and codes" if codes is not None else f"rows; fewer than {CODED_FROM:,} need no codes"
    if rows and codes is not False:
        yield Finding("ok", config.name, f"side files: {needed}, each byte as it was written, in {side.folder}")
        return
    what = "codes are" if rows else "they are"
    if obstacle := vectors.obstacle():
        yield Finding("note", config.name, f"side files: {what} not there and cannot be made, so searches are slower: {obstacle}.")
    else:
        yield Finding("note", config.name, f"side files: {what} not there yet; the next start of the server makes them in {side.folder}")


def _index(config: CollectionConfig, embeddings: Embeddings, catalog: Catalog) -> Iterator[Finding]:
    from mcp_server.indexes.opening import check_index, open_index

    try:
        index = open_index(config.index_type, embeddings, config.faiss_file, catalog.media_of_row, config.embeddings_file)
    except CollectionError as error:
        yield Finding(
            "PROBLEM",
            config.name,
            f"{error} Until then every search is answered exactly from the embeddings; run `clip-search-mcp index build`.",
        )
        return
    for finding in check_index(index, embeddings):
        yield Finding("note", config.name, finding)
    yield Finding("ok", config.name, f"index: {config.index_type}, {index.size:,} rows")


def recall_findings(config: CollectionConfig, settings: Settings, size: int) -> Iterator[Finding]:
    """Say where the FAISS index of `config`, a collection of `size` rows, answers, and what was measured of it."""
    from mcp_server.indexes.approval_file import read_approval
    from mcp_server.indexes.hybrid import EXACT_BELOW, answered_share

    target = f"TargetRecall is {config.target_recall:g}"
    if config.target_recall >= 1:
        yield Finding("note", config.name, f"{target}: every search is answered exactly, the FAISS index never.")
        return
    if size <= EXACT_BELOW:
        yield Finding("note", config.name, f"Up to {EXACT_BELOW:,} items every search is answered exactly, whatever the FAISS index.")
        return
    if config.faiss_file is None:
        return
    approval = read_approval(config.faiss_file, config.target_recall, config.embeddings_file, trust_of(config, settings).cached)
    if approval is None:
        yield Finding(
            "note",
            config.name,
            f"{target}; what the FAISS index reaches was not measured yet, so every search is answered exactly. The first search "
            "measures it behind the calls, `clip-search-mcp index check` at once.",
        )
        return
    smallest = answered_share(approval, size)
    if smallest is None:
        yield Finding("note", config.name, f"{target}; the FAISS index does not reach it clearly faster and never answers.")
    else:
        yield Finding("ok", config.name, f"{target}; the FAISS index answers where at least {smallest:.0%} of the items are allowed")
    for trial in approval.trials:
        used = "used" if trial.share * size > EXACT_BELOW and approval.is_used(trial) else "not used"
        yield Finding(
            "ok",
            config.name,
            f"{trial.share:.0%} allowed, effort {trial.effort}: recall {trial.recall_at_10:.3f} of 10, {trial.recall_at_100:.3f} of 100, "
            f"{trial.kept:.0%} kept, {trial.faiss_ms:.1f} ms against {trial.exact_ms:.1f} ms exactly: {used}",
        )


def _round_trip(config: CollectionConfig, catalog: Catalog) -> Iterator[Finding]:
    """Row -> media id -> row must come back to where it began, for a sample of 1,000."""
    rows = np.flatnonzero(catalog.mapped)
    rows = rows[:: max(1, len(rows) // 1_000)]
    back = catalog.rows_of(catalog.media_of_row[rows].tolist()).rows
    wrong = int(np.count_nonzero(np.sort(back) != rows)) if len(back) == len(rows) else len(rows)
    if wrong:
        yield Finding("PROBLEM", config.name, f"{wrong:,} of {len(rows):,} sampled rows do not lead to a media id and back.")
    elif len(rows) == 0:
        yield Finding("PROBLEM", config.name, "No medium has a CLIP Index ID within the embeddings, so nothing can be found.")
    else:
        yield Finding("ok", config.name, f"positions: {len(rows):,} sampled rows lead to a media id and back")
