"""Turns a folder of pictures into a collection, and keeps it so: scan, plan, decode, embed, publish. `ingest_folder` is the whole walk."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from mcp_server.config import root_of
from mcp_server.encoders.base import ImageEncoder
from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.write_catalog import CatalogReport
from mcp_server.ingest.config_section import enter_section, sections_of, value_in, with_section
from mcp_server.ingest.embed import embed
from mcp_server.ingest.ledger import LEDGER_FOLDER, Counts, Ledger, adopt, alone, forget
from mcp_server.ingest.own_metadata import OwnMetadata, enter_metadata
from mcp_server.ingest.pictures.results import Unreadable
from mcp_server.ingest.placing import absolute_model, check_place, collection_section
from mcp_server.ingest.plan import Plan, make_plan
from mcp_server.ingest.publish import missing, publish
from mcp_server.ingest.scan import Closed, scan
from mcp_server.ingest.wishes import Options, Wishes, remembered
from mcp_server.ingest.workers import Workers
from mcp_server.ingest.write import put_in_place, writing

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

FIRST_LOOK_SECONDS = 15.0
"""A collection that was not there before can be searched after so long, with the pictures embedded by then."""
LOOK_EVERY_SECONDS = 60.0
_LOOK_SHARE = 20
"""Publishing in between may take a twentieth of the time."""
_AHEAD = 2
"""Batches decoded ahead of the model."""
_FACTS_AT_ONCE = 500
_SAMPLED = 100


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
        counts: files by what became of them since the last run that ended. Moved ones are among the added and the removed.
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


def ingest_folder(
    folder: Path,
    destination: Path,
    config_file: Path,
    name: str,
    model: str,
    device: str = "auto",
    options: Options | None = None,
    progress: Progress | None = None,
    *,
    root: Path | None = None,
    original_base: str | None = None,
    replace: bool = False,
    encoder: ImageEncoder | None = None,
) -> IngestReport:
    """Bring the collection `name` up to what lies below `folder`, or make it, and enter it in `config_file`.

    Only new and changed files are decoded and embedded. Each batch is kept at once: after a kill at any moment the collection serves what
    it served before, and the next run goes on from the last batch to the same end. What can be wrong with the arguments is found before the
    model is loaded, and the model is loaded only if there is something to embed.

    Args:
        folder: pictures, in any depth. Only read.
        destination: folder of the collection's files; made if it is not there.
        config_file: made if it is not there. A section that is there stays as it is, unless `replace`.
        name: section of the configuration, and what callers say.
        model: open_clip name, `hf-hub:org/repo` or `local-dir:PATH` (from the working folder). Entered in the section: the vectors are of
            no use with another.
        device: auto, cpu, cuda, cuda:N or mps.
        options: how the user wants it; what is not given is as in the last run.
        progress: called with (files done, files to do) after each batch.
        root: folder that relative paths of the configuration start at; default: `config.root_of(config_file)`.
        original_base: what `OriginalMediaURL` says: a URL, folder or zip; default: `folder`.
        replace: build anew what is there.
        encoder: the image tower to use in place of loading `model`.

    Raises:
        IngestError: with what to do: a bad name, no pictures, a collection that is there, unusable metadata or configuration, a full disk.
        EncoderError: the model cannot be loaded or failed.
    """
    started = time.perf_counter()
    folder, destination, config_file = folder.absolute(), destination.absolute(), config_file.absolute()
    model = absolute_model(model)
    _finish_replacing(destination)
    check_place(destination, config_file, name, replace=replace, goes_on=True)
    base = (root or root_of(config_file)).absolute()
    values = collection_section(destination, base, model, original_base or str(folder))
    with_section(config_file, name, values)  # which refuses what a configuration cannot hold
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise IngestError(f"{folder} {what}. Give the folder that holds the pictures.")
    if folder == destination:
        raise IngestError("A collection cannot lie among the pictures it is made of. Give another --out.")
    options = options or Options()
    if options.report is not None and (Path(options.report).is_dir() or not Path(options.report).absolute().parent.is_dir()):
        raise IngestError(f"Cannot write the report {options.report}: name a file in a folder that is there.")
    enter = partial(_enter_section, config_file, name, values)
    if replace and destination.exists():
        with writing(destination), alone(destination):
            report = _replaced(destination, folder, model, options, lambda: encoder or _load(model, device), progress)
            enter(anew=True)
    else:
        with _nothing_left(destination), writing(destination), Ledger.open(destination) as ledger:
            report = _Job(ledger, folder, destination, options, enter).run(model, lambda: encoder or _load(model, device), progress)
            enter(anew=replace)
        if report.moved_from is not None and original_base is None:
            old = collection_section(destination, base, model, str(report.moved_from))
            _follow(config_file, name, old["OriginalMediaURL"], values["OriginalMediaURL"])
    times = report.times
    times.total = time.perf_counter() - started
    logger.info(
        "ingest.done collection=%s pictures=%d embedded=%d failed=%d seconds=%.1f waiting=%.1f model=%.1f writing=%.1f decoding=%.1f",
        name,
        report.pictures,
        report.embedded,
        len(report.failed),
        times.total,
        times.waiting,
        times.model,
        times.writing,
        times.decoding,
    )
    return report


class _Job:
    """One run over one ledger."""

    def __init__(self, ledger: Ledger, folder: Path, work: Path, options: Options, enter: Callable[[], None] | None) -> None:
        """`enter` is called after each publication, to make the collection known; None: nobody is to see it before the end."""
        self._ledger = ledger
        self._folder = folder
        self._work = work
        self._options = options
        self._enter = enter
        self._catalog: CatalogReport | None = None
        self._times = Times()

    def run(self, model: str, load: Callable[[], ImageEncoder], progress: Progress | None) -> IngestReport:
        """Do all that is to be done, publish it, and tell."""
        ledger, folder = self._ledger, self._folder
        moved_from = _check_same(ledger, folder, model)
        wishes = remembered(ledger, self._options)
        if ledger.pictures() and missing(self._work):
            ledger.embed_all_again()
        plan = make_plan(ledger, folder, scan(folder))
        metadata = enter_metadata(ledger, folder, wishes)
        _read_facts(ledger, folder, self._times)
        embedded = 0
        if todo := ledger.count(1):
            started = time.perf_counter()
            encoder = load()
            self._times.loading = time.perf_counter() - started
            _bind(ledger, folder, model, encoder)
            due = time.monotonic() + (FIRST_LOOK_SECONDS if missing(self._work) else LOOK_EVERY_SECONDS)
            for files, pictures in _embed(ledger, folder, encoder, self._times):
                embedded += pictures
                if progress is not None:
                    progress(files, todo)
                if self._enter is not None and files < todo and ledger.pictures() and time.monotonic() >= due:
                    due = self._publish_meanwhile(wishes)
        if not ledger.pictures():
            raise _nothing(ledger, plan)
        _bind(ledger, folder, model, None)
        if ledger.setting("dirty") or missing(self._work):
            self._publish(wishes)
        if self._options.report is not None:
            _write_report(Path(self._options.report), ledger, plan)
        report = _report(ledger, plan, embedded, metadata, self._catalog, self._times, moved_from)
        ledger.ended(wishes.options)
        return report

    def _publish(self, wishes: Wishes, *, final: bool = True) -> None:
        started = time.perf_counter()
        self._catalog = publish(self._ledger, self._work, wishes, final=final)
        if self._enter is not None:
            self._enter()
        self._times.writing += time.perf_counter() - started

    def _publish_meanwhile(self, wishes: Wishes) -> float:
        """Publish what is done, and return when to do so again, on the monotonic clock. What refuses now may not at the end."""
        started = time.monotonic()
        try:
            self._publish(wishes, final=False)
        except IngestError as error:
            logger.warning("ingest.not_published_yet reason=%s", error)
        return time.monotonic() + max(LOOK_EVERY_SECONDS, _LOOK_SHARE * (time.monotonic() - started))


def _replaced(
    destination: Path, folder: Path, model: str, options: Options, load: Callable[[], ImageEncoder], progress: Progress | None
) -> IngestReport:
    """Build the collection anew beside `destination`, which serves until then, and put it in its place."""
    work = _aside(destination)
    if work.exists():
        with Ledger.open(work) as ledger:
            same = (ledger.setting("folder"), ledger.setting("model")) in ((str(folder), model), (None, None))
        if not same:  # left by a replacing run of something else
            shutil.rmtree(work)
    with _nothing_left(work), Ledger.open(work) as ledger:
        report = _Job(ledger, folder, work, options, None).run(model, load, progress)
        ledger.set("takes_over", 1)
    _take_over(work, destination)
    return report


def _finish_replacing(destination: Path) -> None:
    """Put in place what a run with `replace` had ready when it was cut short."""
    work = _aside(destination)
    if not work.exists() or not destination.exists():
        return
    with writing(destination), alone(destination):
        if not Ledger.exists(work):  # it was moved; nothing else of worth is there
            shutil.rmtree(work)
            return
        with Ledger.open(work) as ledger:
            is_ready = bool(ledger.setting("takes_over"))
        if is_ready:
            _take_over(work, destination)


def _take_over(work: Path, destination: Path) -> None:
    """Put the collection in `work`, its ledger last, in the place of the one in `destination`. Can be done again if it was cut short."""
    forget(destination)  # first of all: the old ledger must never stand beside the new files
    put_in_place(work, destination)
    adopt(work, destination)
    shutil.rmtree(work)


def _aside(destination: Path) -> Path:
    return destination.parent / f".{destination.name}.replace"


@contextmanager
def _nothing_left(work: Path) -> Generator[None]:
    """When the block fails before anything was embedded, leave `work` as if nothing had been tried."""
    try:
        yield
    except BaseException:
        if Ledger.exists(work) and not Ledger.has_begun(work):
            shutil.rmtree(work / LEDGER_FOLDER, ignore_errors=True)
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()
        raise


def _check_same(ledger: Ledger, folder: Path, model: str) -> Path | None:
    """Refuse to mix the pictures of two folders, or the vectors of two models, in one collection. Return where a folder that moved was."""
    known, before = ledger.setting("model", model), Path(ledger.setting("folder", str(folder)))
    if known != model:
        raise IngestError(
            f"The collection was made with the model {known}; vectors of {model} do not fit to them. Leave --model out, or use --replace."
        )
    if before == folder:
        return None
    sample = ledger.database.execute('SELECT source FROM files WHERE "row" IS NOT NULL ORDER BY sha256 LIMIT ?', (_SAMPLED,)).fetchall()
    if before.is_dir() or 2 * sum((folder / source).exists() for (source,) in sample) < len(sample):
        raise IngestError(
            f"The collection holds the pictures of {before}, not of {folder}. Give another --name, or --replace to build it anew."
        )
    return before


def _bind(ledger: Ledger, folder: Path, model: str, encoder: ImageEncoder | None) -> None:
    """Note what the collection is made of from now on."""
    width = ledger.setting("width")
    if encoder is not None and width not in (None, encoder.width):
        raise IngestError(f"The collection's vectors are {width} wide, the model makes {encoder.width}. Use --replace to build it anew.")
    with ledger.transaction():
        ledger.set("model", model)
        ledger.set("folder", str(folder))
        if encoder is not None:
            ledger.set("width", encoder.width)


def _load(model: str, device: str) -> ImageEncoder:
    from mcp_server.encoders.open_clip import load_image_encoder

    return load_image_encoder(model, device)


def _read_facts(ledger: Ledger, folder: Path, times: Times) -> None:
    """Read again the facts of files that changed, but perhaps not in their bytes."""
    if not ledger.count(2):
        return
    with Workers(folder, None) as workers:
        facts = workers.examine(ledger.tasks(2))
        while many := list(islice(facts, _FACTS_AT_ONCE)):
            ledger.commit_facts(many)
        times.decoding += workers.take_seconds()


def _embed(ledger: Ledger, folder: Path, encoder: ImageEncoder, times: Times) -> Iterator[tuple[int, int]]:
    """Decode, embed and enter all that is to be; yield after each batch how many files are done, and how many pictures it had."""
    files = 0
    with Workers(folder, encoder.sizing) as workers:
        for batch in embed(workers.decode(ledger.tasks(1), _AHEAD * encoder.batch), encoder):
            started = time.perf_counter()
            ledger.commit(batch.pictures, batch.vectors, batch.failed)
            times.writing += time.perf_counter() - started
            times.waiting += batch.waited
            times.model += batch.computed
            times.decoding += workers.take_seconds()
            files += batch.files
            yield files, len(batch.pictures)


def _enter_section(config_file: Path, name: str, values: Mapping[str, str], *, anew: bool = False) -> None:
    """Enter the collection in the configuration as it is by now, unless it is there already."""
    if anew or name not in sections_of(config_file):
        enter_section(config_file, name, values)


def _follow(config_file: Path, name: str, old: str, new: str) -> None:
    """Let the configuration follow a folder that moved, unless it says something else of it."""
    if value_in(config_file, name, "OriginalMediaURL") == old:
        enter_section(config_file, name, {"OriginalMediaURL": new})


def _nothing(ledger: Ledger, plan: Plan) -> IngestError:
    failed = [*plan.unnamed, *(Unreadable(line.source, line.reason or "") for line in ledger.report(lambda status: status == "failed"))]
    if not failed:
        return IngestError("No picture is left in the folder, so there is no collection to write. The one that was there stays as it is.")
    return IngestError(f"None of the {plan.files} files can be read; the first, {failed[0].source}: {failed[0].reason}.")


def _report(
    ledger: Ledger,
    plan: Plan,
    embedded: int,
    metadata: OwnMetadata | None,
    catalog: CatalogReport | None,
    times: Times,
    moved_from: Path | None,
) -> IngestReport:
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


def _write_report(file: Path, ledger: Ledger, plan: Plan) -> None:
    """Write one JSON object a line: the summary, then each file."""
    counts = ledger.counts()
    summary = {**asdict(counts), "failed": counts.failed + len(plan.unnamed), "pictures": ledger.pictures()}
    with file.open("w", encoding="utf-8") as opened:
        opened.write(json.dumps({"summary": summary}) + "\n")
        for one in plan.closed:
            opened.write(json.dumps({"folder": one.prefix, "status": "unreadable", "reason": one.reason}, ensure_ascii=False) + "\n")
        for failed in plan.unnamed:
            opened.write(json.dumps({"file": failed.source, "status": "failed", "reason": failed.reason}, ensure_ascii=False) + "\n")
        for line in ledger.report():
            told = {"file": line.source, "status": line.status, "id": line.id, "reason": line.reason, "notes": line.notes}
            told |= {"moved_from": line.moved_from}
            opened.write(json.dumps({key: value for key, value in told.items() if value}, ensure_ascii=False) + "\n")
