"""The answers of describe_filters: an overview of the fields, one field's values, or the collections to choose from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.engine.collection import Collection
from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.engine.steps import Waiting
from mcp_server.errors import CollectionError
from mcp_server.protocol.answers import CHARACTERS_PER_TOKEN, Answer, Json, compact
from mcp_server.protocol.arguments import FilterQuestion
from mcp_server.protocol.failures import in_short
from mcp_server.stores.facets import TOP_VALUES, FieldPage, FieldSummary, Overview, Span, ValueCount, example_filter, field_page, overview

OVERVIEW_TOKENS = 600
LEAST_FIELDS = 20
"""An overview of this many fields stays under OVERVIEW_TOKENS; one of many more fields may be longer in proportion."""
FEW_VALUES = 200
MOST_VALUE = 16
MOST_PAGE_CHARACTERS = int(4_000 * CHARACTERS_PER_TOKEN)
_BESIDE_FIELDS = 1_500
"""Characters of a long overview that are kept for what stands beside its fields."""


def filter_answer(engine: SearchEngine, question: FilterQuestion, waiting: Waiting | None = None) -> Answer:
    """Answer `question`; with a search, of its best unseen matches. Nothing is marked as shown.

    Raises:
        CallerError: no such collection, field, value or session.
        CollectionError: the catalog cannot be read.
        EncoderError: there is a search, and the model cannot answer now.
    """
    alone = question.field is None and question.filters is None and question.search is None
    if question.collection is None and len(engine.shelf.names) > 1 and alone:
        return _collections(engine.shelf)
    return engine.shelf.with_collection(question.collection, lambda collection: _description(engine, collection, question, waiting))


def _description(engine: SearchEngine, collection: Collection, question: FilterQuestion, waiting: Waiting | None) -> Answer:
    selection = collection.filters.evaluate(question.filters)
    mask = None if question.filters is None else selection.mask
    body: Json = {"collection": collection.name, "items": collection.catalog.indexed}
    if mask is not None:
        body |= {"filters": selection.sentence, "matching": selection.count}
    if question.search is not None:
        rows = engine.best_rows(collection, question.search, waiting)
        mask = np.zeros(len(collection.catalog.mapped), np.bool_)
        mask[rows] = True
        body["counted"] = "the one unseen match" if len(rows) == 1 else f"the {len(rows):,} best unseen matches"
    if question.field is not None:
        page = field_page(collection.filters, question.field, question.match, question.n, question.offset, mask)
        return Answer(body | _page(page, question))
    if selection.count == 0 and question.filters is not None:
        return Answer(body | {"fields": [], "next": collection.filters.explain_empty(question.filters)})
    if mask is not None and not mask.any():
        return Answer(body | {"fields": [], "next": "The session has shown or excludes every match; leave out session to count them all."})
    return Answer(body | _overview(collection, overview(collection.filters, mask), mask, len(compact(body))))


def _collections(shelf: Shelf) -> Answer:
    items: dict[str, int | str] = {}
    for name in shelf.names:
        try:
            items[name] = shelf.collection(name).catalog.indexed
        except CollectionError as error:
            items[name] = in_short(error)
    return Answer({"collections": items, "next": "Call again with one of these as collection to see its fields."})


def _overview(collection: Collection, found: Overview, mask: NDArray[np.bool_] | None, used: int) -> Json:
    """Return every field, with as many of its commonest values as fit.

    Room goes first to fields that many items share a value of, since those are what one filters on: one value each, then a second, up to
    five; what is left goes to the others. Of hundreds of fields, those that most items have are listed. `used`
    characters are taken already.
    """
    fields = found.fields
    lines = [_summary(field, found.total) for field in fields]
    while len(compact(lines)) > MOST_PAGE_CHARACTERS - _BESIDE_FIELDS and len(fields) > 1:
        commonest = sorted(range(len(fields)), key=lambda at: -fields[at].items)[: len(fields) // 2]
        fields = [fields[at] for at in sorted(commonest)]
        lines = [_summary(field, found.total) for field in fields]
    body: Json = {"fields": lines, "example": example_filter(collection.filters, mask)}
    if len(fields) < len(found.fields):
        body["next"] = f"These are the fields that most items have; {len(found.fields) - len(fields):,} more can be named in field."
    fitting = int(OVERVIEW_TOKENS / LEAST_FIELDS * max(LEAST_FIELDS, len(lines) - 4) * CHARACTERS_PER_TOKEN)
    room = min(fitting, MOST_PAGE_CHARACTERS) - len(compact(body)) - used
    named = [(line, _worth_naming(field), field.distinct) for line, field in zip(lines, fields, strict=True)]
    for few in (True, False):
        for place in range(TOP_VALUES):
            for line, values, distinct in named:
                if (distinct <= FEW_VALUES) is few and place < len(values):
                    value = _counts([values[place]])
                    room -= len(compact(value)) + (0 if "top" in line else len('"top":,'))
                    if room < 0:
                        return body
                    line.setdefault("top", {}).update(value)
    return body


def _summary(field: FieldSummary, total: int) -> Json:
    body: Json = {"name": field.name, "type": field.kind}
    if field.items != total:
        body["items"] = field.items
    if field.kind != "json":  # has none to filter by
        body["values"] = field.distinct
    return body | _span(field.span) if field.span is not None else body


def _worth_naming(field: FieldSummary) -> list[ValueCount]:
    """Return the top values that tell something in little room: none that occurs once, none that is long."""
    return [each for each in field.top if each.count > 1 and len(str(each.value)) <= MOST_VALUE]


def _page(page: FieldPage, question: FilterQuestion) -> Json:
    shown = list(page.values)
    field: Json = {"name": page.name, "type": page.kind, "items": page.items, "distinct": page.total}
    if page.span is not None:
        field |= _span(page.span)
    while True:
        field["values"] = _counts(shown)
        field["more"] = page.more + len(page.values) - len(shown)
        if len(compact(field)) <= MOST_PAGE_CHARACTERS or len(shown) <= 1:
            break
        shown = shown[: len(shown) // 2]
    body: Json = {"field": field}
    if field["more"]:
        body["next"] = f"{field['more']:,} more: offset={question.offset + len(shown)}, or narrow with match."
    elif page.kind == "json":
        body["next"] = f"Values that are JSON are not listed. Filter by whether it is there: {compact({page.name: {'exists': True}})}."
    elif not shown:
        narrowed = {"match": question.match, "offset": question.offset, "filters": question.filters, "text": question.search}
        given = " or ".join(name for name, value in narrowed.items() if value)
        body["next"] = f"No value here; leave out {given}." if given else "No item has this field."
    return body


def _counts(values: list[ValueCount]) -> dict[str, int]:
    return {each.short: each.count for each in values}


def _span(span: Span) -> dict[str, Any]:
    return {"min": span.minimum, "median": span.median, "max": span.maximum}
