"""The results used last: which are kept, and that their texts are not."""

from __future__ import annotations

import weakref

from mcp_server.stores.latest import Latest


class Text(str):
    """A text whose end can be seen."""

    __slots__ = ("__weakref__",)


def test_the_one_not_used_for_the_longest_time_goes_first() -> None:
    latest: Latest[int] = Latest(2)
    latest.keep("a", 1)
    latest.keep("b", 2)
    assert latest.get("a") == 1
    latest.keep("c", 3)
    assert [latest.get(key) for key in "abc"] == [1, None, 3]


def test_a_text_is_not_kept_with_its_value() -> None:
    text = Text("a filter of thousands of values, and half a pair \ud800")
    there = weakref.ref(text)
    latest: Latest[int] = Latest(2)
    latest.keep(text, 1)
    assert latest.get(str(text)) == 1
    del text
    assert there() is None
