"""Turns a folder of pictures into a collection: scan, read the metadata, decode, embed, write, put in place, configure."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mcp_server.config import LOCAL_DIR, root_of
from mcp_server.encoders.base import ImageEncoder
from mcp_server.errors import IngestError
from mcp_server.ingest.config_section import check_name, sections_of, with_section, write_text
from mcp_server.ingest.embed import embed
from mcp_server.ingest.fields import Field, impossible_moments, is_reserved, storable
from mcp_server.ingest.metadata import NO_METADATA, BadLine, Metadata, read_metadata
from mcp_server.ingest.pictures import Unreadable, decode_all
from mcp_server.ingest.scan import scan
from mcp_server.ingest.write import CATALOG_FILE, EMBEDDINGS_FILE, THUMBNAILS_FILE, CollectionWriter, publish, staging_folder, writing

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IngestReport:
    """What an ingest did.

    Attributes:
        added: pictures in the new collection.
        groups: groups they belong to.
        failed: files that are not in it, with the reason, in path order.
        without_row: pictures of the collection that no metadata row is about; 0 when there was no metadata.
        unmatched_rows: metadata rows that name no picture.
        bad_lines: metadata lines that could not be used, wholly or in part.
        fields: the fields one can filter on, with their kinds.
        left_out: metadata fields that cannot be fields of a collection.
        seconds: how long it took.
    """

    added: int
    groups: int
    failed: tuple[Unreadable, ...]
    without_row: int
    unmatched_rows: int
    bad_lines: tuple[BadLine, ...]
    fields: tuple[Field, ...]
    left_out: tuple[str, ...]
    seconds: float


def ingest_folder(
    folder: Path,
    destination: Path,
    config_file: Path,
    name: str,
    model: str,
    device: str = "auto",
    metadata: Path | None = None,
    progress: Progress | None = None,
    *,
    root: Path | None = None,
    original_base: str | None = None,
    replace: bool = False,
    encoder: ImageEncoder | None = None,
) -> IngestReport:
    """Make the collection `name` of the pictures below `folder` and enter it in `config_file`.

    What can be wrong with the arguments is found before the model is loaded. Until everything is written, the collection that was there
    before stays as it is.

    Args:
        folder: pictures, in any depth.
        destination: folder of the collection's three files; made if it is not there.
        config_file: made if it is not there.
        name: section of the configuration, and what callers say.
        model: open_clip name, `hf-hub:org/repo` or `local-dir:PATH` (from the working folder). Entered in the section: the vectors are of
            no use with another.
        device: auto, cpu, cuda, cuda:N or mps.
        metadata: file with one JSON object a line.
        progress: called with (files done, files in all) after each batch.
        root: folder that relative paths of the configuration start at; default: `config.root_of(config_file)`.
        original_base: what `OriginalMediaURL` says: a URL, folder or zip; default: `folder`.
        replace: put the new collection in the place of an old one of that name.
        encoder: the image tower to use in place of loading `model`.

    Raises:
        IngestError: with what to do: a bad name, no pictures, a collection that is there, unusable metadata or configuration, a full disk.
        EncoderError: the model cannot be loaded.
    """
    started = time.monotonic()
    folder, destination, config_file = folder.absolute(), destination.absolute(), config_file.absolute()
    if model.startswith(LOCAL_DIR):
        model = LOCAL_DIR + os.path.normpath(Path(model.removeprefix(LOCAL_DIR)).expanduser().absolute())
    check_name(name)
    _check_place(destination, config_file, name, replace=replace)
    values = _section(destination, (root or root_of(config_file)).absolute(), model, original_base or str(folder))
    with_section(config_file, name, values)
    found = scan(folder)
    sources = [source for source in found if storable(source) == source]
    rows = read_metadata(metadata, folder, sources) if metadata is not None else NO_METADATA
    encoder = encoder or _load(model, device)
    failed = [Unreadable(storable(source), "its name is not Unicode text") for source in found if storable(source) != source]
    with staging_folder(destination) as staging, closing(CollectionWriter(staging, sources, encoder.width)) as writer:
        done = len(failed)
        for batch in embed(decode_all(folder, sources), encoder):
            with writing(destination):
                writer.add(batch)
            failed.extend(batch.failed)
            done += batch.seen
            if progress is not None:
                progress(done, len(found))
        if not writer.sources:
            raise IngestError(f"None of the {len(found)} files can be read; the first, {failed[0].source}: {failed[0].reason}.")
        with writing(destination):
            fields = writer.finish(rows)
        publish(staging, destination)
    with writing(config_file):
        write_text(config_file, with_section(config_file, name, values))
    report = _report(writer.sources, rows, failed, fields, time.monotonic() - started)
    logger.info(
        "ingest.done collection=%s added=%d failed=%d groups=%d fields=%d seconds=%.1f",
        name,
        report.added,
        len(failed),
        report.groups,
        len(fields),
        report.seconds,
    )
    return report


def _check_place(destination: Path, config_file: Path, name: str, *, replace: bool) -> None:
    there = sections_of(config_file)
    twin = next((section for section in there if section != name and section.casefold() == name.casefold()), None)
    if twin is not None:
        raise IngestError(f"There is already a collection {twin!r}, which differs in letter case only. Give another --name.")
    if replace:
        return
    if name in there:
        raise IngestError(f"There is already a collection {name!r} in {config_file}. Give another --name, or --replace to build it anew.")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise IngestError(f"{destination} is there already and not empty. Give another --name or --out, or --replace to write into it.")


def _section(destination: Path, root: Path, model: str, original_base: str) -> dict[str, str]:
    if model.startswith(LOCAL_DIR):
        model = LOCAL_DIR + _shown(model.removeprefix(LOCAL_DIR), root)
    return {
        "Enabled": "True",
        "IndexType": "zarr",
        "Model": model,
        "EmbeddingsFile": _shown(destination / EMBEDDINGS_FILE, root),
        "DatabaseFile": _shown(destination / CATALOG_FILE, root),
        "ThumbnailMediaURL": _shown(destination / THUMBNAILS_FILE, root),
        "OriginalMediaURL": original_base if original_base.lower().startswith(("http://", "https://")) else _shown(original_base, root),
    }


def _shown(path: Path | str, root: Path) -> str:
    """Return `path` as the configuration says it: from `root` where it lies below it, else absolute."""
    absolute = Path(os.path.normpath(Path(path).absolute()))
    return f"./{absolute.relative_to(root).as_posix()}" if absolute.is_relative_to(root) else absolute.as_posix()


def _load(model: str, device: str) -> ImageEncoder:
    from mcp_server.encoders.open_clip import load_image_encoder

    return load_image_encoder(model, device)


def _report(sources: list[str], rows: Metadata, failed: list[Unreadable], fields: tuple[Field, ...], seconds: float) -> IngestReport:
    names = {name for row in rows.rows.values() for name in row}
    return IngestReport(
        added=len(sources),
        groups=len({rows.groups[source] for source in sources if source in rows.groups}),
        failed=tuple(sorted(failed, key=lambda one: one.source)),
        without_row=sum(source not in rows.rows for source in sources) if rows is not NO_METADATA else 0,
        unmatched_rows=rows.unmatched,
        bad_lines=tuple(sorted((*rows.bad_lines, *_impossible(rows, fields)), key=lambda bad: bad.number)),
        fields=fields,
        left_out=tuple(sorted(storable(name) for name in names if is_reserved(name))),
        seconds=seconds,
    )


def _impossible(rows: Metadata, fields: tuple[Field, ...]) -> list[BadLine]:
    return [
        BadLine(rows.lines[source], f"its {field.name} {value} does not exist")
        for field in fields
        for source, row in rows.rows.items()
        for value in impossible_moments(field, row.get(field.name))
    ]
