"""Measures what the ways of searching cost on this machine, in a quarter of a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mcp_server.indexes.codes import Codes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.estimates import BLOCK
from mcp_server.indexes.planner import Costs
from mcp_server.indexes.scoring import cosines
from mcp_server.indexes.sweeps import CodeSweep, RowSweep, occupied_stretches

_GATHERED = 16_384
_EVERY = 8
_SCANNED = 65_536
_ROUNDS = 5
_CONTENDERS = 400
_CLOSELY = 110


def measure_costs(embeddings: Embeddings, codes: Codes) -> Costs:
    """Return the costs of searching `embeddings` with `codes`, the best of five tries of each; at least one row must be usable."""
    usable = np.flatnonzero(~embeddings.unusable)
    spread = usable[np.linspace(0, len(usable) - 1, min(_GATHERED, len(usable))).astype(np.int64)]
    # of codes, as dense as where picking out and scanning cost about the same
    dense = usable[:: max(2, min(_EVERY, len(usable) // _GATHERED))][:_GATHERED]
    rows, coded = RowSweep(embeddings), CodeSweep(codes)
    wide = embeddings.rows[usable[len(usable) // 2]].astype(np.float64)
    unit = wide / np.sqrt(np.einsum("i,i->", wide, wide))
    query = coded.query(unit)
    size, some = embeddings.size, min(_SCANNED, embeddings.size)
    skip = np.ones(size, np.bool_)
    nothing = _nanoseconds(lambda: coded.scanned(query, skip, occupied_stretches(skip)))
    begin = skip.copy()
    begin[:some] = embeddings.unusable[:some]
    first = occupied_stretches(begin)
    scan_row = max(0.0, _nanoseconds(lambda: rows.scanned(unit, begin, first)) - nothing) / some
    scan_code = max(0.0, _nanoseconds(lambda: coded.scanned(query, begin, first)) - nothing) / some
    here_and_there = skip.copy()
    here_and_there[usable[:: 4 * BLOCK]] = False
    few = occupied_stretches(here_and_there)
    passing = _nanoseconds(lambda: coded.scanned(query, here_and_there, few)) - few.rows * scan_code

    projected = CodeSweep(codes.projections) if codes.projections is not None else coded
    shorter = projected.query(unit)
    scan_projection = max(0.0, _nanoseconds(lambda: projected.scanned(shorter, begin, first)) - nothing) / some

    def shortly() -> None:
        projected.query(unit)
        coded.gathered(query, spread[:_CLOSELY])

    def closely() -> None:
        coded.query(unit)
        rows.gathered(unit, spread[:_CONTENDERS])
        cosines(embeddings, spread[:_CLOSELY], unit)

    usual = Costs() if embeddings.file is None else replace(Costs(), gather_row=1_800.0, scan_row=250.0, coding=1_000_000.0)
    return Costs(
        gather_row=_near(usual.gather_row, _nanoseconds(lambda: rows.gathered(unit, spread)) / len(spread)),
        gather_code=_near(usual.gather_code, _nanoseconds(lambda: coded.gathered(query, dense)) / len(dense)),
        scan_row=_near(usual.scan_row, scan_row),
        scan_code=_near(usual.scan_code, scan_code),
        gather_projection=_near(usual.gather_projection, _nanoseconds(lambda: projected.gathered(shorter, dense)) / len(dense)),
        scan_projection=_near(usual.scan_projection, scan_projection),
        pass_row=_near(usual.pass_row, max(passing, nothing) / size),
        coding=_near(usual.coding, _nanoseconds(closely)),
        projecting=_near(usual.projecting, _nanoseconds(shortly)),
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
