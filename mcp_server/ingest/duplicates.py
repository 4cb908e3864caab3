"""Which pictures are duplicates of which: the same bytes, or vectors as close as the user says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import chain

import numpy as np

from mcp_server.ingest.ledger import Entry, Ledger
from mcp_server.ingest.row_file import RowFile

logger = logging.getLogger(__name__)

_EXACT_ONLY = -1.0


def undecided(ledger: Ledger, near: float | None) -> bool:
    """Tell whether it is to be decided of any picture what it is a duplicate of; with another `near` than last time, of all."""
    threshold = _EXACT_ONLY if near is None else near
    with ledger.transaction():
        if ledger.setting("near", threshold) != threshold:
            ledger.database.execute("UPDATE files SET original = NULL")
        ledger.set("near", threshold)
        # what follows an original that is gone, or a duplicate itself by now, is undecided too
        ledger.database.execute(
            "UPDATE files SET original = NULL WHERE original IS NOT NULL AND original NOT IN "
            '(SELECT id FROM files WHERE original = id AND "row" IS NOT NULL)'
        )
    return ledger.database.execute('SELECT 1 FROM files WHERE original IS NULL AND "row" IS NOT NULL LIMIT 1').fetchone() is not None


def find_duplicates(ledger: Ledger, vectors: RowFile, near: float | None) -> None:
    """Decide for every picture that is undecided which earlier one, by id, it is a duplicate of, if any; enter it in the ledger.

    A picture is never a duplicate of a duplicate: all members of a set are compared with its first. Pictures decided in an earlier run keep
    what was decided; one that comes or changes later joins them.
    """
    with ledger.transaction():
        if near is not None:
            _near(ledger, vectors, near)
        _exact(ledger)


def _exact(ledger: Ledger) -> None:
    """Give each picture that is undecided the first one with the same bytes as original."""
    undecided = 'original IS NULL AND "row" IS NOT NULL'
    ledger.database.execute(  # in a table, for of black frames and blank pages there are thousands with the same bytes
        "CREATE TEMP TABLE firsts AS SELECT sha256, coalesce(min(original), min(id)) AS id FROM files "
        f'WHERE "row" IS NOT NULL AND sha256 IN (SELECT sha256 FROM files WHERE {undecided}) GROUP BY sha256'
    )
    ledger.database.execute("CREATE INDEX temp.firsts_by_content ON firsts (sha256)")
    ledger.database.execute(f"UPDATE files SET original = (SELECT o.id FROM firsts o WHERE o.sha256 = files.sha256) WHERE {undecided}")
    ledger.database.execute("DROP TABLE temp.firsts")


def _near(ledger: Ledger, vectors: RowFile, near: float) -> None:
    from mcp_server.indexes.near_duplicates import first_like

    pictures = ledger.database.execute(
        'SELECT id, "row", coalesce(original, -1) FROM files WHERE "row" IS NOT NULL AND (original IS NOT NULL OR NOT EXISTS '
        # a copy needs no comparison: rounding could tell its vector from an equal one
        '(SELECT 1 FROM files f WHERE f.sha256 = files.sha256 AND f."row" IS NOT NULL AND (f.original IS NOT NULL OR f.id < files.id))) '
        "ORDER BY id"
    )
    found = np.fromiter(chain.from_iterable(pictures), np.int64).reshape(-1, 3)
    # what is decided comes first, so that a picture that changed also meets pictures with higher ids
    found = found[np.lexsort((found[:, 0], found[:, 2] < 0))]
    ids, rows, originals = found[:, 0], found[:, 1], found[:, 2]
    known = np.full(len(found), -1, np.int64)
    decided = int(np.count_nonzero(originals >= 0))
    known[:decided] = np.searchsorted(ids[:decided], originals[:decided])
    first = first_like(vectors.gather, rows, near, known)
    ledger.database.executemany(
        "UPDATE files SET original = ? WHERE id = ?", zip(ids[first[decided:]].tolist(), ids[decided:].tolist(), strict=True)
    )


def kinship(ledger: Ledger) -> Callable[[Entry], dict[str, str]]:
    """Return what says of a picture which set of duplicates it belongs to: the path of the set's first picture, and its role in it.

    Roles: original (the first), exact (the same bytes as the original, or as another that was there before), near. Nothing for a picture
    without duplicates.
    """
    originals: dict[int, tuple[str, str]] = {
        media_id: (source, sha256)
        for media_id, source, sha256 in ledger.database.execute(
            "SELECT id, source, sha256 FROM files WHERE id IN (SELECT original FROM files WHERE original <> id)"
        )
    }
    first_with: dict[str, int] = dict(
        ledger.database.execute(
            'SELECT sha256, min(id) FROM files WHERE sha256 IS NOT NULL AND "row" IS NOT NULL GROUP BY sha256 HAVING count(*) > 1'
        )
    )

    def fields(entry: Entry) -> dict[str, str]:
        if entry.original is None or entry.original not in originals:
            return {}
        source, sha256 = originals[entry.original]
        is_copy = entry.sha256 == sha256 or first_with.get(entry.sha256, entry.id) != entry.id
        return {"duplicate_of": source, "duplicate_role": "original" if entry.id == entry.original else "exact" if is_copy else "near"}

    return fields
