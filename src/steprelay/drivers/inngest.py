"""Inngest: each of our steps is a step of a function there, and a function that stops sends the event that starts the next.

    event ─▶ function: step 0 ─▶ step 1 ─▶ … ─▶ the run ends, or waits for a wake: that is all
      ▲                                    └──▶ a pause, or STEPS were taken: an event, for that time
      └────────────────────────────────────────┘          (and every wake is such an event)

Nothing waits inside a function. `wait_for_event` misses what is sent before it is registered, and that is when the answer
of somebody who is quick comes; an event always starts a function, so no wake is lost. There may then be one function too
many for a run: each names the step it comes for, and ends when the run has gone on without it.
"""

from __future__ import annotations

import os
import random
import re
import time
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import httpx
import inngest
from inngest._internal import comm_lib, errors, server_lib  # what the SDK's own adapters are made of: none is for plain ASGI
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
FARTHEST = 7 * 86_400.0
"""Seconds that an event may lie ahead, at most; then the run is looked at, and what is left is waited for."""
TIMEOUT = 10.0
"""Seconds that an event may take to be sent."""
LARGEST = 4 * 1024 * 1024
"""Bytes of a call: an event and what the steps came to are a few kB."""
CLOUD = "api.inngest.com"
"""The hosted API; it takes events at another host, which the SDK knows."""
_SIGNING_KEY = re.compile(r"(signkey-\w+-)?([0-9a-fA-F]{2})+")


class Inngest(Orchestrator):
    """Runs that Inngest carries. `url`: its API, hosted (https://api.inngest.com) or one's own.

    Reads INNGEST_SIGNING_KEY (with _FALLBACK) and INNGEST_EVENT_KEY, or INNGEST_DEV=1 for the development server, which
    has no keys; and INNGEST_APP_ID (`steprelay-default`: with the tenant), which keeps apps with a common server apart.
    """

    name = "inngest"

    def __init__(self, url: str, leg: Leg) -> None:
        self._leg, self._client = leg, _client(url, os.environ.get("INNGEST_APP_ID") or f"steprelay-{leg.tenant}")
        self._event = f"{self._client.app_id}/run.due"
        trigger = inngest.TriggerEvent(event=self._event)
        self._function = self._client.create_function(fn_id="relay", trigger=trigger, retries=RETRIES)(self._relay)
        self._handler = self._serving(unsigned_sync=False)
        self._http: httpx.AsyncClient | None = None
        self.endpoint = self._endpoint

    # ------------------------------------------------------------ the function

    async def _relay(self, ctx: inngest.Context) -> str:
        """Called once for each step, with what those before it came to. What it answers is for the eyes of people."""
        baton = dict(ctx.event.data)
        for i in range(STEPS):
            told = await ctx.step.run(f"step-{i}", self._step, baton, ctx.run_id, i, ctx.attempt)
            if told["kind"] != "on":
                return str(told["kind"])
            baton = {"run": baton["run"], "step": told["step"]}
        return "handed on"

    async def _step(self, baton: dict[str, Any], function: str, i: int, attempt: int) -> dict[str, Any]:
        """One step of the run, and what follows: `on` in this function; `handed on` to the next one; or nothing does."""
        run = str(baton["run"])
        try:
            told = await self._leg.take(
                run, self.name, f"{function}/{i}", span=SPAN, expect=None if attempt else baton.get("step")
            )
            lives = told.kind == "busy" and baton.get("busy")  # seen twice: whoever has it lives, and carries it
            if told.kind == "done" or lives or (told.kind == "waiting" and told.after is None):
                return {"kind": told.kind}
            if told.kind == "again" and not told.after and i + 1 < STEPS:
                return {"kind": "on", "step": told.step}
            next_one = {"busy": True} if told.kind == "busy" else {"step": told.step}
            await self._send({"run": run, **next_one}, told.after or 0.0, id=f"{function}/next")
        except StoreUnavailable as e:
            wait = min(SLOWEST, 2.0**attempt) * random.uniform(0.5, 1.0)
            raise inngest.RetryAfterError(str(e), timedelta(seconds=wait), quiet=True) from None
        return {"kind": "handed on"}

    # ------------------------------------------------------------ being woken

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        await self._send({"run": key.id}, after)

    async def _send(self, data: dict[str, Any], after: float, id: str | None = None) -> None:
        """Start a function in `after` seconds; only once if there is an `id`. Raises StoreUnavailable when it was not taken.

        Not by the SDK, which would try for two minutes and cannot be told to let go of its connections.
        """
        self._http = self._http or httpx.AsyncClient(timeout=TIMEOUT)
        when = {"ts": int((time.time() + min(after, FARTHEST)) * 1000)} if after > 0 else {}
        event = {"name": self._event, "data": data, **when, **({"id": id} if id else {})}
        key = quote(self._client.event_key or "dev", safe="")
        try:
            answer = await self._http.post(urljoin(self._client.event_api_origin, f"e/{key}"), json=event)
        except httpx.HTTPError as e:
            raise StoreUnavailable(f"Inngest could not be reached ({type(e).__name__})") from None
        if answer.status_code >= 300:
            raise StoreUnavailable(f"Inngest did not take an event: it answered {answer.status_code}")

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # ------------------------------------------------------------ being called

    def _serving(self, *, unsigned_sync: bool) -> comm_lib.CommHandler:
        """What answers Inngest. Who may make it tell Inngest that this app has moved: with keys, only Inngest itself."""
        return comm_lib.CommHandler(
            client=self._client, functions=[self._function], framework=server_lib.Framework.FAST_API, streaming=None,
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
        told = await self._serving(unsigned_sync=True).put(_call(url))
        body: Any = told.body if isinstance(told.body, dict) else {}
        if told.status_code >= 300 or not body.get("ok"):
            why = body.get("error") or body.get("message") or f"it answered {told.status_code}"
            raise ConfigError(
                f"Inngest at {self._client.api_origin} does not take {url!r} as an app: {why}; look at STEPRELAY_INNGEST, at the "
                "keys (INNGEST_SIGNING_KEY), and whether it is a development server (INNGEST_DEV=1)"
            )


def _call(url: str, body: bytes = b"", request: Request | None = None) -> comm_lib.CommRequest:
    """A request as the SDK reads it; `url`: where this app is called."""
    headers, query = (dict(request.headers), dict(request.query_params)) if request else ({}, {})
    return comm_lib.CommRequest(
        body=body, headers=headers, query_params=query, raw_request=request, request_url=url, public_path=None,
        serve_origin=None, serve_path=None,
    )  # fmt: skip


def _client(url: str, app: str) -> inngest.Inngest:
    """The SDK's client. Raises ConfigError: without keys there is nothing to know the calls of Inngest by."""
    events = os.environ.get("INNGEST_EVENT_API_BASE_URL") or (None if urlsplit(url).hostname == CLOUD else url)
    try:
        client = inngest.Inngest(app_id=app, api_base_url=url, event_api_base_url=events)
    except errors.Error as e:
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
