"""From a task to its answer: both pages of the example, and the founding page that knows two fields and nothing else."""

from __future__ import annotations

import pytest
from playwright.async_api import expect
from stage import Tab

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_agent_page_from_a_task_to_its_answer(stage: Tab) -> None:
    await stage.run("4 steps")
    await expect(stage.status).to_have_text("Done")
    await expect(stage.steps).to_have_count(4)
    await expect(stage.steps.nth(2)).to_contain_text("Looking at part 2.")
    await expect(stage.steps.nth(2).locator("summary")).to_contain_text("look")
    await expect(stage.answer).to_contain_text("I have looked at everything for “4 steps”.")
    await expect(stage.answer).to_contain_text("4 steps · 960 tokens · $0.004")
    assert (await stage.row())["status"] == "COMPLETED"
    await stage.page.get_by_label("Ask for more").fill("1 step")
    await stage.page.keyboard.press("Enter")
    await expect(stage.steps).to_have_count(5)
    await expect(stage.status).to_have_text("Done")
    await expect(stage.answer).to_contain_text("“1 step”")


async def test_the_chat_from_a_message_to_its_answer(stage: Tab) -> None:
    await stage.chat()
    await stage.say("3 steps")
    await expect(stage.messages.nth(1)).to_contain_text("I have looked at everything for “3 steps”.")
    await expect(stage.messages.nth(1).locator("summary")).to_have_count(3)
    await expect(stage.button("Send")).to_be_visible()
    await stage.say("1 step")
    await expect(stage.messages.nth(3)).to_contain_text("“1 step”")
    await expect(stage.messages).to_have_count(4)


async def test_the_founding_page_from_a_task_to_its_answer(stage: Tab) -> None:
    await stage.page.goto(f"{stage.url}/founding/")
    await stage.button("Run").click()
    await expect(stage.page.locator("#status")).to_have_text("COMPLETED")
    await expect(stage.page.locator("#answer")).to_have_text("I have looked at everything for “3 steps”.")


async def test_the_founding_page_is_told_of_a_failure(stage: Tab) -> None:
    await stage.page.goto(f"{stage.url}/founding/?task=3 steps, fails")
    await stage.button("Run").click()
    await expect(stage.page.locator("#status")).to_have_text("ERROR 500")
