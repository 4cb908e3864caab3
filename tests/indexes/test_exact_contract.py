"""The exact index over every way embeddings may be stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore, ZipStore

from mcp_server.domain.search import Neighbors
from mcp_server.indexes.base import Index
from mcp_server.indexes.codes import Codes, write_codes
from mcp_server.indexes.embeddings import Embeddings, load_embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.opening import open_index
from mcp_server.indexes.planner import Costs, Way
from mcp_server.side_files import SideFiles
from tests.contracts.index_contract import IndexContract, clustered, with_flaws


def stored(rows: NDArray, path: Path, zarr_format: int, chunk: int = 400) -> Path:
    store = ZipStore(path, mode="w") if path.suffix == ".zip" else LocalStore(path)
    with store:
        array = zarr.create_array(store, shape=rows.shape, dtype=rows.dtype, chunks=(chunk, rows.shape[1]), zarr_format=zarr_format)
        array[:] = rows
    return path


class StoredContract(IndexContract):
    zarr_format = 3
    name = "embeddings.zarr.zip"
    dtype: type = np.float32

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> NDArray:
        return Embeddings.from_rows(with_flaws(clustered(1, 1500)).astype(cls.dtype)).rows

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        embeddings = load_embeddings(stored(rows, folder / cls.name, cls.zarr_format))
        assert embeddings.rows.dtype == cls.dtype
        return open_index("zarr", embeddings, None, ties)


class TestV3ZipFloat32(StoredContract):
    pass


class TestV3ZipFloat16(StoredContract):
    dtype = np.float16


class TestV3FolderFloat16(StoredContract):
    name = "embeddings"
    dtype = np.float16


class TestV2ZipFloat16(StoredContract):
    zarr_format = 2
    dtype = np.float16


class TestV2FolderFloat32(StoredContract):
    zarr_format = 2
    name = "embeddings.zarr"


class TestRowsOfManyLengths(IndexContract):
    """Stored without normalising: cosine decides, not the inner product."""

    dtype: type = np.float32

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> NDArray:
        lengths = np.random.default_rng(7).uniform(0.05, 30, 1500)[:, None]
        return Embeddings.from_rows(with_flaws(clustered(1, 1500) * lengths).astype(cls.dtype)).rows

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        embeddings = Embeddings.from_rows(rows)
        assert not embeddings.normalised
        return open_index("zarr", embeddings, None, ties)


class TestFloat16RowsOfManyLengths(TestRowsOfManyLengths):
    dtype = np.float16


class OneWay(ExactIndex):
    """Answers by one way, whatever the planner thinks."""

    way: Way

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        return self.search_by(self.way, query, k, skip)


def coded(rows: NDArray, ties: NDArray[np.int64], folder: Path, kind: type[ExactIndex] = ExactIndex) -> ExactIndex:
    embeddings = Embeddings.from_rows(rows)
    side = SideFiles(folder / "side")
    with side.writing("codes", {}) as draft:
        write_codes(embeddings, draft)
    found = side.read("codes", {})
    assert found is not None
    index = kind(embeddings, ties)
    index.adopt(Codes.of(found), Costs())
    return index


class TestCodes(IndexContract):
    """Codes of one byte a number, and the planner's choice."""

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        return coded(rows, ties, folder)


class TestCodesOfRowsOfManyLengths(TestRowsOfManyLengths):
    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        return coded(rows, ties, folder)


class OneWayContract(IndexContract):
    way: Way
    dtype: type = np.float16

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> NDArray:
        return Embeddings.from_rows(with_flaws(clustered(1, 1500)).astype(cls.dtype)).rows

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        index = coded(rows, ties, folder, OneWay)
        assert isinstance(index, OneWay)
        index.way = cls.way
        return index


class TestGatheringRows(OneWayContract):
    way = "gather rows"


class TestGatheringCodes(OneWayContract):
    way = "gather codes"


class TestScanningRows(OneWayContract):
    way = "scan rows"


class TestScanningCodes(OneWayContract):
    way = "scan codes"


class TestScanningCodesOfFloat32(OneWayContract):
    way = "scan codes"
    dtype = np.float32
