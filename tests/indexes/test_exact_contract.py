"""The exact index over every way embeddings may be stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore, ZipStore

from mcp_server.indexes.base import Index
from mcp_server.indexes.embeddings import Embeddings, load_embeddings
from mcp_server.indexes.opening import open_index
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
