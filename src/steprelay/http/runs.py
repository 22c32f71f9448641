"""Runs: created, listed, read and followed."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any, get_args

from ..core import codec
from ..core.model import Filter, Refused, Run, Status, Step
from . import wire
from .api import Answer, Call, unknown_sender
from .auth import ACTIONS
from .explain import explain
from .problem import Problem
from .starts import admit, create_same, make, seeded, split_prompt, token
from ..watch import Live

POLL = 0.5
"""Seconds between two looks of somebody who waits for a change."""
LONGEST_WAIT = 20


async def create_run(call: Call) -> Answer:
    """A new run, and the token for it. The same request again answers the same run."""
    body = call.body
    owner = await admit(call)
    history, prompt = split_prompt(body.messages, body.user_prompt)
    new = make(
        call, agent=body.agent, prompt=prompt, owner=owner, limits=body.limits, carrier=body.carrier,
        takeover_after=body.takeover_after, notify_url=body.notify_url, labels=codec.dumps(body.labels),
        **seeded(call, body.agent, history),
    )  # fmt: skip
    created, run = await create_same(call, body.session_id, new)
    if created:
        await call.api.call(run.key, run.carrier)
    return made(call, run, replayed=not created)


def made(call: Call, run: Run, *, replayed: bool = False) -> Answer:
    """The answer to whoever created a run."""
    headers = {"Location": f"/api/runs/{run.key.id}"} | ({"Idempotent-Replayed": "true"} if replayed else {})
    view = wire.run_view(run, None, (), run.created_at)
    return Answer(status=201, headers=headers, body={**view, "token": token(call, run.key)})


async def give_token(call: Call) -> Answer:
    """A token for a run that is there: one that was imported, or whose token has expired. For the server to hand on."""
    call.server_only()
    run, body = (await call.run("read")).run, call.body
    assert run is not None
    actions = ACTIONS if body.actions is None else tuple(a for a in ACTIONS if a in body.actions)
    seconds = body.seconds or call.api.settings.token_seconds
    made = call.api.auth.run_token(run.key, actions, seconds)
    return Answer(body={"sessionId": run.key.id, "token": made, "actions": list(actions), "seconds": seconds})


async def list_runs(call: Call) -> Answer:
    """Newest first, a page at a time, from their rows alone: outputs and questions are in the single views."""
    runs, cursor = await page_of_runs(call, _statuses(call.query("status")))
    now = (await call.api.look(runs[0].key)).now if runs else 0.0
    return Answer(body={"runs": [wire.run_view(run, None, (), now) for run in runs], "cursor": cursor})


async def page_of_runs(call: Call, statuses: tuple[Status, ...]) -> tuple[list[Run], str | None]:
    """One page for the server, or for a browser of its own runs. Raises Problem 400, 401, 403."""
    who = call.who
    if who.kind == "anonymous":
        raise unknown_sender()
    if who.kind not in ("server", "owner"):
        raise Problem(403, "server_key_only", "Listing runs needs the server key.")
    limit = call.number("limit", 50, 1, 200)
    label, _, value = (call.query("label") or "").partition(":")
    found = await call.api.engine.store.read(
        Filter(
            tenant=call.api.settings.tenant, status=statuses, agent=call.query("agent"), owner=who.owner,
            label=(label, value) if label else None, before=_place(call.query("cursor")),
        ),
        "runs", limit=limit + 1,
    )  # fmt: skip
    more = len(found) > limit
    return found[:limit], _cursor(found[limit - 1]) if more else None


def _statuses(text: str | None) -> tuple[Status, ...]:
    named = tuple(s.strip().upper() for s in (text or "").split(",") if s.strip())
    for name in named:
        if name not in get_args(Status):
            raise Problem(
                400, "bad_input", f"{name[:40]!r} is no status; there are {', '.join(get_args(Status))}.", path="?status"
            )
    return tuple(s for s in get_args(Status) if s in named)


def _cursor(run: Run) -> str:
    return urlsafe_b64encode(json.dumps([run.created_at, run.key.id]).encode()).decode().rstrip("=")


def _place(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    try:
        created_at, id = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        return float(created_at), str(id)
    except (ValueError, TypeError):
        raise Problem(400, "bad_input", "The cursor is not one of this server; begin without one.", path="?cursor") from None


# ---------------------------------------------------------------- one run


def seen_view(call: Call, seen: Refused) -> wire.Object:
    """A run as it was seen, with what its newest step says."""
    assert seen.run is not None
    return wire.run_view(seen.run, seen.step, call.api.parts(seen.run, seen.step), seen.now)


async def get_run(call: Call) -> Answer:
    """One run. With `wait`, answers when it differs from the ETag that is known, else when it ends or waits for a person."""
    seen = await call.run("read")
    known, wait = call.header("if-none-match"), call.number("wait", 0, 0, LONGEST_WAIT)
    clock = asyncio.get_running_loop().time
    end = clock() + min(wait, call.wall / 2)
    while True:
        view = seen_view(call, seen)
        still = {name: value for name, value in view.items() if name != "next"}  # what counts down is no change
        etag = 'W/"' + sha256(wire.encode(still)).hexdigest()[:24] + '"'
        settled = etag != known if known else view["isTerminal"] or view["status"] == "AWAITING_INPUT"
        left = end - clock()
        if settled or left <= 0 or await call.request.is_disconnected():
            return Answer(status=304 if etag == known else 200, body=view, headers={"ETag": etag})
        await asyncio.sleep(min(POLL, left))
        seen = await call.api.look(call.key)


async def explain_run(call: Call) -> Answer:
    seen = await call.run("read")
    assert seen.run is not None
    return Answer(body=explain(seen.run, seen.step, call.api.parts(seen.run, seen.step), seen.now))


# ---------------------------------------------------------------- its history


async def page_of_steps(call: Call) -> tuple[Run, list[Step], int | None]:
    """The run, a page of its steps, and where the next page begins (None: that was all)."""
    run = (await call.run("read")).run
    assert run is not None
    limit = call.number("limit", 100, 1, 500)
    steps = await call.api.engine.store.read(run.key, "steps", after=call.number("after", -1, -1, 2**31), limit=limit)
    more = len(steps) == limit and steps[-1].index < run.step - 1
    return run, steps, steps[-1].index if more else None


async def list_steps(call: Call) -> Answer:
    run, steps, after = await page_of_steps(call)
    return Answer(body={"steps": [wire.step_view(s, call.api.parts(run, s)) for s in steps], "after": after})


async def list_messages(call: Call) -> Answer:
    """The framework's own messages, in order."""
    run, steps, after = await page_of_steps(call)
    messages = [codec.loads(m) for s in steps for m in s.messages]
    return Answer(body={"adapter": run.adapter, "messages": messages, "after": after})


async def list_parts(call: Call) -> Answer:
    """The parts as JSON, or as an event stream that follows the run."""
    if call.wants_stream:
        from .live import follow

        return await follow(call)
    run, steps, after = await page_of_steps(call)
    views: list[Any] = [wire.live_view(live) for s in steps for live in committed(call, run, s)]
    return Answer(body={"parts": views, "after": after})


async def get_blob(call: Call) -> Answer:
    """The whole of a tool result that was cut. A reader may keep it, but asks each time whether it still may."""
    run = (await call.run("read")).run
    assert run is not None
    name = call.request.path_params["name"]
    found = await call.api.engine.store.read(run.key, "blob", name=name)
    if not found:
        detail = f"This run keeps no blob {name[:200]!r}. A fork does not keep those of its origin: ask that run for it."
        raise Problem(404, "no_such_blob", detail)
    body = found[0].encode()
    etag = '"' + sha256(body).hexdigest()[:24] + '"'
    known = (call.header("if-none-match") or "").removeprefix("W/") == etag
    headers = {"ETag": etag, "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    return Answer(status=304 if known else 200, body=body, headers=headers)


def committed(call: Call, run: Run, step: Step) -> list[Live]:
    """The parts of a step row, with their ids."""
    parts = call.api.parts(run, step)
    return [Live(step=step.index, attempt=step.attempt, index=i, part=p, committed=True) for i, p in enumerate(parts)]
