"""What the driver suite plays on: a real engine, a real store, and a process of ours that serves one with the other."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

import httpx

from ..app import App
from ..core import codec
from ..core.model import Run, RunKey, Step
from .driver_subject import WITNESS, build
from .engines import EngineServer
from .servers import Server

TARGET = "steprelay.testing.driver_subject:app"
LEASE = 2.0
"""Seconds: what a killed process costs its run."""
NEVER = 3600.0
PATIENCE = 30.0
"""Seconds after which something that should happen has not."""


class Process(Server):
    """A command of ours in a process of its own, to be killed. `ready`: what it prints once it works."""

    def __init__(self, env: dict[str, str], *command: str, ready: str) -> None:
        super().__init__(f"serve-{command[0]}", lend=False)
        self.env, self._command, self._ready, self._times = dict(env), command, ready, 0

    def start(self) -> Process:
        self._times = self._printed() + 1
        main = "import sys; from steprelay.cli import main; main(sys.argv[1:])"
        self._spawn(sys.executable, "-c", main, *self._command, dying="KILL", env=self.env)
        return self

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def _printed(self) -> int:
        return self.log().count(self._ready) if (self.folder / "log").exists() else 0

    def _answers(self) -> bool:
        return self._printed() >= self._times

    def stop(self) -> None:
        self.kill(signal.SIGKILL)
        super().stop()


class Served(Process):
    """`steprelay serve ENGINE`. It comes back at the same address."""

    def __init__(self, engine: str, env: dict[str, str], target: str = TARGET) -> None:
        super().__init__(env, "serve", engine, target, ready="steprelay serves")
        if engine != "temporal":
            self._command += ("--port", str(self.port))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Called:
    """One line of the witness: the agent began a step, or was done with it."""

    step: int
    attempt: int
    pid: int
    what: str


class Site:
    """An engine, a store and one process that serves. `env`: all that a process of ours needs."""

    def __init__(self, engine: EngineServer, store: str, folder: Path, *, target: str = TARGET, lease: float = LEASE) -> None:
        self.engine, self.name = engine, engine.name
        self.witness = folder / "witness"
        self.witness.touch()
        self.env = {
            "STEPRELAY_STORE": store, "STEPRELAY_LEASE": f"{lease}", WITNESS: str(self.witness), "PYTHONUNBUFFERED": "1",
            **engine.env,
        }  # fmt: skip
        self.served = Served(self.name, self.env, target)

    def called(self, run: str) -> list[Called]:
        """What the witness saw of a run, in order."""
        lines = (line.split() for line in self.witness.read_text().splitlines())
        return [Called(step=int(s), attempt=int(a), pid=int(p), what=w) for r, s, a, p, w in lines if r == run]

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """An app on the same store in this process, for one test: to start, to signal, to look."""
        with patch.dict(os.environ, self.env):
            app = build(auth=False, observer=None)
            try:
                transport = httpx.ASGITransport(app.asgi)
                async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                    yield Stage(self, app, http)
            finally:
                await app.shutdown()

    async def migrate(self) -> None:
        async with self.stage() as stage:
            await stage.app.store.migrate()

    def close(self) -> None:
        self.served.stop()


class Stage:
    """Our hands on one site."""

    def __init__(self, site: Site, app: App, http: httpx.AsyncClient) -> None:
        self.site, self.app, self.http, self.name = site, app, http, site.name

    async def start(self, run: str, carrier: str | None = None, **plan: Any) -> None:
        """Create a run that does as its plan says, for the engine unless another carrier is named. Nobody may take it over:
        what dies has to come back by itself."""
        carrier = carrier or self.name
        key, new = RunKey("default", run), self.app.new(plan, carrier=carrier, takeover_after=NEVER)
        await self.app.store.claim(key, claim_id=run, holder="", lease=0, carrier=None, new=new)
        if carrier in self.app.wakers.carriers:
            await self.app.wakers.wake(key, carrier)

    async def post(self, run: str, what: str, body: Any = None) -> Any:
        """Through HTTP, as a client would. Raises for what a user would see as an error."""
        answer = await self.http.post(f"/api/runs/{quote(run, safe='')}/{what}", json=body)
        answer.raise_for_status()
        return answer.json()

    async def hand_over(self, run: str, carrier: str) -> None:
        await self.post(run, "hand-over", {"carrier": carrier, "takeoverAfter": NEVER})

    async def pulse(self, run: str) -> Any:
        """One step by the client; the answer."""
        answer = await self.http.post("/api/agent-step", json={"sessionId": run, "expectedStep": (await self.run(run)).step})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    async def run(self, run: str) -> Run:
        row: Run = (await self.app.store.read(RunKey("default", run), "run"))[0]
        return row

    async def steps(self, run: str) -> list[Step]:
        return await self.app.store.read(RunKey("default", run), "steps", limit=10_000)

    async def until(self, true: Callable[[], Awaitable[object] | object], what: str, seconds: float = PATIENCE) -> None:
        """Look until it is true. Raises AssertionError with `what` when it does not come true."""
        end = time.monotonic() + seconds
        while True:
            answer = true()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            assert time.monotonic() < end, f"{what}: not within {seconds:g} s"
            await asyncio.sleep(0.02)

    async def until_run(self, run: str, true: Callable[[Run], bool], what: str, seconds: float = PATIENCE) -> None:
        """Look at a run's row until it is true. Raises AssertionError that shows the row."""
        end = time.monotonic() + seconds
        while not true(row := await self.run(run)):
            seen = {**row.__dict__, "prompt": "…", "now": time.time()}
            assert time.monotonic() < end, f"{run} {what}: not within {seconds:g} s; it is {seen}"
            await asyncio.sleep(0.02)

    async def until_status(self, run: str, status: str, seconds: float = PATIENCE) -> None:
        await self.until_run(run, lambda row: row.status == status, f"is {status}", seconds)

    async def until_step(self, run: str, step: int, seconds: float = PATIENCE) -> None:
        """So many steps are committed."""
        await self.until_run(run, lambda row: row.step >= step, f"has {step} steps", seconds)

    async def until_begun(self, run: str, step: int, seconds: float = PATIENCE) -> None:
        """The agent is in this step."""

        def begun(row: Run) -> bool:
            assert not row.ended, f"{run} is {row.status} ({row.stop_reason}) at step {row.step}"
            return any(c.step == step for c in self.site.called(run))

        await self.until_run(run, begun, f"has begun step {step}", seconds)

    async def whole(self, run: str, steps: int, *carriers: str) -> None:
        """Steps 0 to n, none lost, none doubled: in the store, and seen from outside. `carriers`: who took them, each named
        once for all that it took in a row."""
        rows = await self.steps(run)
        assert [s.index for s in rows] == list(range(steps))
        said = [m for s in rows for m in map(codec.loads, s.messages)]
        assert [m["step"] for m in said if "step" in m] == list(range(steps))
        done = Counter(c.step for c in self.site.called(run) if c.what == "done")
        assert done == Counter(range(steps)), f"done more than once, or not: {done - Counter(range(steps))}"
        took = [s.carrier for s in rows]
        assert [c for n, c in enumerate(took) if n == 0 or took[n - 1] != c] == list(carriers)
