"""The walk behind `update_session`: ids are checked against their collection, then the session is changed at once or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mcp_server.domain.session import SessionChange, SessionState
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import UnknownMediaError
from mcp_server.stores.sessions import Sessions


def update_session(shelf: Shelf, sessions: Sessions, change: SessionChange) -> SessionState:
    """Make `change` and return what the session holds then.

    Raises:
        CallerError: no such collection or session, an id that is not in the collection's index, or a change that contradicts itself.
        CollectionError: the collection cannot be opened; only where ids are given.
        SessionStoreError: the session cannot be saved.
    """
    if change.session is not None:
        sessions.check(change.session)
    if (change.ids or change.collection is not None) and not _clears_what_is_gone(shelf, sessions, change):
        with shelf.using(change.collection) as collection:
            for argument in ("keep", "exclude"):  # what is gone from the collection can still be dropped
                _refuse_unknown(argument, getattr(change, argument), collection.catalog.unknown(getattr(change, argument)), collection.name)
            change = replace(change, collection=collection.name)
    return sessions.update(change)


def _clears_what_is_gone(shelf: Shelf, sessions: Sessions, change: SessionChange) -> bool:
    """Tell whether `change` only drops or forgets what its session has of a collection that is no longer served."""
    gone = change.collection
    if change.session is None or gone is None or change.keep or change.exclude:
        return False
    if gone.casefold() in [name.casefold() for name in shelf.names]:
        return False
    state = sessions.update(SessionChange(change.session))
    return gone in (*state.kept, *state.excluded, *state.seen)


def _refuse_unknown(argument: str, ids: Sequence[int], unknown: Sequence[int], collection: str) -> None:
    if unknown:
        listed = ", ".join(map(str, unknown[:3])) + (f" and {len(unknown) - 3:,} more" if len(unknown) > 3 else "")
        none = "Nothing was changed. " if len(ids) > len(unknown) else ""
        raise UnknownMediaError(f'{argument}: no indexed item has id {listed} in "{collection}". {none}Take ids from "id" of hits.')
