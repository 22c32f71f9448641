"""What happens to pages: lost connections, second tabs, reloads, stops, questions, long runs, plain http."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import PLAIN
from playwright.async_api import Browser, BrowserContext, Route, expect
from stage import Site, Tab, tab

pytestmark = pytest.mark.asyncio(loop_scope="session")
ANSWER = "I have looked at everything"
STEP = re.compile(r"/api/(runs/[^/]+/step|agent-step)$")


async def test_a_503_and_a_stream_cut_in_the_middle_of_a_step(stage: Tab) -> None:
    faults: list[str] = ["503", "cut", "503"]

    async def weather(route: Route) -> None:
        fault = faults.pop(0) if faults else ""
        if fault == "503":
            await route.fulfill(status=503, headers={"retry-after": "0"}, json={"detail": "The store cannot be reached now."})
        elif fault == "cut":
            told = await route.fetch()
            body = await told.body()
            await route.fulfill(status=told.status, headers=told.headers, body=body[: len(body) // 2])
        else:
            await route.continue_()

    await stage.page.route(STEP, weather)
    await stage.run("4 steps")
    await expect(stage.answer).to_contain_text(ANSWER)
    assert faults == []
    await expect(stage.steps).to_have_count(4)
    for i in range(4):
        await expect(stage.steps.nth(i).locator(".thought")).to_have_text([f"Looking at part {i}."])
        await expect(stage.steps.nth(i).locator("summary")).to_have_count(1)


async def test_offline_and_online_again(stage: Tab, gate: str) -> None:
    await stage.run(f"4 steps, hold 1 {gate}")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    await stage.page.context.set_offline(True)
    stage.site.open(gate)
    await expect(stage.alert).to_contain_text("Connection lost, the run is safe.")
    await stage.page.context.set_offline(False)
    await expect(stage.answer).to_contain_text(ANSWER)
    await expect(stage.alert).to_have_count(0)
    await expect(stage.steps).to_have_count(4)


async def test_a_server_that_dies_in_the_middle_of_a_step(stage: Tab, gate: str) -> None:
    await stage.run(f"3 steps, hold 1 {gate}")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    child = stage.site.supervisor.child
    assert child is not None
    child.kill()
    stage.site.open(gate)
    await expect(stage.answer).to_contain_text(ANSWER)
    await expect(stage.steps.nth(1).locator(".thought")).to_have_text(["Looking at part 1."])
    assert (await stage.row())["status"] == "COMPLETED"


async def test_of_two_tabs_one_drives_and_the_other_takes_over(stage: Tab, gate: str) -> None:
    await stage.run(f"4 steps, hold 1 {gate}")
    await expect(stage.page.locator(".bar")).to_contain_text("Carried by this tab")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    other = await tab(stage.page.context, stage.site)
    await other.agent()
    await expect(other.page.locator(".bar")).to_contain_text("Carried by another tab")
    await expect(other.steps.nth(1)).to_contain_text("Looking at part 1.")  # the words under way, too
    await stage.page.close(run_before_unload=True)
    await expect(other.page.locator(".bar")).to_contain_text("Carried by this tab")
    stage.site.open(gate)
    await expect(other.answer).to_contain_text(ANSWER)
    await expect(other.steps).to_have_count(4)
    for i in range(4):
        await expect(other.steps.nth(i).locator(".thought")).to_have_text([f"Looking at part {i}."])
    assert other.errors == []
    await other.page.close()


async def test_a_reload_goes_on_where_it_was(stage: Tab, gate: str) -> None:
    await stage.run(f"3 steps, hold 1 {gate}")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    await stage.page.reload()
    await expect(stage.steps.first).to_contain_text("Looking at part 0.")
    stage.site.open(gate)
    await expect(stage.answer).to_contain_text(ANSWER)
    await expect(stage.steps).to_have_count(3)


async def test_a_finished_run_is_there_when_the_page_is_opened_again(stage: Tab) -> None:
    await stage.run("2 steps")
    await expect(stage.answer).to_contain_text(ANSWER)
    await stage.page.goto("about:blank")
    await stage.agent()
    await expect(stage.answer).to_contain_text(ANSWER)
    await expect(stage.steps).to_have_count(2)
    await stage.button("New task").click()
    await expect(stage.page.get_by_label("Task")).to_be_visible()


async def test_stop_by_the_escape_key_while_words_come(stage: Tab, gate: str) -> None:
    await stage.run(f"9 steps, hold 1 {gate}")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    await stage.page.keyboard.press("Escape")
    await expect(stage.status).to_have_text("Stopped by you")
    assert (await stage.row())["status"] == "CANCELLED"
    stage.site.open(gate)
    await stage.button("Go on").click()
    await expect(stage.answer).to_contain_text(ANSWER)


@pytest.mark.parametrize(("verdict", "answer"), [("Approve", "14 branches deleted"), ("Reject", "Nothing was deleted")])
async def test_the_agent_asks_before_it_acts(stage: Tab, verdict: str, answer: str) -> None:
    await stage.run("approval")
    form = stage.page.get_by_role("form", name="May delete run?")
    await expect(form).to_contain_text('"branches": 14')
    await expect(stage.status).to_have_text("Waiting for you")
    await form.get_by_role("button", name=verdict).click()
    await expect(stage.answer).to_contain_text(answer)
    await expect(form).to_have_count(0)


async def test_a_question_with_choices(stage: Tab) -> None:
    await stage.run("a question")
    await stage.page.get_by_role("form", name="Which colour?").get_by_role("button", name="blue").click()
    await expect(stage.answer).to_contain_text("So blue.")


async def test_a_failure_is_said_and_the_run_goes_on(stage: Tab) -> None:
    await stage.run("2 steps, fails")
    await expect(stage.alert).to_have_text("the source is gone")
    await expect(stage.status).to_have_text("Failed")


async def test_the_page_is_closed_and_the_server_carries_on(stage: Tab, gate: str) -> None:
    await stage.run(f"4 steps, hold 1 {gate}")
    await expect(stage.steps.nth(1)).to_contain_text("Looking at part 1.")
    await stage.button("Let the server carry on").click()
    await expect(stage.page.locator(".bar")).to_contain_text("Carried by the server, in the background")
    kept = await stage.page.evaluate("({...localStorage})")
    id = await stage.page.evaluate("JSON.parse(localStorage.getItem('agent-run')).sessionId")
    await stage.page.goto("about:blank")
    stage.site.open(gate)
    other = await tab(stage.page.context, stage.site)
    await other.page.goto(f"{stage.url}/founding/")  # the same browser, on a page that drives nothing
    seen = await other.page.evaluate(
        "async ([id, token]) => (await fetch(`/api/runs/${id}?wait=20`, {headers: {authorization: `Bearer ${token}`}})).json()",
        [id, json.loads(kept["agent-run"])["token"]],
    )
    assert seen["status"] == "COMPLETED"
    await stage.agent()
    await expect(stage.answer).to_contain_text(ANSWER)
    await expect(stage.steps).to_have_count(4)
    await other.page.close()


async def test_a_plain_http_host_has_no_locks_and_works(browser: Browser, site: Site) -> None:
    context: BrowserContext = await browser.new_context()
    port = site.url.rpartition(":")[2]
    one = await tab(context, site, f"http://{PLAIN}:{port}")
    await one.run("3 steps")
    assert await one.page.evaluate("[isSecureContext, typeof navigator.locks, typeof crypto.randomUUID]") == [
        False, "undefined", "undefined",
    ]  # fmt: skip
    await expect(one.answer).to_contain_text(ANSWER)
    await one.page.reload()
    await expect(one.answer).to_contain_text(ANSWER)
    assert one.errors == []
    await context.close()


# ---------------------------------------------------------------- the chat


async def test_a_chat_is_reloaded_in_the_middle_and_finishes_its_message(stage: Tab, gate: str) -> None:
    await stage.chat()
    await stage.say(f"3 steps, hold 1 {gate}")
    await expect(stage.messages.nth(1)).to_contain_text("Looking at part 1.")
    await stage.page.reload()
    await expect(stage.messages.nth(1)).to_contain_text("Looking at part 0.")
    stage.site.open(gate)
    await expect(stage.messages.nth(1)).to_contain_text(ANSWER)
    await expect(stage.messages).to_have_count(2)
    await expect(stage.messages.nth(1).locator(".thought")).to_have_text([f"Looking at part {i}." for i in range(3)])
    await stage.page.reload()
    await expect(stage.messages.nth(1)).to_contain_text(ANSWER)


@pytest.mark.parametrize("reload", [False, True])
async def test_a_chat_asks_for_an_approval(stage: Tab, reload: bool) -> None:
    await stage.chat()
    await stage.say("approval")
    form = stage.page.get_by_role("form", name="May delete run?")
    await expect(form).to_be_visible()
    if reload:
        await stage.page.reload()
    await form.get_by_role("button", name="Approve").click()
    await expect(stage.messages.nth(1)).to_contain_text("14 branches deleted")
    await expect(stage.messages).to_have_count(2)


async def test_a_chat_is_stopped(stage: Tab, gate: str) -> None:
    await stage.chat()
    await stage.say(f"9 steps, hold 1 {gate}")
    await expect(stage.messages.nth(1)).to_contain_text("Looking at part 1.")
    id = await stage.page.evaluate("localStorage.getItem('chat')")
    await stage.page.keyboard.press("Escape")
    await expect(stage.button("Send")).to_be_visible()
    run: Any = {}
    while run.get("status") != "CANCELLED":
        run = await stage.api(f"runs/{id}?wait=5")


async def test_a_chat_goes_on_while_another_page_is_looked_at(stage: Tab, gate: str) -> None:
    await stage.chat()
    await stage.say(f"3 steps, hold 1 {gate}")
    await expect(stage.messages.nth(1)).to_contain_text("Looking at part 1.")
    await stage.page.get_by_role("link", name="Agent").click()
    await expect(stage.page.get_by_label("Task")).to_be_visible()
    await stage.page.keyboard.press("Escape")  # stops what is seen only
    stage.site.open(gate)
    await stage.page.get_by_role("link", name="Chat").click()
    await expect(stage.messages.nth(1)).to_contain_text(ANSWER)


async def test_a_chat_goes_through_a_cut_stream(stage: Tab) -> None:
    faults: list[int] = [3]

    async def cut(route: Route) -> None:
        if not faults:
            return await route.continue_()
        faults.pop()
        told = await route.fetch()
        body = await told.body()
        await route.fulfill(status=told.status, headers=told.headers, body=body[: len(body) // 2])

    await stage.page.route(STEP, cut)
    await stage.chat()
    await stage.say("3 steps")
    await expect(stage.messages.nth(1)).to_contain_text(ANSWER)
    await expect(stage.messages.nth(1).locator(".thought")).to_have_text([f"Looking at part {i}." for i in range(3)])


# ---------------------------------------------------------------- long


@pytest.mark.all
async def test_two_thousand_steps(stage: Tab) -> None:
    """A tab takes two hundred on its own, and the server the rest; the page shows the newest and keeps up."""
    await stage.run("2000 steps")
    await expect(stage.alert).to_contain_text("This tab may take no more steps on its own.", timeout=120_000)
    await stage.button("Let the server carry on").click()
    await expect(stage.answer).to_contain_text(ANSWER, timeout=600_000)
    await expect(stage.steps).to_have_count(100)
    await expect(stage.steps.last).to_contain_text("Looking at part 1999.")
    await stage.button("Show 1,900 earlier steps").click()
    await expect(stage.steps).to_have_count(2000)
    await stage.page.reload()
    await expect(stage.answer).to_contain_text(ANSWER, timeout=60_000)
    await expect(stage.steps.last).to_contain_text("Looking at part 1999.")
