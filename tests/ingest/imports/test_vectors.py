"""Vectors are found in the layouts that tools write, read in order and in blocks, and refused with a reason."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_server.errors import IngestError
from mcp_server.ingest.imports.vectors import VectorSource, open_vectors

RNG = np.random.default_rng(5)


def some(rows: int = 7, width: int = 4, dtype: str = "float32") -> NDArray[Any]:
    return RNG.standard_normal((rows, width)).astype(dtype)


def joined(source: VectorSource) -> NDArray[Any]:
    """Return all rows; blocks must follow each other without a gap."""
    found: list[NDArray[Any]] = []
    row = 0
    for start, block in source.blocks():
        assert start == row
        assert block.dtype in (np.float32, np.float16)
        found.append(block)
        row += len(block)
    assert row == source.count
    return np.concatenate(found) if found else np.empty((0, source.width), np.float32)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4", ">f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_npy_is_read_in_every_type_and_order_of_numbers(dtype: str, order: Any, tmp_path: Path) -> None:
    found = some(dtype=dtype)
    np.save(tmp_path / "v.npy", np.asarray(found, order=order))
    source = open_vectors(tmp_path / "v.npy")
    assert (source.count, source.width, source.layout) == (7, 4, "npy")
    np.testing.assert_array_equal(joined(source), found.astype(np.float16 if "f2" in dtype else np.float32))


def test_an_npy_of_many_blocks_is_read_whole_in_both_orders(tmp_path: Path) -> None:
    found = some(40_000, 256)
    for order in ("C", "F"):
        np.save(tmp_path / "v.npy", np.asarray(found, order=order))
        source = open_vectors(tmp_path / "v.npy")
        assert len(list(source.blocks())) > 2
        np.testing.assert_array_equal(joined(source), found)


def test_numbers_beyond_float32_become_infinite(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.array([[1e300, 0], [1, 2]]))
    np.testing.assert_array_equal(joined(open_vectors(tmp_path / "v.npy")), np.array([[np.inf, 0], [1, 2]], np.float32))


def test_an_npz_is_read_when_it_is_clear_which_array_is_meant(tmp_path: Path) -> None:
    found = some()
    np.savez_compressed(tmp_path / "one.npz", whatever=found)
    np.savez(tmp_path / "named.npz", embeddings=found, ids=np.arange(7))
    np.savez(tmp_path / "many.npz", a=found, b=found)
    for name in ("one.npz", "named.npz"):
        np.testing.assert_array_equal(joined(open_vectors(tmp_path / name)), found)
    with pytest.raises(IngestError, match=r"holds a, b; give an \.npz with one array"):
        open_vectors(tmp_path / "many.npz")


def test_parts_follow_each_other_in_numeric_order_and_a_missing_one_is_said(tmp_path: Path) -> None:
    found = some(12)
    for number in (0, 1, 2, 9, 10, 11):
        np.save(tmp_path / f"img_emb_{number}.npy", found[number : number + 1])
        np.save(tmp_path / f"text_emb_{number}.npy", found[number : number + 1] + 1)
    source = open_vectors(tmp_path)
    np.testing.assert_array_equal(joined(source), found[[0, 1, 2, 9, 10, 11]])
    assert [part.number for part in source.parts] == [0, 1, 2, 9, 10, 11]
    assert source.findings == ("of the parts 0 to 11, 6 are missing, the first is 3",)


def test_parts_that_only_metadata_is_there_of_are_missing_too(tmp_path: Path) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for number in range(4):
        (tmp_path / "metadata" / f"metadata_{number}.jsonl").touch()
    for number in (1, 2):
        np.save(tmp_path / "img_emb" / f"img_emb_{number}.npy", some())
    assert open_vectors(tmp_path).findings == ("of the parts 0 to 3, 2 are missing, the first is 0",)
    (tmp_path / "metadata" / "metadata_0.jsonl").unlink()
    assert open_vectors(tmp_path).findings == ("of the parts 1 to 3, 3 is missing",)


def test_parts_of_different_width_are_refused_with_both_numbers(tmp_path: Path) -> None:
    np.save(tmp_path / "a_0.npy", some(width=4))
    np.save(tmp_path / "a_1.npy", some(width=5))
    with pytest.raises(IngestError, match=r"a_1\.npy are 5 wide, those of a_0\.npy 4"):
        open_vectors(tmp_path)


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_folder_is_read(version: Any, tmp_path: Path) -> None:
    found = some(dtype="float16")
    zarr.create_array(str(tmp_path / "v.zarr"), data=found, chunks=(3, 4), zarr_format=version)
    source = open_vectors(tmp_path / "v.zarr")
    assert (source.layout, source.dtype) == ("zarr", np.float16)
    np.testing.assert_array_equal(joined(source), found)


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
@pytest.mark.parametrize("dtype", [pa.float16(), pa.float32(), pa.float64()])
def test_a_column_of_lists_is_read_and_null_rows_are_nan(kind: str, dtype: Any, tmp_path: Path) -> None:
    found = some().astype(np.float16)
    stored = {"list": pa.list_(dtype), "large": pa.large_list(dtype), "fixed": pa.list_(dtype, 4)}[kind]
    lists = [list(row) if number not in (0, 3) else None for number, row in enumerate(found)]
    column = pa.array([None if row is None else [number.item() for number in row] for row in lists], pa.list_(pa.float64())).cast(stored)
    pq.write_table(pa.table({"note": ["x"] * 7, "Embedding": column, "scores": pa.array([[0.5]] * 7)}), tmp_path / "t.parquet")
    source = open_vectors(tmp_path / "t.parquet")
    read = joined(source)
    assert (source.width, source.parts[0].vector_column) == (4, "Embedding")
    assert np.isnan(read[[0, 3]]).all()
    np.testing.assert_array_equal(read[[1, 2, 4, 5, 6]], found[[1, 2, 4, 5, 6]].astype(read.dtype))


def test_parts_without_rows_and_rows_without_numbers_do_no_harm(tmp_path: Path) -> None:
    kind = pa.list_(pa.float32())
    for number, lists in enumerate(([], [[], [1.0, 2.0], None], [[3.0, 4.0]], [])):
        pq.write_table(pa.table({"vector": pa.array(lists, kind), "n": range(len(lists))}), tmp_path / f"part-{number}.parquet")
    source = open_vectors(tmp_path)
    assert (source.count, source.width, [part.count for part in source.parts]) == (4, 2, [0, 3, 1, 0])
    np.testing.assert_array_equal(joined(source), [[np.nan] * 2, [1, 2], [np.nan] * 2, [3, 4]])
    assert open_vectors(tmp_path / "part-0.parquet").count == 0


def test_lists_of_different_length_and_unclear_columns_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"vector": [[1.0, 2.0], [1.0, 2.0, 3.0]]}), tmp_path / "ragged.parquet")
    with pytest.raises(IngestError, match=r"Row 2 of .* 3 wide; the first is 2"):
        joined(open_vectors(tmp_path / "ragged.parquet"))
    pq.write_table(pa.table({"a": [[1.0]], "b": [[1.0]]}), tmp_path / "two.parquet")
    with pytest.raises(IngestError, match=r"2 columns that could be the vectors \(a, b\)"):
        open_vectors(tmp_path / "two.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "none.parquet")
    with pytest.raises(IngestError, match=r"0 columns that could be the vectors \(none\)"):
        open_vectors(tmp_path / "none.parquet")
    pq.write_table(pa.table({"vector": pa.array([None], pa.list_(pa.float32()))}), tmp_path / "null.parquet")
    with pytest.raises(IngestError, match="all 1 rows are null"):
        open_vectors(tmp_path / "null.parquet")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (np.arange(4.0), r"shape \(4,\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        (np.zeros((2, 0)), r"shape \(2, 0\)"),
        (np.zeros((2, 2), np.uint8), "uint8"),
        (np.array([[{"a": 1}]], object), "object"),
        (np.zeros(3, [("ä", "f4")]), "cannot|no NumPy|named fields|shape"),
    ],
)
@pytest.mark.filterwarnings("ignore:Stored array in format 3.0:UserWarning")  # numpy says so when writing the last case
def test_other_arrays_are_refused_and_nothing_is_unpickled(found: Any, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", found, allow_pickle=True)
    with pytest.raises(IngestError, match=words):
        open_vectors(tmp_path / "v.npy")


def test_a_file_that_was_cut_short_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", some(100))
    data = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(data[:-10])
    with pytest.raises(IngestError, match="cut short: 1,718 of 1,728 bytes"):
        open_vectors(tmp_path / "v.npy")


def test_a_header_with_less_than_no_rows_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", some())
    whole = (tmp_path / "v.npy").read_bytes()
    (tmp_path / "v.npy").write_bytes(whole.replace(b"(7, 4), ", b"(-7, 4),"))
    with pytest.raises(IngestError, match=r"shape \(-7, 4\)"):
        open_vectors(tmp_path / "v.npy")


def test_nothing_that_can_be_read_says_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_text("1 2 3", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "v.txt", tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(IngestError, match=r"\.npy or \.npz file, a folder of \.npy files, clip-retrieval"):
            open_vectors(path)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_files_are_refused_and_never_crash(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    suffix = data.draw(st.sampled_from(["npy", "npz", "parquet"]))
    file = folder / f"v.{suffix}"
    found = np.ones((5, 3), np.float32)
    if suffix == "npy":
        np.save(file, found)
    elif suffix == "npz":
        np.savez(file, found)
    else:
        pq.write_table(pa.table({"vector": found.tolist()}), file)
    raw = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(IngestError):
        assert joined(open_vectors(file)).ndim == 2
