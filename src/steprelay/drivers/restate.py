"""Restate: a virtual object for each run, whose invocations call a few steps each and then send to themselves.

wake ──▶ ingress ──▶ invocation: step, step, … one journal entry each ──▶ the next invocation, at once or delayed; or none

An object has one invocation at a time, the others queue: so Restate itself never takes two steps of a run at once. It holds
which run it is and what came of its newest steps, nothing else. A run that waits for a person has no invocation at all: the
answer is in our store, and a wake begins anew. Where the ingress is says STEPRELAY_RESTATE, where the admin API is
RESTATE_ADMIN_URL, who may call our endpoint RESTATE_IDENTITY_KEYS (comma-separated `publickeyv1_…`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import uuid4

import httpx
import restate
import restate.server
from restate import InvocationRetryPolicy, ObjectContext, RunOptions, VirtualObject

from ..core.errors import ConfigError, StepRelayError, StoreUnavailable
from ..core.model import RunKey
from .leg import Leg, Next, Orchestrator

STEPS = 20
"""Entries of one invocation's journal, each of a step or of some that are quick. An endpoint of HTTP/1.1 is sent the journal
anew for every entry, so that a long one is dear; a short one costs more invocations."""
SPAN = 1.0
"""Seconds in which an entry takes further steps, should they be quick."""
PATIENCE = 10.0
"""Seconds that the server may take to answer us."""
SILENT = timedelta(hours=1)
"""How long a step may take without a word to Restate; a process that dies is noticed at once, by its connection."""
RETRIES = InvocationRetryPolicy(
    initial_interval=timedelta(milliseconds=100), exponentiation_factor=2.0, max_interval=timedelta(seconds=10), max_attempts=10_000,
    on_max_attempts="kill",
)  # fmt: skip
"""About a day. What is paused instead of killed would keep every later wake of its run waiting."""
AGAIN = RunOptions[dict[str, Any]](
    initial_retry_interval=timedelta(milliseconds=200), retry_interval_factor=2.0, max_retry_interval=timedelta(seconds=10)
)
"""How a step is tried again whose store is away: for ever."""


_log = logging.getLogger("steprelay")


class NotTaken(Exception):
    """What Restate is told of an error that is not ours: its words may be anybody's."""


class Restate(Orchestrator):
    """Runs carried by Restate, which calls `endpoint`."""

    name = "restate"

    def __init__(self, url: str, leg: Leg) -> None:
        """`url`: of the ingress, such as `http://localhost:8080`."""
        self._ingress, self._leg = url.rstrip("/"), leg
        self._keys = [k for k in map(str.strip, os.environ.get("RESTATE_IDENTITY_KEYS", "").split(",")) if k]
        self._object = VirtualObject(
            f"steprelay-{leg.tenant}", inactivity_timeout=SILENT, abort_timeout=timedelta(minutes=1),
            journal_retention=timedelta(hours=1), idempotency_retention=timedelta(hours=1), invocation_retry_policy=RETRIES,
        )  # fmt: skip
        self._drive = self._object.handler()(self.drive)
        self._restate = _asgi(self._object, self._keys)
        self._hooked = False
        self._under_way: dict[str, asyncio.Task[Next]] = {}
        self._http: httpx.AsyncClient | None = None

    # ------------------------------------------------------------ what Restate is told

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        """Ask for an invocation; a repeated request is known by its key and makes one."""
        path = f"/{self._object.name}/{quote(key.id, safe='')}/drive/send"
        delay = {"delay": f"{round(after * 1000)}ms"} if after > 0 else {}
        wake = httpx.Request(
            "POST", self._ingress + path, params=delay, json={}, headers={"idempotency-key": uuid4().hex, **_bearer()}
        )
        try:
            (await self._sent(wake)).raise_for_status()
        except httpx.HTTPStatusError as e:
            raise StoreUnavailable(f"Restate took no wake ({_said(e.response)}); is our endpoint registered?") from e
        except httpx.HTTPError as e:
            raise StoreUnavailable(f"no Restate server answers at {self._ingress} ({type(e).__name__})") from e

    async def register(self, url: str) -> None:
        """Tell Restate where our endpoint is, over HTTP/1.1, which is what uvicorn speaks."""
        admin = os.environ.get("RESTATE_ADMIN_URL", "").rstrip("/") or _beside(self._ingress)
        body = {"uri": url, "use_http_11": True, "force": True}
        try:
            answer = await self._sent(httpx.Request("POST", f"{admin}/deployments", json=body, headers=_bearer()))
        except httpx.HTTPError as e:
            raise ConfigError(
                f"Restate's admin API does not answer at {admin} ({type(e).__name__}); start the server, or set RESTATE_ADMIN_URL"
            ) from e
        if answer.is_error:
            raise ConfigError(
                f"Restate did not take {url} ({_said(answer)}); it must reach that address: give --url, and when it is not this "
                "machine, RESTATE_IDENTITY_KEYS"
            )

    async def close(self) -> None:
        """Hand back the steps under way and let go of the connections."""
        steps = list(self._under_way.values())
        for step in steps:
            step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    async def _sent(self, request: httpx.Request) -> httpx.Response:
        """Send; once more when the connection broke, since every request here may be repeated."""
        if self._http is None:
            self._http = httpx.AsyncClient(timeout=PATIENCE)
        try:
            return await self._http.send(request)
        except httpx.TransportError:
            return await self._http.send(request)

    # ------------------------------------------------------------ what Restate calls

    async def drive(self, ctx: ObjectContext, sent: dict[str, Any]) -> str:
        """One invocation. A wake begins a chain, `sent["chain"]` continues one; the chains before it are over, and the timer
        that one of them left is taken back."""
        me = ctx.request().id
        chain = sent.get("chain") or me
        if chain != me and chain != await ctx.get("chain", type_hint=str):
            return "stale"
        if chain == me and (timer := await ctx.get("timer", type_hint=str)):
            ctx.cancel_invocation(timer)
        told = await self._steps(ctx, me)
        after = told["after"]
        if told["kind"] == "done" or (told["kind"] == "waiting" and after is None):
            ctx.clear_all()
            return str(told["kind"])
        ctx.set("chain", chain)
        ctx.clear("timer")
        if after:
            late = ctx.object_send(self._drive, ctx.key(), {"chain": chain}, send_delay=timedelta(seconds=after))
            ctx.set("timer", await late.invocation_id())
        else:
            ctx.object_send(self._drive, ctx.key(), {"chain": chain})
        return str(told["kind"])

    async def _steps(self, ctx: ObjectContext, me: str) -> dict[str, Any]:
        """As many entries as an invocation takes, one after another; what is next after the last."""
        told: dict[str, Any] = {}
        for n in range(STEPS):
            told = await ctx.run_typed("step", self._step, AGAIN, run=ctx.key(), request=f"{me}/{n}")
            if told["kind"] != "again" or told["after"]:
                break
        return told

    async def _step(self, run: str, request: str) -> dict[str, Any]:
        """One entry. The SDK cancels it when its connection is gone, as when Restate dies: the step goes on to its commit all
        the same, and Restate's next try at it, if it is that quick, waits for the one there is."""
        step = self._under_way.get(request)
        if step is None:
            step = asyncio.create_task(self._leg.take(run, self.name, request, span=SPAN))
            self._under_way[request] = step
            step.add_done_callback(lambda s: self._done(request, s))
        try:
            return (await asyncio.shield(step)).plain()
        except StepRelayError:
            raise
        except Exception as e:
            _log.exception("a step failed under Restate and is tried again")
            raise NotTaken(f"{type(e).__name__}; see this server's log") from None

    def _done(self, request: str, step: asyncio.Task[Next]) -> None:
        del self._under_way[request]
        if not step.cancelled():
            step.exception()  # looked at: who waited for it may be gone

    async def endpoint(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI. Without identity keys only this machine may call."""
        if not (self._keys or _from_here(scope)):
            await _refuse(send)
            return
        if not self._hooked:
            self._hooked = True
            _keep_sigterm()
        await self._restate(scope, receive, send)


def _asgi(service: VirtualObject, keys: list[str]) -> Any:
    """The SDK's application. On AWS it would make a Lambda handler of it instead, but there we are behind one already."""
    sdk: Any = restate.server
    there, sdk.is_running_on_lambda = sdk.is_running_on_lambda, lambda: False
    try:
        return restate.app([service], identity_keys=keys)
    except Exception as e:  # its own panic, for a key that is none
        raise ConfigError(f"RESTATE_IDENTITY_KEYS cannot be read ({e}); give the server's `publickeyv1_…`") from e
    finally:
        sdk.is_running_on_lambda = there


def _keep_sigterm() -> None:
    """At its first request the SDK takes SIGTERM for itself, and the server would never hear of it: have it passed on."""
    before = signal.getsignal(signal.SIGTERM)
    if callable(before):
        pass_on = before
        with suppress(NotImplementedError, RuntimeError, ValueError):  # as where the SDK cannot take it either
            restate.server.install_shutdown_hook(asyncio.get_running_loop(), lambda: pass_on(signal.SIGTERM, None))


def _from_here(scope: Mapping[str, Any]) -> bool:
    """Whether it was this machine that called, and no proxy on it."""
    passed_on = {b"forwarded", b"x-forwarded-for", b"x-real-ip"} & {name.lower() for name, _ in scope["headers"]}
    try:
        return not passed_on and ip_address(scope["client"][0]).is_loopback
    except (KeyError, TypeError, ValueError):
        return False


async def _refuse(send: Any) -> None:
    why = b"RESTATE_IDENTITY_KEYS is not set here, so only this machine may call; set it to the server's public keys\n"
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": why})


def _bearer() -> dict[str, str]:
    """Restate Cloud wants a token, of the same name as its command line's."""
    token = os.environ.get("RESTATE_AUTH_TOKEN")
    return {"authorization": f"Bearer {token}"} if token else {}


def _beside(ingress: str) -> str:
    """The admin API's usual place: port 9070 of the same host."""
    parts = urlsplit(ingress)
    return urlunsplit((parts.scheme, f"{parts.hostname}:9070", "", "", ""))


def _said(answer: httpx.Response) -> str:
    """An error answer in one line."""
    with suppress(ValueError, AttributeError):
        return f"{answer.status_code}: {answer.json().get('message')}"
    return str(answer.status_code)
