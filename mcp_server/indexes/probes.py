"""Measures what the ways of searching cost on this machine, in a quarter of a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.codes import Codes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.estimates import BLOCK
from mcp_server.indexes.masks import Allowed, Occupied
from mcp_server.indexes.picked import picked
from mcp_server.indexes.planner import Costs
from mcp_server.indexes.scoring import cosines_of
from mcp_server.indexes.sweeps import CodeSweep, RowSweep

FORMAT = 2
"""Counts up when other costs are measured."""
_GATHERED = 16_384
_EVERY, _STRETCH = 8, 1_024
_SCANNED = 65_536
_SCANNED_CODES = 262_144
_ROUNDS = 5
_ASKED = 100
_CONTENDERS = 1.8
"""So many rows for each that is asked for codes usually leave in the running; the rows themselves hardly more than are asked for."""


def measure_costs(embeddings: Embeddings, codes: Codes) -> Costs:
    """Return the costs of searching `embeddings` with `codes`, the best of five tries of each; at least one row must be usable."""
    usable = np.flatnonzero(~embeddings.unusable)
    spread = usable[np.linspace(0, len(usable) - 1, min(_GATHERED, len(usable))).astype(np.int64)]
    # as dense as where picking out codes and scanning them cost about the same
    stretch = max(1, min(_STRETCH, len(usable) // _EVERY))
    starts = np.linspace(0, max(0, len(usable) - stretch * _EVERY), max(1, _GATHERED // _STRETCH)).astype(np.int64)
    dense = usable[(starts[:, None] + np.arange(0, stretch * _EVERY, _EVERY)).ravel()]
    rows, coded = RowSweep(embeddings), CodeSweep(codes)
    wide = embeddings.rows[usable[len(usable) // 2]].astype(np.float64)
    unit = wide / np.sqrt(np.einsum("i,i->", wide, wide))
    query = coded.query(unit)
    size = embeddings.size
    skip = np.ones(size, np.bool_)
    nothing = _nanoseconds(lambda: coded.scanned(query, skip, Allowed(skip).occupied))

    def scanning(scanned: Callable[[NDArray[np.bool_], Occupied], object], at_most: int) -> float:
        some, begin = min(at_most, size), skip.copy()
        begin[:some] = embeddings.unusable[:some]
        first = Allowed(begin).occupied
        return max(0.0, _nanoseconds(lambda: scanned(begin, first)) - nothing) / some

    scan_row = scanning(lambda begin, first: rows.scanned(unit, begin, first), _SCANNED)
    scan_code = scanning(lambda begin, first: coded.scanned(query, begin, first), _SCANNED_CODES)
    here_and_there = skip.copy()
    here_and_there[usable[:: 4 * BLOCK]] = False
    few = Allowed(here_and_there).occupied
    passing = _nanoseconds(lambda: coded.scanned(query, here_and_there, few)) - few.rows * scan_code

    projected = CodeSweep(codes.projections) if codes.projections is not None else coded
    shorter = projected.query(unit)
    scan_projection = scanning(lambda begin, first: projected.scanned(shorter, begin, first), _SCANNED_CODES)

    contenders = spread[: round(_CONTENDERS * _ASKED)]
    with picked(embeddings, contenders) as read:
        norms = embeddings.norms[read.rows]
        usually = _nanoseconds(lambda: cosines_of(read.stored[:_ASKED], norms[:_ASKED], unit))

    def closely() -> None:
        with picked(embeddings, contenders) as read:
            cosines_of(read.stored, norms, unit)

    usual = Costs() if embeddings.file is None else replace(Costs(), gather_row=1_800.0, scan_row=250.0, looking=6_000.0)
    return Costs(
        gather_row=_near(usual.gather_row, _nanoseconds(lambda: rows.gathered(unit, spread)) / len(spread)),
        gather_code=_near(usual.gather_code, _nanoseconds(lambda: coded.gathered(query, dense)) / len(dense)),
        scan_row=_near(usual.scan_row, scan_row),
        scan_code=_near(usual.scan_code, scan_code),
        gather_projection=_near(usual.gather_projection, _nanoseconds(lambda: projected.gathered(shorter, dense)) / len(dense)),
        scan_projection=_near(usual.scan_projection, scan_projection),
        pass_row=_near(usual.pass_row, max(passing, nothing) / size),
        turning=_near(usual.turning, _nanoseconds(lambda: coded.query(unit))),
        looking=_near(usual.looking, (_nanoseconds(closely) - usually) * _CONTENDERS / len(contenders)),
        projecting=_near(usual.projecting, _nanoseconds(lambda: projected.query(unit))),
    )


def _near(usual: float, measured: float) -> float:
    """Return `measured`, but not more than three times as much or as little as usual: a moment's load must not decide for ever."""
    return min(max(measured, usual / 3), usual * 3)


def _nanoseconds(work: Callable[[], object]) -> float:
    spent: list[int] = []
    for _ in range(_ROUNDS):
        started = time.perf_counter_ns()
        work()
        spent.append(time.perf_counter_ns() - started)
    return float(min(spent))
