"""Which values of a field a caller means: what is equal to a value, and what lies between bounds."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from mcp_server.domain.filter_limits import quoted
from mcp_server.domain.filters import Scalar, folded_values, scalar_text
from mcp_server.errors import FilterError, clipped
from mcp_server.stores.columns import Texts
from mcp_server.stores.field_data import MORE, FieldData
from mcp_server.stores.postings import Ints
from mcp_server.stores.suggestions import unknown_value
from mcp_server.stores.values import RANGE_KINDS, TAKES, Period, asked_period

_ONE = np.array([0, 1])


def value_slices(data: FieldData, values: Sequence[Scalar]) -> Ints:
    """Return, for each of `values`, the values equal to it, (V, 2) from and up to; empty when a number or time is not there.

    A text that is no value itself stands for the one without the blanks around it, or, if it ends with "…", for the one that begins so:
    long values are shown cut.
    """
    if isinstance(data.keys, Texts):
        texts = folded_values(values)
        found = data.keys.find(texts)
        places = [_meant(data, value, text) if at is None else at for value, text, at in zip(values, texts, found, strict=True)]
        return np.array(places, dtype=np.int64)[:, None] + _ONE
    periods = [_period(data, value) for value in values]
    slices = [(_left(data, period.first), _right(data, period.last)) for period in periods]
    return np.array(slices, dtype=np.int64).reshape(-1, 2)


def range_slice(data: FieldData, bounds: dict[str, Scalar]) -> tuple[int, int]:
    """Return the values inside all bounds, from and up to.

    A period counts whole: from its start for gte, after its end for gt, to its end for lte, before its start for lt.
    """
    if data.field.kind not in RANGE_KINDS:
        raise wrong_kind(data, bounds)
    periods = {word: _period(data, value) for word, value in bounds.items()}
    for lower in ("gte", "gt"):
        for upper in ("lte", "lt"):
            if lower in periods and upper in periods:
                top = periods[upper].last if upper == "lte" else periods[upper].first
                if periods[lower].first > top:
                    raise _reversed_range(data.field.name, bounds[lower], bounds[upper])
    start, stop = 0, len(data.keys)
    for word, period in periods.items():
        match word:
            case "gte":
                start = max(start, _left(data, period.first))
            case "gt":
                start = max(start, _right(data, period.last))
            case "lte":
                stop = min(stop, _right(data, period.last))
            case _:
                stop = min(stop, _left(data, period.first))
    return start, max(start, stop)


def _reversed_range(field: str, lower: Scalar, upper: Scalar) -> FilterError:
    around = f'{{"any": [{{"gte": {quoted(lower)}}}, {{"lte": {quoted(upper)}}}]}}'
    return FilterError(
        f"{quoted(field)}: the range from {quoted(lower)} to {quoted(upper)} is reversed. Swap them; for outside them: {around}."
    )


def _meant(data: FieldData, value: Scalar, text: str) -> int:
    """Return the one value that `text`, no value itself, stands for."""
    keys = cast("Texts", data.keys)
    (bare,) = keys.find([text.strip()])
    if bare is not None:
        return bare
    beginning = keys.beginning(text.removesuffix(MORE)) if text.endswith(MORE) else range(0)
    if len(beginning) == 1:
        return beginning[0]
    raise unknown_value(data, scalar_text(value))


def _period(data: FieldData, value: Scalar) -> Period:
    period = asked_period(data.field.kind, value) if data.field.kind in RANGE_KINDS else None
    if period is None:
        raise wrong_kind(data, value)
    return period


def _left(data: FieldData, key: float) -> int:
    # item() gives Python numbers, whose comparison of large whole numbers with decimals is exact
    return bisect_left(cast("Any", data.keys), key, key=np.generic.item)


def _right(data: FieldData, key: float) -> int:
    return bisect_right(cast("Any", data.keys), key, key=np.generic.item)


def wrong_kind(data: FieldData, given: object) -> FilterError:
    """Return the error for a condition that does not suit the field's kind: what it takes, and its span."""
    name = clipped(data.field.name)
    got = scalar_text(given) if isinstance(given, str | int | float) else next(iter(cast("dict[str, object]", given)))
    span = ""
    there = np.flatnonzero(data.values.counts())
    if data.field.kind in RANGE_KINDS and len(there):
        span = f" It spans {clipped(scalar_text(data.shown[int(there[0])]))} to {clipped(scalar_text(data.shown[int(there[-1])]))}."
    return FilterError(f'"{name}" takes {TAKES[data.field.kind]}; got "{clipped(got)}".{span}')
