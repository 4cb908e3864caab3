"""Which files are read as embeddings, and what is said about the others."""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore, ZipStore

from mcp_server.errors import CollectionError, IndexMismatchError
from mcp_server.indexes.embeddings import Embeddings, embeddings_shape, load_embeddings
from tests.contracts.index_contract import clustered

ROWS = clustered(31, 50)


def write(path: Path, zarr_format: int = 3, **arrays: NDArray) -> Path:
    """Write a group of arrays; the one called `root` is written at the root instead."""
    store = ZipStore(path, mode="w") if path.suffix == ".zip" else LocalStore(path)
    with store:
        if "root" not in arrays:
            zarr.create_group(store, zarr_format=zarr_format)
        for name, values in arrays.items():
            chunks = tuple(max(1, min(17, length)) for length in values.shape)
            array = zarr.create_array(
                store, name=None if name == "root" else name, shape=values.shape, dtype=values.dtype, chunks=chunks, zarr_format=zarr_format
            )
            if values.size:
                array[...] = values
    return path


def moved_into_a_folder(source: Path, target: Path, *extra: str) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(f"embeddings.zarr/{name}", old.read(name))
        for name in extra:
            new.writestr(name, b"x")
    return target


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("name", ["e.zip", "e.zarr.zip", "e.zarr", "folder"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("member", ["root", "embeddings", "vectors"])
def test_every_way_of_storing_gives_the_same_rows(zarr_format: int, name: str, dtype: str, member: str, tmp_path: Path) -> None:
    values = ROWS.astype(dtype)
    path = write(tmp_path / name, zarr_format, **{member: values})
    embeddings = load_embeddings(path)
    expected = np.float16 if dtype.endswith("f2") else np.float32
    assert embeddings.rows.dtype == expected
    assert np.array_equal(embeddings.rows, values.astype(expected))
    assert embeddings_shape(path) == (50, 16) == (embeddings.size, embeddings.width)
    assert embeddings.normalised
    np.testing.assert_allclose(embeddings.norms, 1, atol=1e-3)


@pytest.mark.parametrize("suffix", [".zipstore", ".bin", ""])
def test_a_zip_is_known_by_its_content_not_its_name(suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / "e.zip", root=ROWS).rename(tmp_path / f"embeddings{suffix}")
    assert np.array_equal(load_embeddings(path).rows, ROWS)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("member", ["root", "embeddings"])
def test_a_store_inside_the_only_folder_of_a_zip_is_found(zarr_format: int, member: str, tmp_path: Path) -> None:
    path = moved_into_a_folder(
        write(tmp_path / "a.zip", zarr_format, **{member: ROWS}), tmp_path / "b.zip", "__MACOSX/._x", "embeddings.zarr/.DS_Store"
    )
    assert np.array_equal(load_embeddings(path).rows, ROWS)


def test_a_sharded_compressed_array_is_read(tmp_path: Path) -> None:
    with ZipStore(tmp_path / "e.zip", mode="w") as store:
        array = zarr.create_array(store, shape=ROWS.shape, dtype="f4", chunks=(5, 8), shards=(20, 16))
        array[:] = ROWS
    assert np.array_equal(load_embeddings(tmp_path / "e.zip").rows, ROWS)


def test_a_chunk_larger_than_a_reading_block_is_read(tmp_path: Path) -> None:
    with LocalStore(tmp_path / "e") as store:
        array = zarr.create_array(store, shape=ROWS.shape, dtype="f4", chunks=(700_000, 16))
        array[:] = ROWS
    assert np.array_equal(load_embeddings(tmp_path / "e").rows, ROWS)


def test_embeddings_are_chosen_by_name_among_several_arrays(tmp_path: Path) -> None:
    path = write(tmp_path / "e.zip", embeddings=ROWS, other=ROWS[::-1], ids=np.arange(50))
    assert np.array_equal(load_embeddings(path).rows, ROWS)


def test_the_only_float_matrix_is_chosen_among_other_arrays(tmp_path: Path) -> None:
    path = write(tmp_path / "e.zip", features=ROWS, ids=np.arange(50), lengths=np.ones(50))
    assert np.array_equal(load_embeddings(path).rows, ROWS)


def test_two_float_matrices_without_the_name_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(IndexMismatchError, match=r"holds left \(50, 16\), right \(50, 16\); expected"):
        load_embeddings(write(tmp_path / "e.zip", left=ROWS, right=ROWS))


@pytest.mark.parametrize("size", [0, 1])
def test_no_row_and_one_row_are_fine(size: int, tmp_path: Path) -> None:
    embeddings = load_embeddings(write(tmp_path / "e.zip", root=ROWS[:size]))
    assert embeddings.rows.shape == (size, 16)
    assert embeddings.normalised
    assert embeddings.unusable.shape == (size,)


@pytest.mark.parametrize(
    "values", [ROWS[0], ROWS[None], np.ones((5, 3), np.int32), np.ones((5, 3), np.complex64), np.ones((5, 0), np.float32)]
)
@pytest.mark.parametrize("member", ["root", "embeddings"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_another_shape_or_type_is_refused_naming_file_and_what_is_expected(
    values: NDArray, member: str, zarr_format: int, tmp_path: Path
) -> None:
    path = write(tmp_path / "e.zarr", zarr_format, **{member: values})
    for attempt in (load_embeddings, embeddings_shape):
        with pytest.raises(IndexMismatchError, match=r"e\.zarr .*expected a Zarr array \(N, D\) of float16 or float32"):
            attempt(path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"Embeddings not found: .*none\.zip; expected a Zarr array"):
        load_embeddings(tmp_path / "none.zip")


def test_an_empty_folder_and_an_empty_zip_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with zipfile.ZipFile(tmp_path / "e.zip", "w"):
        pass
    for name in ("folder", "e.zip"):
        with pytest.raises(CollectionError, match="No Zarr metadata"):
            load_embeddings(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half a zip"])
def test_a_file_that_is_no_zip_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "e.zip").write_bytes(content)
    with pytest.raises(CollectionError, match=r"Embeddings cannot be read: .*e\.zip"):
        load_embeddings(tmp_path / "e.zip")


@pytest.mark.parametrize(
    "metadata", ["", "[]", "{}", '{"node_type": "array"}', '{"node_type": "array", "shape": 3, "data_type": "float32"}', "{"]
)
def test_damaged_metadata_is_refused(metadata: str, tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text(metadata)
    with pytest.raises(CollectionError, match="Embeddings cannot be read"):
        embeddings_shape(tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_damaged_chunk_is_refused(zarr_format: int, tmp_path: Path) -> None:
    path = write(tmp_path / "e.zarr", zarr_format, root=ROWS)
    chunk = next(file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith((".z", "zarr")))
    chunk.write_bytes(b"\x07" * 40)
    with pytest.raises(CollectionError, match="Embeddings are damaged"):
        load_embeddings(path)


def test_a_damaged_byte_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "e.zip", root=ROWS)
    with zipfile.ZipFile(path) as archive:
        chunk = next(entry for entry in archive.infolist() if entry.filename != "zarr.json")
    content = bytearray(path.read_bytes())
    content[chunk.header_offset + 30 + len(chunk.filename) + chunk.compress_size // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CollectionError, match="Embeddings are damaged"):
        load_embeddings(path)


def test_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "e.zarr", root=ROWS)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["codecs"] = [{"name": "made-up", "configuration": {}}]
    (path / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(CollectionError, match="Embeddings are damaged"):
        load_embeddings(path)


PICKLE = {"name": "numcodecs.pickle", "configuration": {}}
SHARDED = {"name": "sharding_indexed", "configuration": {"chunk_shape": [5, 16], "codecs": [{"name": "bytes"}, PICKLE]}}


@pytest.mark.parametrize(
    ("metadata_file", "change"),
    [
        (".zarray", {"compressor": {"id": "pickle"}}),
        (".zarray", {"filters": [{"id": "delta", "dtype": "<f4"}, {"id": "pickle"}]}),
        ("zarr.json", {"codecs": [PICKLE]}),
        ("zarr.json", {"codecs": [SHARDED]}),
    ],
    ids=["compressor", "filter", "codec", "shard"],
)
def test_chunks_that_could_be_programs_are_refused_before_one_is_read(metadata_file: str, change: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "e.zarr", 2 if metadata_file == ".zarray" else 3, root=ROWS)
    metadata = json.loads((path / metadata_file).read_text())
    (path / metadata_file).write_text(json.dumps(metadata | change))
    for attempt in (embeddings_shape, load_embeddings):
        with pytest.raises(CollectionError, match=r"packed with pickle, which can run programs\. Write it with another codec\."):
            attempt(path)


@pytest.mark.parametrize("name", ["e.zip", "e.zarr"])
def test_reading_leaves_the_files_as_they_were(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, 2, embeddings=ROWS)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    before = [(file, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in files]
    load_embeddings(path)
    after = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    assert before == [(file, hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in after]


def test_once_read_the_file_is_not_needed_any_more(tmp_path: Path) -> None:
    path = write(tmp_path / "e.zip", root=ROWS)
    embeddings = load_embeddings(path)
    path.unlink()
    assert np.array_equal(embeddings.rows, ROWS)


def test_rows_outlive_what_they_came_from() -> None:
    rows = Embeddings.from_rows(clustered(1, 5000)).rows
    noise = [Embeddings.from_rows(clustered(2, 5000)) for _ in range(20)]
    assert len(noise) == 20
    assert np.array_equal(rows, clustered(1, 5000))


def test_rows_cannot_be_written_to() -> None:
    embeddings = Embeddings.from_rows(ROWS)
    for array in (embeddings.rows, embeddings.norms, embeddings.unusable):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_unusable_rows_are_marked_and_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flawed = ROWS.copy()
    flawed[2], flawed[5, 3], flawed[7, 0] = 0, np.nan, -np.inf
    with caplog.at_level(logging.WARNING):
        embeddings = load_embeddings(write(tmp_path / "e.zip", root=flawed))
    assert np.flatnonzero(embeddings.unusable).tolist() == [2, 5, 7]
    assert embeddings.normalised
    assert [record.getMessage().split()[0] for record in caplog.records] == ["embeddings.unusable"]


def test_rows_of_other_lengths_are_reported_once_with_their_range(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        embeddings = load_embeddings(write(tmp_path / "e.zip", root=ROWS * np.linspace(0.5, 4, 50, dtype=np.float32)[:, None]))
    assert not embeddings.normalised
    (record,) = caplog.records
    assert "embeddings.not_unit" in record.getMessage()
    assert "shortest=0.5 longest=4" in record.getMessage()


def test_float64_beyond_float32_is_unusable_not_an_error(tmp_path: Path) -> None:
    values = ROWS.astype(np.float64)
    values[4, 4] = 1e300
    assert np.flatnonzero(load_embeddings(write(tmp_path / "e.zip", root=values)).unusable).tolist() == [4]


@pytest.mark.parametrize("rows", [np.ones(4, np.float32), np.ones((4, 0), np.float32), np.ones((4, 4), np.int64)])
def test_arrays_that_are_no_embeddings_are_refused(rows: NDArray) -> None:
    with pytest.raises(IndexMismatchError, match=r"Embeddings must be \(N, D\) of float16 or float32"):
        Embeddings.from_rows(rows)


def test_importing_and_asking_for_the_shape_load_neither_zarr_nor_faiss(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import mcp_server.indexes.opening
from mcp_server.indexes.embeddings import embeddings_shape
assert embeddings_shape(Path(sys.argv[1])) == (50, 16)
assert not {"zarr", "faiss", "torch"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(write(tmp_path / "e.zip", root=ROWS))], check=True, timeout=60)
