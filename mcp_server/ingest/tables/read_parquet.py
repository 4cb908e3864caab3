"""Reads the rows of a Parquet file, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, cast

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.tables.rows import BadLines, Row

_ROWS_AT_ONCE = 1_024


def read_parquet(file: Path, bad: BadLines) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a Parquet file, numbered from 1; memory holds a part of one row group.

    Moments become ISO text (nanoseconds are cut to microseconds), durations seconds, decimals whole or decimal numbers, decimal numbers of
    32 and 16 bits the shortest ones that mean the same, structs and maps dicts. Binary columns and parts of structs are left
    out; binary values deeper down are text if they are UTF-8, else null. A moment outside the years 1 to 9999 is null, and its row is noted
    in `bad`.

    Raises:
        IngestError: not a Parquet file, damaged, or with two columns of one name.
        OSError: the file cannot be read.
    """
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs] - has no stubs
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs] - has no stubs

    arrow, parquet = cast("Any", pa), cast("Any", pq)
    file.open("rb").close()
    try:
        with closing(parquet.ParquetFile(file, memory_map=True, pre_buffer=False)) as opened:
            schema = opened.schema_arrow
            refuse_twins(file, schema.names)
            columns = [name for one in schema for name in _readable(arrow, one)]
            number = 0
            for batch in opened.iter_batches(_ROWS_AT_ONCE, columns=columns, use_threads=False):
                values = {name: _values(arrow, batch.column(name), name, number, bad) for name in batch.schema.names}
                for place in range(batch.num_rows):
                    number += 1
                    yield number, {name: column[place] for name, column in values.items()}
    except arrow.ArrowException as error:
        raise IngestError(f"The metadata file {file} cannot be read as Parquet: {clipped(error, 120)}.") from error


def refuse_twins(file: Path, names: list[str]) -> None:
    """Raise IngestError when two of `names`, the columns of `file`, are one."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise IngestError(f"The metadata file {file} has two columns called {clipped(twice)!r}. Give each its own name.")


def _readable(arrow: Any, column: Any) -> list[str]:
    """Return what to read of a column: all of it, none, or the parts of a struct that are not binary."""
    if not arrow.types.is_struct(column.type):
        return [] if _is_binary(arrow, column.type) else [column.name]
    return [f"{column.name}.{part.name}" for part in column.type if not _is_binary(arrow, part.type)]


def _is_binary(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind) or types.is_null(kind)


def _values(arrow: Any, column: Any, name: str, before: int, bad: BadLines) -> list[Any]:
    """Return the plain values of a part of a column whose first row has the number `before` + 1."""
    kind = column.type
    if (cut := _cut(arrow, kind)) != kind:
        column = column.cast(cut, safe=False)
    if _is_short(arrow, kind):
        return _short(column)
    if _is_list(arrow, kind) and _is_short(arrow, kind.value_type):
        numbers = iter(_short(column.flatten()))
        return [None if length is None else list(islice(numbers, length)) for length in column.value_lengths().to_pylist()]
    try:
        return [_plain(value) for value in column.to_pylist()]
    except (ValueError, OverflowError):
        return [_one(scalar, name, number, bad) for number, scalar in enumerate(column, start=before + 1)]


def _cut(arrow: Any, kind: Any) -> Any:
    """Return `kind` with microseconds for nanoseconds, which no moment and no duration of Python's has, also deeper down."""
    types = arrow.types
    cut = kind
    if types.is_timestamp(kind) and kind.unit == "ns":
        cut = arrow.timestamp("us", kind.tz)
    elif types.is_time64(kind):
        cut = arrow.time64("us")
    elif types.is_duration(kind) and kind.unit == "ns":
        cut = arrow.duration("us")
    elif types.is_struct(kind):
        cut = arrow.struct([part.with_type(_cut(arrow, part.type)) for part in kind])
    elif _is_list(arrow, kind):
        inner = kind.value_field.with_type(_cut(arrow, kind.value_type))
        if types.is_fixed_size_list(kind):
            cut = arrow.list_(inner, kind.list_size)
        else:
            cut = arrow.large_list(inner) if types.is_large_list(kind) else arrow.list_(inner)
    return cut


def _is_list(arrow: Any, kind: Any) -> bool:
    types = arrow.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_short(arrow: Any, kind: Any) -> bool:
    return arrow.types.is_float32(kind) or arrow.types.is_float16(kind)


def _short(column: Any) -> list[float | None]:
    numbers = column.to_numpy(zero_copy_only=False).astype(str)
    return [float(number) if there else None for number, there in zip(numbers, column.is_valid().to_pylist(), strict=True)]


def _one(scalar: Any, name: str, number: int, bad: BadLines) -> Any:
    try:
        return _plain(scalar.as_py())
    except (ValueError, OverflowError):
        bad.add(number, f"its {clipped(name)} is a moment that cannot be written: outside the years 1 to 9999")
        return None


def _plain(value: Any) -> Any:
    """Return what JSON would hold for a value; whole containers value by value."""
    match value:
        case None | str() | int() | float():
            plain = value
        case datetime() | date() | time():
            plain = value.isoformat()
        case timedelta():
            plain = value.total_seconds()
        case Decimal():
            plain = int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
        case bytes():
            plain = _decoded(value)
        case dict():
            plain = {str(key): _plain(one) for key, one in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            items = cast("list[Any]", list(value))
            is_map = bool(items) and all(isinstance(one, tuple) for one in items)
            plain = {str(key): _plain(one) for key, one in items} if is_map else [_plain(one) for one in items]
        case _:
            plain = str(value)
    return plain


def _decoded(value: bytes) -> str | None:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return None
