"""The whole engine over a large collection: memory, restart, and what a call adds to the search of its index.

python tests/benchmarks/bench_engine.py [--rows 1000000] [--queries 10000] [--restarts 5] [--only memory|restart|call] [--data FOLDER]

Queries are stored pictures (`like`): no model is loaded, so nothing here contains one. Each part runs in a process of its own.
memory (Linux): most that the process ever held and how it grew over the queries; of resident memory, `own` is its own and `mapped` the
pages of files, which the system takes back when it needs them and which processes share.
restart: from starting Python to the first filtered answer, on a warm page cache, and the part of it after the imports; then the same of
the whole server over stdio, which begins to load its model meanwhile.
call: `clip_search` through the protocol in memory, and the engine's search, against the search of the index with the same mask.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

MODEL_SECONDS = 120.0
CALLS = 20


def main() -> None:
    """Prepare the collection once, then measure each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    from synthetic import add_options, synthetic

    add_options(parser)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--only", choices=("memory", "restart", "call"))
    options = parser.parse_args()
    from plain_catalog import served_folder

    config = served_folder(synthetic(options.rows, options.width, options.seed, options.data), options.data) / "config.ini"
    started = time.perf_counter()
    _part("prepare", config, 0)
    print(f"{options.rows:,} x {options.width}; prepared in {time.perf_counter() - started:.1f} s", flush=True)
    if options.only in (None, "restart"):
        whole, later = [], []
        for _ in range(options.restarts):
            started = time.time()
            answered, imported = _part("restart", config, 0)["answered"]
            whole.append(answered - started)
            later.append(answered - imported)
        print(
            f"restart to the first filtered answer: {median(whole):.2f} s (fastest {min(whole):.2f}); "
            f"after the imports {median(later):.2f} s (fastest {min(later):.2f})",
            flush=True,
        )
        served = [asyncio.run(_served(config)) for _ in range(options.restarts)]
        print(f"restart of `serve` over stdio to the first filtered answer: {median(served):.2f} s (fastest {min(served):.2f})", flush=True)
    if options.only in (None, "call"):
        for line in _part("call", config, 0)["lines"]:
            print(line, flush=True)
    if options.only in (None, "memory"):
        for line in _part("memory", config, options.queries)["lines"]:
            print(line, flush=True)


def _part(part: str, config: Path, queries: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).resolve()), "--part", part, str(config), str(queries)]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


@contextmanager
def _engine(config: Path) -> Iterator[Any]:
    from mcp_server.config import load_settings
    from mcp_server.engine.opening import open_engine

    with closing(open_engine(load_settings(config))) as engine:
        yield engine


def _request(number: int, size: int, session: str | None = None) -> Any:
    """Return the `number`-th of a fixed sequence of requests: some without a filter, most with one of several shares."""
    from plain_catalog import ALBUM, COLOURS, NAME, YEARS

    from mcp_server.domain.filters import AnyOf, Between
    from mcp_server.domain.search import SearchRequest

    random = np.random.default_rng([13, number])
    year = int(random.integers(YEARS))
    filters = (
        None,
        AnyOf("colour", tuple(f"colour {one}" for one in random.choice(COLOURS, 6, replace=False))),
        AnyOf("colour", (f"colour {random.integers(COLOURS)}",)),
        Between("year", gte=2000 + year, lte=2000 + year + 1),
        AnyOf("album", (f"album {random.integers(-(-size // ALBUM))}",)),
    )[number % 5]
    return SearchRequest(collection=NAME, like=(int(random.integers(1, size + 1)),), filters=filters, n=10, session=session)  # type: ignore[arg-type]


def prepare(config: Path) -> dict[str, Any]:
    """Keep a scale of relevance, for which a model would be needed, and let the engine work out beforehand what it keeps."""
    from plain_catalog import NAME

    from mcp_server.engine.relevance import Scale

    with _engine(config) as engine, engine.shelf.using(NAME) as collection:
        size, width = collection.index.size, collection.index.width
        collection.scale_file.write(asdict(Scale((0.0,) * width, 0.1, 0.2, 0.1, 0.2)))
        made_ready(engine, size)
    return {}


def made_ready(engine: Any, size: int) -> None:
    """Return when a restart finds everything that is made once in its place. The one part that knows how the index keeps it."""
    from mcp_server.indexes.side_vectors import CODED_FROM

    engine.search(_request(4, size))
    with engine.shelf.using(None) as collection:
        while size >= CODED_FROM and not collection.index.is_coded:
            time.sleep(0.5)


def restart(config: Path) -> dict[str, Any]:
    """Answer one filtered search; return when it was answered and when the imports were done."""
    from mcp_server.engine import opening, search

    del opening, search
    imported = time.time()
    size = _size(config)
    with _engine(config) as engine:
        outcome = engine.search(_request(1, size))
        answered = time.time()
        assert len(outcome.hits) == 10
    return {"answered": (answered, imported)}


def _size(config: Path) -> int:
    return int(config.parent.name.split("-")[1].split("x")[0])


def memory(config: Path, queries: int) -> dict[str, Any]:
    """Search again and again, each session for twenty calls; look at memory ten times."""
    size = _size(config)
    lines, seen = [], []
    with _engine(config) as engine:
        session, step = None, max(1, queries // 10)
        started = time.perf_counter()
        for number in range(queries):
            session = engine.search(_request(number, size, session if number % 20 else None)).session
            if (number + 1) % step == 0:
                now = _memory()
                seen.append(now)
                lines.append(
                    f"  after {number + 1:,} searches: resident {now['VmRSS']:,.0f} MB, own {now['RssAnon']:,.0f}, "
                    f"mapped {now['RssFile']:,.0f}; most ever {now['VmHWM']:,.0f}"
                )
        spent = time.perf_counter() - started
    growth = seen[-1]["RssAnon"] - seen[0]["RssAnon"]
    lines.append(
        f"peak {seen[-1]['VmHWM']:,.0f} MB, of it own memory at the end {seen[-1]['RssAnon']:,.0f} MB; own memory grew by {growth:,.1f} MB "
        f"from search {step:,} to search {queries:,}; {1000 * spent / queries:.1f} ms a search"
    )
    return {"lines": lines}


def _memory() -> dict[str, float]:
    """Return what Linux says of this process's memory, in MB of 10**6 bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if ":" in line)
    return {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in ("VmHWM", "VmRSS", "RssAnon", "RssFile")}


def call(config: Path) -> dict[str, Any]:
    """Time the same requests three ways in turns."""
    return {"lines": asyncio.run(_call(config))}


async def _call(config: Path) -> list[str]:
    from mcp import Client
    from plain_catalog import NAME

    from mcp_server.server import build_server

    lines: list[str] = []
    with _engine(config) as engine:
        async with Client(build_server(engine, log_level="ERROR")) as client:
            await client.call_tool("clip_search", {"like": [1], "n": 1})
            with engine.shelf.using(NAME) as collection:
                end = time.monotonic() + MODEL_SECONDS
                while collection.encoder.state not in ("failed", "ready") and time.monotonic() < end:
                    await asyncio.sleep(0.1)  # it fails, there being no weights; until then it would disturb
                for wanted in (None, {"colour": "colour 3"}, {"year": 2007}, {"album": "album 0"}):
                    turns = [await _timed(client, engine, collection, turn, wanted) for turn in range(CALLS)]
                    lines.append(f"call, filter {json.dumps(wanted)}: {_compared(turns[2:])}")
    return lines


async def _timed(client: Any, engine: Any, collection: Any, turn: int, wanted: dict[str, Any] | None) -> tuple[float, float, float]:
    """Return the milliseconds that the same request takes the index, the engine and the tool."""
    from mcp_server.domain.filters import AnyOf
    from mcp_server.engine.steps import Walk

    filters = [AnyOf(field, (value,)) for field, value in (wanted or {}).items()]
    request = replace(_request(1000 + turn, collection.index.size), filters=filters[0] if filters else None)
    arguments = {"like": list(request.like), "n": request.n} | ({"filters": wanted} if wanted else {})
    walk = Walk(engine.sessions, collection, request)
    vector, mask = walk.ask(None).vector.vector, walk.skip_set().mask
    ms = [0.0, 0.0, 0.0]
    for at in range(3):
        kind = (at + turn) % 3  # whoever comes first finds the rows out of the processor's cache
        started = time.perf_counter()
        if kind == 0:
            collection.index.search(vector, request.n, mask)
        elif kind == 1:
            engine.search(request)
        else:
            answer = await client.call_tool("clip_search", arguments)
            assert not answer.is_error, answer.content
        ms[kind] = 1000 * (time.perf_counter() - started)
    return ms[0], ms[1], ms[2]


def _compared(turns: list[tuple[float, float, float]]) -> str:
    index, engine, tool = (median(times) for times in zip(*turns, strict=True))
    index_least, engine_least, tool_least = (min(times) for times in zip(*turns, strict=True))
    return (
        f"index {index:.2f} ms, engine {engine / index:.2f} times that, clip_search {tool / index:.2f} times; fastest calls: "
        f"{index_least:.2f} ms, {engine_least / index_least:.2f}, {tool_least / index_least:.2f}; added {tool_least - index_least:.2f} ms"
    )


async def _served(config: Path) -> float:
    """Return the seconds from starting the server to its first filtered answer over stdio; the client is imported already."""
    from mcp import Client, StdioServerParameters

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "mcp_server", "serve", "--config", str(config)], env=dict(os.environ)
    )
    started = time.perf_counter()
    async with Client(server) as client:
        answer = await client.call_tool("clip_search", {"like": [7], "filters": {"colour": "colour 3"}, "n": 10})
        spent = time.perf_counter() - started
        assert not answer.is_error, answer.content
    return spent


def _run_part(part: str, config: Path, queries: int) -> None:
    logging.disable(logging.ERROR)  # the model that cannot load is no news
    done = {
        "prepare": lambda: prepare(config),
        "restart": lambda: restart(config),
        "memory": lambda: memory(config, queries),
        "call": lambda: call(config),
    }[part]()
    print(json.dumps(done))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        _run_part(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
