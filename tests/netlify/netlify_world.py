"""A site in a folder, and something that plays Netlify for it."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

import steprelay.deploy.netlify as target

HERE = Path(__file__).parent
SHIPPED = Path(target.__file__).parent
FUNCTIONS = SHIPPED / "template/netlify/functions"
SECRET = "a secret that only these tests know"


def linked_site(folder: Path) -> Path:
    """A site whose bundle borrows this interpreter and its packages: what is between Node and Python is all there."""
    python = folder / "python"
    (python / "bin").mkdir(parents=True)
    (python / "app").mkdir()
    program = python / "bin/python3"
    program.write_text(f'#!/bin/sh\nunset PYTHONHOME SSL_CERT_FILE\nexec {sys.executable} "$@"\n')
    program.chmod(0o755)
    shutil.copy(HERE / "site_agent.py", python / "app/agent.py")
    shutil.copy(SHIPPED / "proxy.mjs", python)
    (python / "bundle.json").write_text('{"app": "agent.py:app"}')
    shutil.copytree(FUNCTIONS, folder / "netlify/functions")
    return folder


class Platform:
    """`platform.mjs`, and a client of it."""

    def __init__(self, site: Path, *arguments: str, **environ: str) -> None:
        self.site = site
        environ = {"STEPRELAY_SECRET": SECRET, "STEPRELAY_STORE": f"sqlite:{site}/runs.db", "STEPRELAY_LEASE": "1", **environ}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("STEPRELAY_", "NETLIFY"))}
        self.node = subprocess.Popen(
            ["node", HERE / "platform.mjs", site, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=kept | environ,
            cwd=site, text=True,
        )  # fmt: skip
        self.url = f"http://127.0.0.1:{self.node.stdout.readline().strip()}"
        self.client = httpx.AsyncClient(base_url=self.url, timeout=60)

    async def step(self, id: str, prompt: str | None = None, **options) -> httpx.Response:
        body = {"sessionId": id} | ({} if prompt is None else {"userPrompt": prompt})
        return await self.client.post("/.netlify/functions/agent-step", json=body, **options)

    async def output(self, id: str, prompt: str, **options):
        told = await self.step(id, prompt, **options)
        assert told.status_code == 200, told.text
        return told.json()["output"]

    async def status(self, id: str) -> dict:
        return (await self.client.get(f"/api/runs/{id}", headers={"authorization": f"Bearer {SECRET}"})).json()

    async def log(self) -> str:
        return (await self.client.get("/platform/log")).text

    async def logged(self, words: str) -> None:
        """Wait until a function has written them."""
        await asyncio.to_thread(eventually, lambda: words in httpx.get(f"{self.url}/platform/log").text)

    def close(self) -> None:
        self.node.stdin.close()
        try:
            self.node.wait(10)
        finally:
            self.node.kill()
            self.node.stdout.close()


@contextmanager
def platform(site: Path, *arguments: str, **environ: str) -> Iterator[Platform]:
    one = Platform(site, *arguments, **environ)
    try:
        yield one
    finally:
        one.close()


def eventually(true: Callable[[], object], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"not in {seconds} s: {true}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether any thread of a process is left: the last one to go closes its sockets."""
    states = []
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        with suppress(OSError):  # it went while we looked
            states.append(stat.read_text().rsplit(")", 1)[1].split()[0])
    return any(s not in "ZX" for s in states)
