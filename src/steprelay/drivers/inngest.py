"""Inngest: each of our steps is a step of a function there, and functions follow each other by events.

    wake ─▶ relay: step 0 ─▶ step 1 ─▶ … ─▶ the run ends, or waits for a wake: so does the function
              ▲                        ├──▶ STEPS were taken: the event `next`
              └────────────────────────┤
              next ◀── pause: sleeps ◀─┴──▶ it is due later: the event `pause`;  a wake cancels that function

Nobody waits for a wake inside a function: `wait_for_event` misses what is sent before it is registered, and that is when the
answer of somebody who is quick comes. An event always starts a function. There may then be one too many for a run: each
names the step it comes for, and ends when the run has gone on without it.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import inngest
from inngest._internal import comm_lib, server_lib  # what the SDK's own adapters are made of: none is for plain ASGI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..core.errors import ConfigError, StoreUnavailable
from ..core.model import RunKey
from .leg import Leg, Orchestrator

STEPS = 20
"""Steps of one function: each call of Inngest brings what all of them came to. A longer one is no faster."""
SPAN = 1.0
"""Seconds in which a call takes further steps, should they be quick: Inngest needs a tenth of one to call again."""
RETRIES = 20
"""Times that a step is tried again: as many as Inngest allows."""
SLOWEST = 60.0
"""Seconds between two tries while the store is away, at most."""
LONGEST = 7 * 86_400.0
"""Seconds of a pause, at most: what a free plan allows. Then the run is looked at, and what is left is waited for."""
TIMEOUT = 10.0
"""Seconds that an event may take to be sent."""
LARGEST = 4 * 1024 * 1024
"""Bytes of a call: an event and what the steps came to are a few kB."""
CLOUD = "api.inngest.com"
"""The hosted API; it takes events at another host, which the SDK knows."""
Function = Callable[[inngest.Context], Awaitable[str]]
_SIGNING_KEY = re.compile(r"(signkey-\w+-)?([0-9a-fA-F]{2})+")


class Inngest(Orchestrator):
    """Runs that Inngest carries. `url`: its API, hosted (https://api.inngest.com) or one's own.

    Reads INNGEST_SIGNING_KEY (with _FALLBACK) and INNGEST_EVENT_KEY, or INNGEST_DEV=1 for the development server, which
    has no keys; and INNGEST_APP_ID (`steprelay-default`: with the tenant), which keeps apps with a common server apart.
    """

    name = "inngest"

    def __init__(self, url: str, leg: Leg) -> None:
        self._leg, self._client = leg, _client(url, os.environ.get("INNGEST_APP_ID") or f"steprelay-{leg.tenant}")
        app = self._client.app_id
        self._events = {name: f"{app}/run.{name}" for name in ("wake", "next", "pause")}
        woken = inngest.Cancel(event=self._events["wake"], if_exp="async.data.run == event.data.run")
        self._functions = [self._function(self._relay, "wake", "next"), self._function(self._pause, "pause", cancel=[woken])]
        self._handler = self._serving(unsigned_sync=False)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._http: httpx.AsyncClient | None = None
        self.endpoint = self._endpoint

    # ------------------------------------------------------------ the functions

    def _function(self, does: Function, *events: str, cancel: list[inngest.Cancel] | None = None) -> inngest.Function[Any]:
        triggers: Any = [inngest.TriggerEvent(event=self._events[e]) for e in events]
        name = does.__name__.strip("_")
        return self._client.create_function(fn_id=name, trigger=triggers, retries=RETRIES, cancel=cancel)(does)

    async def _relay(self, ctx: inngest.Context) -> str:
        """Take steps for as long as they are due. Called once for each, with what those before it came to."""
        told: dict[str, Any] = dict(ctx.event.data)
        for i in range(STEPS):
            told = await ctx.step.run(f"step-{i}", self._take, ctx, f"step-{i}", told.get("step"))
            if told["kind"] != "again" or told["after"]:
                break
        return await self._follow(ctx, "pause" if told["after"] else "next", told)

    async def _pause(self, ctx: inngest.Context) -> str:
        """Let the time pass. Looks at the run first: a wake that came before this function could be cancelled is found so."""
        due: Any = ctx.event.data.get("step")
        told = await ctx.step.run("look", self._take, ctx, "look", due)
        if told["after"]:
            await ctx.step.sleep("pause", timedelta(seconds=min(told["after"], LONGEST)))
        return await self._follow(ctx, "next", told)

    async def _take(self, ctx: inngest.Context, step: str, expect: Any) -> dict[str, Any]:
        """One step of the run, or as many as are quick. A retry expects nothing: what died may have taken some of them."""
        run, request, sure = str(ctx.event.data["run"]), f"{ctx.run_id}/{step}", expect if ctx.attempt == 0 else None
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._under_way.add(task)
        try:
            told = await self._leg.take(run, self.name, request, span=SPAN, expect=sure)
        except StoreUnavailable as e:
            raise _later(ctx, e) from None
        finally:
            self._under_way.discard(task)
        return {**told.plain(), "step": told.step}

    async def _follow(self, ctx: inngest.Context, event: str, told: dict[str, Any]) -> str:
        """Start the next function, once; unless the run is over here, or nothing but a wake is waited for."""
        if told["kind"] == "done" or (told["kind"] == "waiting" and told["after"] is None):
            return str(told["kind"])
        # Whoever saw somebody at work expects nothing: it may have been a try of ours that nobody hears any more.
        expects = {} if told["kind"] == "busy" else {"step": told["step"]}
        try:
            await self._send(event, {"run": ctx.event.data["run"], **expects}, id=f"{ctx.run_id}/{event}")
        except StoreUnavailable as e:
            raise _later(ctx, e) from None
        return event

    # ------------------------------------------------------------ being woken

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        await self._send("wake", {"run": key.id}, after=after)

    async def _send(self, event: str, data: dict[str, Any], *, after: float = 0.0, id: str | None = None) -> None:
        """Send an event that is due in `after` seconds; only once if there is an `id`. Raises StoreUnavailable when it was
        not taken.

        Not by the SDK, which would try for two minutes and cannot be told to let go of its connections.
        """
        self._http = self._http or httpx.AsyncClient(timeout=TIMEOUT)
        when = {"ts": int((time.time() + min(after, LONGEST)) * 1000)} if after > 0 else {}
        body = {"name": self._events[event], "data": data, **when, **({"id": id} if id else {})}
        key = quote(self._client.event_key or "dev", safe="")
        try:
            answer = await self._http.post(f"{self._client.event_api_origin.rstrip('/')}/e/{key}", json=body)
        except httpx.HTTPError as e:
            raise StoreUnavailable(f"nothing answers at {self._client.event_api_origin} ({type(e).__name__})") from None
        if answer.status_code >= 300:
            raise StoreUnavailable(f"Inngest answers {answer.status_code} to an event")

    async def close(self) -> None:
        """Hand back the steps under way, and let go of the connections."""
        steps = list(self._under_way)
        for step in steps:
            if not step.cancelling():  # else by the server, just now: a second time would cut the handing back
                step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # ------------------------------------------------------------ being called

    def _serving(self, *, unsigned_sync: bool) -> comm_lib.CommHandler:
        """What answers Inngest. Who may make it tell Inngest that this app has moved: with keys, only Inngest itself."""
        return comm_lib.CommHandler(
            client=self._client, functions=self._functions, framework=server_lib.Framework.FAST_API, streaming=None,
            enable_unauthed_sync=unsigned_sync,
        )  # fmt: skip

    async def _endpoint(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        response = await self._answered(request) if scope["path"] == "/" else Response("not found", 404)
        await response(scope, receive, send)

    async def _answered(self, request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST:
                return Response("too large", 413)
        path = request.scope.get("root_path", "") or "/"
        call = _call(str(request.url.replace(path=path, query="")), bytes(body), request)
        match request.method:
            case "POST":
                told = await self._handler.post(call)
            case "PUT":
                told = await self._handler.put(call)
            case "GET":
                told = self._handler.get_sync(call)
            case _:
                return Response("method not allowed", 405, {"allow": "GET, PUT, POST"})
        if told.stream is not None:
            return StreamingResponse(told.stream(), told.status_code, told.headers)
        content = told.body_bytes()
        if isinstance(content, Exception):
            raise content
        return Response(content, told.status_code, told.headers)

    async def register(self, url: str) -> None:
        """Raises ConfigError; a server that is only about to start is asked a few times."""
        why = ""
        for wait in (0.0, 0.5, 2.0):
            await asyncio.sleep(wait)
            told = await self._serving(unsigned_sync=True).put(_call(url))
            body: Any = told.body if isinstance(told.body, dict) else {}
            if told.status_code < 300 and body.get("ok"):
                return
            why = body.get("error") or body.get("message") or f"it answered {told.status_code}"
        raise ConfigError(
            f"Inngest at {self._client.api_origin} does not take {url!r} as an app: {why}; look at STEPRELAY_INNGEST, at the "
            "keys (INNGEST_SIGNING_KEY), and whether it is a development server (INNGEST_DEV=1)"
        )


def _later(ctx: inngest.Context, error: StoreUnavailable) -> inngest.RetryAfterError:
    """Asks for a try soon, and then ever later: the default is half a minute for the first."""
    wait = min(SLOWEST, 2.0**ctx.attempt) * random.uniform(0.5, 1.0)
    return inngest.RetryAfterError(str(error), timedelta(seconds=wait), quiet=True)


def _call(url: str, body: bytes = b"", request: Request | None = None) -> comm_lib.CommRequest:
    """A request as the SDK reads it; `url`: where this app is called."""
    headers, query = (dict(request.headers), dict(request.query_params)) if request else ({}, {})
    return comm_lib.CommRequest(
        body=body, headers=headers, query_params=query, raw_request=request, request_url=url, public_path=None,
        serve_origin=None, serve_path=None,
    )  # fmt: skip


def _client(url: str, app: str) -> inngest.Inngest:
    """The SDK's client. Raises ConfigError: without keys there is nothing to know the calls of Inngest by."""
    try:
        where = urlsplit(url)
        if where.scheme not in ("http", "https"):
            raise ValueError("it begins with http:// or https://")
        events = os.environ.get("INNGEST_EVENT_API_BASE_URL") or (None if where.hostname == CLOUD else url)
        client = inngest.Inngest(app_id=app, api_base_url=url, event_api_base_url=events)
    except Exception as e:  # the SDK raises no class of its own for a URL it does not like
        raise ConfigError(
            f"STEPRELAY_INNGEST is {url!r}; give the URL of Inngest's API, such as http://127.0.0.1:8288: {e}"
        ) from e
    if not client.is_production:
        return client
    for variable, value in (("INNGEST_SIGNING_KEY", client.signing_key), ("INNGEST_EVENT_KEY", client.event_key)):
        if not value:
            raise ConfigError(f"Inngest needs {variable}, or INNGEST_DEV=1 with its development server, which has no keys")
    if not _SIGNING_KEY.fullmatch(client.signing_key or ""):
        raise ConfigError("INNGEST_SIGNING_KEY is no signing key: it is hexadecimal, with signkey-prod- or the like before it")
    return client
