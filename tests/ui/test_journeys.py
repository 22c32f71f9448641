"""What people do on the page, against the real server, with real deaths."""

from __future__ import annotations

import pytest
from desk import Desk
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")
CLEAN = "0 lost · 0 doubled · 0 second model calls"


async def test_from_a_task_to_its_answer(desk: Desk) -> None:
    await desk.start("Tell me, in 4 steps")
    await expect(desk.answer).to_contain_text("It is 42")
    await expect(desk.status).to_have_text("Done")
    await expect(desk.count).to_have_text(f"4 steps · 0 deaths · 0 lost answers — {CLEAN}")
    await expect(desk.page.get_by_role("heading", level=1)).to_have_text("Tell me, in 4 steps")
    await expect(desk.log.locator(".step")).to_have_count(4)
    await expect(desk.log.locator(".chip").first).to_contain_text("search")
    await expect(desk.page.locator(".reel .leg")).to_have_count(4)
    await expect(desk.page.locator(".gauge").first).to_contain_text("of 20 steps")
    await desk.home()
    await expect(desk.page.locator(".run-row").first).to_contain_text("Done")


async def test_what_a_model_wrote_is_words_and_never_markup(desk: Desk) -> None:
    await desk.start("2 steps")
    await expect(desk.answer).to_contain_text("<img src=x onerror=")
    assert await desk.answer.locator("img").count() == 0
    await expect(desk.answer.locator("strong")).to_have_text("42")
    await expect(desk.answer.locator("code.place")).to_have_text("deep/thought.py:42")
    await expect(desk.answer.locator("li")).to_have_count(2)
    assert "pwned" not in await desk.page.title()


async def test_words_are_seen_while_they_are_said(desk: Desk, gate: str) -> None:
    await desk.start(f"2 steps, hold 1 {gate}")
    await expect(desk.page.locator(".now")).to_contain_text("Looking at part 1.")
    await expect(desk.log.locator(".step")).to_have_count(1)
    desk.server.open(gate)
    await expect(desk.answer).to_be_visible()
    await expect(desk.page.locator(".now")).to_be_hidden()


async def test_kill_the_server_in_the_middle_of_a_step(desk: Desk, gate: str) -> None:
    await desk.start(f"4 steps, hold 2 {gate}")
    await expect(desk.working(2)).to_be_visible()
    await expect(desk.page.locator("aside")).to_contain_text("process")
    before = (await desk.api("GET", "demo"))["pid"]
    await desk.button("Kill the server").click()
    await expect(desk.page.locator(".name.silent")).to_have_text("Browser")
    await expect(desk.page.locator(".reel .dead")).to_be_visible()
    await expect(desk.page.locator(".reel .lease .left")).to_be_visible()  # the lease runs out in sight
    await expect(desk.working(2)).to_be_visible()
    after = (await desk.api("GET", "demo"))["pid"]
    assert before != after
    await expect(desk.page.locator("aside dl")).to_contain_text(f"process {after}")
    desk.server.open(gate)
    await expect(desk.answer).to_contain_text("It is 42")
    await expect(desk.count).to_have_text(f"4 steps · 1 death · 0 lost answers — {CLEAN}")
    await expect(desk.log.locator(".event.bad")).to_contain_text("The first attempt at step 2 died. Nothing was lost:")
    await expect(desk.log.locator(".event.bad")).to_contain_text(f"by process {after}")
    await expect(desk.page.locator(".reel .died")).to_have_count(1)


async def test_close_this_tab_and_the_background_carries_on(desk: Desk, gate: str) -> None:
    id = await desk.start(f"5 steps, hold 2 {gate}")
    await expect(desk.working(2)).to_be_visible()
    pulses: list[str] = []
    await desk.button("Close this tab").click()
    await expect(desk.page.get_by_role("heading", level=1)).to_have_text("This tab is closed.")
    desk.page.on("request", lambda r: pulses.append(r.url))
    desk.server.open(gate)
    run = await desk.api("GET", f"runs/{id}?wait=20")
    assert run["status"] == "COMPLETED"
    assert pulses == []  # a closed tab asks for nothing
    await desk.button("Come back").click()
    await expect(desk.answer).to_contain_text("It is 42")
    await expect(desk.log.locator(".event.go")).to_contain_text("Browser handed over. Background carries on from step 3.")
    await expect(desk.page.locator(".name")).to_have_text(["Browser", "Background"])
    await expect(desk.page.locator(".reel .baton")).to_have_count(1)
    await expect(desk.count).to_contain_text(f"5 steps · 0 deaths · 0 lost answers — {CLEAN}")


async def test_lose_a_response_and_get_the_stored_step(desk: Desk, gate: str) -> None:
    await desk.start(f"3 steps, hold 1 {gate}")
    await expect(desk.working(1)).to_be_visible()
    await desk.button("Lose a response").click()
    await expect(desk.page.get_by_role("alert")).to_have_text("The next answer will be thrown away on its way to you.")
    async with desk.page.expect_response(lambda r: r.headers.get("idempotent-replayed") == "true") as replay:
        desk.server.open(gate)
    assert (await replay.value).request.post_data_json == {"expectedStep": 1}
    await expect(desk.answer).to_be_visible()
    await expect(desk.log.locator(".event.hand")).to_contain_text("The same request got the stored step 1: no second model call.")
    await expect(desk.count).to_have_text(f"3 steps · 0 deaths · 1 lost answer — {CLEAN}")


async def test_stop_by_the_escape_key(desk: Desk, gate: str) -> None:
    id = await desk.start(f"9 steps, hold 1 {gate}")
    await expect(desk.working(1)).to_be_visible()
    await desk.page.keyboard.press("Escape")
    await expect(desk.status).to_have_text("Stopped by you")
    await expect(desk.button("Stop")).to_be_hidden()
    assert (await desk.api("GET", f"runs/{id}"))["status"] == "CANCELLED"
    await expect(desk.log).to_contain_text("Stopped. No later step will run; what was done is kept.")


@pytest.mark.parametrize(("verdict", "output"), [("Approve", "14 gone"), ("Reject", "Nothing was deleted.")])
async def test_the_agent_asks_before_it_acts(desk: Desk, verdict: str, output: str) -> None:
    await desk.start("approval")
    form = desk.page.get_by_role("form", name="The agent waits for you")
    await expect(form).to_contain_text('"branches": 14')
    await expect(desk.status).to_have_text("Waiting for you")
    await form.get_by_role("button", name=verdict).click()
    await expect(desk.answer).to_contain_text(output)
    await expect(form).to_be_hidden()


async def test_a_question_with_choices(desk: Desk) -> None:
    await desk.start("a question")
    await desk.page.get_by_label("Which colour?").select_option("blue")
    await desk.button("Send").click()
    await expect(desk.answer).to_contain_text("So blue.")


async def test_the_badge_leads_to_what_waits_for_you(desk: Desk) -> None:
    id = await desk.start("approval")
    await expect(desk.status).to_have_text("Waiting for you")
    await desk.home()
    await desk.page.get_by_role("link", name="waits for you").or_(desk.page.get_by_role("link", name="wait for you")).click()
    await expect(desk.page.get_by_role("form", name="The agent waits for you")).to_be_visible()
    await desk.page.goto(f"{desk.server.url}/#/runs/{id}")
    await desk.button("Approve").click()
    await expect(desk.answer).to_be_visible()


async def test_a_reload_goes_on_where_it_was(desk: Desk, gate: str) -> None:
    await desk.start(f"4 steps, hold 2 {gate}")
    await expect(desk.working(2)).to_be_visible()
    await desk.page.reload()
    await expect(desk.log.locator(".step")).to_have_count(2)
    desk.server.open(gate)
    await expect(desk.answer).to_be_visible()
    await expect(desk.count).to_contain_text(f"4 steps · 0 deaths · 0 lost answers — {CLEAN}")


async def test_a_second_tab_watches_and_takes_over_when_the_first_is_gone(desk: Desk, gate: str) -> None:
    id = await desk.start(f"4 steps, hold 1 {gate}")
    await expect(desk.page.locator(".meta")).to_contain_text("driven by this tab")
    other = await desk.page.context.new_page()
    await other.goto(f"{desk.server.url}/#/runs/{id}")
    await expect(other.get_by_role("log").locator(".step")).to_have_count(1)
    await expect(other.locator(".meta")).to_contain_text("carried by Browser")
    await desk.page.close()
    desk.server.open(gate)
    await expect(other.locator(".answer")).to_contain_text("It is 42")
    await other.close()


async def test_a_page_opened_to_watch_does_not_drive(desk: Desk) -> None:
    made = await desk.api("POST", "runs", {"userPrompt": "2 steps"})
    await desk.page.goto(f"{desk.server.url}/#/runs/{made['sessionId']}?watch")
    await expect(desk.page.locator(".meta")).to_contain_text("carried by Browser")
    await expect(desk.page.locator("aside .explain")).to_contain_text("Step 0 is due")
    assert (await desk.api("GET", f"runs/{made['sessionId']}"))["attempts"] == 0
    await desk.button("Carry on here").click()
    await expect(desk.answer).to_be_visible()


async def test_hand_over_and_back(desk: Desk, gate: str) -> None:
    await desk.start(f"6 steps, hold 1 {gate}, hold 3 {gate}b")
    await expect(desk.working(1)).to_be_visible()
    await desk.button("Hand to background").click()
    await expect(desk.button("Carry on here")).to_be_visible()
    desk.server.open(gate)
    await expect(desk.working(3)).to_be_visible()
    await desk.button("Carry on here").click()
    await expect(desk.button("Hand to background")).to_be_visible()
    desk.server.open(f"{gate}b")
    await expect(desk.answer).to_be_visible()
    await expect(desk.page.locator(".reel .baton")).to_have_count(2)


async def test_the_details_of_a_step_and_a_fork_from_it(desk: Desk) -> None:
    id = await desk.start("3 steps")
    await expect(desk.answer).to_be_visible()
    await desk.button("Step 1, details").click()
    pane = desk.page.get_by_role("complementary", name="Details")
    await expect(pane).to_contain_text("200 in · 40 out")
    await expect(pane).to_contain_text('"part 1 2"')
    await pane.get_by_text("Fork from here").click()
    await pane.get_by_role("textbox").fill("5 steps")
    await pane.get_by_role("button", name="Fork").click()
    await desk.page.wait_for_url(lambda url: "/#/runs/" in url and id not in url)
    await expect(desk.answer).to_be_visible()


async def test_a_result_that_was_cut_is_shown_whole(desk: Desk) -> None:
    await desk.start("1 steps long")
    await expect(desk.answer).to_be_visible()
    pane = desk.page.get_by_role("complementary", name="Details")
    await expect(pane).to_contain_text("kB")
    await desk.button("Step 0, details").click()
    result = pane.get_by_label("Result").first
    await expect(result).not_to_contain_text("the last line")
    await pane.get_by_role("button", name="Show the whole").click()
    await expect(result).to_contain_text("the last line")
    await expect(result).to_be_focused()
    await expect(pane.get_by_role("button", name="Show the whole")).to_have_count(0)


async def test_the_next_round_goes_on_in_the_same_run(desk: Desk) -> None:
    await desk.start("2 steps")
    await expect(desk.answer).to_be_visible()
    await desk.page.get_by_label("Ask for more").fill("And once more")
    await desk.button("Ask").click()
    await expect(desk.log).to_contain_text("You asked for more. The same run goes on.")
    await expect(desk.status).to_have_text("Done")


async def test_a_run_that_is_not_there(desk: Desk) -> None:
    await desk.page.goto(f"{desk.server.url}/#/runs/nowhere")
    await expect(desk.page.get_by_role("alert")).to_have_text("There is no such run, or it is not yours.")


async def test_offline_says_that_the_run_is_safe_and_goes_on(desk: Desk, gate: str) -> None:
    await desk.start(f"4 steps, hold 1 {gate}")
    await expect(desk.working(1)).to_be_visible()
    await desk.page.context.set_offline(True)
    desk.server.open(gate)
    await expect(desk.page.get_by_role("alert")).to_contain_text("Connection lost, the run is safe.")
    await desk.page.context.set_offline(False)
    await expect(desk.answer).to_be_visible()
    await expect(desk.count).to_contain_text(CLEAN)
