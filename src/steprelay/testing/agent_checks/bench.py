"""A run under test: its store, its outside, and the zygote that takes its steps."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ...core import codec
from ...core.model import Part, Run, RunKey, Signal, Step
from ...registry import load
from ...stores.sqlite import SQLiteStore
from .outside import Outside
from .zygote import Job

PATIENCE = 60.0
"""Seconds until what does not happen is taken for broken."""
LEASE = 0.3


class Zygote:
    """The process that forks; started once for a whole suite."""

    def __init__(self, target: str) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-m", "steprelay.testing.agent_checks.zygote", target]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.target = target
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the zygote ended; its error is above"
        return line

    async def start(self, job: Job) -> int:
        """Fork a process for a job; answers its pid."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(json.loads(await asyncio.to_thread(self._line))["pid"])

    async def end(self) -> dict[str, Any]:
        """Wait until that process is gone."""
        async with asyncio.timeout(PATIENCE):
            ended: dict[str, Any] = json.loads(await asyncio.to_thread(self._line))
        return ended

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=PATIENCE)
        self._process.stdout.close()


class Bench:
    """One run of one case."""

    def __init__(self, zygote: Zygote, folder: Path, case: str, **limits: Any) -> None:
        self.zygote, self.case, self.limits = zygote, case, limits
        self.path = str(folder / "runs.db")
        self.outside = Outside(folder / f"{case}.{time.monotonic_ns()}")
        self.key = RunKey("t", self.outside.path.name)
        self.store = SQLiteStore(self.path)
        self.view = load("agents", self.adapter).view

    @property
    def adapter(self) -> str:
        return str(import_module(self.zygote.target.partition(":")[0]).ADAPTER)

    def job(self, *, version: int = 1, dies: int = 0, fatal: str | None = None, steps: int = 1, lease: float = LEASE) -> Job:
        return Job(
            path=self.path, run=self.key.id, case=self.case, version=version, outside=str(self.outside.path), fatal=fatal,
            dies=dies, steps=steps, lease=lease, limits=self.limits,
        )  # fmt: skip

    async def process(self, **job: Any) -> dict[str, Any]:
        """One new process, to its end."""
        await self.zygote.start(self.job(**job))
        return await self.zygote.end()

    async def step(self, **job: Any) -> dict[str, Any]:
        """Processes until one has taken a step: a dead one's lease has to run out first."""
        until = time.monotonic() + PATIENCE
        while (done := await self.process(**job)).get("refused") in ("busy", "later"):
            assert time.monotonic() < until, done
        return done

    async def finish(self, **job: Any) -> Run:
        """Steps until the round is over, or waits for a person; each in a new process."""
        for _ in range(50):
            await self.step(**job)
            run = await self.row()
            if run.ended or run.status == "AWAITING_INPUT":
                return run
        raise AssertionError(f"no end in 50 steps: {await self.row()}")

    async def until(self, seen: Callable[[], Awaitable[Any]]) -> Any:
        """Look until there is something to see."""
        async with asyncio.timeout(PATIENCE):
            while not (found := await seen()):  # noqa: ASYNC110  - another process acts: there is no event to wait for
                await asyncio.sleep(0.01)
        return found

    async def row(self) -> Run:
        rows: list[Run] = await self.store.read(self.key, "run")
        return rows[0]

    async def steps(self) -> list[Step]:
        return await self.store.read(self.key, "steps", after=-1, limit=1000)

    async def parts(self) -> list[Part]:
        """The whole history as a reader sees it."""
        found: list[Part] = []
        for step in await self.steps():
            found += [p for m in step.messages for p in self.view(codec.loads(m))]
            found += codec.parts_from(step.parts)
        return found

    async def answer(self, id: str, payload: Any, status: str = "resolved") -> None:
        body = codec.dumps({"id": id, "status": status, "payload": payload})
        await self.store.signal(self.key, Signal(kind="answer", body=body, request_id=f"answer:{id}"))
