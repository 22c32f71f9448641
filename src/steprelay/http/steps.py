"""Taking steps: the founding contract, steps of known runs, and jobs that start in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..core import codec
from ..core.model import Again, Busy, New, Request, RunKey, Waiting
from ..engine import Advanced
from . import wire
from .api import Answer, Call, unknown_sender
from .problem import Problem, absent
from .starts import admit, create, create_same, make, token
from ..watch import Live

FIRST_LOOK, LAST_LOOK = 0.1, 1.0
"""Seconds between two looks at a run that a held request waits for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What a request for a step wants."""

    key: RunKey
    carrier: str
    expect: int | None = None
    request: Request | None = None
    new: New | None = None
    fit: bool = False
    strict: bool = False
    founding: bool = False


async def agent_step(call: Call) -> Answer:
    """The founding contract: one step of a session, created by its first request with a prompt."""
    body, key = call.body, call.named(call.body.session_id)
    new = await _opening(call, key)
    plain = body.expected_step is None and not call.prefers and not call.header("idempotency-key")
    return await take(call, _ask(call, key, body.expected_step, new=new, founding=plain and not call.wants_stream))


async def run_step(call: Call) -> Answer:
    """One step of a known run."""
    key, carrier = await call.allowed("step"), call.body.carrier
    if carrier is not None and call.who.kind not in ("server", "driver"):
        raise Problem(403, "server_key_only", "Only a server may say who takes a step; leave `carrier` out.", path="$.carrier")
    return await take(call, _ask(call, key, call.body.expected_step, carrier=carrier))


async def start_job(call: Call) -> Answer:
    """Create a run for the background and answer before its first step."""
    body = call.body
    owner = await admit(call)
    new = make(
        call, agent=body.agent, prompt=body.user_prompt, owner=owner, limits=body.limits, carrier=body.carrier,
        notify_url=body.notify_url,
    )  # fmt: skip
    created, run = await create_same(call, body.session_id, new)
    if created:
        await call.api.call(run.key, run.carrier)
    view = wire.run_view(run, None, (), run.created_at)
    headers = {"Location": f"/api/runs/{run.key.id}"}
    if not created:
        headers["Idempotent-Replayed"] = "true"
    return Answer(status=202, headers=headers, body={**view, "token": token(call, run.key)})


async def _opening(call: Call, key: RunKey) -> New | None:
    """What the first request of a session creates. Whose session it is comes first. Raises Problem 401, 403, 404, 429."""
    who, body = call.who, call.body
    if who.kind in ("run", "driver"):
        await call.allowed("step", key)
        return None
    if who.kind == "server":
        return None if body.user_prompt is None else make(call, agent=body.agent, prompt=body.user_prompt, owner=None)
    if who.kind == "anonymous" and call.api.settings.anonymous_start == "deny":
        raise unknown_sender()
    try:
        owner = await call.api.owner(key)
    except Problem:
        if body.user_prompt is None:
            raise
        owner = await admit(call)
        await create(call.api, key, make(call, agent=body.agent, prompt=body.user_prompt, owner=owner))
        return None
    if not who.sees(key, owner):
        raise absent()
    return None


def _ask(
    call: Call, key: RunKey, expect: int | None, *, new: New | None = None, founding: bool = False, carrier: str | None = None
) -> Ask:
    """The request id: the caller's own, or the step it expects."""
    id = call.header("idempotency-key") or (None if expect is None else f"step:{expect}")
    if id is not None and (len(id) > 200 or not id.isprintable()):
        raise Problem(400, "bad_input", "Idempotency-Key takes up to 200 printable characters.", path="Idempotency-Key")
    carrier = carrier or ("background" if call.who.kind == "driver" else "client")
    return Ask(
        key=key, carrier=carrier, expect=expect, new=new, founding=founding, fit="steps=fit" in call.prefers,
        strict="strict" in call.prefers, request=None if id is None else Request(id=id, hash=body_hash(call)),
    )  # fmt: skip


def body_hash(call: Call) -> str:
    """The same for bodies that say the same, whatever their spacing and order."""
    import msgspec

    return sha256(codec.dumps(msgspec.to_builtins(call.body)).encode()).hexdigest()[:32]


# ---------------------------------------------------------------- one step


async def take(call: Call, ask: Ask) -> Answer:
    """Take the step, in a task of its own: a closed connection never cancels a run."""
    if call.wants_stream:
        from .live import stream_step

        return await stream_step(call, ask)
    work = _held(call, ask) if ask.founding else advance(call, ask)
    advanced = await asyncio.shield(call.api.spawn(work))
    return answered(call, ask, advanced)


async def advance(call: Call, ask: Ask, listen: Callable[[Live], None] | None = None) -> Advanced:
    """One pulse. What the step puts into the outbox goes out before the answer, if that is quick."""
    advanced = await call.api.loop.pulse(
        ask.key, carrier=ask.carrier, wall=call.left, expect=ask.expect, request=ask.request, new=ask.new,
        listen=listen, fit=ask.fit,
    )  # fmt: skip
    if advanced.outgoing:
        await call.api.send_outbox(ask.key)
    return advanced


async def _held(call: Call, ask: Ask) -> Advanced:
    """Pulse; while another driver has the run or it waits for a timer, look again until this request's time is up.

    Half of the wall is kept for the step itself.
    """
    clock, settings = asyncio.get_running_loop().time, call.api.settings
    look = FIRST_LOOK
    end = clock() + min(settings.hold, call.wall / 2)
    while True:
        advanced = await advance(call, ask)
        pause = _until(advanced)
        left = end - clock()
        if pause is None or left <= 0:
            return advanced
        await asyncio.sleep(max(0.01, min(pause, look, left)))
        look = min(look * 1.5, LAST_LOOK)


def _until(advanced: Advanced) -> float | None:
    """Seconds until another look is worth it at the latest; None: there is something to say now."""
    if advanced.taken or advanced.run is None:
        return None
    match advanced.outcome:
        case Busy(until=until):
            return LAST_LOOK if until is None else max(0.0, until - advanced.now)
        case Again(after=after):
            return after
        case Waiting() if advanced.run.status != "AWAITING_INPUT":
            return LAST_LOOK
        case _:
            return None


def answered(call: Call, ask: Ask, advanced: Advanced) -> Answer:
    """What came of it, as an answer. Raises Problem 404, 409, 410, 422."""
    run = advanced.run
    if run is None:
        raise absent()
    if run.pruned:
        raise Problem(410, "pruned", "This run has ended and its history was pruned.")
    call.api.know(run)
    if advanced.refused == "conflict":
        raise Problem(422, "key_reused", "This request id was used with another body; use a new Idempotency-Key.")
    headers = {"Idempotent-Replayed": "true"} if advanced.replayed else {}
    parts = call.api.parts(run, advanced.step)
    if advanced.step is not None and (advanced.taken or advanced.replayed):
        return _spoken(ask, wire.answer(run.key.id, advanced.step, parts), headers)
    until = None
    if isinstance(advanced.outcome, Busy):
        until = advanced.now + wire.LONG_MS / 1000 if advanced.outcome.until is None else advanced.outcome.until
    envelope = wire.snapshot(run, advanced.step, parts, advanced.now, until)
    if advanced.refused == "index":
        detail = f"Step {ask.expect} is not the next one: {run.step} is. Go on from this snapshot."
        raise Problem(409, "step_mismatch", detail, **_beside(envelope))
    if ask.founding or run.ended or (run.status == "AWAITING_INPUT" and not isinstance(advanced.outcome, Busy)):
        return _spoken(ask, envelope, headers)
    wait = envelope["next"]["afterMs"] / 1000
    headers["Retry-After"] = str(max(1, round(wait + 0.499)))
    if ask.strict:
        raise Problem(
            409, "not_now", f"The run cannot be advanced now: {_reason(advanced)}.", headers=headers, **_beside(envelope)
        )
    if envelope["status"] not in ("CONTINUE", "WAITING"):
        envelope["status"] = "CONTINUE"
    return Answer(status=202, body=envelope, headers=headers)


def _spoken(ask: Ask, envelope: wire.Object, headers: dict[str, str]) -> Answer:
    if not ask.founding:
        return Answer(body=envelope, headers=headers)
    if envelope["status"] == "CONTINUE" or envelope["isTerminal"] or envelope["interrupts"]:
        status, body = wire.founding(envelope)
        return Answer(status=status, body=body, headers=headers)
    return Answer(body={**envelope, "status": "CONTINUE"}, headers=headers)


def _beside(envelope: wire.Object) -> dict[str, Any]:
    """The snapshot beside a problem's own members; its `status` is the HTTP one, so the run's is `runStatus`."""
    return {"runStatus" if k == "status" else k: v for k, v in envelope.items()}


def _reason(advanced: Advanced) -> str:
    match advanced.outcome:
        case Busy(carrier=carrier):
            return f"{carrier!r} has it"
        case _:
            return f"it is {advanced.run.status if advanced.run else 'gone'}"
