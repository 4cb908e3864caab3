"""Made-up collections shaped like a CLIP model's: N unit vectors of width D in float16, queries, and skip masks of any share.

python tests/benchmarks/synthetic.py [--rows 1000000] [--width 1152] [--seed 0] [--data FOLDER] [--zarr]

Pictures lie around a common mean, in clusters of Zipf's sizes whose spread decays from direction to direction; a few coordinates are
heavy; nearly a third of the rows repeat the row before them, most of them nearly, some exactly. Queries come from a cone of their own,
nearly orthogonal to the pictures, as texts do. Rows are drawn in chunks, each from its own seed: the first 20,000 rows of a million are
the 20,000, and a file made once serves all smaller sizes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Half = NDArray[np.float16]
Single = NDArray[np.float32]
Mask = NDArray[np.bool_]
Shape = Literal["random", "contiguous", "aligned", "hostile"]
SHAPES: tuple[Shape, ...] = get_args(Shape)

CLUSTERS = 2_000
CHUNK = 10_000
DIRECTIONS = 192
"""How many directions the spread inside a cluster has, beside a little noise in all."""
REPEATS = 0.30
EXACT = 0.05
"""Of the repeats, how many are exact."""
_COMMON, _CENTRE, _SPREAD, _NOISE = 0.70, 0.45, 0.50, 0.15
"""Lengths of the parts of a picture; the squares add up to about 1."""


def default_folder() -> Path:
    """Return where the data is kept unless --data says otherwise."""
    return Path(tempfile.gettempdir()) / "clip-search-benchmarks"


@dataclass(frozen=True, eq=False)
class World:
    """What all rows and queries of one seed share.

    Attributes:
        common: (D,) float32, the mean of all pictures.
        centres: (C, D) float32, of the clusters, around zero.
        shares: (C,) float64, how often each is drawn.
        directions: (K, D) float32, the spread inside a cluster, longest first.
        text: (D,) float32, the axis of the cone of queries.
    """

    seed: int
    width: int
    common: Single = field(repr=False)
    centres: Single = field(repr=False)
    shares: NDArray[np.float64] = field(repr=False)
    directions: Single = field(repr=False)
    text: Single = field(repr=False)

    @classmethod
    def of(cls, seed: int, width: int) -> World:
        """Return the world of `seed`."""
        random = np.random.default_rng([seed, width])
        common = random.standard_normal(width).astype(np.float32) / np.sqrt(width)
        heavy = random.choice(width, min(4, width), replace=False)
        common[heavy] += np.array([0.50, -0.36, 0.25, -0.20], np.float32)[: len(heavy)]
        common /= np.linalg.norm(common)
        count = min(DIRECTIONS, width)
        basis = np.linalg.qr(random.standard_normal((width, count)))[0].T
        strengths = 1 / np.sqrt(1 + np.arange(count))
        strengths /= np.linalg.norm(strengths)
        centres = random.standard_normal((CLUSTERS, count)) * strengths @ basis
        centres = centres + 0.02 * random.standard_normal((CLUSTERS, width))
        centres *= 1 / np.linalg.norm(centres, axis=1, keepdims=True)
        other = np.linalg.qr(random.standard_normal((width, count)))[0].T
        shares = 1 / (1 + np.arange(CLUSTERS)) ** 0.8
        text = random.standard_normal(width).astype(np.float32)
        text -= common * (text @ common)
        return cls(
            seed,
            width,
            common,
            centres.astype(np.float32),
            shares / shares.sum(),
            (strengths[:, None] * other).astype(np.float32),
            text / np.linalg.norm(text),
        )

    def chunk(self, number: int) -> tuple[Half, NDArray[np.int16]]:
        """Return rows `number * CHUNK` to the next chunk, (CHUNK, D), and the cluster of each, (CHUNK,)."""
        random = np.random.default_rng([self.seed, self.width, number])
        labels = random.choice(CLUSTERS, CHUNK, p=self.shares).astype(np.int16)
        noise = random.standard_normal((CHUNK, self.width), np.float32)
        noise *= _NOISE / np.sqrt(self.width)
        kind = random.random(CHUNK)
        kind[0] = 1
        source = np.maximum.accumulate(np.where(kind >= REPEATS, np.arange(CHUNK), 0))
        labels = labels[source]
        latent = random.standard_normal((CHUNK, len(self.directions)), np.float32)
        made = latent @ self.directions
        made *= _SPREAD
        made += _COMMON * self.common
        made += _CENTRE * self.centres[labels]
        repeated = source != np.arange(CHUNK)
        made[~repeated] += noise[~repeated]
        made[repeated] = made[source[repeated]] + 0.1 * noise[repeated]
        exact = kind < REPEATS * EXACT
        made[exact] = made[source[exact]]
        made *= 1 / np.linalg.norm(made, axis=1, keepdims=True)
        return made.astype(np.float16), labels

    def queries(self, count: int, seed: int = 1) -> Single:
        """Return (count, D) float32 unit vectors, each meaning one cluster; every fourth means a mixture of two."""
        random = np.random.default_rng([self.seed, self.width, 1_000_003, seed])
        first, second = random.choice(CLUSTERS, (2, count), p=self.shares)
        meant = self.centres[first] + (np.arange(count) % 4 == 3)[:, None] * self.centres[second]
        noise = random.standard_normal((count, self.width)) / np.sqrt(self.width)
        queries = 0.70 * self.text + 0.50 * meant + 0.50 * noise
        return (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)

    def asked_before(self) -> Single:
        """Return (32, D) queries that were asked on another day: none of those that `queries` gives as it is."""
        return self.queries(32, seed=2)


@dataclass(frozen=True, eq=False)
class Synthetic:
    """A collection: its rows, mapped from a file, (N, D) float16, and their clusters, (N,) int16."""

    world: World
    rows: Half = field(repr=False)
    labels: NDArray[np.int16] = field(repr=False)

    @property
    def size(self) -> int:
        """N."""
        return len(self.rows)

    def first(self, size: int) -> Synthetic:
        """Return the collection of the first `size` rows."""
        return Synthetic(self.world, self.rows[:size], self.labels[:size])

    @cached_property
    def members(self) -> NDArray[np.int64]:
        """(C,) how many rows each cluster has."""
        return np.bincount(self.labels, minlength=CLUSTERS)

    def skip(self, shape: Shape, share: float, query: Single, random: np.random.Generator) -> Mask:
        """Return a new (N,) mask, True for `share` of the rows, to the row.

        random: any of them. contiguous: all but one to four stretches, as a date range keeps. aligned: the clusters that suit `query`
        best are kept, as when the filter says the same as the text. hostile: those are skipped.
        """
        skipped = round(share * self.size)
        if shape == "random":
            order = np.argpartition(random.random(self.size), skipped - 1)[:skipped] if skipped else np.empty(0, np.int64)
            return _mask(self.size, order)
        if shape == "contiguous":
            return ~_stretches(self.size, self.size - skipped, random)
        fit = self.world.centres @ query
        order = np.argsort(fit if shape == "aligned" else -fit)
        before = np.concatenate([[0], np.cumsum(self.members[order])])
        whole = int(np.searchsorted(before, skipped, "right")) - 1
        out = np.zeros(CLUSTERS, np.bool_)
        out[order[:whole]] = True
        skip = out[self.labels]
        if rest := skipped - int(before[whole]):
            skip[random.choice(np.flatnonzero(self.labels == order[whole]), rest, replace=False)] = True
        return skip


def _mask(size: int, rows: NDArray[np.int64]) -> Mask:
    mask = np.zeros(size, np.bool_)
    mask[rows] = True
    return mask


def _stretches(size: int, wanted: int, random: np.random.Generator) -> Mask:
    """Return a mask with `wanted` rows True in one to four stretches."""
    count = min(int(random.integers(1, 5)), max(wanted, 1), size - wanted + 1)
    lengths = np.diff(np.concatenate([[0], np.sort(random.choice(wanted - 1, count - 1, replace=False)) + 1, [wanted]])) if wanted else [0]
    gaps = np.sort(random.choice(size - wanted + 1, count, replace=False))
    mask = np.zeros(size, np.bool_)
    used = 0
    for gap, length in zip(gaps, lengths, strict=True):
        mask[gap + used : gap + used + length] = True
        used += int(length)
    return mask


def synthetic(rows: int, width: int = 1152, seed: int = 0, folder: Path | None = None) -> Synthetic:
    """Return a collection of `rows`, out of the smallest file in `folder` that has so many; a file is made if there is none."""
    folder = folder or default_folder()
    folder.mkdir(parents=True, exist_ok=True)
    world = World.of(seed, width)
    made = {int(file.name.split("-")[1].split("x")[0]): file for file in folder.glob(f"rows-*x{width}-seed{seed}.npy")}
    size = min((size for size in made if size >= rows), default=None)
    if size is None:
        size, made[rows] = rows, _make(world, rows, folder / f"rows-{rows}x{width}-seed{seed}.npy")
    labels = np.load(_labels_of(made[size]))
    return Synthetic(world, np.load(made[size], mmap_mode="r"), labels).first(rows)


def _labels_of(file: Path) -> Path:
    return file.with_name(file.name.replace("rows-", "labels-"))


def _make(world: World, size: int, file: Path) -> Path:
    temporary = file.with_suffix(".part")
    rows = np.lib.format.open_memmap(temporary, "w+", np.float16, (size, world.width))
    labels = np.empty(size, np.int16)

    def one(number: int) -> None:
        start = number * CHUNK
        chunk = world.chunk(number)
        rows[start : start + CHUNK], labels[start : start + CHUNK] = (part[: size - start] for part in chunk)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(-(-size // CHUNK))))
    rows.flush()
    np.save(_labels_of(file), labels)
    return temporary.rename(file)


def zarr_file(collection: Synthetic, folder: Path, dtype: Any = np.float16, chunk_rows: int = CHUNK) -> Path:
    """Return a Zarr zip store of the rows in `folder`, an array at its root with the library's own codec, written if it is not there."""
    import zarr
    from zarr.storage import ZipStore

    size, width = collection.rows.shape
    name = "" if dtype == np.float16 and chunk_rows == CHUNK else f"-{np.dtype(dtype).name}-{chunk_rows}"
    file = folder / f"rows-{size}x{width}-seed{collection.world.seed}{name}.zarr.zip"
    if not file.exists():
        temporary = file.with_suffix(".part")
        temporary.unlink(missing_ok=True)
        with ZipStore(temporary, mode="w") as store:
            array = zarr.create_array(store, shape=(size, width), chunks=(min(chunk_rows, size), width), dtype=dtype)
            for start in range(0, size, chunk_rows):
                array[start : start + chunk_rows] = collection.rows[start : start + chunk_rows]
        temporary.rename(file)
    return file


def add_options(parser: argparse.ArgumentParser, rows: int = 1_000_000) -> None:
    """Add --rows, --width, --seed and --data."""
    parser.add_argument("--rows", type=int, default=rows)
    parser.add_argument("--width", type=int, default=1152)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=default_folder(), help="where made data is kept (default: %(default)s)")


def main() -> None:
    """Make the file and say what it looks like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--zarr", action="store_true", help="write a Zarr zip store of it as well")
    options = parser.parse_args()
    started = time.perf_counter()
    collection = synthetic(options.rows, options.width, options.seed, options.data)
    print(f"{collection.size:,} x {options.width} in {options.data}, {time.perf_counter() - started:.1f} s")
    if options.zarr:
        started = time.perf_counter()
        file = zarr_file(collection, options.data)
        print(f"{file.name}, {file.stat().st_size / 1e9:.2f} GB, {time.perf_counter() - started:.1f} s")
    random = np.random.default_rng(2)
    sample = np.sort(random.choice(collection.size, min(2_000, collection.size), replace=False))
    some = collection.rows[sample].astype(np.float32)
    cosines = some @ some.T
    scores = collection.world.queries(20) @ collection.rows[:100_000].astype(np.float32).T
    print(f"picture to picture: mean cosine {(cosines.sum() - len(some)) / (len(some) * (len(some) - 1)):.3f}")
    sizes = collection.members
    print(f"largest coordinate {np.abs(some).max():.2f}; {np.count_nonzero(sizes)} clusters, largest {sizes.max():,}")
    print(f"query to picture: mean {scores.mean():.3f}, deviation per query {scores.std(axis=1).mean():.3f}, best {scores.max():.3f}")


if __name__ == "__main__":
    main()
