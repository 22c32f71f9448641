"""App: where everything is put together, once.

app = App(agent)            # an ASGI app: uvicorn agent:app, or mount it into yours
run = await app.start("task")
print(await app.result(run))
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from . import registry
from .config import VARIABLES, Settings, settings
from .core import codec
from .core.errors import AgentError, BadInput, ConfigError, StepRelayError
from .core.model import Again, Busy, Done, End, Limits, New, Part, RunKey, Signal, Value, Waiting
from .core.noun import replace
from .drivers import aws_lambda, hosts
from .drivers.gate import Gate, rules
from .drivers.function import FunctionWaker
from .drivers.leg import Leg, Orchestrator
from .drivers.loop import Loop
from .drivers.outbox import Outbox
from .drivers.sweep import Sweep
from .drivers.wake import HttpWaker, QStashWaker, TaskWaker, Wakers
from .http.auth import Auth, driver_secret
from .engine import FOREVER, Advanced, Engine
from .schedules import AGENT as CLOCKWORK, FOREVER as ENDLESS, Clockwork, Schedule
from .metrics import Metrics
from .ports import Agent, Store, Waker
from .watch import Live, Observer

SWEEP_EVERY = 10.0
"""Seconds between two sweeps of a process that lives on."""
LOOK_EVERY = 0.2
"""Seconds between two looks at a run that waits for its children, or that somebody else is at."""
_log = logging.getLogger("steprelay")


def log_line(event: dict[str, Value]) -> None:
    """The default observer: one JSON line a step on the logger `steprelay`."""
    _log.info(json.dumps({k: v for k, v in event.items() if v is not None}))


class App:
    """Agents, a store and the ways to drive them; an ASGI application."""

    def __init__(
        self, agent: Any, *, store: str | Store | None = None, limits: Limits | None = None, secret: str | None = None,
        public_url: str | None = None, anonymous_start: str | None = None, tenant: str = "default", auth: bool = True,
        deadline: float | None = None, lease: float | None = None, waker: Waker | None = None,
        schedules: Mapping[str, Schedule] | None = None, concurrency: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        observer: Observer | None = log_line, ui: bool = True, **http: Any,
    ) -> None:  # fmt: skip
        """`agent`: anything an adapter recognises, an (async) function, or a dict of them by name, the first being the
        default. `schedules`: what is started by the clock, by name. `concurrency`: how many runs with the same key may be at
        work at once, `{"key": "agent" | "tenant" | "label:NAME" | function(run), "limit": n}` or a list of such.
        `auth=False` is for loopback only. What else is given goes to HttpSettings (`cors`, `body_limit`, …). Raises
        ConfigError with the remedy.
        """
        given = {
            "store": store if isinstance(store, str) else None, "secret": secret, "public_url": public_url,
            "anonymous_start": anonymous_start, "deadline": deadline, "lease": lease,
        }  # fmt: skip
        self.settings: Settings = settings(given)
        self.tenant, self.auth, self.ui, self.http = tenant, auth, ui, http
        self.limits = limits or Limits()
        named = agent if isinstance(agent, Mapping) else {"agent": agent}
        if not named:
            raise ConfigError("App({}) has no agent; give at least one")
        self.adapters: dict[str, str] = {}
        self.agents: dict[str, Agent] = {}
        for name, user in named.items():
            self.adapters[name], self.agents[name] = adapt(name, user, self._event_url if self.settings.public_url else None)
        self.store: Store = store if store is not None and not isinstance(store, str) else open_store(self.settings.store)
        self.holder = f"{socket.gethostname()}:{os.getpid()}"
        self.metrics = Metrics(_traced(observer))
        self.clockwork = Clockwork(schedules or {}, salt=self.settings.secret or "")
        if unknown := [s.agent for s in (schedules or {}).values() if s.agent not in (None, *self.agents)]:
            raise ConfigError(f"a schedule starts {unknown[0]!r}; there are {', '.join(map(repr, self.agents))}")
        agents = {**self.agents, CLOCKWORK: registry.load("agents", "function")(self.clockwork.step)}
        gate = Gate(self.store, rules(concurrency), self.agents, lambda event: self.engine.observe(event))
        gated = cast(Store, gate) if gate.needed else self.store
        self.engine = Engine(gated, agents, self._view, lease=self.settings.lease, observer=self.metrics)
        self.wall = hosts.wall(os.environ, self.settings.deadline) or FOREVER
        self.loop = Loop(self.engine, wall=self.wall, holder=self.holder, takes_turns=gate.takes_turns)
        self.waker: Waker = waker or self._default_waker()
        self.wakers = Wakers(self.waker, {name: partial(self.orchestrator, name) for name in self._orchestrators()})
        signs = self.settings.secret and driver_secret(self.settings.secret)
        self.outbox = Outbox(self.engine, self.wakers, new=self._child, secret=signs)
        self.sweeper = Sweep(self.engine, self.waker.wake, self.outbox.deliver)
        self._asgi: Any = None
        self._made: dict[str, Orchestrator] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._started = False

    # ------------------------------------------------------------ in code

    async def start(
        self, prompt: Value, *, agent: str | None = None, id: str | None = None, limits: Limits | None = None,
        carrier: str = "any", labels: Mapping[str, str] | None = None, notify_url: str | None = None,
    ) -> str:  # fmt: skip
        """Create a run and answer its id; an id that is there already is left as it is. Nothing is run yet: `parts` or
        `result` drive it from here, `carrier="background"` from a task of this process."""
        new = self.new(prompt, agent=agent, limits=limits, carrier=carrier, labels=labels, notify_url=notify_url)
        key = RunKey(self.tenant, id or uuid4().hex)
        await self.store.claim(key, claim_id=uuid4().hex, holder="", lease=0, carrier=None, new=new)
        if carrier in self.wakers.carriers:
            await self.wakers.wake(key, carrier)
        return key.id

    def new(
        self, prompt: Value, *, agent: str | None = None, limits: Limits | None = None, carrier: str = "client",
        takeover_after: float | None = None, labels: Mapping[str, str] | None = None, **fields: Any,
    ) -> New:  # fmt: skip
        """What a run of one of this app's agents is made of. Raises BadInput for an unknown agent."""
        name = agent or next(iter(self.agents))
        if name not in self.agents:
            raise BadInput(f"there is no agent {name!r}; there are {', '.join(map(repr, self.agents))}")
        after = self.settings.lease if carrier in self.wakers.carriers and takeover_after is None else takeover_after
        return New(
            agent=name, adapter=self.adapters[name], prompt=codec.dumps(prompt), limits=codec.pack(limits or self.limits),
            carrier=carrier, takeover_after=after, labels=codec.dumps(dict(labels or {})), **fields,
        )  # fmt: skip

    def _child(self, start: dict[str, Value], **fields: Any) -> New:
        """A run that another one starts. An agent that nobody knows is told by its first step: so the parent hears of it."""
        limits = codec.build(Limits, codec.plain(self.limits) | start["limits"])
        new = self.new(start["prompt"], limits=limits, carrier="background", labels=start["labels"], **fields)
        agent = start["agent"] or new.agent
        return replace(new, agent=agent, adapter=self.adapters.get(agent, "function"))

    def _event_url(self, key: RunKey, name: str, signed: bool) -> tuple[str, str]:
        """Where the outside delivers an event, and what its sender signs with."""
        token = self.rights.event_token(key, name, signed=signed)
        return f"{(self.settings.public_url or '').rstrip('/')}/api/events/{token}", self.rights.event_secret(token)

    async def parts(self, run: str) -> AsyncIterator[Part]:
        """Drive a run from here and answer its parts as they are committed, to the end of the round or a question. Words
        come live as deltas as well, before they come once and whole."""
        queue: asyncio.Queue[Live | None] = asyncio.Queue()
        task = asyncio.create_task(self._drive(RunKey(self.tenant, run), queue))
        try:
            while (live := await queue.get()) is not None:
                yield live.part
            await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, StepRelayError):
                await task

    async def result(self, run: str) -> Value:
        """Drive a run to the end of its round and answer its output. Raises AgentError when it failed, was cancelled or
        waits for a person."""
        key = RunKey(self.tenant, run)
        await self._drive(key, None)
        rows = await self.store.read(key, "run")
        newest = await self.store.read(key, "steps", after=rows[0].step - 2, limit=1)
        end = next((p for s in newest for p in codec.parts_from(s.parts) if isinstance(p, End)), None)
        if end is not None and end.status == "COMPLETED":
            return end.output
        why = end.error.message if end and end.error else f"it is {rows[0].status} ({rows[0].stop_reason})"
        raise AgentError(f"run {run!r} has no result: {why}", final=True)

    async def carry(self, key: RunKey, carrier: str, wall: float | None = None) -> Advanced:
        """Carry a run in this process for as long as it lives; `wall`: seconds, when that is known better."""
        wall = await self.waker.wall(wall) if isinstance(self.waker, FunctionWaker) else wall
        advanced = await self.loop.carry(key, carrier=carrier, wall=wall, waker=self.waker)
        if advanced.outgoing:
            await self.outbox.deliver(key)
        return advanced

    async def _drive(self, key: RunKey, queue: asyncio.Queue[Live | None] | None) -> None:
        """Pulse until the round ends or waits for a person; steps that others take are shown as well."""
        shown = -1

        def listen(live: Live) -> None:
            if queue is not None and (live.committed or getattr(live.part, "delta", False)):
                queue.put_nowait(live)

        try:
            while True:
                advanced = await self.loop.carry(key, carrier="process", patient=False, listen=listen)
                if advanced.outgoing:
                    await self.outbox.deliver(key)
                if advanced.run is None:
                    raise BadInput(f"there is no run {key.id!r}")
                if queue is not None:
                    mine = {s.index for s in advanced.taken}
                    for step in await self.store.read(key, "steps", after=shown):
                        if step.index not in mine:
                            self.engine.tell(advanced.run, step, listen)
                shown = advanced.run.step - 1
                match advanced.outcome:
                    case Waiting() if advanced.run.stop_reason == "child":  # carried by the waker; their news are on the way
                        await asyncio.sleep(LOOK_EVERY)
                    case Done() | Waiting() | None:
                        return
                    case Busy(until=until):
                        await asyncio.sleep(max(0.01, min(LOOK_EVERY, (until or 0) - advanced.now)))
                    case Again(after=after):
                        await asyncio.sleep(after)
        finally:
            if queue is not None:
                queue.put_nowait(None)

    # ------------------------------------------------------------ as a server

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if not self._started:  # mounted into another app, whose lifespan does not reach us
            await self.startup()
        name = scope["path"].removeprefix("/api/").partition("/")[0]
        if name in self._orchestrators() and scope["path"].startswith("/api/"):
            await self._called(name, scope, receive, send)
        else:
            await self.asgi(scope, receive, send)

    async def _called(self, name: str, scope: Any, receive: Any, send: Any) -> None:
        """A durable engine calls: its endpoint answers, below our own mount path."""
        mount, app = f"/api/{name}", self.orchestrator(name).endpoint or self.asgi
        if app is not self.asgi:
            below = scope["path"].removeprefix(mount) or "/"
            scope = scope | {"path": below, "raw_path": below.encode(), "root_path": scope.get("root_path", "") + mount}
        await app(scope, receive, send)

    @property
    def asgi(self) -> Any:
        """The HTTP application, built when it is first asked for."""
        if self._asgi is None:
            self._asgi = self._http()
        return self._asgi

    @cached_property
    def rights(self) -> Auth:
        """What signs and checks tokens. Raises ConfigError."""
        s = self.settings
        return Auth(s.secret, previous=[s.previous_secret] if s.previous_secret else [], off=not self.auth)

    def _http(self) -> Any:
        from .http.app import HttpSettings, build

        s = self.settings
        http = HttpSettings(
            agents=self.adapters, tenant=self.tenant, limits=self.limits, wall=self.wall, deadline=s.deadline or FOREVER, public_url=s.public_url,
            anonymous_start=s.anonymous_start, ui=Path(__file__).parent / "ui" if self.ui else None, **self.http,
        )  # fmt: skip
        return build(
            self.engine, self.loop, auth=self.rights, settings=http, wake=self.wakers.wake, carriers=self.wakers.carriers, carry=self.carry, sweep=self.sweeper.once,
            deliver=self.outbox.deliver, metrics=self.metrics.text,
        )  # fmt: skip

    async def startup(self) -> None:
        """Look at the settings, pick up what a dead predecessor left, and keep sweeping while this process lives on. Raises
        ConfigError."""
        _ = self.asgi  # a setting that is wrong is told now, not to the first visitor
        if isinstance(self.waker, TaskWaker):  # a server, which has time to load the SDKs of its engines
            for name in self._orchestrators():
                self.orchestrator(name)
        self._started = True
        if isinstance(self.waker, TaskWaker):
            self._background(self.sweeper.every(SWEEP_EVERY))
        if self.clockwork.runs:
            self._background(self._planned())

    async def plan(self) -> None:
        """Create the runs of the schedules. One that ended by itself goes on; one that was cancelled is left so."""
        for id, name in self.clockwork.runs.items():
            key = RunKey(self.tenant, id)
            new = New(
                agent=CLOCKWORK, adapter="function", prompt=codec.dumps(name), limits=codec.pack(ENDLESS), carrier="background",
                takeover_after=self.settings.lease, labels=codec.dumps({"schedule": name}),
            )  # fmt: skip
            told = await self.store.claim(key, claim_id=uuid4().hex, holder="", lease=0, carrier=None, new=new)
            if told.run is not None and told.run.ended and told.run.status != "CANCELLED":
                await self.store.signal(key, Signal(kind="resume", reopens=True))
            await self.waker.wake(key, "background")

    async def _planned(self) -> None:
        """`plan`, repeated until the store and the waker are there."""
        while True:
            try:
                return await self.plan()
            except StepRelayError as e:
                self.engine.observe({"event": "plan_failed", "why": str(e)})
                await asyncio.sleep(SWEEP_EVERY)

    async def shutdown(self) -> None:
        """Hand back every run under way and close the store."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._asgi is not None:
            await self._asgi.state.api.close()
        if isinstance(self.waker, TaskWaker):
            await self.waker.close()
        for engine in self._made.values():
            await engine.close()
        await self.store.close()
        self._started = False

    async def _lifespan(self, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.startup()
                except StepRelayError as e:
                    await send({"type": "lifespan.startup.failed", "message": str(e)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.shutdown()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _default_waker(self) -> Waker:
        s = self.settings
        if s.public_url and s.secret and s.qstash_token:
            return QStashWaker(s.public_url, driver_secret(s.secret), s.qstash_token, api=s.qstash_url)
        host = hosts.here(os.environ)
        if s.secret and (function := s.lambda_function or (host.function(os.environ) if aws_lambda.available() else None)):
            return aws_lambda.LambdaWaker(function, driver_secret(s.secret))
        if s.public_url and s.secret and host.carries_at and host.request:
            signs = driver_secret(s.secret)
            return FunctionWaker(s.public_url, signs, path=host.carries_at, engine=self.engine, request=host.request)
        if s.public_url and s.secret and (s.deadline or host is not hosts.SERVER):
            return HttpWaker(s.public_url, driver_secret(s.secret))
        return TaskWaker(self.carry)

    def _orchestrators(self) -> dict[str, str]:
        """The durable engines that are set up here, and where they are."""
        return {name: url for name in registry.DRIVERS if (url := getattr(self.settings, name))}

    def orchestrator(self, name: str) -> Orchestrator:
        """A durable engine that is set up here, as a driver. Raises ConfigError."""
        if name not in (set_up := self._orchestrators()):
            raise ConfigError(f"{name} is not set up: set {VARIABLES.get(name, (name,))[0]} to where it is")
        if name not in self._made:
            made: Orchestrator = registry.load("drivers", name)(set_up[name], Leg(self.loop, self.outbox.deliver, self.tenant))
            self._made[name] = made
        return self._made[name]

    def _view(self, adapter: str) -> Any:
        kind, _, name = adapter.partition(":")
        return self.agents[name].view if kind == "app" else registry.load("agents", adapter).view


def _traced(observer: Observer | None) -> Observer | None:
    """The observer, with traces when the environment asks for them."""
    if os.environ.get("STEPRELAY_OTEL") != "1":
        return observer
    from .telemetry import observer as tracing

    return tracing(next=observer)


def adapt(name: str, user: Any, event_url: Any = None) -> tuple[str, Agent]:
    """The adapter name and the adapter of what a user calls an agent. Recognised by where its class lives, so that no
    framework is imported to look. `event_url`: see agents.function. Raises ConfigError."""
    if hasattr(user, "step") and hasattr(user, "view") and hasattr(user, "granularity"):
        return f"app:{name}", user
    for cls in type(user).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in registry.AGENTS:
            return package, registry.load("agents", package)(user)
    if callable(user):
        return "function", registry.load("agents", "function")(user, event_url)
    raise ConfigError(
        f"{name!r} is {type(user).__module__}.{type(user).__qualname__}, which no adapter knows; give a function (turn, ctx) or "
        f"an agent of {', '.join(a for a in registry.AGENTS if a != 'function')}"
    )


def open_store(url: str) -> Store:
    """The store a URL names. Raises ConfigError."""
    kind = url.split(":", 1)[0] if ":" in url else "sqlite"
    store: Store = registry.load("stores", kind)(url)
    return store


__all__ = ["App", "adapt", "log_line", "open_store"]
