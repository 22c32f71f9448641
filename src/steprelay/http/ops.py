"""For the house: approvals, events, sweeps, self-calls, health, the document of it all."""

from __future__ import annotations

import asyncio
from hashlib import sha256

from ..core import codec
from ..core.errors import ConfigError
from ..core.model import SCHEMA, RunKey, Signal
from . import wire
from .api import Answer, Call, respond
from .problem import Problem
from .runs import page_of_runs
from .talk import signal


async def approvals(call: Call) -> Answer:
    """Every run that waits for a person, and what it asks."""
    runs, cursor = await page_of_runs(call, ("AWAITING_INPUT",))
    waiting = []
    for run in runs:
        steps = await call.api.engine.store.read(run.key, "steps", after=run.step - 2, limit=1)
        view = wire.run_view(run, steps[-1] if steps else None, call.api.parts(run, steps[-1] if steps else None), run.updated_at)
        waiting.append(
            {
                "sessionId": run.key.id, "agent": run.agent, "since": view["updatedAt"], "expiresAt": view["dueAt"],
                "interrupts": view["interrupts"], "labels": view["labels"],
            }
        )  # fmt: skip
    return Answer(body={"approvals": waiting, "cursor": cursor})


async def deliver_event(call: Call) -> Answer:
    """An outside event for a run that waits for it; the same message twice is one event."""
    auth, token = call.api.auth, call.request.path_params["token"]
    event = auth.event(token)
    if event.signed:
        auth.check_event(token, call.request.headers, call.raw)
    try:
        payload = codec.loads(call.raw.decode()) if call.raw else None
        body = codec.dumps({"id": event.id, "payload": payload})
    except Exception:
        raise Problem(400, "bad_input", "The event is not JSON.", path="$") from None
    message = call.header("webhook-id") or call.header("idempotency-key") or sha256(call.raw).hexdigest()
    id = sha256(f"{event.id}\0{message}".encode()).hexdigest()[:32]
    told = await signal(call, event.key, Signal(kind="event", body=body, request_id=f"event:{id}"))
    return Answer(body={"sessionId": event.key.id, "first": told.first})


async def carry(call: Call) -> Answer:
    """A self-call: the run is carried in a task of this process. `Prefer: wait` answers when that is over."""
    call.driver_only()
    if call.api.carry is None:
        raise Problem(501, "no_background", "This server carries no runs in the background.")
    key = RunKey(call.body.tenant, call.body.id)
    task = call.api.spawn(_carried(call, key))
    if "wait" in call.prefers:
        await asyncio.shield(task)
    return Answer(status=202, body={"sessionId": key.id, "carrier": call.body.carrier})


async def _carried(call: Call, key: RunKey) -> None:
    if call.api.carry is not None:
        await call.api.carry(key, call.body.carrier, call.left)


async def sweep(call: Call) -> Answer:
    """Pick up runs that nobody carries and messages that were not delivered."""
    call.driver_only()
    if call.api.sweep is None:
        raise Problem(501, "no_sweep", "This server does not sweep.")
    swept = await call.api.sweep()
    return Answer(body={"runs": swept.runs, "delivered": swept.delivered, "failed": swept.failed})


async def metrics(call: Call) -> Answer:
    """What this process has counted since it began."""
    call.driver_only()
    if call.api.metrics is None:
        raise Problem(501, "no_metrics", "This server counts nothing.")
    try:
        text, media = call.api.metrics()
    except ConfigError as e:
        raise Problem(501, "no_metrics", str(e)) from e
    return Answer(stream=respond(text, media=media))


async def health(call: Call) -> Answer:
    """That this process answers and reaches its store. Raises StoreUnavailable: 503."""
    from .. import __version__

    kind, _, _ = (await call.api.engine.store.check()).partition(":")  # where it lives is nobody's business
    return Answer(body={"status": "ok", "store": kind, "schema": SCHEMA, "version": __version__})


async def openapi(call: Call) -> Answer:
    """The contract, made from the shapes that check it."""
    from .openapi import document

    return Answer(body=document(call.api.endpoints))
