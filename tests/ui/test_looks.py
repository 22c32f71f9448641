"""Readable by everyone: no axe findings in any state, light and dark, on a phone, by keyboard, without motion."""

from __future__ import annotations

from importlib.resources import files

import pytest
from desk import Desk, Server
from playwright.async_api import Browser, Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()


async def findings(page: Page) -> list[str]:
    """What axe finds, a line each."""
    await page.evaluate(AXE)  # as a script tag the page's own policy would refuse it
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{v['id']}: {node['html'][:160]} {node['failureSummary']}" for v in found["violations"] for node in v["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
async def test_axe_finds_nothing_in_any_state(browser: Browser, server: Server, gate: str, scheme: str, width: int) -> None:
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    desk = Desk(await context.new_page(), server)
    page = desk.page
    await desk.home()
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    found = {"home": await findings(page)}
    await desk.start(f"4 steps, hold 2 {gate}")
    await expect(desk.working(2)).to_be_visible()
    found["running"] = await findings(page)
    await context.set_offline(True)
    server.open(gate)
    await expect(page.get_by_role("alert")).to_be_visible()
    found["offline"] = await findings(page)
    await context.set_offline(False)
    await expect(desk.answer).to_be_visible()
    await desk.button("Step 1, details").click()
    found["done"] = await findings(page)
    await desk.start("approval")
    await expect(page.get_by_role("form", name="The agent waits for you")).to_be_visible()
    found["asking"] = await findings(page)
    assert {state: lines for state, lines in found.items() if lines} == {}
    assert desk.errors == []
    await context.close()


async def test_a_phone_never_scrolls_sideways(desk: Desk) -> None:
    await desk.page.set_viewport_size({"width": 360, "height": 740})
    sideways = "document.documentElement.scrollWidth - innerWidth"
    await desk.home()
    await expect(desk.page.get_by_role("heading", level=1)).to_be_visible()
    assert await desk.page.evaluate(sideways) == 0
    await desk.start("9 steps")
    await expect(desk.answer).to_be_visible()
    assert await desk.page.evaluate(sideways) == 0
    await desk.button("Step 1, details").click()
    assert await desk.page.evaluate(sideways) == 0


async def test_everything_is_reached_by_keyboard_and_the_focus_is_seen(desk: Desk) -> None:
    await desk.home()
    keyboard = desk.page.keyboard
    await expect(desk.page.get_by_label("Task")).to_be_focused()
    await keyboard.type("3 steps")
    await keyboard.press("Control+Enter")
    await expect(desk.answer).to_be_visible()
    await desk.button("Step 0, details").focus()
    await keyboard.press("Enter")
    await expect(desk.page.get_by_role("complementary").get_by_role("heading")).to_have_text("Step 0")
    await expect(desk.button("Step 0, details")).to_be_focused()  # the log was drawn anew, the focus stayed
    await keyboard.press("Tab")
    await expect(desk.button("Step 1, details")).to_be_focused()
    assert await desk.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


async def test_with_reduced_motion_nothing_moves(desk: Desk, gate: str) -> None:
    await desk.page.emulate_media(reduced_motion="reduce")
    await desk.start(f"2 steps, hold 1 {gate}")
    await expect(desk.working(1)).to_be_visible()
    moving = "document.getAnimations().filter((a) => a.playState === 'running').length"
    assert await desk.page.evaluate(moving) == 0
    await desk.page.emulate_media(reduced_motion="no-preference")
    assert await desk.page.evaluate(moving) > 0
    desk.server.open(gate)


async def test_a_step_is_read_out_once(desk: Desk, gate: str) -> None:
    """Nodes of the log are added and never made anew: a live region must not repeat itself."""
    await desk.start(f"4 steps, hold 2 {gate}")
    await expect(desk.log.locator(".step")).to_have_count(2)
    await desk.page.evaluate("document.querySelectorAll('.log > *').forEach((n) => { n.before_ = true })")
    desk.server.open(gate)
    await expect(desk.log.locator(".step")).to_have_count(4)
    kept = await desk.page.evaluate("[...document.querySelectorAll('.log > *')].map((n) => Boolean(n.before_))")
    assert kept == [True, True, False, False]


async def test_the_page_needs_nothing_from_elsewhere(desk: Desk) -> None:
    asked: list[str] = []
    desk.page.on("request", lambda r: asked.append(r.url))
    await desk.home()
    await expect(desk.page.get_by_role("heading", level=1)).to_be_visible()
    assert asked
    assert {url.partition("/")[2].partition("/")[2].partition("/")[0] for url in asked} == {
        desk.server.url.removeprefix("http://")
    }
