"""Where a stream begins: what of a run its reader has, and what it is to be told first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..core import codec
from ..core.machine import TERMINAL
from ..core.model import Call, Interrupt, Result, Run, Step, Value
from . import wire
from .problem import Problem
from .runs import committed
from .streams import Encoder, Past
from .streams.encoder import asked_about, call_name, open_calls
from ..watch import Live

if TYPE_CHECKING:
    from .api import Call as Request
    from .steps import Ask

PAGE = 100
LOOK_BACK = 20
"""Steps among which the call of a result is looked for."""


class Cursor(NamedTuple):
    """A Last-Event-ID. `attempt`: None once committed, 0 before the first part."""

    step: int
    attempt: int | None


_CURSOR = re.compile(r"(\d{1,9})\.(c|\d{1,9})\.\d{1,9}\Z")


def cursor(call: Request) -> Cursor | None:
    """Where the reader was. Raises Problem 400."""
    text = call.header("last-event-id")
    if not text:
        return None
    match = _CURSOR.match(text)
    if match is None:
        raise Problem(400, "bad_input", f"Last-Event-ID {text[:40]!r} is none of this server's.", path="Last-Event-ID")
    return Cursor(int(match[1]), None if match[2] == "c" else int(match[2]))


async def before_step(call: Request, ask: Ask, speaking: Encoder) -> Past:
    """The past of a stream that takes a step, or repeats one. A reader that says where it was (Last-Event-ID) is told what
    it has missed; who says nothing is taken to have every step before this one."""
    if speaking.memory == "none":
        return Past(thread=ask.key.id)
    had = cursor(call)
    try:
        seen = await call.api.look(ask.key)
    except Problem:
        return Past(thread=ask.key.id, first=had is None)
    run = seen.run
    assert run is not None
    at = run.step if ask.expect is None else min(ask.expect, run.step)
    start = at if had is None else min(at, had.step + (had.attempt is None))  # the first step it has not got whole
    before = seen.step if start == run.step else await _step(call, run, start - 1)
    repeated = await _step(call, run, at) if at < run.step else None
    round, prompt = (repeated.round, None) if repeated else await _coming(call, run, seen.step)
    opens = before is None or before.status in TERMINAL or before.status == "AWAITING_INPUT" or before.round != round
    known = had is not None and had.step >= start
    anew = start < run.step or run.attempts > 0 or (opens and before is not None)
    thread, open = run.key.id, await _unanswered(call, run, before)
    return Past(
        thread=thread, step=start, round=round, first=opens and not known, heard=known and had != (start, 0), prompt=prompt,
        history=await history_of(call, run, at if repeated else at - 1) if anew and speaking.memory == "thread" else None,
        missed=await history_of(call, run, at - 1, after=start - 1) if speaking.memory == "round" else (),
        open=open[0], asked=open[1],
    )  # fmt: skip


async def before_all(call: Request, run: Run, newest: Step | None, speaking: Encoder, after: int) -> Past:
    """The past of a stream that follows a run: all of it, or the round that is under way or was the last."""
    if speaking.memory == "none":
        return Past(thread=run.key.id, step=after + 1)
    round, prompt = await _coming(call, run, newest)
    if speaking.memory == "round":
        return Past(thread=run.key.id, step=await _first_of(call, run, round), round=round)
    history = await history_of(call, run, run.step - 1)
    open = open_calls(run.key.id, history)
    return Past(thread=run.key.id, step=run.step, round=round, history=history, prompt=prompt, open=open)


async def history_of(call: Request, run: Run, last: int, after: int = -1) -> list[Live]:
    """Everything committed after a step, up to another."""
    found: list[Live] = []
    while after < last and (steps := await call.api.engine.store.read(run.key, "steps", after=after, limit=PAGE)):
        found += [live for s in steps if s.index <= last for live in committed(call, run, s)]
        after = steps[-1].index
    return found


async def _step(call: Request, run: Run, index: int) -> Step | None:
    steps = await call.api.engine.store.read(run.key, "steps", after=index - 1, limit=1) if index >= 0 else []
    return steps[0] if steps else None


async def _first_of(call: Request, run: Run, round: int) -> int:
    """The first step of a round; of one that has not begun, the step that will be."""
    after = -1
    while steps := await call.api.engine.store.read(run.key, "steps", after=after, limit=PAGE):
        if (first := next((s.index for s in steps if s.round == round), None)) is not None:
            return int(first)
        after = steps[-1].index
    return run.step


async def _coming(call: Request, run: Run, before: Step | None) -> tuple[int, Value]:
    """The round that the next step belongs to, and its prompt if no committed step has taken that in."""
    tally = codec.tally(run.tally)
    over = before is not None and before.status in TERMINAL and before.round == run.round
    if not over:
        return run.round, codec.loads(run.prompt) if tally.fresh else None
    if run.ended:
        return run.round, None
    waiting = await call.api.engine.store.read(run.key, "inbox", after=run.inbox_read)
    prompts = [*tally.queued, *(codec.loads(s.body) for s in waiting if s.kind == "prompt")]
    return (run.round + 1, prompts[0]) if prompts else (run.round, None)


async def _unanswered(call: Request, run: Run, before: Step | None) -> tuple[dict[str, str], dict[str, str]]:
    """Calls that have no result yet, and those that a person was asked about, by their names on the wire."""
    if before is None:
        return {}, {}
    lives, id = committed(call, run, before), run.key.id
    made = {live.part.id for live in lives if isinstance(live.part, Call)}
    if any(isinstance(live.part, Result) and live.part.id not in made for live in lives):
        after = max(-1, before.index - LOOK_BACK - 1)
        steps = await call.api.engine.store.read(run.key, "steps", after=after, limit=LOOK_BACK)
        lives = [live for s in (*(s for s in steps if s.index < before.index), before) for live in committed(call, run, s)]
    open, asked = open_calls(id, lives), dict[str, str]()
    for live in lives:
        if before.status == "AWAITING_INPUT" and live.step == before.index and isinstance(live.part, Interrupt):
            about = asked_about(wire.interrupt(live.part))
            asked[about] = open.get(about) or call_name(id, live, about)
    return open, asked
