"""The collections of one server by name, each opened when first asked for."""

from __future__ import annotations

import difflib
import logging
import threading
from collections.abc import Callable, Mapping

from mcp_server.engine.collection import Collection
from mcp_server.errors import CollectionError, UnknownCollectionError, clipped

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 2.0
"""How long closing waits for a warm-up that is in the middle of opening a collection."""


class Shelf:
    """Opens collections once and hands them out. Safe to call from several threads."""

    def __init__(self, openers: Mapping[str, Callable[[], Collection]]) -> None:
        self._openers = dict(openers)
        self._open: dict[str, Collection] = {}
        self._locks = {name: threading.Lock() for name in self._openers}
        self._warming: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def names(self) -> tuple[str, ...]:
        """The collections' names, in the order of the configuration."""
        return tuple(self._openers)

    def collection(self, name: str | None) -> Collection:
        """Return the collection called `name` (letter case ignored if that is unambiguous); None means the only one.

        A collection whose catalog file was replaced meanwhile is opened anew.

        Raises:
            UnknownCollectionError: no such collection, or None where there are several.
            CollectionError: its files cannot be opened; the next call tries again.
        """
        exact = self._resolve(name)
        with self._locks[exact]:
            found = self._open.get(exact)
            if found is None or found.catalog.database.is_replaced:  # calls under way keep what they have
                found = self._openers[exact]()
                if self._closing.is_set():
                    found.close()
                    raise CollectionError(f"[{exact}] the server is ending.")
                self._open[exact] = found
            return found

    def warm_up(self) -> None:
        """Open everything and load the models in a background thread, so that the first search need not wait. Returns at once."""
        if self._warming is None and not self._closing.is_set():
            self._warming = threading.Thread(target=self._warm_up, name="warm-up", daemon=True)
            self._warming.start()

    def close(self) -> None:
        """Close the open collections, after a warm-up under way has finished the one it is at."""
        self._closing.set()
        if self._warming is not None:
            self._warming.join(timeout=CLOSING_SECONDS)
        for collection in list(self._open.values()):
            collection.close()
        self._open.clear()

    def _warm_up(self) -> None:
        for name in self.names:
            if self._closing.is_set():
                return
            try:
                collection = self.collection(name)
                collection.encoder.start()  # only now: a model that does not fit the collection need not be fetched
                _ = collection.index
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
        if name in self._openers:
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
