"""The collections of one server by name, each opened when first asked for."""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable, Generator, Hashable, Mapping
from contextlib import contextmanager
from typing import TypeVar

from mcp_server.engine.collection import Collection
from mcp_server.engine.versions import PATIENCE_SECONDS, REST, Version, Versions
from mcp_server.errors import CatalogReplacedError, CollectionError, UnknownCollectionError, clipped

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

CLOSING_SECONDS = 2.0
"""How long closing waits for a warm-up that is in the middle of opening a collection."""
ATTEMPTS = 3
"""How often one call may begin anew because the catalog was replaced under it."""


class Shelf:
    """Opens collections once and hands them out, newly opened when their files have changed. Safe to call from several threads."""

    def __init__(
        self,
        openers: Mapping[str, Callable[[], Collection]],
        watched: Mapping[str, Callable[[], Hashable]] | None = None,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        rest: float = REST,
    ) -> None:
        """Open nothing yet. `openers`: by name; `watched`: what a collection's files look like now; the rest as in `Versions`."""
        stamps = watched or {}
        self._versions = {
            name: Versions(name, opener, stamps.get(name, lambda: None), patience_seconds, rest) for name, opener in openers.items()
        }
        self._warming: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def names(self) -> tuple[str, ...]:
        """The collections' names, in the order of the configuration."""
        return tuple(self._versions)

    def collection(self, name: str | None) -> Collection:
        """Return the collection called `name` as `using` does, for a look at what it has in memory; to read from it, use `using`.

        Raises what `using` raises.
        """
        with self.using(name) as collection:
            return collection

    @contextmanager
    def using(self, name: str | None) -> Generator[Collection]:
        """Lend the collection called `name` (letter case ignored if that is unambiguous); None means the only one.

        It is the newest version of its files, and stays open until the end of the block even if a newer one comes.

        Raises:
            UnknownCollectionError: no such collection, or None where there are several.
            CollectionError: its files cannot be opened; the next call tries again.
        """
        versions = self._versions[self._resolve(name)]
        version = versions.borrow()
        try:
            yield version.collection
        finally:
            versions.give_back(version)

    def with_collection(self, name: str | None, work: Callable[[Collection], Result]) -> Result:
        """Return `work` of the collection called `name`, done anew on the newer one if its catalog is replaced under it.

        Raises what `using` and `work` raise; a catalog replaced over and over ends in `CatalogReplacedError`.
        """
        versions = self._versions[self._resolve(name)]
        outdated: Version | None = None
        for attempt in range(1, ATTEMPTS + 1):
            version = versions.borrow(outdated)
            try:
                return work(version.collection)
            except CatalogReplacedError:
                if attempt == ATTEMPTS:
                    raise
                logger.info("collection.begun_anew name=%s attempt=%d", version.collection.name, attempt)
                outdated = version
            finally:
                versions.give_back(version)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def warm_up(self) -> None:
        """Open everything and load the models in a background thread, so that the first search need not wait. Returns at once."""
        if self._warming is None and not self._closing.is_set():
            self._warming = threading.Thread(target=self._warm_up, name="warm-up", daemon=True)
            self._warming.start()

    def close(self) -> None:
        """Close the open collections, after a warm-up under way has finished the one it is at; one in use is closed after its last call."""
        self._closing.set()
        if self._warming is not None:
            self._warming.join(timeout=CLOSING_SECONDS)
        for versions in self._versions.values():
            versions.close()

    def _warm_up(self) -> None:
        for name in self.names:
            if self._closing.is_set():
                return
            try:
                with self.using(name) as collection:
                    collection.encoder.start()  # only now: a model that does not fit the collection need not be fetched
                    _ = collection.index
                    collection.relevance()
            except CollectionError as error:
                logger.error("collection.unavailable name=%s reason=%s", name, error)
            except Exception:
                logger.exception("collection.warm_up_failed name=%s", name)

    def _resolve(self, name: str | None) -> str:
        if name is None:
            if len(self.names) == 1:
                return self.names[0]
            if not self.names:
                raise UnknownCollectionError("This server has no collections. Tell the user to enable one in its configuration.")
            raise UnknownCollectionError(f"There are several collections; say which in collection: {self._listed()}.")
        if name in self._versions:
            return name
        folded = [known for known in self.names if known.casefold() == name.casefold()]
        if len(folded) == 1:
            return folded[0]
        near = difflib.get_close_matches(name.casefold(), [known.casefold() for known in self.names], n=1, cutoff=0.5)
        hint = next((f' Nearest: "{known}".' for known in self.names if near and known.casefold() == near[0]), "")
        raise UnknownCollectionError(f'There is no collection "{clipped(name)}".{hint} Collections: {self._listed()}.')

    def _listed(self) -> str:
        names = ", ".join(f'"{name}"' for name in self.names[:8])
        return clipped(names, 120) + (f" and {len(self.names) - 8} more" if len(self.names) > 8 else "")
