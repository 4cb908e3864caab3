"""Every line a client can send becomes a message the SDK answers, or an error answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.types import JSONRPCError, jsonrpc_message_adapter

from mcp_server.protocol.stdio import DEEPEST, readable, without_depth


def call(arguments: str, number: str = "7") -> bytes:
    text = '{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"name":"clip_search","arguments":%s}}'
    return (text % (number, arguments)).encode() + b"\n"


def test_a_good_line_is_passed_on_untouched() -> None:
    line = call('{"text":"a red apple"}')
    assert readable(line) == line.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        r'{"text":"\ud800 apple"}',
        '{"text":"a","filters":' + '{"any":[' * 500 + "]}" * 500 + "}",
        '{"text":"a","n":1' + "0" * 5000 + "}",
        '{"text":"a","filters":' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"text":"a","n":NaN}',
    ],
    ids=["lone surrogate", "500 deep", "5000 digits", "200000 deep", "NaN"],
)
def test_a_line_the_parser_refuses_becomes_one_it_takes_for_the_same_request(arguments: str) -> None:
    line = readable(call(arguments))
    assert isinstance(line, str)
    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
    assert json.loads(line)["id"] == 7
    assert json.loads(line)["params"]["name"] == "clip_search"
    assert message is not None


@pytest.mark.parametrize("line", [b"hello\n", b'{"jsonrpc":"2.0","id":1,', b"\xff\xfe\x00\n", b"[1,2"])
def test_a_line_that_is_not_json_is_answered_with_a_parse_error(line: bytes) -> None:
    answer = readable(line)
    assert isinstance(answer, JSONRPCError)
    assert answer.error.code == -32700


@pytest.mark.parametrize("line", [b'{"id":5}', b'{"jsonrpc":"2.0","id":5,"method":7}', b'{"jsonrpc":"2.0","id":5,"method":"x","params":3}'])
def test_json_that_is_no_request_is_answered_under_its_own_id(line: bytes) -> None:
    answer = readable(line)
    assert isinstance(answer, JSONRPCError)
    assert (answer.id, answer.error.code) == (5, -32600)


def test_a_long_string_without_an_end_is_read_once() -> None:
    answer = readable(b'{"a":"' + rb"\"" * 500_000)  # a reader that starts over at each quote would be at it for hours
    assert isinstance(answer, JSONRPCError)


@pytest.mark.parametrize("number", ["1.5", "true", "null", "{}", "[1]"])
def test_a_request_with_an_id_that_none_can_have_is_answered_without_one(number: str) -> None:
    answer = readable(b'{"jsonrpc":"2.0","id":' + number.encode() + b',"method":"ping"}')
    assert isinstance(answer, JSONRPCError)
    assert (answer.id, answer.error.code) == (None, -32600)


def test_what_is_called_id_inside_a_notification_is_no_id() -> None:
    line = '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1,"id":null}}'
    assert readable(line.encode()) == line


def test_a_batch_is_answered_and_a_malformed_notification_is_left_alone() -> None:
    assert isinstance(readable(b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]'), JSONRPCError)
    assert isinstance(readable(b'{"jsonrpc":"2.0","method":"x","params":3}'), str)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
)


@given(json_values)
def test_cutting_depth_leaves_shallow_json_alone(value: object) -> None:
    assert json.loads(without_depth(json.dumps(value), DEEPEST)) == value


def test_cutting_depth_replaces_only_what_is_deeper() -> None:
    assert without_depth('{"a":[1,[2]],"b":"[[["}', 2) == '{"a":[1,null],"b":"[[["}'
    assert without_depth('[[1],[[2]],"]"]', 2) == '[[1],[null],"]"]'


@given(st.binary(max_size=200))
def test_no_line_whatever_raises(raw: bytes) -> None:
    assert isinstance(readable(raw), str | JSONRPCError)
