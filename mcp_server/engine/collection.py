"""One collection, open: catalog, filters and vectors at once, the index over them when the first search needs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.encoders.loading import BackgroundText
from mcp_server.engine.query_vectors import sample_of
from mcp_server.engine.relevance import BackgroundRelevance, Relevance, measure
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


@dataclass(frozen=True)
class ScaleFile:
    """Where the scale of relevance of a collection is kept: reads it if it fits, and writes it."""

    read: Callable[[], dict[str, Any] | None]
    write: Callable[[dict[str, Any]], None]


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
        scale_file: ScaleFile | None = None,
        audit: AuditLog | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.catalog = catalog
        self.filters = filters
        self.encoder = encoder
        self.media = media
        self.audit = audit
        self._load_index = load_index
        self._on_close = on_close
        self._index: Index | None = None
        self._lock = threading.Lock()
        self._sample: NDArray[np.float32] | None = None
        self.scale_file = scale_file or ScaleFile(lambda: None, lambda _: None)
        self._relevance = BackgroundRelevance(name, self.scale_file.read, self.scale_file.write)

    def relevance(self, *, wait: bool = False) -> Relevance | None:
        """Return the scale that hits are judged by, None while it is not known; measuring it begins in the background if need be.

        With `wait`, the first call gives it a few seconds. Raises what `index` raises.
        """
        encode, index, mapped, sample = self._relevance.guarded(self.encoder.encode_text), self.index, self.catalog.mapped, self.sample
        self._relevance.start(lambda: measure(encode, index, mapped, sample), sample)
        if wait:
            self._relevance.wait()
        return self._relevance.ready(sample)

    @property
    def sample(self) -> NDArray[np.float32]:
        """(S, D) float32 unit vectors, up to 1,024 rows that stand for all; read when first asked for.

        Raises what `index` raises.
        """
        if self._sample is None:
            self._sample = sample_of(self.index, self.catalog.mapped)
        return self._sample

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
        """Close the catalog, and measure and make nothing any more."""
        self._relevance.close()
        if self._on_close is not None:
            self._on_close()
        self.catalog.close()
