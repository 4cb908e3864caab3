"""How long filters take on a large catalog, beside set SQL of the same meaning on the same file.

python tests/benchmarks/bench_filters.py [--catalog FILE] [--repeats 15]

FILE is one that `big_catalog.py` wrote; without it one is written to a temporary folder (a million media, about a minute). Columns: how
many items pass; milliseconds of set SQL; of the first evaluation after a start, the fields being mapped from side files; of one with the
fields loaded but no result known; of one that was asked before, its mask included; and set SQL / loaded.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.filters import Filter
from mcp_server.side_files import SideFiles
from mcp_server.stores.bits import count_bits, mask_of_bits
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.evaluation import Evaluator
from mcp_server.stores.field_store import FieldStore
from mcp_server.stores.filter_index import FilterIndex
from tests.benchmarks.big_catalog import FIELDS, TYPES, build

_NUMBER = {name: number for number, (name, *_) in enumerate(FIELDS, start=1)}
_TABLE = {name: f"{TYPES[kind - 1]}_tags" for name, kind, *_ in FIELDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalog", type=Path)
    parser.add_argument("--media", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = options.catalog or Path(folder) / "big.db"
        if options.catalog is None:
            build(file, options.media)
        measure(file, options.media, options.repeats, SideFiles(Path(folder) / "side"))


def measure(file: Path, media: int, repeats: int, side: SideFiles) -> None:
    time.sleep(0.1)  # what was written to this moment is not kept
    opening: list[float] = []
    for _ in range(2):
        start = time.perf_counter()
        with closing(Catalog.open(file, media, None, side)) as catalog:
            opening.append(time.perf_counter() - start)
            index = FilterIndex(catalog)
            start = time.perf_counter()
            for field in index.fields:
                index.data(field)
            loading = time.perf_counter() - start
            trees = filters(index)
        print(f"open {opening[-1] * 1e3:,.0f} ms, all fields {loading * 1e3:,.0f} ms")
    print(f"\n{'filter':34} {'passing':>9} {'set SQL':>9} {'first':>8} {'loaded':>8} {'cached':>8} {'SQL/loaded':>11}")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db, closing(Catalog.open(file, media, None, side)) as catalog:
        store = FieldStore(catalog)
        for name, (raw, sql) in trees.items():
            index = FilterIndex(catalog)
            first = _milliseconds(index, raw)
            cached = np.median([_milliseconds(index, raw) for _ in range(repeats)])
            loaded = np.median([_loaded(store, raw) for _ in range(repeats + 1)][1:])
            start = time.perf_counter()
            expected = np.fromiter((row[0] for row in db.execute(sql)), dtype=np.int64)
            spent = time.perf_counter() - start
            passing = index.evaluate(_parsed(raw))
            assert np.array_equal(np.sort(catalog.media_of_row[passing.mask]), np.sort(expected)), f"{name}: SQL passes {len(expected):,}"
            times = f"{spent * 1e3:9,.0f} {first:8.2f} {loaded:8.2f} {cached:8.2f} {spent * 1e3 / loaded:11,.0f}"
            print(f"{name:34} {passing.count:9,} {times}")


def _milliseconds(index: FilterIndex, raw: dict[str, Any]) -> float:
    parsed = _parsed(raw)
    start = time.perf_counter()
    _ = index.evaluate(parsed).mask
    return 1e3 * (time.perf_counter() - start)


def _parsed(raw: dict[str, Any]) -> Filter:
    """Return the filter anew, as each call has one of its own."""
    parsed = parse_filter(raw)
    assert parsed is not None
    return parsed


def _loaded(store: FieldStore, raw: dict[str, Any]) -> float:
    """Return the milliseconds of an evaluator that has no results to begin with."""
    evaluator, parsed = Evaluator(store), _parsed(raw)
    start = time.perf_counter()
    _ = parsed.canonical
    passed = evaluator.passed(parsed)
    count_bits(passed.bits)
    mask_of_bits(passed.bits, len(store.catalog.mapped))
    return 1e3 * (time.perf_counter() - start)


def filters(index: FilterIndex) -> dict[str, tuple[dict[str, Any], str]]:
    """Return filters by name, each with SQL that selects the same media."""
    labels, places, categories = (_by_count(index, name) for name in ("Label", "Place", "Category"))
    ten = {
        "any": [
            {"Category": categories[:3], "Hour": {"gte": 6, "lt": 18}, "not": {"Label": labels[5]}},
            {"Day": {"gte": "2017-03-01", "lt": "2022-05-07"}, "Rating": {"gte": 1.17, "lte": 4.03}, "Place": places[:40]},
            {"Label": {"all": labels[:2]}, "Place": {"contains": "shi"}, "Category": {"not": categories[7:9]}},
        ],
        "Rating": {"exists": True},
    }
    ten_sql = _both(
        _either(
            _less(_both(_is("Category", *categories[:3]), _range("Hour", 6, 17)), _is("Label", labels[5])),
            _both(_range("Day", "2017-03-01", "2022-05-06"), _range("Rating", 1.17, 4.03), _is("Place", *places[:40])),
            _less(_both(_is("Label", labels[0]), _is("Label", labels[1]), _has("Place", "shi")), _is("Category", *categories[7:9])),
        ),
        _range("Rating", -1, 1e9),
    )
    return {
        "a common value": ({"Category": categories[0]}, _is("Category", categories[0])),
        "a rare value": ({"Label": labels[-50]}, _is("Label", labels[-50])),
        "any of 3 common values": ({"Label": labels[:3]}, _is("Label", *labels[:3])),
        "any of 200 values": ({"Label": labels[::150]}, _is("Label", *labels[::150])),
        "any of 1,000 values": ({"Label": labels[::30]}, _is("Label", *labels[::30])),
        "hours, half of all": ({"Hour": {"gte": 6, "lt": 18}}, _range("Hour", 6, 17)),
        "days, 1 %": ({"Day": {"gte": "2017-03-01", "lt": "2017-04-06"}}, _range("Day", "2017-03-01", "2017-04-05")),
        "days, most": ({"Day": {"gte": "2015-06-01", "lt": "2024-01-01"}}, _range("Day", "2015-06-01", "2023-12-31")),
        "contains, 30,000 values": ({"Label": {"contains": "shika"}}, _has("Label", "shika")),
        "contains, half of 4,000,000 tags": ({"Label": {"contains": "o"}}, _has("Label", "o")),
        "not a common value": ({"not": {"Category": categories[0]}}, _less("SELECT id AS m FROM medias", _is("Category", categories[0]))),
        "ten conditions, nested": (ten, ten_sql),
    }


def _by_count(index: FilterIndex, name: str) -> list[str]:
    data = index.data(index.field(name))
    return [str(data.shown[at]) for at in np.argsort(-data.values.counts(), kind="stable").tolist()]


def _is(field: str, *values: str) -> str:
    return _tagged(field, f"value IN ({', '.join(repr(value) for value in values)})")


def _has(field: str, part: str) -> str:
    return _tagged(field, f"value LIKE '%{part}%'")


def _range(field: str, first: str | float, last: str | float) -> str:
    value = "CAST(value AS REAL)" if field == "Rating" else "value"
    return _tagged(field, f"{value} BETWEEN {first!r} AND {last!r}")


def _tagged(field: str, condition: str) -> str:
    tags = f"SELECT id FROM {_TABLE[field]} WHERE tagset_id = {_NUMBER[field]} AND {condition}"
    own = f"SELECT media_id AS m FROM taggings WHERE tag_id IN ({tags})"
    return f"SELECT m FROM ({own}) UNION SELECT id FROM medias WHERE group_id IN ({own})"


def _both(*parts: str) -> str:
    return " INTERSECT ".join(f"SELECT m FROM ({part})" for part in parts)


def _either(*parts: str) -> str:
    return " UNION ".join(f"SELECT m FROM ({part})" for part in parts)


def _less(part: str, taken: str) -> str:
    return f"SELECT m FROM ({part}) EXCEPT SELECT m FROM ({taken})"


if __name__ == "__main__":
    main()
