"""A tab with the example, and the words for what is done and seen there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Locator, Page, expect

from steprelay.deploy.asgi import Supervisor

expect.set_options(timeout=20_000)


@dataclass(frozen=True)
class Site:
    """`gates`: a file made here lets go of a step that is held."""

    url: str
    gates: Path
    supervisor: Supervisor

    def open(self, gate: str) -> None:
        (self.gates / gate).touch()


class Tab:
    """One tab with one of the example's pages."""

    def __init__(self, page: Page, site: Site, url: str | None = None) -> None:
        self.page, self.site, self.url = page, site, url or site.url
        self.errors: list[str] = []
        page.on("pageerror", lambda e: self.errors.append(str(e)))

    async def agent(self) -> None:
        await self.page.goto(f"{self.url}/#/")

    async def chat(self) -> None:
        await self.page.goto(f"{self.url}/#/chat")

    async def run(self, task: str) -> None:
        """Give the agent a task."""
        await self.agent()
        await self.page.get_by_label("Task").fill(task)
        await self.button("Run").click()

    async def say(self, words: str) -> None:
        """Send a message of the chat."""
        await self.page.get_by_label("Message", exact=True).fill(words)
        await self.button("Send").click()

    async def api(self, path: str) -> Any:
        """Ask the server as this browser: with its cookie, and the token of the run it shows."""
        ask = """async (path) => {
            const token = JSON.parse(localStorage.getItem("agent-run") ?? "{}").token;
            const headers = token ? { authorization: `Bearer ${token}` } : {};
            return (await fetch(`/api/${path}`, { headers })).json();
        }"""
        return await self.page.evaluate(ask, path)

    async def row(self) -> Any:
        """The row of the run that the agent page shows."""
        id = await self.page.evaluate("JSON.parse(localStorage.getItem('agent-run')).sessionId")
        return await self.api(f"runs/{id}")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def alert(self) -> Locator:
        return self.page.get_by_role("alert")

    @property
    def steps(self) -> Locator:
        return self.page.get_by_role("log", name="Steps").get_by_role("listitem")

    @property
    def answer(self) -> Locator:
        return self.page.get_by_role("article", name="Answer")

    @property
    def messages(self) -> Locator:
        return self.page.get_by_role("log", name="Messages").get_by_role("article")


async def tab(context: BrowserContext, site: Site, url: str | None = None) -> Tab:
    return Tab(await context.new_page(), site, url)
