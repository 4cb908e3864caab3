"""The commands that make collections: ingest, import, index build, index check."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_server.cli_words import as_typed, say
from mcp_server.config import (
    DEFAULT_MODEL,
    LOCAL_DIR,
    CollectionConfig,
    Settings,
    config_of_environment,
    demo_config,
    load_settings,
    root_of,
)
from mcp_server.errors import ConfigError, IngestError
from mcp_server.ingest.config_section import enter_section
from mcp_server.ingest.placing import shown_path
from mcp_server.logs import log_to_stderr

if TYPE_CHECKING:
    from mcp_server.indexes.measuring import Measured
    from mcp_server.ingest.catalog.fields import Field
    from mcp_server.ingest.catalog.stage import Remark
    from mcp_server.ingest.report import IngestReport
    from mcp_server.side_files import SideFiles

SHOWN = 20
"""Files or lines named one by one; the rest are counted."""


def ingest(options: argparse.Namespace) -> int:
    """Turn a folder of pictures into a collection, or bring one up to date."""
    from mcp_server.ingest.run import ingest_folder
    from mcp_server.ingest.wishes import Options

    place = _Place(options, options.folder.absolute().name)
    log_to_stderr("WARNING")
    with _bar("pictures") as progress:
        report = ingest_folder(
            options.folder,
            place.destination,
            place.config_file,
            place.name,
            place.model,
            options.device or place.device,
            Options(
                metadata=options.metadata,
                column=options.column,
                types=options.types,
                group_by=options.group_by,
                near=options.near,
                only_own=options.only_own,
                report=options.report,
            ),
            progress,
            root=options.root,
            original_base=options.originals,
            replace=options.replace,
        )
    _say_ingested(report, place.name)
    if report.catalog is not None:  # else nothing was written
        _prepare(place.config_file, options.root, place.name)
    _say_try(place)
    return 0


def import_embeddings(options: argparse.Namespace) -> int:
    """Turn vectors that were computed elsewhere into a collection."""
    from mcp_server.ingest.catalog.fields import parse_types
    from mcp_server.ingest.imports.run import import_vectors

    place = _Place(options, options.embeddings.absolute().name.partition(".")[0])
    log_to_stderr("WARNING")
    with _bar("vectors") as progress:
        report = import_vectors(
            options.embeddings,
            Path(options.metadata) if options.metadata else None,
            place.destination,
            place.config_file,
            place.name,
            place.model,
            root=options.root,
            original_base=options.originals,
            thumbnail_base=options.thumbnails,
            types=parse_types(options.types) if options.types else None,
            column=options.column,
            replace=options.replace,
            normalise=options.normalise,
            progress=progress,
        )
    say(
        f"collection {place.name}: {_many(report.items, 'item')}" + (f", {_many(report.groups, 'group')}" if report.groups else "") + f"; "
        f"{_many(report.rows, 'vector')} {report.width} wide, stored as {report.dtype}; {report.seconds:.1f} s"
    )
    if report.unusable_count:
        rows = ", ".join(map(str, report.unusable[:5])) + (", …" if report.unusable_count > 5 else "")
        say(f"{_many(report.unusable_count, 'vector')} not finite or zero, which no search finds (row {rows})")
    if report.not_unit:
        done = "stored with length 1" if report.normalised else "stored as they are"
        say(f"{_many(report.not_unit, 'vector')} of another length than 1, {done}")
    for note in report.notes:
        say(f"note: {note}")
    _say_fields(report.fields, report.left_out, (*report.refused, *report.remarks))
    _prepare(place.config_file, options.root, place.name)
    _say_try(place)
    return 0


def index_build(options: argparse.Namespace) -> int:
    """Write the FAISS file of a collection and say whether it is worth using."""
    from mcp_server.indexes.building import BuildOptions, build_index

    settings, mine = _served(options)
    if options.config is None and settings.config_file == demo_config():
        raise IngestError("There is no configuration here but that of the bundled demo, which needs no index. Name yours with --config.")
    target = (options.out or mine.faiss_file or mine.embeddings_file.parent / "index.faiss").absolute()
    if target.exists() and not options.replace and not target.with_name(target.name + ".json").exists():
        raise IngestError(f"{target} was not made by this program. Give another place with --out, or --replace to write over it.")
    try:
        chosen = BuildOptions(
            options.nlist,
            options.nprobe,
            options.links,
            options.ef_construction,
            options.ef_search,
            options.seed,
            target_recall=mine.target_recall,
        )
    except ValueError as error:
        raise IngestError(str(error)) from error
    report = build_index(mine.embeddings_file, target, options.type, chosen, _say_step, _side(settings, mine))
    parameters = ", ".join(f"{name} {value}" for name, value in report.parameters.items())
    say(
        f"{report.kind}{f' ({parameters})' if parameters else ''} of {_many(report.rows, 'row')}, {report.width} wide: "
        f"{report.bytes / 2**20:.1f} MiB in {report.seconds} s"
    )
    say(str(report.file))
    _say_measured(report.measured)
    say(report.suggestion)
    if options.use:
        shown = shown_path(target, (options.root or root_of(settings.config_file)).absolute())
        enter_section(settings.config_file, mine.name, {"IndexType": "faiss", "CLIPIndexFile": shown})
        say(f"[{mine.name}] of {settings.config_file} uses it from the next start on.")
    elif mine.faiss_file is None or mine.faiss_file.absolute() != target:
        say(f"To use it, set in [{mine.name}]: IndexType = faiss and CLIPIndexFile = {target.as_posix()}; or give --use.")
    return 0


def index_check(options: argparse.Namespace) -> int:
    """Hold the FAISS file of a collection against its embeddings."""
    from mcp_server.indexes.measuring import check_index_file

    settings, mine = _served(options)
    file = options.file or mine.faiss_file
    if file is None:
        raise IngestError(f"[{mine.name}] uses no FAISS index (IndexType = zarr). Name one with --file, or build one with index build.")
    check = check_index_file(mine.embeddings_file, file, target_recall=mine.target_recall, side=_side(settings, mine))
    if check.type:
        say(f"{check.type}, {check.metric}; the embeddings have {_many(check.rows, 'row')}, {check.width} wide")
    if check.of_these_embeddings is None:
        say("note: It has no note of what it was built from, as files of other programs.")
    if check.seconds_behind > 0:
        say(f"note: It is older than the embeddings, by {timedelta(seconds=max(1, round(check.seconds_behind)))}.")
    for finding in check.findings:
        say(f"note: {finding}")
    _say_measured(check.measured)
    if check.measured is not None:
        say(check.measured.suggestion)
    if check.problem is not None:
        say(f"PROBLEM {check.problem}")
        return 1
    return 0


def _prepare(config_file: Path, root: Path | None, name: str) -> None:
    """Make now what a server would make at its first start, so that its first searches are as fast as all others."""
    from mcp_server.indexes.side_vectors import exact_index

    settings = load_settings(config_file, root)
    mine = _collection(settings, name)
    if mine is not None:
        exact_index(mine.embeddings_file, _side(settings, mine))


def _side(settings: Settings, mine: CollectionConfig) -> SideFiles | None:
    from mcp_server.side_files import SideFiles

    return SideFiles.of(settings.side_folder, mine.name) if settings.side_folder is not None else None


@contextmanager
def _bar(unit: str) -> Generator[Callable[[int, int], None]]:
    """Show a bar on a terminal while the block runs; yield what moves it, called with how many are done and how many there are."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm

    with tqdm(unit=f" {unit}", file=sys.stderr) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


def _served(options: argparse.Namespace) -> tuple[Settings, CollectionConfig]:
    """Return the settings and the collection that is meant: the only one if none is named."""
    settings = load_settings(options.config, options.root)
    log_to_stderr("ERROR")
    names = ", ".join(one.name for one in settings.collections) or "none"
    if options.collection is None and len(settings.collections) == 1:
        return settings, settings.collections[0]
    mine = _collection(settings, options.collection or "")
    if mine is None:
        for name, reason in settings.refused:
            if name == options.collection or not (settings.collections or options.collection):
                raise ConfigError(reason)
        raise IngestError(f"Say which collection with --collection; there are: {names}.")
    return settings, mine


def _say_step(step: str, done: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{step} {done:,}/{total:,}   ", end="" if done < total else "\n", file=sys.stderr, flush=True)


def _say_measured(measured: Measured | None) -> None:
    if measured is None:
        return
    say(f"measured with {measured.queries}:")
    say(f"{'allowed':>12} {'effort':>6} {'recall@10':>10} {'recall@100':>11} {'kept':>5} {'FAISS ms':>9} {'exact ms':>9}")
    for trial in measured.trials:
        say(
            f"{trial.allowed:>12,} {trial.effort:>6} {trial.recall_at_10:>10.3f} {trial.recall_at_100:>11.3f} {trial.kept:>5.0%} "
            f"{trial.faiss_ms:>9.2f} {trial.exact_ms:>9.2f}  {'FAISS answers' if measured.is_used(trial) else 'answered exactly'}"
        )


class _Place:
    """Where a collection goes, and with which model, from the options and the configuration that is there."""

    def __init__(self, options: argparse.Namespace, folder_name: str) -> None:
        self.name: str = options.name or re.sub(r"[^A-Za-z0-9_-]+", "-", folder_name).strip("-")
        beside: Path = options.out / "config.ini" if options.out else Path("data/config.ini")
        self.config_file: Path = options.config or config_of_environment() or beside
        known = load_settings(self.config_file, options.root) if self.config_file.is_file() else None
        mine = _collection(known, self.name)
        self.destination: Path = options.out or (mine.database_file.parent if mine else self.config_file.parent / self.name)
        self.model: str = _model(options.model) or (mine.model if mine else known.model if known else DEFAULT_MODEL)
        self.device: str = known.model_device if known else "auto"


def _collection(settings: Settings | None, name: str) -> CollectionConfig | None:
    return next((one for one in settings.collections if one.name == name), None) if settings else None


def _folder(text: str) -> Path:
    if not text.strip():  # an unset variable is not the working folder
        raise argparse.ArgumentTypeError("it is empty")
    return Path(text)


def _model(value: str | None) -> str | None:
    """Return `value` with a local-dir path made absolute: on a command line it starts at the working directory."""
    if value is not None and value.startswith(LOCAL_DIR):
        return LOCAL_DIR + str(Path(value.removeprefix(LOCAL_DIR)).absolute())
    return value


def _say_ingested(report: IngestReport, name: str) -> None:
    counts, times = report.counts, report.times
    say(
        f"added {counts.added:,}, unchanged {counts.unchanged:,}, changed {counts.changed:,}, removed {counts.removed:,}, "
        f"failed {counts.failed:,}" + (f"; {counts.moved:,} of these only moved" if counts.moved else "")
    )
    say(f"collection {name}: {_many(report.pictures, 'picture')}" + (f", {_many(report.groups, 'group')}" if report.groups else ""))
    if report.embedded:
        steps = (("loading the model", times.loading), ("model", times.model), ("waiting for decoding", times.waiting))
        shares = ", ".join(f"{what} {seconds / times.total:.0%}" for what, seconds in (*steps, ("writing", times.writing)))
        speed = report.embedded / max(times.waiting + times.model + times.writing, 1e-9)
        say(f"{times.total:.1f} s, {speed:.1f} pictures/s; {shares}; decoding took {times.decoding:.1f} s beside that")
    else:
        say(f"{times.total:.1f} s, nothing to embed")
    if report.catalog is not None:
        _say_fields(report.catalog.fields, report.catalog.left_out, (*report.catalog.refused, *report.catalog.notes))
        if report.catalog.unused_kinds:
            say(f"note: --types names fields that no picture has: {', '.join(report.catalog.unused_kinds)}")
    if report.metadata is not None:
        if report.metadata.without_row:
            say(f"{_many(report.metadata.without_row, 'file')} without a metadata row")
        if report.metadata.report.unmatched:
            say(f"{_many(report.metadata.report.unmatched, 'metadata row')} without a picture")
        bad = report.metadata.report.bad
        _say_some((f"metadata line {line.number}: {line.reason}" for line in bad.first), bad.count)
    for one in report.closed:
        say(f"folder not read: {one.prefix or '.'}: {one.reason}; what was known in it is kept")
    _say_some((f"not read: {failure.source}: {failure.reason}" for failure in report.failed), len(report.failed))


def _say_fields(fields: Iterable[Field], left_out: Sequence[str], remarks: Iterable[Remark]) -> None:
    from mcp_server.stores.schema import KIND_OF_TYPE

    say("fields: " + (", ".join(f"{field.name} ({KIND_OF_TYPE[field.kind]})" for field in fields) or "none"))
    if left_out:
        more = f" and {len(left_out) - SHOWN:,} more" if len(left_out) > SHOWN else ""
        say(f"not usable as fields, by their names or for there are too many: {', '.join(left_out[:SHOWN])}{more}")
    for remark in remarks:
        say(f"field {remark.field}: {_many(remark.count, 'value')} {remark.reason}, such as {remark.example}")


def _say_try(place: _Place) -> None:
    say(f'Try: clip-search-mcp search "your words" --config {as_typed(str(place.config_file))} --collection {place.name}')


def _say_some(lines: Iterable[str], count: int) -> None:
    for number, line in enumerate(lines):
        if number == SHOWN:
            break
        say(line)
    if count > SHOWN:
        say(f"… and {count - SHOWN:,} more; --report FILE.jsonl lists all files")


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def add_collection_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the parsers of these commands to `commands`; each takes the options of `common`."""
    placing = argparse.ArgumentParser(add_help=False)
    placing.add_argument("--name", help="the collection's name; default: the folder's")
    placing.add_argument(
        "--model", help=f"open_clip name, hf-hub:org/repo or local-dir:PATH; default: the configuration's, {DEFAULT_MODEL}"
    )
    placing.add_argument(
        "--out",
        type=Path,
        help="where to write the collection, and its configuration too unless another is named; default: beside ./data/config.ini",
    )
    placing.add_argument("--replace", action="store_true", help="build anew a collection of that name")
    placing.add_argument("--column", help='column of the metadata that names the picture; default: "file", "path", "filename" and the like')
    placing.add_argument(
        "--types", metavar="FIELD=TYPE,...", help="types not to be guessed: text, integer, number, date, time, timestamp, json"
    )

    one = commands.add_parser(
        "ingest", parents=[common, placing], help="turn a folder of pictures into a collection, or bring it up to date"
    )
    one.add_argument("folder", type=_folder, metavar="FOLDER", help="pictures, in any depth of folders")
    one.add_argument("--metadata", metavar="FILE", help="your own fields: JSON Lines, CSV or Parquet, one row a picture")
    one.add_argument("--device", help="auto, cpu, cuda, cuda:N or mps; default: the configuration's ModelDevice, auto")
    one.add_argument("--group-by", metavar="WHAT", help="make groups: folder, stem, a field's name, or a regular expression for the path")
    one.add_argument("--near", metavar="COSINE", help="from where on pictures count as near-duplicates (default 0.97), or off")
    one.add_argument("--only-own", action=argparse.BooleanOptionalAction, default=None, help="only the metadata file's fields")
    one.add_argument("--originals", metavar="BASE", help="URL, folder or zip where the full pictures are; default: FOLDER")
    one.add_argument("--report", metavar="FILE.jsonl", help="write what became of each file")
    one.set_defaults(command=ingest)

    one = commands.add_parser("import", parents=[common, placing], help="turn embeddings computed elsewhere into a collection")
    one.add_argument(
        "--embeddings",
        type=Path,
        metavar="FILE|FOLDER",
        required=True,
        help=".npy, a folder of them, clip-retrieval's output folder, Zarr, Parquet",
    )
    one.add_argument(
        "--metadata",
        metavar="FILE|FOLDER",
        help="row i for vector i: JSON Lines, JSON, CSV, Parquet, or a folder of numbered ones; or Exquisitor's JSON, files or folder",
    )
    one.add_argument("--originals", metavar="BASE", help="URL, folder or zip that the sources are below")
    one.add_argument("--thumbnails", metavar="BASE", help="URL, folder or zip that the thumbnails are below")
    one.add_argument("--normalise", action=argparse.BooleanOptionalAction, default=True, help="store vectors with length 1 (default)")
    one.set_defaults(command=import_embeddings)

    index = commands.add_parser("index", help="build or check the FAISS index of a collection")
    actions = index.add_subparsers(metavar="ACTION", required=True)
    one = actions.add_parser("build", parents=[common], help="write the FAISS file and measure it against exact search")
    one.add_argument("--collection")
    one.add_argument("--type", default="ivf_sq8", choices=("flat", "sq8", "ivf", "ivf_sq8", "hnsw", "hnsw_sq8"), help="default: ivf_sq8")
    one.add_argument("--out", type=Path, metavar="FILE.faiss", help="default: CLIPIndexFile, else index.faiss beside the embeddings")
    one.add_argument("--use", action="store_true", help="set IndexType and CLIPIndexFile in the configuration")
    one.add_argument("--replace", action="store_true", help="write over a file that another program made")
    one.add_argument("--nlist", type=int, help="lists of an IVF index; default: 4 times the root of the rows")
    one.add_argument("--nprobe", type=int, help="lists a search visits; the server visits at least 64")
    one.add_argument("--links", type=int, default=32, help="neighbours a node of an HNSW graph has (default 32)")
    one.add_argument("--ef-construction", type=int, default=200, help="queue while building an HNSW graph (default 200)")
    one.add_argument("--ef-search", type=int, help="queue while searching it; the server's has at least 128")
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(command=index_build)
    one = actions.add_parser("check", parents=[common], help="hold the FAISS file against the embeddings")
    one.add_argument("--collection")
    one.add_argument("--file", type=Path, metavar="FILE.faiss", help="default: CLIPIndexFile")
    one.set_defaults(command=index_check)
