"""The one place that builds an engine from settings. Nothing heavy is imported or read until it is needed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, ref

from mcp_server.config import LOCAL_DIR, CollectionConfig, Settings, wrong_with
from mcp_server.encoders.loading import BackgroundText, text_loader
from mcp_server.encoders.models import model_width
from mcp_server.engine.collection import Collection, Media, ScaleFile
from mcp_server.engine.relevance import FORMAT
from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import CatalogReplacedError, CollectionError, ConfigError, IndexMismatchError
from mcp_server.indexes.fingerprints import content_of
from mcp_server.side_files import SideFiles
from mcp_server.stores.audit import AuditLog
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.relevance_file import RELEVANCE_FILE, cached_file, read_scale, write_scale
from mcp_server.stores.sessions import SESSIONS_FILE, Sessions
from mcp_server.stores.thumbnails import PictureStore

if TYPE_CHECKING:
    from mcp_server.indexes.base import Index
    from mcp_server.indexes.embeddings import Embeddings
    from mcp_server.indexes.opening import Trust
    from mcp_server.indexes.side_vectors import SideVectors

logger = logging.getLogger(__name__)

OPENING_ATTEMPTS = 5
"""How often a collection is opened from the beginning because its files were replaced meanwhile."""
PATIENCE_SECONDS = 25.0
"""How long a call waits for the model: less than the minute after which clients give up."""


def open_engine(settings: Settings, sessions_file: Path | None = None, patience_seconds: float = PATIENCE_SECONDS) -> SearchEngine:
    """Return an engine over every enabled collection of `settings`. Close it after use.

    Collections open and models load on first use, or with `engine.shelf.warm_up()`. Sessions are kept in the state folder, or in
    `sessions_file` (":memory:" keeps none). A search waits `patience_seconds` for its model.

    Raises:
        SessionStoreError: the sessions file cannot be created.
    """
    encoders = {
        model: background_encoder(model, settings, patience_seconds)
        for model in dict.fromkeys(config.model for config in settings.collections)
    }
    readers = {config.name: EmbeddingsReader(config, settings.side_folder) for config in settings.collections}
    openers: dict[str, Callable[[], Collection]] = {
        config.name: partial(open_collection, config, settings, encoders[config.model], readers[config.name])
        for config in settings.collections
    }
    openers |= {name: partial(_refuse, reason) for name, reason in settings.refused}
    watched = {name: reader.stamps for name, reader in readers.items()}
    return SearchEngine(Shelf(openers, watched), Sessions(sessions_file or settings.state_folder / SESSIONS_FILE))


def background_encoder(model: str, settings: Settings, patience_seconds: float) -> BackgroundText:
    """Return the text encoder of `model`; its weights load when first needed."""
    load = text_loader(model, settings.model_device, settings.cache_folder)
    try:
        width = model_width(model, settings.cache_folder)
    except ConfigError:
        width = None  # `open_collection` says so; collections of other models still work
    return BackgroundText(load, model, width, patience_seconds)


def open_collection(
    config: CollectionConfig, settings: Settings, encoder: BackgroundText, reader: EmbeddingsReader | None = None
) -> Collection:
    """Open the catalog and the embeddings of `config` and check them against the model; a FAISS index is read on first use.

    `reader` reads the embeddings; give the same one each time a collection is opened anew.

    Raises:
        CollectionError: a file is missing or damaged, or they do not fit each other.
    """
    from mcp_server.indexes.embeddings import embeddings_shape

    for file in (config.database_file, config.embeddings_file, config.faiss_file):
        wrong = wrong_with(file) if file is not None else None
        if wrong is not None:
            without = "run `clip-search-mcp index build`, or set IndexType = zarr" if file == config.faiss_file else "set Enabled = False"
            raise CollectionError(f"[{config.name}] {file} {wrong}. Correct the path in {settings.config_file.name}, or {without}.")
    _, width = embeddings_shape(config.embeddings_file)
    try:
        mismatch = width_mismatch(config, settings, width)
    except ConfigError as error:
        raise CollectionError(f"[{config.name}] {error}") from error
    if mismatch is not None:
        raise IndexMismatchError(f"[{config.name}] {mismatch}")
    opened = open_files(config, reader or EmbeddingsReader(config, settings.side_folder))
    catalog = opened.catalog
    for finding in catalog.findings:
        logger.warning("collection.finding name=%s %s", config.name, finding)
    if settings.side_folder is None:
        logger.warning("collection.no_cache name=%s Starts and searches are slower with --no-cache.", config.name)
    return Collection(
        config.name,
        catalog=catalog,
        filters=FilterIndex(catalog),
        load_index=partial(_index, config, settings, opened),
        encoder=encoder,
        media=Media(PictureStore.open(config.thumbnail_base), PictureStore.open(config.original_base)),
        scale_file=_scale_file(config, settings, catalog),
        audit=AuditLog(config.log_directory, config.name) if config.log_directory else None,
        on_close=opened.vectors.close if opened.vectors is not None else None,
    )


def _index(config: CollectionConfig, settings: Settings, opened: OpenFiles) -> Index:
    """Return what searches `opened`: exactly, on the graphics card if there is one, behind a FAISS file if there is one."""
    from mcp_server.indexes.device_index import device_index, has_cuda_driver
    from mcp_server.indexes.exact import ExactIndex
    from mcp_server.indexes.opening import open_index_or_exact

    embeddings, vectors, ties = opened.embeddings, opened.vectors, opened.catalog.media_of_row
    exact: Index = ExactIndex(embeddings, ties) if vectors is None else vectors.index(embeddings, ties)
    if settings.model_device not in ("cpu", "mps") and has_cuda_driver():
        exact = device_index(exact, embeddings, partial(_cuda_device, settings.model_device), ties)
    return open_index_or_exact(
        config.index_type,
        exact,
        embeddings,
        config.faiss_file,
        ties,
        config.embeddings_file,
        trust_of(config, settings),
        vectors.complete if vectors is not None else None,
    )


def _cuda_device(setting: str) -> str | None:
    """Return the CUDA device that ModelDevice means, None for none. It imports PyTorch, so it is asked in the background."""
    from mcp_server.encoders.open_clip import pick_device

    device = pick_device(setting)
    return f"cuda:{device.index or 0}" if device.type == "cuda" else None


def trust_of(config: CollectionConfig, settings: Settings) -> Trust:
    """Return how far the FAISS file of `config` is trusted, and where what is measured of it is kept."""
    from mcp_server.indexes.approval_file import CACHED_NAME
    from mcp_server.indexes.opening import Trust

    return Trust(config.target_recall, cached_file(settings.state_folder, config.name, CACHED_NAME))


def _scale_file(config: CollectionConfig, settings: Settings, catalog: Catalog) -> ScaleFile:
    """Return where the scale of relevance is kept: beside the embeddings if it was put there, else in the state folder."""
    from mcp_server.indexes.fingerprints import fingerprint_of

    key = {
        "format": FORMAT,
        "model": config.model.removeprefix(LOCAL_DIR).rsplit("/", 1)[-1],
        "embeddings": fingerprint_of(config.embeddings_file),
        "items": catalog.indexed,
    }
    cached = cached_file(settings.state_folder, config.name)
    files = (config.embeddings_file.parent / RELEVANCE_FILE, cached)
    return ScaleFile(partial(read_scale, files, key), partial(write_scale, cached, key))


@dataclass(frozen=True)
class OpenVectors:
    """The embeddings of a collection, and their side files if any are kept."""

    embeddings: Embeddings
    vectors: SideVectors | None


@dataclass(frozen=True)
class OpenFiles:
    """A catalog and the embeddings it belongs to, with their side files if any are kept."""

    catalog: Catalog
    embeddings: Embeddings
    vectors: SideVectors | None


class _WrittenMeanwhileError(CollectionError):
    """What was read may be of two versions."""


class EmbeddingsReader:
    """Reads the embeddings of one collection; what is still in use and still what the file holds is not read again."""

    def __init__(self, config: CollectionConfig, side_folder: Path | None) -> None:
        """Read nothing yet. Side files are kept in `side_folder`, if it is given."""
        self._file = config.embeddings_file
        self._faiss_file = config.faiss_file
        self.side = SideFiles.of(side_folder, config.name) if side_folder is not None else None
        self._last: ReferenceType[Embeddings] | None = None
        self._last_of: tuple[dict[str, Any], int] | None = None
        self._damages = 0

    def stamps(self) -> Hashable:
        """Return what changes when the vectors, or what searches of them use, have to be opened anew."""
        return stamps(self._file, self._faiss_file), self._damages

    def read(self) -> OpenVectors:
        """Return the embeddings. Raises what `load_embeddings` raises, and _WrittenMeanwhileError when they change meanwhile."""
        from mcp_server.indexes.embeddings import load_embeddings
        from mcp_server.indexes.side_vectors import SideVectors

        vectors = SideVectors(self.side, self._file, self._count_damage) if self.side is not None else None
        content = vectors.content if vectors is not None else content_of(self._file)
        of = content, self._damages
        last = self._last() if self._last is not None and self._last_of == of else None
        if last is None:
            last = vectors.open() if vectors is not None else load_embeddings(self._file)
            if content_of(self._file) != content:
                raise _WrittenMeanwhileError("The embeddings were written to while they were read. Let their writer finish.")
            self._last_of, self._last = of, ref(last)
        return OpenVectors(last, vectors)

    def _count_damage(self) -> None:
        self._damages += 1


def open_files(config: CollectionConfig, reader: EmbeddingsReader) -> OpenFiles:
    """Open embeddings and catalog of one and the same version, however often they are replaced meanwhile.

    Whoever replaces them puts the embeddings in place first and the catalog last, so embeddings that are not older than the catalog fit it.

    Raises:
        CollectionError: a file is missing or damaged, or they were replaced over and over.
    """
    for _ in range(OPENING_ATTEMPTS):
        before = stamps(config.embeddings_file)
        try:
            read = reader.read()
            catalog = Catalog.open(config.database_file, read.embeddings.size, read.embeddings.unusable, reader.side)
        except (CatalogReplacedError, _WrittenMeanwhileError):
            continue
        except CollectionError:
            if stamps(config.embeddings_file) == before:
                raise
            continue
        if stamps(config.embeddings_file) == before and not catalog.database.is_replaced:
            return OpenFiles(catalog, read.embeddings, read.vectors)
        catalog.close()
    raise CollectionError(f"[{config.name}] its files were replaced again and again while being opened. Let their writer finish.")


def stamps(*files: Path | None) -> Hashable:
    """Return what changes when one of `files` is replaced or written to; a file that is not there counts as well."""
    return tuple(_stamp(file) for file in files)


def _stamp(file: Path | None) -> Hashable:
    if file is None:
        return None
    try:
        stat = file.stat()
        inside = _content_inside(file, int(time.monotonic())) if S_ISDIR(stat.st_mode) else ()
    except (OSError, CollectionError):
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, *inside


@lru_cache(64)
def _content_inside(folder: Path, _second: int) -> tuple[Any, ...]:
    """Return what changes with any file of a folder, such as a Zarr store; looked at once a second at most."""
    return tuple(content_of(folder).values())


def width_mismatch(config: CollectionConfig, settings: Settings, width: int) -> str | None:
    """Return why embeddings of `width` do not fit the model of `config`; None when they do, or when its width is not known yet.

    Raises:
        ConfigError: there is no such model.
    """
    expected = model_width(config.model, settings.cache_folder)
    if expected in (None, width):
        return None
    return f"the embeddings are {width} wide, the model {config.model} is {expected} wide. Set Model to the model that made the embeddings."


def _refuse(reason: str) -> Collection:
    raise CollectionError(reason)
