"""The built example behind a real server under its supervisor, and a real browser."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, async_playwright
from stage import Site, Tab, tab

from steprelay.deploy.asgi import Supervisor

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
WEB = ROOT / "web"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking")
PLAIN = "stage.test"
"""A host that is none of this machine's names: on plain http a browser has no locks and no secure randomness there."""
_left_out: list[pytest.Item] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if shutil.which("npm") is None:
        _left_out.extend(i for i in items if i.path.parent == HERE)
        items[:] = [i for i in items if i not in _left_out]
        config.hook.pytest_deselected(items=_left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _left_out:
        terminalreporter.write_line(f"not run: {len(_left_out)} tests of tests/browser need Node 20.19 or newer with npm")


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example as `vite build` makes it, with the client from this tree and the packages of the web workspace."""
    subprocess.run(["sh", ROOT / "scripts" / "check-web.sh", "install"], check=True, timeout=300)
    out, home = tmp_path_factory.mktemp("pages"), WEB / f".stage-{uuid4().hex[:8]}"
    shutil.copytree(ROOT / "examples" / "react-vite", home, ignore=shutil.ignore_patterns("node_modules", "dist"))
    client = WEB / "packages" / "client" / "src"
    (home / "stage.config.ts").write_text(
        f"""import config from "./vite.config";
        const find = /^@steprelay\\/client\\/(.*)$/;
        config.resolve = {{ ...config.resolve, alias: [{{ find, replacement: "{client}/$1.ts" }},
            {{ find: /^@steprelay\\/client$/, replacement: "{client}/index.ts" }}] }};
        export default {{ ...config, logLevel: "error", build: {{ minify: false, reportCompressedSize: false }} }};"""
    )
    vite = WEB / "node_modules" / ".bin" / "vite"
    try:
        command = [vite, "build", "--config", "stage.config.ts", "--outDir", out, "--emptyOutDir"]
        subprocess.run(command, cwd=home, check=True, timeout=120)
    finally:
        shutil.rmtree(home)
    return out


@pytest.fixture(scope="session")
def site(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("stage")
    env = {
        "STAGE_GATES": str(home), "STAGE_PAGES": str(pages), "STEPRELAY_STORE": f"sqlite:///{home / 'stage.db'}",
        "STEPRELAY_LEASE": "2", "STEPRELAY_SECRET": "known to these tests only", "STEPRELAY_ANONYMOUS_START": "same-origin",
    }  # fmt: skip
    supervisor = Supervisor([sys.executable, str(HERE / "stage_site.py")], env=env)
    keeping = threading.Thread(target=supervisor.keep)
    keeping.start()
    yield Site(supervisor.url, home, supervisor)
    supervisor.told.set()
    keeping.join(20)
    supervisor.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        mapped = f"--host-resolver-rules=MAP {PLAIN} 127.0.0.1"
        one = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, mapped])
        yield one
        await one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    one = await browser.new_context(viewport={"width": 1100, "height": 900})
    yield one
    await one.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stage(context: BrowserContext, site: Site) -> AsyncIterator[Tab]:
    one = await tab(context, site)
    yield one
    assert one.errors == []


@pytest.fixture
def gate() -> str:
    """A name for a gate that nobody else uses."""
    return f"gate{uuid4().hex[:8]}"
