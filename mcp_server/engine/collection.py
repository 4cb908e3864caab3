"""One collection, open: catalog, filters and vectors at once, the index over them when the first search needs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mcp_server.encoders.loading import BackgroundText
from mcp_server.indexes.base import Index
from mcp_server.stores.audit import AuditLog
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.thumbnails import PictureStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Media:
    """Where the pictures of a collection can be had."""

    thumbnails: PictureStore
    originals: PictureStore


class Collection:
    """A named collection. Safe to use from several threads."""

    def __init__(
        self,
        name: str,
        *,
        catalog: Catalog,
        filters: FilterIndex,
        load_index: Callable[[], Index],
        encoder: BackgroundText,
        media: Media,
        audit: AuditLog | None = None,
    ) -> None:
        self.name = name
        self.catalog = catalog
        self.filters = filters
        self.encoder = encoder
        self.media = media
        self.audit = audit
        self._load_index = load_index
        self._index: Index | None = None
        self._lock = threading.Lock()

    @property
    def index(self) -> Index:
        """The index, loaded on first use; a load that fails is tried again at the next use.

        Raises:
            CollectionError: the embeddings or the index cannot be read, or do not fit.
        """
        with self._lock:
            if self._index is None:
                self._index = self._load_index()
                logger.info("collection.ready name=%s items=%d width=%d", self.name, self.catalog.indexed, self._index.width)
            return self._index

    def close(self) -> None:
        """Close the catalog."""
        self.catalog.close()
