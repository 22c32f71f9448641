"""The example is readable by everyone: no axe findings in any state, light and dark, on a phone; by keyboard."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, expect
from stage import Site, Tab, tab

pytestmark = pytest.mark.asyncio(loop_scope="session")
AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
SHOTS = os.environ.get("STAGE_SHOTS")
"""A folder for pictures of every state."""


async def findings(page: Page, name: str) -> list[str]:
    """What axe finds, a line each; and that nothing scrolls sideways."""
    if SHOTS:
        await page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    lines = [f"{v['id']}: {node['html'][:160]} {node['failureSummary']}" for v in found["violations"] for node in v["nodes"]]
    return lines + ([f"{wide} pixels too wide"] if wide > 0 else [])


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 360)])
async def test_axe_finds_nothing_in_any_state(browser: Browser, site: Site, gate: str, scheme: str, width: int) -> None:
    context = await browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce"
    )
    one, found = await tab(context, site), dict[str, list[str]]()

    async def look(state: str) -> None:
        found[state] = await findings(one.page, f"{state}-{scheme}-{width}")

    await one.agent()
    await expect(one.page.get_by_label("Task")).to_be_focused()
    await look("agent-ready")
    await one.run(f"4 steps, hold 2 {gate}")
    await expect(one.steps.nth(2)).to_contain_text("Looking at part 2.")
    await look("agent-running")
    await context.set_offline(True)
    site.open(gate)
    await expect(one.alert).to_be_visible()
    await look("agent-offline")
    await context.set_offline(False)
    await expect(one.answer).to_be_visible()
    await one.steps.nth(1).locator("summary").click()
    await look("agent-done")
    await one.button("New task").click()
    await one.run("approval")
    await expect(one.page.get_by_role("form", name="May delete run?")).to_be_visible()
    await look("agent-asking")
    await one.button("Stop").click()
    await expect(one.status).to_have_text("Stopped by you")
    await look("agent-stopped")
    await one.button("New task").click()
    await one.run("2 steps, fails")
    await expect(one.alert).to_be_visible()
    await look("agent-failed")
    await one.chat()
    await one.say("2 steps")
    await expect(one.messages.nth(1)).to_contain_text("I have looked at everything")
    await one.say("approval")
    await expect(one.page.get_by_role("form", name="May delete run?")).to_be_visible()
    await look("chat-asking")
    await one.button("Approve").click()
    await expect(one.messages.nth(3)).to_contain_text("14 branches deleted")
    await look("chat-done")
    assert {state: lines for state, lines in found.items() if lines} == {}
    assert one.errors == []
    await context.close()


async def test_a_task_is_given_read_and_stopped_by_keyboard(stage: Tab, gate: str) -> None:
    await stage.agent()
    keyboard = stage.page.keyboard
    await keyboard.type(f"9 steps, hold 1 {gate}")
    await keyboard.press("Enter")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    await stage.steps.first.locator("summary").focus()
    await keyboard.press("Enter")
    await expect(stage.steps.first.get_by_label("Result")).to_be_visible()
    await keyboard.press("Escape")
    await expect(stage.status).to_have_text("Stopped by you")
    await keyboard.press("Shift+Tab")
    assert await stage.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    stage.site.open(gate)
