"""The one place that builds an engine from settings. Nothing heavy is imported or read until it is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mcp_server.config import CollectionConfig, Settings
from mcp_server.encoders.loading import BackgroundText, text_loader
from mcp_server.encoders.models import model_width
from mcp_server.engine.collection import Collection, Media
from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import CollectionError, ConfigError, IndexMismatchError
from mcp_server.stores.audit import AuditLog
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.sessions import SESSIONS_FILE, Sessions
from mcp_server.stores.thumbnails import PictureStore

logger = logging.getLogger(__name__)

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
    openers: dict[str, Callable[[], Collection]] = {
        config.name: partial(open_collection, config, settings, encoders[config.model]) for config in settings.collections
    }
    openers |= {name: partial(_refuse, reason) for name, reason in settings.refused}
    return SearchEngine(Shelf(openers), Sessions(sessions_file or settings.state_folder / SESSIONS_FILE))


def background_encoder(model: str, settings: Settings, patience_seconds: float) -> BackgroundText:
    """Return the text encoder of `model`; its weights load when first needed."""
    load = text_loader(model, settings.model_device, settings.cache_folder)
    try:
        width = model_width(model, settings.cache_folder)
    except ConfigError:
        width = None  # `open_collection` says so; collections of other models still work
    return BackgroundText(load, model, width, patience_seconds)


def open_collection(config: CollectionConfig, settings: Settings, encoder: BackgroundText) -> Collection:
    """Open the catalog and the embeddings of `config` and check them against the model; a FAISS index is read on first use.

    Raises:
        CollectionError: a file is missing or damaged, or they do not fit each other.
    """
    from mcp_server.indexes.embeddings import embeddings_shape, load_embeddings
    from mcp_server.indexes.opening import open_index

    for file in (config.database_file, config.embeddings_file, config.faiss_file):
        if file is not None and not file.exists():
            raise CollectionError(
                f"[{config.name}] there is no {file}. Correct the path in {settings.config_file.name}, or set Enabled = False."
            )
    _, width = embeddings_shape(config.embeddings_file)
    try:
        mismatch = width_mismatch(config, settings, width)
    except ConfigError as error:
        raise CollectionError(f"[{config.name}] {error}") from error
    if mismatch is not None:
        raise IndexMismatchError(f"[{config.name}] {mismatch}")
    embeddings = load_embeddings(config.embeddings_file)
    catalog = Catalog.open(config.database_file, embeddings.size, embeddings.unusable)
    for finding in catalog.findings:
        logger.warning("collection.finding name=%s %s", config.name, finding)
    return Collection(
        config.name,
        catalog=catalog,
        filters=FilterIndex(catalog),
        load_index=partial(open_index, config.index_type, embeddings, config.faiss_file, catalog.media_of_row),
        encoder=encoder,
        media=Media(PictureStore.open(config.thumbnail_base), PictureStore.open(config.original_base)),
        audit=AuditLog(config.log_directory, config.name) if config.log_directory else None,
    )


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
