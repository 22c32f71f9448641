"""With Netlify's own tools: the zips as they are shipped, and a site in the platform's emulation, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from netlify_world import SECRET, eventually, platform
from playwright.async_api import async_playwright
from real_netlify import Dev, real_site, zipped

from steprelay.testing import servers

pytestmark = pytest.mark.all
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
SERVER = {"authorization": f"Bearer {SECRET}"}


@pytest.fixture(scope="module")
def store() -> str:
    return servers.fresh_url("postgres")


@pytest.fixture(scope="module")
def built(tmp_path_factory, store) -> tuple[Path, str]:
    return real_site(tmp_path_factory.mktemp("real") / "site", store)


@pytest.fixture(scope="module")
def dev(built, store):
    one = Dev(built[0], store)
    yield one
    one.close()


async def ended(client: httpx.AsyncClient, id: str, seconds: float = 60) -> dict:
    """The run, once it has ended; without a clock in the emulation, somebody has to strike it for the sweep."""
    async with asyncio.timeout(seconds):
        while True:
            view = (await client.get(f"/api/runs/{id}", headers=SERVER)).json()
            if view.get("isTerminal"):
                return view
            await asyncio.sleep(0.5)


def test_the_build_says_what_it_did_and_migrates_the_database(built) -> None:
    said = built[1]
    assert "database (STEPRELAY_STORE): applied" in said
    assert "serves agent.py:app" in said
    assert " MB, zipped " in said


@pytest.mark.timeout(600)
async def test_the_zips_hold_all_that_a_function_needs(built, store) -> None:
    """Found by Netlify's packager for what they are, unpacked elsewhere, run by a Node that has nothing else."""
    _, told = zipped(built[0])
    found = {f["name"]: f for f in json.loads(told)}
    assert {n: (f["invocationMode"], f.get("schedule"), f["runtimeAPIVersion"]) for n, f in found.items()} == {
        "agent-step": ("stream", None, 2), "start-job-background": ("background", None, 2), "sweep": ("stream", "* * * * *", 2),
    }  # fmt: skip
    shipped = {f.stem for f in (built[0] / "unzipped/netlify/functions").iterdir() if "proxy.mjs" in f.read_text()}
    assert shipped == set(found)  # the packager put nothing else in their place
    assert not (built[0] / "unzipped/node_modules").exists()
    hidden = built[0].rename(built[0].with_name("elsewhere"))
    try:
        moved = hidden / "unzipped"
        with platform(moved, STEPRELAY_STORE=store, STEPRELAY_PUBLIC_URL=f"http://127.0.0.1:{servers.free_port()}") as world:
            async with httpx.AsyncClient(base_url=world.url, timeout=60) as world.client:
                cold = await world.output("cold", "pid:")
                assert await world.output("warm", "pid:") == cold
                exe = os.readlink(f"/proc/{cold}/exe")
                assert exe == str(moved / "python/bin/python3")
                job = await world.client.post("/api/start-job", json={"sessionId": "zipped", "userPrompt": "count:4"})
                assert job.status_code == 202
                assert (await ended(world.client, "zipped"))["status"] == "COMPLETED"
    finally:
        hidden.rename(built[0])


@pytest.fixture
async def page(dev):
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield await browser.new_page()
        await browser.close()


@pytest.mark.timeout(300)
async def test_the_founding_page_pulses_through_the_function(dev, page) -> None:
    await page.goto(f"{dev.url}/founding.html")
    await page.get_by_role("button", name="Start").click()
    said = page.get_by_role("status")
    await said.filter(has_text="COMPLETED").wait_for(timeout=90_000)
    assert await said.text_content() == "COMPLETED after 4 pulses: 4"


@pytest.mark.timeout(300)
async def test_the_page_that_init_makes_runs_the_agent(dev, page) -> None:
    await page.goto(dev.url)
    await page.get_by_label("Task").fill("count:3")
    await page.get_by_role("button", name="Run").click()
    answer = page.get_by_role("article", name="Answer")
    await answer.wait_for(timeout=90_000)
    assert "3" in await answer.text_content()


@pytest.mark.timeout(300)
async def test_a_job_goes_on_with_no_tab_open(dev) -> None:
    async with httpx.AsyncClient(base_url=dev.url, timeout=60) as client:
        told = await client.post("/api/start-job", json={"sessionId": "job", "userPrompt": "count:6"})
        assert (told.status_code, told.json()["sessionId"]) == (202, "job")
    async with httpx.AsyncClient(base_url=dev.url, timeout=60) as another:
        view = await ended(another, "job")
    assert (view["status"], view["carrier"], view["output"]) == ("COMPLETED", "background", 6)
    assert "background_undeclared" not in dev.said()


@pytest.mark.timeout(300)
async def test_the_sweep_finds_a_run_whose_carrier_was_killed(dev, tmp_path) -> None:
    go = tmp_path / "go"
    async with httpx.AsyncClient(base_url=dev.url, timeout=60) as client:
        await client.post("/api/start-job", json={"sessionId": "orphan", "userPrompt": f"hang:{go}"})
        await asyncio.to_thread(eventually, Path(f"{go}.begun").exists)
        held = (await client.get("/api/runs/orphan", headers=SERVER)).json()["lease"]["holder"]
        os.kill(int(held.rpartition(":")[2]), signal.SIGKILL)
        go.touch()
        async with asyncio.timeout(90):
            while not (await client.get("/api/runs/orphan", headers=SERVER)).json()["isTerminal"]:
                await client.post("/.netlify/functions/sweep")  # the emulation has no clock; it lets one strike it
                await asyncio.sleep(1)
        view = (await client.get("/api/runs/orphan", headers=SERVER)).json()
    assert (view["status"], view["output"]) == ("COMPLETED", "ended")
