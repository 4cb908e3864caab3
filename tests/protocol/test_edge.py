"""The edge, in both protocol eras, with the SDK's client in memory: schemas, answers, refusals."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from mcp import Client

from mcp_server.config import Settings
from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import HiddenCounts, Hit, Item, SearchOutcome, SearchRequest
from mcp_server.engine.opening import open_engine
from mcp_server.engine.search import SearchEngine
from mcp_server.protocol.answers import search_answer
from mcp_server.protocol.arguments import refused_names
from mcp_server.server import build_server

pytestmark = pytest.mark.anyio
ERAS = ["auto", "legacy"]


@pytest.fixture
def engine(lent: SearchEngine) -> SearchEngine:
    return lent


@asynccontextmanager
async def connected(engine: SearchEngine, era: str) -> AsyncGenerator[Client]:
    async with Client(build_server(engine, log_level="WARNING"), mode=era) as client:  # pyright: ignore[reportArgumentType]
        yield client


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    assert json.loads(result.content[0].text) == result.structured_content  # pyright: ignore[reportAttributeAccessIssue]
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    text: str = result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]
    assert len(text) <= 300, text
    assert "Traceback" not in text
    assert "/" not in text.replace("and/or", "").replace("text/", ""), text
    return text


@pytest.mark.parametrize("era", ERAS)
async def test_the_tool_list_is_short_flat_and_read_only(engine: SearchEngine, era: str) -> None:
    async with connected(engine, era) as client:
        listed = await client.list_tools()
    text = json.dumps([tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in listed.tools], separators=(",", ":"))
    assert [tool.name for tool in listed.tools] == ["clip_search", "describe_filters", "view_media", "update_session"]
    assert len(text) / 3.3 <= 1_500
    for forbidden in ("$ref", "$defs", "draft-07"):
        assert forbidden not in text
    for tool in listed.tools:
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is (tool.name != "update_session")
        assert tool.annotations.destructive_hint is False
        assert tool.annotations.open_world_hint is False
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert (tool.output_schema is None) is (tool.name != "clip_search")  # structured content beside a picture makes some hosts hide it
        if tool.output_schema is not None:
            assert "additionalProperties" not in json.dumps(tool.output_schema)
            jsonschema.Draft202012Validator.check_schema(tool.output_schema)


@pytest.mark.parametrize("era", ERAS)
async def test_an_agent_finds_pages_on_and_narrows(engine: SearchEngine, era: str) -> None:
    async with connected(engine, era) as client:
        schema = (await client.list_tools()).tools[0].output_schema
        first = await call(client, "clip_search", text="a red apple", n=5)
        assert schema is not None
        jsonschema.validate(first, schema)
        assert first["returned"] == 5
        assert any("apple" in hit["title"] for hit in first["hits"])
        scores = [hit["score"] for hit in first["hits"]]
        assert scores == sorted(scores, reverse=True)
        second = await call(client, "clip_search", text="a red apple", n=5, session=first["session"])
        assert not {hit["id"] for hit in first["hits"]} & {hit["id"] for hit in second["hits"]}
        assert second["hidden"]["seen"] == 5
        assert second["hidden"]["best_hidden_score"] == pytest.approx(scores[0], abs=1e-4)
        overview = await call(client, "describe_filters")
        assert overview["fields"]
        red = await call(client, "clip_search", text="fruit", n=15, filters={"color": "red"}, detail="full")
        assert all("red" in hit["tags"]["color"] for hit in red["hits"])
        assert red["filters"] == "color is red"


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"text": "cat", "top_k": 3}, '"n"'),
        ({"text": "cat", "limit": 3}, '"n"'),
        ({"query": "cat"}, '"text"'),
        ({"text": "cat", "where": {}}, '"filters"'),
        ({"text": "cat", "session_id": "x"}, '"session"'),
        ({"text": "cat", "filtres": {}}, '"filters"'),
        ({"text": "cat", "zzz": 1}, "takes:"),
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": {"a": "cat"}}, "text"),
        ({"text": [5]}, "in quotes"),
        ({"text": ["0: cat"]}, "-10 to 10"),
        ({"text": ["cat"] * 17}, "at most 16"),
        ({"unlike": [1]}, "Add text or like"),
        ({"session": "s_x"}, "repeat those of the search"),
        ({"like": [999_999]}, "999999"),
        ({"like": ["a"]}, "list of ids"),
        ({"text": "cat", "page": 2}, "needs the session"),
        ({"text": "cat", "excluded_groups": ["a"]}, '"group"'),
        ({"text": "cat", "page": 0}, "whole number"),
        ({"text": "cat", "min_score": 2}, "-1 to 1"),
        ({"text": "cat", "min_score": "high"}, "-1 to 1"),
        ({"text": "cat", "max_per_group": 0}, "whole number"),
        ({"text": "   "}, "blank"),
        ({"text": "x" * 1_000_000}, "1,000,000 characters"),
        ({"text": "cat", "n": 0}, "1 to 100"),
        ({"text": "cat", "n": -1}, "1 to 100"),
        ({"text": "cat", "n": 10**9}, "session"),
        ({"text": "cat", "n": 10**40}, "1 to 100"),
        ({"text": "cat", "n": "many"}, "1 to 100"),
        ({"text": "cat", "n": True}, "1 to 100"),
        ({"text": "cat", "n": 2.5}, "1 to 100"),
        ({"text": "cat", "collection": "dmeo"}, '"demo"'),
        ({"text": "cat", "session": "s_nonsense"}, "without session"),
        ({"text": "cat", "repeats": "never"}, '"skip"'),
        ({"text": "cat", "detail": "everything"}, '"concise"'),
        ({"text": "cat", "seen": ["a"]}, "list of ids"),
        ({"text": "cat", "seen": list(range(100_001))}, "100,000"),
        ({"text": "cat", "filters": {"colour": "red"}}, "color"),
        ({"text": "cat", "filters": {"color": "redd"}}, "red"),
        ({"text": "cat", "filters": {"unicode_version": {"gte": 9, "lte": 3}}}, "unicode_version"),
        ({"text": "cat", "filters": {"unicode_version": "last year"}}, "unicode_version"),
        ({"text": "cat", "filters": {"color": {"near": "red"}}}, "near"),
        ({"text": "cat", "filters": "color = red"}, "filters"),
        ({"text": "cat", "filters": ["color"]}, "filter"),
        ({"text": "cat", "filters": {"any": "x"}}, '"is"'),
        ({"text": "cat", "filters": {"field": "any"}}, '"is"'),
        ({"text": "cat", "filters": {"field": "any", "contains": "q"}}, '"is"'),
        ({"text": "cat", "filters": True}, "not true"),
    ],
    ids=lambda value: json.dumps(value)[:50] if isinstance(value, dict) else None,
)
async def test_what_is_refused_says_the_way_out_and_the_next_call_works(
    engine: SearchEngine, era: str, arguments: dict[str, Any], words: str
) -> None:
    async with connected(engine, era) as client:
        assert words in await refusal(client, "clip_search", **arguments)
        assert (await call(client, "clip_search", text="cat", n=1))["returned"] == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_filter_too_deep_is_refused_by_its_depth_as_an_object_and_as_text(engine: SearchEngine, era: str) -> None:
    deep: dict[str, Any] = {"color": "red"}
    for _ in range(90):  # the SDK's own client cannot send deeper objects; the stdio tests do
        deep = {"not": deep}
    text = '{"not":' * 500 + '{"color":"red"}' + "}" * 500
    async with connected(engine, era) as client:
        assert "32" in await refusal(client, "clip_search", text="cat", filters=deep)
        assert "32" in await refusal(client, "clip_search", text="cat", filters=text)


@pytest.mark.parametrize("empty", [None, "", "null", "{}"])
async def test_optional_arguments_take_what_models_send_for_nothing(engine: SearchEngine, empty: Any) -> None:
    async with connected(engine, "auto") as client:
        found = await call(
            client, "clip_search", text="cat", filters=empty, **dict.fromkeys(("collection", "n", "session", "seen", "detail"), "")
        )
        assert found["returned"] == 10
        assert "hidden" not in found


async def test_json_text_is_understood_where_an_object_or_a_list_is_meant(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        found = await call(client, "clip_search", text="cat", n="3", filters='{"color":"red"}')
        again = await call(client, "clip_search", text="cat", n=3.0, filters={"color": "red"}, seen=json.dumps([found["hits"][0]["id"]]))
        assert found["hits"][1:] == again["hits"][:2]


async def test_a_refused_call_marks_nothing_as_seen(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        first = await call(client, "clip_search", text="cat", n=2)
        await refusal(client, "clip_search", text="cat", n=2, session=first["session"], filters={"color": "redd"})
        second = await call(client, "clip_search", text="cat", n=2, session=first["session"])
        assert second["hidden"]["seen"] == 2


async def test_an_unknown_id_is_a_warning_and_never_a_failure(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        found = await call(client, "clip_search", text="cat", seen=[10**12, -5], excluded=[999_999_999], excluded_groups=[10**15])
        assert found["returned"] == 10
        assert any(warning.startswith("2 of the ids in seen") for warning in found["warnings"])
        assert len(found["warnings"]) == 3


async def test_a_text_longer_than_the_model_reads_is_cut_and_said_so(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        found = await call(client, "clip_search", text="a cat and a dog " * 40)
        assert any("tokens" in warning for warning in found["warnings"])


async def test_an_answer_is_never_longer_than_the_limit_and_never_loses_a_hit(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        found = await call(client, "clip_search", text="cat", n=100, detail="full")
        assert found["returned"] == len(found["hits"]) == 100
        assert len(json.dumps(found, ensure_ascii=False, separators=(",", ":"))) / 3.3 <= 4_000
        assert any("detail" in warning for warning in found["warnings"])


async def test_ten_concise_hits_are_small(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        for text in ("a smiling face", "a woman with dark skin tone", "family", "flag"):
            found = await call(client, "clip_search", text=text, n=10)
            assert len(json.dumps(found["hits"], ensure_ascii=False, separators=(",", ":"))) / 3.3 <= 300


@pytest.mark.parametrize("match", [None, 0.99499])
def test_ten_concise_hits_with_long_titles_and_large_ids_are_small(match: float | None) -> None:
    item = Item(MediaId(123_456), "a title that is so long " * 5, "x.jpg", group=MediaId(654_321))
    outcome = SearchOutcome("s_x", "demo", (Hit(item, 0.1234, rel="strong", match=match),) * 10, 10, 0, HiddenCounts(), "")
    found = search_answer(outcome, SearchRequest()).body
    assert len(json.dumps(found["hits"], ensure_ascii=False, separators=(",", ":"))) / 3.3 <= 300


async def test_the_overview_of_the_fields_is_small_and_its_example_works(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        overview = await call(client, "describe_filters")
        assert len(json.dumps(overview, ensure_ascii=False, separators=(",", ":"))) / 3.3 <= 600 * max(1, len(overview["fields"]) / 20)
        names = [field["name"] for field in overview["fields"]]
        assert {"category", "color", "unicode_version", "introduced"} <= set(names)
        assert not any("index id" in name.lower() for name in names)
        found = await call(client, "clip_search", text="anything", filters=overview["example"])
        assert found["matching"] > 0


async def test_a_fields_page_counts_its_values_and_pages_on(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        page = (await call(client, "describe_filters", field="Color", n=3))["field"]
        assert page["name"] == "color"
        rest = (await call(client, "describe_filters", field="color", n=100, offset=3))["field"]
        counts = [*page["values"].values(), *rest["values"].values()]
        assert counts == sorted(counts, reverse=True)
        assert len(counts) == page["distinct"]
        matched = (await call(client, "describe_filters", field="keywords", match="straw"))["field"]
        assert all("straw" in value for value in matched["values"])
        under = (await call(client, "describe_filters", field="color", filters={"category": "flags"}))["field"]
        assert sum(under["values"].values()) < sum(counts)
        for value, count in list(under["values"].items())[:3]:
            found = await call(client, "clip_search", text="x", n=1, filters={"color": value, "category": "flags"})
            assert found["matching"] == count


async def test_a_fields_page_without_a_value_says_what_to_leave_out(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        nothing = {"color": "red", "width": {"gt": 96}}
        for narrowed, words in (
            ({"filters": nothing}, "leave out filters."),
            ({"filters": nothing, "text": "an apple", "match": "x"}, "leave out match or filters or text."),
            ({"offset": 1_000}, "leave out offset."),
        ):
            page = await call(client, "describe_filters", field="color", **narrowed)
            assert page["field"]["values"] == {}
            assert page["next"] == f"No value here; {words}"


async def test_a_filter_that_leaves_nothing_says_which_condition_did_it(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        found = await call(client, "clip_search", text="flag", filters={"category": "flags", "unicode_version": {"gte": 1000}})
        assert (found["returned"], found["matching"], found["short_reason"]) == (0, 0, "filters_match_only_0")
        assert any("unicode_version" in warning for warning in found["warnings"])


async def test_an_overview_of_nothing_says_why(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        for text in ({}, {"text": "cat"}):
            found = await call(client, "describe_filters", filters={"category": "flags", "unicode_version": {"gte": 1000}}, **text)
            assert (found["matching"], found["fields"]) == (0, [])
            assert "unicode_version" in found["next"]
        apples = {"title": "red apple"}
        session = (await call(client, "clip_search", text="apple", filters=apples))["session"]
        found = await call(client, "describe_filters", text="apple", filters=apples, session=session)
        assert (found["matching"], found["fields"]) == (2, [])
        assert "leave out session" in found["next"]


async def test_two_calls_of_describe_filters_name_the_nearest_field(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        assert '"field"' in await refusal(client, "describe_filters", name="color")
        assert "color" in await refusal(client, "describe_filters", field="colr")
        assert "name it in field" in await refusal(client, "describe_filters", match="apple")
        assert "name it in field" in await refusal(client, "describe_filters", offset=20)


async def test_one_broken_collection_is_told_apart_and_the_others_work(demo_settings: Settings, tmp_path: Path) -> None:
    good = demo_settings.collections[0]
    broken = [
        replace(good, name="no_database", database_file=tmp_path / "gone.db"),
        replace(good, name="no_model", model=f"local-dir:{tmp_path}"),
        replace(good, name="wrong_model", model="ViT-B-32"),
    ]
    settings = replace(demo_settings, collections=(good, *broken), state_folder=tmp_path)
    async with connected(open_engine(settings), "auto") as client:
        for config in broken:
            assert "doctor" in await refusal(client, "clip_search", text="cat", collection=config.name)
        assert '"demo"' in await refusal(client, "clip_search", text="cat")
        assert (await call(client, "clip_search", text="cat", collection="demo"))["returned"] == 10
        listed = (await call(client, "describe_filters"))["collections"]
        assert listed["demo"] == 3_513
        assert "doctor" in listed["no_model"]


async def test_a_catalog_that_is_being_written_to_is_asked_for_again_later(demo_settings: Settings, tmp_path: Path) -> None:
    catalog = tmp_path / "c.db"
    catalog.write_bytes(demo_settings.collections[0].database_file.read_bytes())
    collection = replace(demo_settings.collections[0], database_file=catalog)
    settings = replace(demo_settings, collections=(collection,), state_folder=tmp_path)
    with closing(sqlite3.connect(catalog, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        async with connected(open_engine(settings), "auto") as client:
            told = await refusal(client, "clip_search", text="cat")
            assert "Try again in a minute" in told
            assert "doctor" not in told
            writer.execute("COMMIT")
            assert (await call(client, "clip_search", text="cat"))["returned"] == 10


async def test_next_says_what_helps_when_everything_was_excluded_or_repeats_are_allowed(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        rare = {"title": "red apple"}
        found = await call(client, "clip_search", text="apple", filters=rare)
        out = await call(client, "clip_search", text="apple", filters=rare, excluded=[hit["id"] for hit in found["hits"]])
        assert out["returned"] == 0
        assert "excluded" in out["next"]
        again = await call(client, "clip_search", text="apple", n=2, repeats="allow", session=found["session"])
        assert "skip" in again["next"]
        one = await call(client, "clip_search", text="apple", filters=rare, n=1, max_per_group=1)
        assert one["unseen_left"] == 0
        assert "leave it out for the rest" in one["next"]


@pytest.mark.parametrize("era", ERAS)
async def test_an_unknown_tool_is_told_the_four_there_are(engine: SearchEngine, era: str) -> None:
    async with connected(engine, era) as client:
        for name in ("clipsearch", "clipsearch" * 10_000):
            said = await refusal(client, name, text="apple")
            assert said.startswith('There is no tool "clipsearch')
            assert said.endswith("Tools: clip_search, describe_filters, view_media, update_session.")


async def test_one_unknown_id_is_spoken_of_as_one(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        answer = await call(client, "clip_search", text="apple", excluded=[10**12], excluded_groups=[10**12, 10**13])
    assert answer["warnings"] == [
        "1 of the ids in excluded is not in this collection's index; it was ignored.",
        "2 of the ids in excluded_groups are not in this collection's index; they were ignored.",
    ]


async def test_why_fewer_came_and_what_to_do_is_said_as_it_is(engine: SearchEngine) -> None:
    apples = {"title": {"contains": "apple"}}
    async with connected(engine, "auto") as client:

        async def ask(**more: Any) -> dict[str, Any]:
            return await call(client, "clip_search", **({"text": "apple", "filters": apples} | more))

        every = await ask(n=100)
        count, session, scores = every["matching"], every["session"], [hit["score"] for hit in every["hits"]]
        assert every["short_reason"] == f"filters_match_only_{count}"
        middle = (scores[count // 2] + scores[count // 2 - 1]) / 2
        for n in (count - 1, count + 20):
            some = await ask(n=n, session=session, repeats="allow", min_score=middle)
            assert (some["short_reason"], some["returned"]) == ("below_min_score", count // 2)
            assert some["next"] == f"The others score {scores[count // 2]} and less, below min_score; lower it for more."
        none = await ask(session=session, repeats="allow", min_score=1)
        assert (none["returned"], none["next"].split(" ")[3]) == (0, str(scores[0]))
        assert (await ask(min_score=scores[0]))["hits"][0]["score"] == scores[0]
        for n in (count, 100):
            capped = await ask(n=n, max_per_group=1)
            assert capped["short_reason"] == ("groups_full" if capped["returned"] < count else f"filters_match_only_{count}")
        again = await ask(n=count, session=session, repeats="allow")
        assert again["returned"] == count
        assert "allow" not in again["next"]
        gone = await ask(n=count, session=session)
        assert gone["short_reason"] == "all_seen"
        assert 'repeats "allow"' in gone["next"]
        assert "Change filters" in gone["next"]
        assert "text" not in gone["next"]
        assert (await ask(text="a pear", session=session))["returned"] == 0
        assert (await ask(filters={"title": {"contains": "pear"}}, session=session))["returned"] > 0
        same = await ask(n=count, session=session, repeats="query")
        assert "for this text and these filters" in same["next"]
        assert (await ask(text="a pear", session=session, repeats="query"))["returned"] == 10
        hidden = await ask(seen=[hit["id"] for hit in every["hits"]], repeats="allow")
        assert hidden["returned"] == 0
        assert "in seen or excluded" in hidden["next"]
        everything = SearchOutcome(session, "demo", (), 9, 0, HiddenCounts(seen=9), "", short_reason="all_seen")
        assert search_answer(everything, SearchRequest(session=session)).body["next"] == (
            'Nothing is left in this session, whatever the text: use repeats "allow" to see it again, or omit session to start anew.'
        )
        like = await call(client, "clip_search", like=[1221], n=2)
        left_out = like["hidden"]["seen"] + like["hidden"]["excluded"] + like["hidden"]["filtered"]
        assert left_out + like["returned"] + like["unseen_left"] == like["matching"]


async def test_a_field_whose_values_cannot_be_listed_says_how_to_filter_by_it(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        page = await call(client, "describe_filters", field="names")
        condition = json.loads(page["next"].split("there: ")[1].removesuffix("."))
        found = await call(client, "clip_search", text="cat", filters=condition)
        assert found["matching"] == page["field"]["items"] > 0


async def test_a_name_as_long_as_a_message_is_refused_at_once() -> None:
    told = refused_names("clip_search", ["excluded" * 12_000_000], ["text", "excluded_groups"])  # once a quarter of an hour
    assert told is not None
    assert "leave it out" in told


async def test_a_filter_with_a_key_twice_is_refused_and_an_empty_list_explained(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        assert "twice" in await refusal(client, "clip_search", text="cat", filters='{"color": "red", "color": "blue"}')
        for empty in ({"color": []}, {"any": []}):
            assert "is empty" in (await call(client, "clip_search", text="cat", filters=empty))["warnings"][0]


async def test_every_value_named_in_a_refusal_is_one(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        text = await refusal(client, "clip_search", text="cat", filters={"title": "construction worker: medium-dark skin tones"})
        named = re.findall(r'"([^"]+)" \(\d+ item', text)
        assert named
        for value in named:
            assert (await call(client, "clip_search", text="cat", filters={"title": value}))["matching"] >= 1


async def test_the_overview_stays_small_under_a_long_filter(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        filters = {
            "any": [{"color": "red"}, {"color": "blue"}, {"category": "food-drink"}],
            "keywords": {"not": ["food", "drink", "fruit"]},
        }
        overview = await call(client, "describe_filters", filters=filters)
        assert len(json.dumps(overview, ensure_ascii=False, separators=(",", ":"))) / 3.3 <= 600


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": '{"not":{"title":{"contains":"\\ud800"}}}'},
        {"filters": '{"\\ud800":"x"}'},
        {"filters": '{"color":"\\udfff"}'},
        {"seen": '["\\ud800"]'},
    ],
    ids=["contains", "field", "value", "id"],
)
async def test_a_lone_surrogate_inside_json_text_breaks_no_answer(engine: SearchEngine, arguments: dict[str, Any]) -> None:
    async with connected(engine, "auto") as client:
        result = await client.call_tool("clip_search", {"text": "cat", **arguments})
        result.model_dump_json().encode("utf-8")
        assert "\ud800" not in result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]


async def test_the_example_under_a_filter_matches_under_that_filter(engine: SearchEngine) -> None:
    async with connected(engine, "auto") as client:
        for category in (await call(client, "describe_filters", field="category"))["field"]["values"]:
            narrowed = {"category": category}
            example = (await call(client, "describe_filters", filters=narrowed))["example"]
            found = await call(client, "clip_search", text="x", n=1, filters={"all": [narrowed, example]})
            assert found["matching"] > 0, (category, example)
