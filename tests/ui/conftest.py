"""A real server under its supervisor, a real browser, and a desk to sit at."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from desk import Desk, Server
from playwright.async_api import Browser, BrowserContext, async_playwright

from steprelay.deploy.asgi import Supervisor, python

CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")
LEASE = 3.0


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("desk")
    gates = home / "gates"
    gates.mkdir()
    env = {"DESK_GATES": str(gates), "STEPRELAY_LEASE": str(LEASE), "STEPRELAY_STORE": f"sqlite:///{home / 'desk.db'}"}
    agent = Path(__file__).parent / "desk_agent.py"
    supervisor = Supervisor(python("steprelay.cli.server", str(agent), "--loopback"), env=env)
    keeping = threading.Thread(target=supervisor.keep)
    keeping.start()
    yield Server(supervisor.url, gates, supervisor)
    supervisor.told.set()
    keeping.join(20)
    supervisor.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        one = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield one
        await one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    one = await browser.new_context(viewport={"width": 1280, "height": 900})
    yield one
    await one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def desk(context: BrowserContext, server: Server) -> AsyncIterator[Desk]:
    one = Desk(await context.new_page(), server)
    yield one
    assert one.errors == []


@pytest.fixture
def gate() -> str:
    """A name for a gate that nobody else uses."""
    return f"gate{uuid4().hex[:8]}"
