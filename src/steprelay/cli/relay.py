"""The driver of `steprelay demo`: pulses by HTTP, does the mischief on the way, and counts what came of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ..core.errors import StepRelayError, StoreUnavailable
from .show import Feed, from_wire, many, track
from .witness import Evidence, read

if TYPE_CHECKING:
    from rich.console import Console

    from ..deploy.asgi import Supervisor

KILL_FROM, LOSE_FROM = 3, 6
"""The first step in which the server is killed, and the first whose answer is thrown away."""
PATIENCE = 120.0
"""Seconds after which the demo gives up on its run."""
PAUSE = 0.2
"""Seconds before a request that came to nothing is repeated."""


@dataclass
class Relay:
    """The driver of the demo: pulses by HTTP, one request for one step, and does the mischief on the way."""

    console: Console
    supervisor: Supervisor
    witness: Path
    root: Path
    id: str = ""
    told: dict[int, str] = field(default_factory=dict)
    """What the server answered for each step: it must still be so in the end."""
    killed: int = 0
    replays: int = 0
    away: bool = False
    """Whether the store was away when it was last asked for something."""

    async def go(self, question: str, shown: bool) -> bool:
        """From the question to the counted line; whether nothing was lost, doubled or asked twice."""
        self._feed = Feed(self.console, deaths=False)
        self._say(question, "bold")
        async with httpx.AsyncClient(base_url=f"{self.supervisor.url}/api/", timeout=60) as http:
            self._http = http
            pid = await self._up()
            run = await self._ask("POST", "runs", {"userPrompt": question, "agent": "demo"})
            self.id = run["sessionId"]
            self._say(f"server process {pid} at {self.supervisor.url} · {self.root}\n", "bright_black")
            if shown:
                import webbrowser

                webbrowser.open(f"{self.supervisor.url}/#/runs/{self.id}?watch")
            try:
                with self.console.status("…"):
                    async with asyncio.timeout(PATIENCE):
                        end = await self._drive()
                        steps = await self._steps()
            except TimeoutError:
                raise StepRelayError(
                    f"the run did not end within {PATIENCE:.0f} s; what it has: steprelay runs --url {self.supervisor.url} show {self.id}"
                ) from None
            return self._sum_up(end, steps)

    async def _drive(self) -> dict[str, Any]:
        """One request after another until the run says that it is done."""
        answer = None
        while answer is None or not answer["isTerminal"]:
            step = len(self.told)
            try:
                if step >= KILL_FROM and not self.killed:
                    await self._kill_in(step)
                else:
                    if step >= LOSE_FROM and not self.replays:
                        await self._lose(step)
                    answer = await self._pulse(step)
            except StoreUnavailable:
                await self._wait_for_store()
            await self._show()
        return answer

    async def _pulse(self, step: int) -> dict[str, Any] | None:
        """Ask for one step; None: not now, ask again."""
        try:
            response = await self._http.post(f"runs/{self.id}/step", json={"expectedStep": step})
        except httpx.TransportError:
            await asyncio.sleep(PAUSE)
            return None
        if response.headers.get("idempotent-replayed") == "true":
            self.replays += 1
            self._say(
                f"  ↺  The answer to step {step} was thrown away unread. The same request again: Idempotent-Replayed: true,",
                "yellow",
            )
            self._say("     the stored step, no second model call.", "yellow")
        if response.status_code == 202:
            await asyncio.sleep(min(1.0, float(response.headers.get("retry-after", 1))))
            return None
        if response.status_code == 409:  # the step is taken: the rows say so
            return None
        await _good(response)
        answer: dict[str, Any] = response.json()
        return answer

    async def _kill_in(self, step: int) -> None:
        """Kill the server when the step can be heard. If it is done before that, it is one step like the others."""
        pid = 0
        try:
            async with self._stream(step, "text/event-stream") as response:
                async for line in response.aiter_lines():
                    if not pid and self._under_way(line):
                        pid = await asyncio.to_thread(self.supervisor.kill)
        except httpx.TransportError:
            if not pid:
                raise
        if pid:
            self.supervisor.start()
            self._killed(pid, step, await self._up(), await self._steps(step - 1))

    def _under_way(self, line: str) -> bool:
        """Whether a line of the stream comes from the middle of a step: from its tools, the first time. They may be too
        quick for a signal; then words are waited for, which a model takes its time over."""
        if not line.startswith("data:"):
            return False
        said = json.loads(line.removeprefix("data:"))
        part = said.get("part", {})
        return "part" in said and not said["committed"] and (not self.supervisor.deaths or part.get("delta") is True)

    def _killed(self, pid: int, step: int, successor: int, committed: list[Any]) -> None:
        if committed:
            self._say(f"  ✗  kill -9: server process {pid} died after step {step} was committed, before it could answer.", "red")
            self._say(f"     Process {successor} takes its place; the step is there. Once more, in the middle of one:", "red")
            return
        self.killed = pid
        self._say(f"  ✗  kill -9: server process {pid} died in the middle of step {step}.", "red")
        self._say(
            f"     Process {successor} takes its place. When the dead one's lease is over, step {step} is taken again.", "red"
        )

    async def _lose(self, step: int) -> None:
        """Ask for a step and hang up when its answer begins: the step is committed, and nobody has read it."""
        async with self._stream(step, "application/json"):
            pass

    @asynccontextmanager
    async def _stream(self, step: int, accept: str) -> AsyncIterator[httpx.Response]:
        """The answer to a request for a step, at its headers."""
        asked, headers = {"expectedStep": step}, {"accept": accept}
        async with self._http.stream("POST", f"runs/{self.id}/step", json=asked, headers=headers) as response:
            await _good(response)
            yield response

    async def _show(self) -> None:
        """Print the steps that are there now and were not before."""
        for step in await self._steps(len(self.told) - 1):
            self.told[step["index"]] = step["claimId"]
            self._feed.tell(from_wire(step))

    async def _steps(self, after: int = -1) -> list[dict[str, Any]]:
        """The run's steps after one, once the store is there."""
        while True:
            try:
                found = await self._ask("GET", f"runs/{self.id}/steps?after={after}&limit=200")
            except StoreUnavailable:
                await self._wait_for_store()
            else:
                self.away = False
                return list(found["steps"])

    async def _wait_for_store(self) -> None:
        """A moment; said once for each time that it is away."""
        if not self.away:
            self._say("  ◌  The database does not answer. The same request again, until it does.", "yellow")
        self.away = True
        await asyncio.sleep(PAUSE)

    def _sum_up(self, end: dict[str, Any], steps: list[dict[str, Any]]) -> bool:
        count = Count.of(steps, self.told, read(self.witness, self.id), self.replays)
        self.console.print()
        self.console.print(str(end["output"] or end["error"]), markup=False)
        self.console.print()
        self.console.print(
            track([from_wire(s) for s in steps], width=min(110, self.console.width), names={"client": "This terminal"})
        )
        self.console.print()
        self._say(str(count), "bold green" if count.clean else "bold red")
        return count.clean and end["status"] == "COMPLETED"

    async def _up(self) -> int:
        """Wait until a server process answers; its pid. Raises StepRelayError if it ends instead: it has said why."""
        asking = asyncio.create_task(self._ask("GET", "demo"))
        while not asking.done():
            await asyncio.wait({asking}, timeout=0.1)
            child = self.supervisor.child
            if child is not None and child.poll() is not None:
                asking.cancel()
                raise StepRelayError("the demo's server did not start; what it said is above")
        return int((await asking)["pid"])

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        response = await self._http.request(method, path, json=body)
        await _good(response)
        return response.json()

    def _say(self, line: str, style: str) -> None:
        self.console.print(line, style=style, markup=False, soft_wrap=True)


async def _good(response: httpx.Response) -> None:
    """Raises StepRelayError with the server's words when it could not do what was asked; StoreUnavailable: for now."""
    if response.is_error:
        kind = StoreUnavailable if response.status_code == 503 else StepRelayError
        raise kind(f"the server answered {response.status_code}: {(await response.aread()).decode()[:300]}")


@dataclass(frozen=True, kw_only=True)
class Count:
    """The last line. Every number is counted: from the run's rows, from what the driver was told, and from the witness."""

    steps: int
    deaths: int
    answers: int
    lost: int
    doubled: int
    again: int

    @classmethod
    def of(cls, rows: list[dict[str, Any]], told: dict[int, str], seen: Evidence, replays: int) -> Count:
        """`lost`: steps that were told or committed and are not, or not as they were, among the rows. `doubled`: steps
        committed more than once. `again`: answers of the model that no row has: it was asked twice for them."""
        there = {row["index"]: row["claimId"] for row in rows}
        gone = {i for i, claim in told.items() if there.get(i) != claim} | (seen.commits.keys() - there.keys())
        gaps = set(range(len(there))) - there.keys()
        return cls(
            steps=len(there),
            deaths=sum(row["attempt"] - 1 for row in rows),
            answers=replays,
            lost=len(gone | gaps),
            doubled=sum(n - 1 for n in seen.commits.values()) + len(rows) - len(there),
            again=max(0, seen.answers - sum(row["usage"]["requests"] for row in rows)),
        )

    @property
    def clean(self) -> bool:
        """What was promised was kept, and put to the test at all."""
        return self.lost + self.doubled + self.again == 0 and self.deaths > 0 and self.answers > 0

    def __str__(self) -> str:
        what = f"{many(self.steps, 'step')}, {many(self.deaths, 'death')}, {many(self.answers, 'lost answer')}"
        return f"{what}: {self.lost} lost, {self.doubled} doubled, {many(self.again, 'second model call')}"
