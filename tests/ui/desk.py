"""A tab with the page, and the words for what is done and seen there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Locator, Page, expect

from steprelay.deploy.asgi import Supervisor

expect.set_options(timeout=20_000)


@dataclass(frozen=True)
class Server:
    """`gates`: a file made here lets go of a step that is held."""

    url: str
    gates: Path
    supervisor: Supervisor

    def open(self, gate: str) -> None:
        (self.gates / gate).touch()


class Desk:
    """A tab with the page, and the words for what is done and seen there."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.on("pageerror", lambda e: self.errors.append(str(e)))

    async def home(self) -> None:
        await self.page.goto(f"{self.server.url}/")

    async def start(self, task: str, carrier: str = "client") -> str:
        """Start a run by hand; its id."""
        await self.home()
        await self.page.get_by_label("Task").fill(task)
        await self.page.get_by_label("Carried by").select_option(carrier)
        await self.page.get_by_role("button", name="Start").click()
        await self.page.wait_for_url("**/#/runs/*")
        return self.page.url.rpartition("/")[2]

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name)

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the server past the page."""
        async with httpx.AsyncClient(base_url=f"{self.server.url}/api/", timeout=30) as http:
            return (await http.request(method, path, json=body)).json()

    @property
    def status(self) -> Locator:
        return self.page.get_by_role("status")

    @property
    def answer(self) -> Locator:
        return self.page.get_by_role("region", name="Answer")

    @property
    def count(self) -> Locator:
        return self.page.locator(".count")

    @property
    def log(self) -> Locator:
        return self.page.get_by_role("log")

    def working(self, step: int) -> Locator:
        """The block of the step under way."""
        return self.page.locator(".reel .open + text", has_text=str(step))
