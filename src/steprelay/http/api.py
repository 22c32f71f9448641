"""What every route works with: the app's parts, one call, and the way from a request to an answer.

A route is one `Endpoint`; the handler gets a `Call` whose body has been checked and whose sender is known, and answers
an `Answer` or raises a `Problem`. OpenAPI is made from the same list.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import uuid4

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..core.model import Limits, Part, Refused, Run, RunKey, Step
from ..drivers.leg import ENGINES
from ..drivers.loop import Loop
from ..engine import FOREVER, Engine
from . import wire
from .auth import Action, Auth, Who, same_origin
from .problem import Problem, absent, translated

T = TypeVar("T")
_log = logging.getLogger("steprelay")
WEBHOOK_PATIENCE = 2.0
"""Seconds an answer waits for webhooks."""
_OWNERS = 10_000
"""Owners of runs kept in memory: they never change."""


@dataclass(frozen=True, kw_only=True)
class HttpSettings:
    """`agents`: adapter by agent name, the first is the default. `wall`: seconds a request may live here, unless
    the host says so for each (`x-steprelay-wall-ms`, taken from drivers; from everybody with `wall_header`, which needs a
    proxy in front that overwrites it); `deadline` caps both. `hold`: seconds a
    founding request is held at most. `starts_a_minute`, `usd_a_day`: for anonymous starts, by address; the money is that of
    the runs' limits. `address_header`: where a proxy that can be trusted puts the client's address. `ui`: the built page."""

    agents: Mapping[str, str]
    tenant: str = "default"
    limits: Limits = field(default_factory=Limits)
    wall: float = FOREVER
    wall_header: bool = False
    deadline: float = FOREVER
    body_limit: int = 1_000_000
    hold: float = 20.0
    anonymous_start: Literal["deny", "same-origin", "allow"] = "deny"
    starts_a_minute: int = 20
    usd_a_day: float | None = None
    address_header: str | None = None
    public_url: str | None = None
    token_seconds: float = 3600.0
    cors: tuple[str, ...] = ()
    ui: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A JSON answer. `stream` instead of `body`: a response that is already made."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Response | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route. `body`, `answer`: names of shapes; `rights`: who may, in words; `open`: nobody is asked who they are."""

    method: Literal["GET", "POST"]
    path: str
    handler: Callable[[Call], Awaitable[Answer]]
    summary: str
    answer: str
    rights: str
    body: str | None = None
    status: int = 200
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: bool = False
    media: str = "application/json"
    open: bool = False


@dataclass(frozen=True, kw_only=True)
class Api:
    """The app as its routes see it."""

    engine: Engine
    loop: Loop
    auth: Auth
    settings: HttpSettings
    endpoints: Sequence[Endpoint] = ()
    wake: Callable[[RunKey, str], Awaitable[object]] | None = None
    carriers: Sequence[str] = ("background",)
    carry: Callable[[RunKey, str, float], Awaitable[object]] | None = None
    sweep: Callable[[], Awaitable[Any]] | None = None
    deliver: Callable[[RunKey], Awaitable[object]] | None = None
    metrics: Callable[[], tuple[bytes, str]] | None = None
    tasks: set[asyncio.Future[Any]] = field(default_factory=set)
    owners: dict[RunKey, str | None] = field(default_factory=dict)

    async def look(self, key: RunKey) -> Refused:
        """The run, its newest step and the store's clock, in one round trip. Raises Problem 404."""
        seen = await self.engine.store.claim(key, claim_id=uuid4().hex, holder="", lease=0, carrier=None)
        if not isinstance(seen, Refused) or seen.run is None:
            raise absent()
        self.know(seen.run)
        return seen

    async def owner(self, key: RunKey) -> str | None:
        """Whose run it is. Raises Problem 404."""
        if key not in self.owners:
            await self.look(key)
        return self.owners[key]

    def know(self, run: Run) -> None:
        while len(self.owners) >= _OWNERS:
            self.owners.pop(next(iter(self.owners)))
        self.owners[run.key] = run.owner

    def parts(self, run: Run, step: Step | None) -> tuple[Part, ...]:
        return () if step is None else self.engine.parts(run.adapter, step)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Work that outlives its request: a closed connection does not cancel it."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, Problem):
            _log.debug("a request's work ended with %s", type(error).__name__)

    async def close(self) -> None:
        """End what is still under way; each hands its run back."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send_outbox(self, key: RunKey) -> None:
        """Send what a step put into the run's outbox. What takes longer goes on by itself, or with the sweeper."""
        if self.deliver is not None:
            work = self.spawn(_awaited(self.deliver(key)))
            await asyncio.wait({work}, timeout=WEBHOOK_PATIENCE)

    def silence(self, carrier: str, given: float | None) -> float | None:
        """Seconds of silence after which others may take over from a carrier; those that come when woken may be dead.

        Raises Problem 400 for an engine that nobody has set up: the run would wait for it for ever.
        """
        if carrier in ENGINES and carrier not in self.carriers:
            remedy = f"Set STEPRELAY_{carrier.upper()} to where it is; here runs are carried by {', '.join(self.carriers)}."
            raise Problem(400, "unknown_carrier", f"{carrier} is not set up on this server. {remedy}", path="$.carrier")
        return self.engine.lease if given is None and carrier in self.carriers else given

    async def part_from(self, key: RunKey, carrier: str) -> None:
        """Tell an engine that a run which it may be waiting for has ended, or is another's now."""
        if carrier in ENGINES:
            await self.call(key, carrier)

    async def call(self, key: RunKey, carrier: str) -> None:
        """Call the run's carrier, if it is one that comes when woken. A wake that fails is made good by the sweeper."""
        if carrier in self.carriers and self.wake is not None:
            try:
                await self.wake(key, carrier)
            except Exception as e:
                _log.warning("run %s could not be woken, the sweeper will find it: %s", key.id, type(e).__name__)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


@dataclass(kw_only=True, slots=True)
class Call:
    """One request: its checked body, who sent it, and when by the loop's clock. `cookie` is set on the way out."""

    api: Api
    request: Request
    who: Who
    raw: bytes
    began: float
    body: Any = None
    cookie: str | None = None

    @property
    def key(self) -> RunKey:
        """The run named in the path."""
        return self.named(self.request.path_params["id"])

    def named(self, id: str) -> RunKey:
        return RunKey(self.api.settings.tenant, id)

    def header(self, name: str) -> str | None:
        return self.request.headers.get(name)

    def query(self, name: str, default: str | None = None) -> str | None:
        return self.request.query_params.get(name, default)

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number of the query, kept between its bounds. Raises Problem 400."""
        text = self.query(name)
        if text is None:
            return default
        try:
            return max(low, min(high, int(text)))
        except ValueError:
            raise Problem(400, "bad_input", f"{name}={text[:40]!r} is no whole number.", path=f"?{name}") from None

    @property
    def wall(self) -> float:
        """Seconds this request may live, from its arrival."""
        settings, told = self.api.settings, self.header("x-steprelay-wall-ms") or ""
        believed = told.isascii() and told.isdigit() and (settings.wall_header or self.who.kind == "driver")
        known = [int(told) / 1000] if believed else [settings.wall]
        context: Any = self.request.scope.get("aws.context")  # of AWS Lambda, put there by what turns its events into requests
        if hasattr(context, "get_remaining_time_in_millis"):
            known.append(self._lived + context.get_remaining_time_in_millis() / 1000)
        return min(*known, settings.deadline)

    @property
    def left(self) -> float:
        """Seconds it still has."""
        return max(0.0, self.wall - self._lived)

    @property
    def _lived(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    @property
    def prefers(self) -> set[str]:
        return {p.strip().lower().replace('"', "") for p in re.split("[,;]", self.header("prefer") or "") if p.strip()}

    @property
    def wants_stream(self) -> bool:
        return "text/event-stream" in (self.header("accept") or "")

    async def allowed(self, action: Action, key: RunKey | None = None) -> RunKey:
        """The run of this call, if the sender may do this to it. Raises Problem 401, 403, 404."""
        key, who = key or self.key, self.who
        if who.kind == "anonymous":
            raise unknown_sender()
        if not _NAME.match(key.id):
            raise absent()
        owner = await self.api.owner(key) if who.kind == "owner" else None
        if key.tenant != self.api.settings.tenant or not who.sees(key, owner):
            raise absent()
        self.permit(action)
        return key

    def permit(self, action: Action) -> None:
        if not self.who.may(action):
            raise Problem(403, "not_allowed", f"This token does not allow {action!r}; ask your server for one that does.")

    async def run(self, action: Action) -> Refused:
        """The run of this call as it stands, for a sender who may. Raises Problem 401, 403, 404, 410."""
        seen = await self.api.look(await self.allowed(action))
        if seen.run is not None and seen.run.pruned:
            raise pruned()
        return seen

    def server_only(self) -> None:
        if self.who.kind != "server":
            raise (
                unknown_sender()
                if self.who.kind == "anonymous"
                else Problem(403, "server_key_only", "This needs the server key.")
            )

    def driver_only(self) -> None:
        if self.who.kind not in ("driver", "server"):
            raise Problem(401, "driver_only", "Sign this request with the driver secret (Standard Webhooks headers).")


_NOBODY = Who(kind="anonymous")
_NAME = re.compile(r"[A-Za-z0-9._~:@=+-]{1,200}\Z")


def unknown_sender() -> Problem:
    detail = "Send `Authorization: Bearer` with a server key, or with the run token that the run was created with."
    return Problem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})


def pruned() -> Problem:
    return Problem(410, "pruned", "This run has ended and its history was pruned.")


def serve(api: Api, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """The Starlette endpoint of a route."""

    async def serving(request: Request) -> Response:
        call, began = None, asyncio.get_running_loop().time()
        try:
            raw = await read_body(request, api.settings.body_limit)
            who = _NOBODY if endpoint.open else await api.auth.who(request.headers, request.cookies, raw, api.engine.store)
            if who.kind == "owner" and same_origin(request.headers, api.settings.public_url) is False:
                raise Problem(403, "foreign_origin", "A browser's cookie counts only on pages of this server.")
            call = Call(api=api, request=request, who=who, raw=raw, began=began)
            if endpoint.body is not None:
                call.body = checked(endpoint.body, raw)
            answer = await endpoint.handler(call)
            response = answer.stream or respond(answer.body, answer.status, answer.headers)
        except Exception as e:
            response = refuse(e)
        if call is not None and call.cookie is not None:
            response.headers.append("Set-Cookie", call.cookie)
        return response

    return serving


def respond(body: Any, status: int = 200, headers: Mapping[str, str] | None = None, media: str = "application/json") -> Response:
    content = b"" if status == 304 else body if isinstance(body, bytes) else wire.encode(body)
    return Response(content, status, {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **(headers or {})}, media)


def refuse(error: Exception) -> Response:
    problem = translated(error)
    if problem.code == "internal" and not isinstance(error, ClientDisconnect):
        _log.error("a request failed", exc_info=error)
    return respond(problem.body, problem.status, problem.headers, "application/problem+json")


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises Problem 413 as soon as it is known to be too large."""
    too_large = Problem(413, "too_large", f"The body is larger than {limit} bytes; send less, or a reference to it.")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    read = bytearray()
    async for chunk in request.stream():
        read += chunk
        if len(read) > limit:
            raise too_large
    return bytes(read)


def checked(shape: str, raw: bytes) -> Any:
    """The body as its shape, whatever its content type says. Raises Problem 400 that names the path."""
    import msgspec

    from . import shapes

    try:
        return msgspec.json.decode(raw or b"{}", type=getattr(shapes, shape))
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        text = str(e)
        _, _, path = text.partition(" - at `")
        path = path.rstrip("`") or "$"
        raise Problem(400, "bad_input", f"{text[:500]}. See /api/openapi.json for what is expected.", path=path) from None
    except RecursionError:
        raise Problem(400, "bad_input", "The body is nested too deeply.", path="$") from None
