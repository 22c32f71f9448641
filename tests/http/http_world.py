"""One app over the memory store, with agents that are plain functions, asked through ASGI."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from steprelay.agents.function import FunctionAgent
from steprelay.core.model import Call, Interrupt, Refused, Reply, Result, Text, Thought, Usage
from steprelay.drivers.loop import Loop
from steprelay.engine import Engine
from steprelay.http.app import HttpSettings, build
from steprelay.http.auth import Auth
from steprelay.stores import memory

SECRET = "a secret that only these tests know"
ORIGIN = "http://localhost"


class World:
    """An app and what is behind it. `calls` counts how often an agent was asked."""

    def __init__(self, agents: Any, *, lease: float = 15.0, auth: Auth | None = None, **settings: Any) -> None:
        self.calls = 0
        self.woken: list[tuple[str, str]] = []
        self.walls: list[float | None] = []
        named = agents if isinstance(agents, dict) else {"agent": agents}
        self.store = settings.pop("store", None) or memory.MemoryStore()
        self.agents = {name: FunctionAgent(self.counted(f)) for name, f in named.items()}
        self.engine = Engine(self.store, self.agents, lambda _: FunctionAgent.view, lease=lease)
        self.auth = auth or Auth(SECRET)
        self.settings = HttpSettings(agents={name: "function" for name in named}, **settings)
        self.app = build(
            self.engine, Loop(self.engine), auth=self.auth, settings=self.settings, wake=self.wake, carry=self.carry, sweep=None
        )  # fmt: skip

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def agent(turn: Any, ctx: Any) -> Any:
            self.calls += 1
            reply = function(turn, ctx)
            return await reply if hasattr(reply, "__await__") else reply

        return agent

    async def wake(self, key: Any, carrier: str) -> None:
        self.woken.append((key.id, carrier))

    async def carry(self, key: Any, carrier: str, wall: float | None = None) -> None:
        self.walls.append(wall)
        await Loop(self.engine).carry(key, carrier=carrier, wall=wall)

    @asynccontextmanager
    async def browser(self, **headers: str):
        """A page of our own: same origin, keeps its cookies."""
        async with self.client({"origin": ORIGIN, **headers}) as client:
            yield client

    @asynccontextmanager
    async def server(self, **headers: str):
        """Somebody with the server key."""
        async with self.client({"authorization": f"Bearer {self.auth.server_key}", **headers}) as client:
            yield client

    @asynccontextmanager
    async def client(self, headers: dict[str, str] | None = None, base_url: str = ORIGIN):
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=base_url, headers=headers or {}) as client:
            yield client


class Clock:
    """The memory store's clock, which can be put forward."""

    def __init__(self, monkeypatch: Any) -> None:
        self.ahead = 0.0
        monkeypatch.setattr(memory, "_clock", self.read)

    def read(self, now: float | None) -> float:
        return time.time() + self.ahead if now is None else now

    def forward(self, seconds: float) -> None:
        self.ahead += seconds


def refusal(store: Any, monkeypatch: Any) -> asyncio.Future[str]:
    """Resolves with the reason of the next claim of a step that the store refuses."""
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    claim = store.claim

    async def watched(*args: Any, **kwargs: Any) -> Any:
        answer = await claim(*args, **kwargs)
        if isinstance(answer, Refused) and kwargs["lease"] and not told.done():
            told.set_result(answer.reason)
        return answer

    monkeypatch.setattr(store, "claim", watched)
    return told


async def founding(
    client: httpx.AsyncClient, session: str, prompt: str = "find out", path: str = "/api/agent-step"
) -> httpx.Response:
    """What the founding page sends: two fields, as text/plain."""
    return await client.post(path, content=json.dumps({"sessionId": session, "userPrompt": prompt}))


async def founding_loop(client: httpx.AsyncClient, session: str, at_most: int = 60) -> tuple[list[Any], httpx.Response]:
    """The founding page's loop: ask again on CONTINUE, end on COMPLETED, show what is not ok; anything else hangs it."""
    thoughts = []
    for _ in range(at_most):
        response = await founding(client, session)
        data = response.json()
        if response.status_code >= 400:
            return thoughts, response
        thoughts.append(data["data"]["currentThought"])
        if data["status"] == "COMPLETED":
            return thoughts, response
        assert data["status"] == "CONTINUE", "the founding page hangs"
    raise AssertionError(f"not done after {at_most} requests")


# ---------------------------------------------------------------- agents


def three_steps(turn: Any, ctx: Any) -> Any:
    """Thinks twice with a tool, then answers."""
    n = turn.step
    if turn.landing:
        return Reply(then="finish", output="landed")
    if n % 3 == 2:
        return Reply(then="finish", output=f"the answer to {turn.prompt}", parts=(Text(text="the answer"),))
    usage = Usage(requests=1, input_tokens=10, output_tokens=5)
    tools = (Call(id=f"c{n}", name="search", args={"q": n}), Result(id=f"c{n}", name="search", value=f"found {n}"))
    return Reply(parts=(Thought(text=f"Searching {n}"), *tools), usage=usage)


def never_ends(turn: Any, ctx: Any) -> Any:
    if turn.landing:
        return Reply(then="finish", output=f"summed up because of {turn.landing}")
    return Reply(parts=(Thought(text=f"still at it {turn.step}"),))


def fails(turn: Any, ctx: Any) -> Any:
    return Reply(then="fail", error="the source is gone")


def asks(turn: Any, ctx: Any) -> Any:
    """Asks one question and finishes with the answer."""
    for message in turn.inbox:
        return Reply(then="finish", output={"answer": message.body["payload"]})
    return Reply(then="ask", interrupts=(Interrupt(id=f"q{turn.step}", kind="question", prompt="Which town?"),))


def asks_twice(turn: Any, ctx: Any) -> Any:
    """Needs two approvals at once."""
    if turn.inbox:
        return Reply(then="finish", output={m.id: m.body["status"] for m in turn.inbox})
    both = tuple(Interrupt(id=i, kind="approval", prompt=f"May {i}?", payload={"call": i}) for i in ("a", "b"))
    return Reply(then="ask", interrupts=both)


def waits(seconds: float) -> Callable[..., Any]:
    def agent(turn: Any, ctx: Any) -> Any:
        return Reply(then="wait", after=seconds) if turn.step == 0 else Reply(then="finish", output="waited")

    return agent


def waits_for_event(turn: Any, ctx: Any) -> Any:
    for message in turn.inbox:
        return Reply(then="finish", output=message.body["payload"])
    return Reply(then="wait", needs=("payment",), reason="event")
