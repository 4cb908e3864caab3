"""The gallery in a real browser, against a real server: it shows, pages, keeps, works by keyboard, and data never becomes markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mcp_server.engine.search import SearchEngine
from mcp_server.protocol.gallery import gallery_html
from tests.process.gallery_host import Host, gallery

pytestmark = pytest.mark.anyio


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>parent.pwned=1</script>",
    '"><svg onload=alert(1)>',
    "\u202eevil\u202c txt.exe",
    "x" * 300,
    "javascript:alert(1)",
]


def test_the_page_is_small_needs_nothing_and_never_parses_markup() -> None:
    page = gallery_html()
    assert len(page.encode()) < 60_000
    for forbidden in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "http://",
        "https://",
        "fetch(",
        "XMLHttp",
    ):
        assert forbidden not in page, forbidden
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")


async def said(host: Host, word: str) -> None:
    """Wait until the page says so: what it paints before the server has answered proves nothing."""
    await host.frame.wait_for_selector(f"#status:has-text('{word}')", state="attached")


async def test_hits_come_with_thumbnails_words_and_where_the_scores_fall(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        found = await host.search(text="a red apple", n=8)
        await host.frame.wait_for_selector(".tile >> nth=3 >> img")
        assert await host.frame.locator("#query").text_content() == "a red apple"
        assert await host.frame.locator(".tile").count() == 8
        assert await host.frame.locator(".fall").count() == 1
        first = host.frame.locator(".tile").first
        assert await first.locator(".name").text_content() == found["hits"][0]["title"]
        assert "strong" in (await first.locator(".marks").text_content())
        assert await first.locator("img").get_attribute("alt") == found["hits"][0]["title"]
        await host.frame.wait_for_function("() => document.querySelector('.tile img').naturalWidth > 50")
        assert "3,505 left" in (await host.frame.locator("#facts").text_content())
        await host.page.wait_for_function("window.log.some(m => m.method === 'ui/notifications/size-changed' && m.params.height > 300)")


async def test_more_goes_on_in_the_session_and_keeping_and_excluding_change_it(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        found = await host.search(text="a cat", n=4, filters={"category": "animals-nature"})
        await host.frame.click("#more")
        await host.frame.wait_for_selector(".tile >> nth=7")
        (asked,) = host.tool_calls("clip_search")
        assert asked == {"text": "a cat", "n": 4, "filters": {"category": "animals-nature"}, "session": found["session"]}
        await host.frame.locator(".tile").nth(1).get_by_text("Keep").click()
        await host.frame.wait_for_selector(".tile.kept")
        await said(host, "Kept")
        await host.frame.locator(".tile").nth(2).get_by_text("Exclude").click()
        await said(host, "Excluded")
        await host.page.wait_for_function("window.log.some(m => m.method === 'ui/update-model-context')")
        ids = [hit["id"] for hit in found["hits"]]
        history = lent.sessions.history(found["session"])
        assert [one.id for one in history.kept] == [ids[1]]
        assert history.excluded == {"demo": (ids[2],)}
        await host.frame.locator(".tile").nth(1).get_by_text("Keep").click()
        await said(host, "Undone")
        assert lent.sessions.history(found["session"]).kept == ()


async def test_more_repeats_nothing_and_is_not_offered_where_the_question_is_not_known(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        found = await host.search(text="a cat", n=3, repeats="allow")
        await host.frame.click("#more")
        await host.frame.wait_for_selector(".tile >> nth=5")
        ids = [re.findall(r"id (\d+)", text)[0] for text in await host.frame.locator(".marks").all_text_contents() if "id" in text]
        assert len(set(ids)) == len(ids) == 6
        assert host.tool_calls("clip_search") == [{"text": "a cat", "n": 3, "session": found["session"]}]
        await host.search(session=found["session"], page=1)
        await host.frame.wait_for_selector("#query:has-text('Page 1')")
        assert await host.frame.locator(".tile").count() == 3
        assert await host.frame.locator("#more").is_hidden()


async def test_everything_works_by_keyboard_alone(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        found = await host.search(text="a dog", n=6)
        keys = host.page.keyboard
        await host.frame.locator(".shot").first.focus()
        await keys.press("ArrowRight")
        await keys.press("k")
        await host.frame.wait_for_selector(".tile.kept")
        await said(host, "Kept")
        await keys.press("End")
        await keys.press("x")
        await host.frame.wait_for_selector(".tile.gone")
        await said(host, "Excluded")
        await keys.press("Home")
        await keys.press("Enter")
        await host.frame.wait_for_selector("dialog[open] dd")
        assert await host.frame.locator("#large-name").text_content() == found["hits"][0]["title"]
        await keys.press("ArrowRight")
        await host.frame.wait_for_function(
            "name => document.getElementById('large-name').textContent === name", arg=found["hits"][1]["title"]
        )
        await keys.press("Escape")
        await host.frame.wait_for_selector("dialog:not([open])", state="attached")
        assert await host.frame.evaluate("document.activeElement.className") == "shot"
        await keys.press("m")
        await host.frame.wait_for_selector(".tile >> nth=11")
        history = lent.sessions.history(found["session"])
        assert [one.id for one in history.kept] == [found["hits"][1]["id"]]
        assert history.excluded == {"demo": (found["hits"][5]["id"],)}
        assert await host.frame.evaluate("document.querySelectorAll('#grid [tabindex=\"0\"]').length") == 3


async def test_up_and_down_stay_in_their_column_beyond_where_the_scores_fall(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        found = await host.search(text="a red apple", n=20)
        assert 0 < found["drop_after"] < 20
        await host.frame.locator(".shot").first.focus()
        place = "[document.activeElement.closest('li').offsetLeft, document.activeElement.closest('li').offsetTop]"
        places = [await host.frame.evaluate(place)]
        for key in ["ArrowDown"] * 4 + ["ArrowUp"] * 4:
            await host.page.keyboard.press(key)
            places.append(await host.frame.evaluate(place))
        tops = [top for _, top in places]
        assert len({left for left, _ in places}) == 1
        assert tops[:5] == sorted(set(tops))
        assert tops == tops[::-1]


async def test_a_picture_left_and_opened_again_shows_its_tags_once(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        await host.search(text="a red apple", n=2)
        await host.frame.evaluate("for (const id of ['.shot', '#large-after', '#large-before']) document.querySelector(id).click()")
        await host.frame.wait_for_function("() => document.querySelector('dialog[open] dd') && waiting.size === 0")
        names = await host.frame.locator("#large-tags dt").all_text_contents()
        assert len(names) == len(set(names)) > 5


async def test_hostile_titles_stay_text_and_nothing_reaches_the_network(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        hits = [{"id": 1221 + place, "score": 0.4, "rel": title, "title": title, "group": title} for place, title in enumerate(HOSTILE)]
        hits.append({"id": 2**60, "score": 0.3, "title": "an id too large for a number"})
        body = {"session": "s_x", "collection": "demo", "hits": hits, "unseen_left": 3, "filters": HOSTILE[0], "warnings": [HOSTILE[1]]}
        await host.show({"text": HOSTILE[1]}, {"content": [], "structuredContent": body})
        await host.frame.wait_for_selector(".tile >> nth=5")
        assert await host.frame.locator(".name").all_text_contents() == [*HOSTILE, "an id too large for a number"]
        assert await host.frame.locator("#query").text_content() == HOSTILE[1]
        assert await host.frame.locator("#grid script, #grid svg, #notes *, #facts *").count() == 0
        await host.frame.locator(".shot").first.click()
        await host.frame.wait_for_selector("dialog[open]")
        assert await host.page.evaluate("window.pwned") is None
        assert await host.frame.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await host.frame.locator(".tile").last.locator("button").count() == 1
        assert [url for url in host.network if not url.startswith(("about:", "data:"))] == []


async def test_what_goes_wrong_is_said_and_undone(lent: SearchEngine) -> None:
    async with gallery(lent) as host:
        await host.search(text="a cat", filters={"colour": "red"})
        await host.frame.wait_for_selector("#problem:not([hidden])")
        assert "color" in (await host.frame.locator("#problem").text_content())
        await host.search(text="a cat", n=3)
        await host.frame.wait_for_selector(".tile >> nth=2")
        assert await host.frame.locator("#problem").is_hidden()
        host.failing = True
        await host.frame.locator(".tile").first.get_by_text("Keep").click()
        await host.frame.wait_for_selector("#problem:has-text('The server is gone')")
        assert await host.frame.locator(".tile.kept").count() == 0
        await host.frame.click("#more")
        await host.frame.wait_for_selector("#more:not([disabled])")
        assert await host.frame.locator(".tile").count() == 3


async def test_an_empty_answer_and_a_host_without_tools_are_said_plainly(lent: SearchEngine) -> None:
    async with gallery(lent, offers={}) as host:
        await host.search(text="a cat", min_score=0.99)
        await host.frame.wait_for_selector("#notes:has-text('No pictures')")
        await host.search(text="a cat", n=3, detail="ids")
        await host.frame.wait_for_selector(".tile >> nth=2")
        assert await host.frame.locator(".acts, #more:visible").count() == 0
        assert (await host.frame.locator(".name").first.text_content()).startswith("id ")
        await host.page.evaluate("window.ask(77, 'ui/resource-teardown')")
        await host.page.wait_for_function("window.log.some(m => m.id === 77 && m.result)")


@pytest.mark.parametrize("width", [320, 1400])
@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_it_fits_narrow_and_wide_and_can_be_read_in_light_and_dark(
    lent: SearchEngine, width: int, theme: str, tmp_path: Path
) -> None:
    async with gallery(lent, width=width, theme=theme) as host:
        await host.search(text="a red apple", n=9)
        await host.frame.wait_for_selector(".tile >> nth=1 >> img")
        await host.page.screenshot(path=tmp_path / f"{width}-{theme}.png")
        assert await host.frame.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        for selector in ("#query", "#facts", ".name", ".marks", ".strong", ".fair", ".acts button", "#more", ".keys"):
            assert await _contrast(host.frame, selector) >= 4.5, selector


async def _contrast(frame: Any, selector: str) -> float:
    """Return the contrast of the text at `selector` with what is behind it. Source: WCAG 2.2, relative luminance."""
    ink, ground = await frame.evaluate(
        """selector => {
            const element = document.querySelector(selector);
            let behind = element;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        }""",
        selector,
    )
    first, second = sorted((_luminance(ink), _luminance(ground)), reverse=True)
    return (first + 0.05) / (second + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
