"""Reads vectors that stand in a column of a Parquet file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.tables.read_parquet import refuse_twins

NAMES = ("embedding", "embeddings", "vector", "image_embedding")
"""Columns that are the vectors where several could be, the first one there; letter case is ignored."""

_BATCH_ROWS = 4096
_ADVICE = f"Give one column of equally long lists of floats, called {', '.join(NAMES[:-1])} or {NAMES[-1]}"


@dataclass(frozen=True)
class ParquetVectors:
    """The column of vectors in a Parquet file.

    Attributes:
        column: its name.
        count: rows of the file.
        width: how long its lists are; 0 when the file has no rows and its type does not say.
        dtype: float16, float32 or float64.
    """

    file: Path
    column: str
    count: int
    width: int
    dtype: np.dtype[Any]


def find_vectors(file: Path) -> ParquetVectors:
    """Return the column of vectors: by its name, else the only one that holds lists of floats. Reads the schema and one batch.

    Raises:
        IngestError: there is none, there are several, also of one name, all its rows are null or empty, or the file cannot be read.
    """
    import pyarrow as pa

    try:
        with _opened(file) as table:
            types = {field.name: kind for field in table.schema_arrow if (kind := _float_list(field.type)) is not None}
            column = _chosen(file, types)
            refuse_twins(file, [name for name in table.schema_arrow.names if name == column])
            count: int = table.metadata.num_rows
            width = _fixed_width(types[column]) or _first_width(table, column)
            if width is None and count:
                raise IngestError(f"Column {clipped(column)!r} of {file} holds no vector: all {count:,} rows are null or empty. {_ADVICE}.")
            return ParquetVectors(file, column, count, width or 0, np.dtype(types[column].value_type.to_pandas_dtype()))
    except (OSError, pa.ArrowException) as error:
        raise IngestError(f"{file} cannot be read as Parquet ({clipped(error, 120)}). Write it again.") from error


def read_vectors(vectors: ParquetVectors) -> Iterator[NDArray[Any]]:
    """Yield the vectors in row order, in blocks (n, D). A row that is null or empty, or has a null in it, is NaN.

    Raises:
        IngestError: a list has another length than the first, or the file is damaged.
    """
    import pyarrow as pa

    start = 0
    try:
        with _opened(vectors.file) as table:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[vectors.column], use_threads=False):
                yield _rows(vectors, batch.column(0), start)
                start += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise IngestError(f"{vectors.file} is damaged ({clipped(error, 120)}). Write it again.") from error


def count_rows(file: Path) -> int:
    """Return how many rows `file` has. Reads its end only. Raises IngestError when it is no Parquet file."""
    import pyarrow as pa

    try:
        with _opened(file) as table:
            return int(table.metadata.num_rows)
    except (OSError, pa.ArrowException) as error:
        raise IngestError(f"{file} cannot be read as Parquet ({clipped(error, 120)}). Write it again.") from error


def check_names(file: Path) -> None:
    """Refuse a file with two columns of one name. Reads its end only. Raises IngestError."""
    with _opened(file) as table:
        refuse_twins(file, table.schema_arrow.names)


def write_rest(file: Path, column: str, target: Path) -> bool:
    """Write `file` without `column` to `target`, batch by batch; False, and nothing written, when there is no other column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with _opened(file) as table:
        schema = table.schema_arrow.remove(table.schema_arrow.get_field_index(column))
        if not len(schema):
            return False
        with pq.ParquetWriter(target, schema) as writer:
            for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=schema.names, use_threads=False):
                writer.write_table(pa.Table.from_batches([batch]))
        return True


def _opened(file: Path) -> Any:
    import pyarrow.parquet as pq

    # a small buffer and no reading ahead: a row group of a million vectors would be gigabytes
    return pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)


def _float_list(kind: Any) -> Any | None:
    """Return `kind` as the list of floats that it is or is stored as; None for any other type."""
    import pyarrow as pa

    stored = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    is_list = pa.types.is_list(stored) or pa.types.is_large_list(stored) or pa.types.is_fixed_size_list(stored)
    return stored if is_list and pa.types.is_floating(stored.value_type) else None


def _chosen(file: Path, types: dict[str, Any]) -> str:
    folded = {name.casefold(): name for name in reversed(types)}
    named = next((folded[name] for name in NAMES if name in folded), None)
    if named is None and len(types) != 1:
        found = clipped(", ".join(types), 80) if types else "none"
        raise IngestError(f"{file} has {len(types)} columns that could be the vectors ({found}). {_ADVICE}.")
    return named or next(iter(types))


def _fixed_width(kind: Any) -> int | None:
    import pyarrow as pa

    return kind.list_size if pa.types.is_fixed_size_list(kind) else None


def _first_width(table: Any, column: str) -> int | None:
    for batch in table.iter_batches(batch_size=256, columns=[column], use_threads=False):
        lengths = np.asarray(_storage(batch.column(0)).value_lengths().fill_null(0))
        if lengths.any():
            return int(lengths[np.flatnonzero(lengths)[0]])
    return None


def _storage(column: Any) -> Any:
    return getattr(column, "storage", column)


def _rows(vectors: ParquetVectors, column: Any, start: int) -> NDArray[Any]:
    lists = _storage(column)
    lengths = np.asarray(lists.value_lengths().fill_null(0))
    there = np.asarray(lists.is_valid()) & (lengths > 0)
    if (wrong := np.flatnonzero(there & (lengths != vectors.width))).size:
        at = int(wrong[0])
        raise IngestError(
            f"Row {start + at + 1:,} of {vectors.file} has a vector {lengths[at]} wide; the first is {vectors.width}. All must be alike."
        )
    block = np.full((len(lists), vectors.width), np.nan, vectors.dtype)
    # flatten() leaves null and empty rows out; a null inside a list becomes NaN
    block[there] = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, vectors.width)
    return block
