"""What reaches a run from outside: input, cancel, resume, hand-over; and forks of it. Each is a signal; the rest follows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex
from typing import Any

from ..core import codec
from ..core.machine import TERMINAL, interrupts_of
from ..core.model import Interrupt, New, Refused, Run, RunKey, Signal, Signalled, Step, Tally, Value
from ..core.noun import replace
from . import wire
from .api import Answer, Call, pruned
from .problem import Problem, absent
from .runs import made, seen_view
from .starts import admit_round, create, given, limited

PAGE = 200


async def signal(call: Call, key: RunKey, what: Signal) -> Signalled:
    """Put it into the run's inbox, and wake whoever carries the run. Raises Problem 404."""
    told = await call.api.engine.store.signal(key, what)
    if told is None:
        raise absent()
    if told.first and not told.run.ended:
        await call.api.call(key, told.run.carrier)
    return told


async def now_shown(call: Call, key: RunKey, status: int = 200) -> Answer:
    return Answer(status=status, body=seen_view(call, await call.api.look(key)))


# ---------------------------------------------------------------- input


async def give_input(call: Call) -> Answer:
    """Answers, or a prompt: to its only question, or for the next round."""
    body, seen = call.body, await call.run("input")
    run = seen.run
    assert run is not None
    answers = body if isinstance(body, list) else body.answers
    prompt = None if isinstance(body, list) else body.user_prompt
    if (answers is None) == (prompt is None):
        raise Problem(400, "bad_input", "Give either answers or userPrompt.", path="$")
    pending = _pending(seen)
    if answers is not None:
        told = [(a.interrupt_id, {"id": a.interrupt_id, "status": a.status, "payload": a.payload}) for a in answers]
        await _resolve(call, run.key, told, {i.id for i in pending})
    elif pending:
        one = _only_question(pending)
        await _resolve(call, run.key, [(one.id, {"id": one.id, "status": "resolved", "payload": prompt})], {one.id})
    else:
        await _prompt(call, seen)
    return await now_shown(call, run.key)


def _pending(seen: Refused) -> tuple[Interrupt, ...]:
    """What the run asked and still needs."""
    run = seen.run
    wait = codec.wait(run.wait) if run is not None and run.status == "AWAITING_INPUT" else None
    if wait is None or seen.step is None:
        return ()
    return tuple(i for i in interrupts_of([seen.step]) if i.id in wait.needs and i.id not in wait.got)


def _only_question(pending: Sequence[Interrupt]) -> Interrupt:
    if len(pending) == 1 and pending[0].kind == "question":
        return pending[0]
    detail = "The run waits for answers to what it asked (see interrupts); a plain prompt answers only a single question."
    raise Problem(409, "answers_needed", detail, interrupts=[wire.interrupt(i) for i in pending])


async def _resolve(call: Call, key: RunKey, answers: Sequence[tuple[str, Value]], pending: set[str]) -> None:
    """Give the answers; of two for the same interrupt the first counts. Raises Problem 400, 404, 409."""
    if len({id for id, _ in answers}) != len(answers):
        raise Problem(400, "bad_input", "Two answers are for the same interrupt.", path="$.answers")
    unknown = [id for id, _ in answers if id not in pending]
    known = await _answered(call, key) if unknown else {}
    for id in unknown:
        if id not in known:
            raise Problem(404, "no_such_interrupt", f"The run does not wait for {id!r}; read its interrupts.")
    other: dict[str, Value] = {}
    for id, answer in answers:
        body = codec.dumps(answer)
        told = known.get(id)
        if told is None:
            told = (await signal(call, key, Signal(kind="answer", body=body, request_id=f"answer:{id}"))).body
        if told != body:
            other[id] = codec.loads(told)
    if other:
        raise Problem(409, "already_answered", "Somebody answered first, and otherwise; that answer stands.", answers=other)


async def _answered(call: Call, key: RunKey) -> dict[str, str]:
    """The first answer to every interrupt of the run."""
    found: dict[str, str] = {}
    after = 0
    while True:
        page = await call.api.engine.store.read(key, "inbox", after=after, limit=PAGE)
        for s in page:
            if s.kind == "answer" and s.request_id is not None:
                found.setdefault(s.request_id.removeprefix("answer:"), s.body)
        if len(page) < PAGE:
            return found
        after = page[-1].seq


async def _prompt(call: Call, seen: Refused) -> None:
    """The next round's prompt: at once when the run has ended, in the queue when asked for. Raises Problem 409, 422."""
    run, body, repeat = seen.run, codec.dumps(call.body.user_prompt), call.header("idempotency-key")
    assert run is not None
    id = f"prompt:{repeat}" if repeat else None
    if not run.ended and call.body.when_busy != "queue":
        if repeat and await _said_before(call, run.key, f"prompt:{repeat}", body):
            return
        detail = 'The run is not done. Wait for it, cancel it, or queue the prompt with "whenBusy": "queue".'
        raise Problem(409, "run_busy", detail, runStatus=run.status)
    await admit_round(call, run)
    told = await signal(call, run.key, Signal(kind="prompt", body=body, request_id=id, reopens=True))
    if told.body != body:
        raise Problem(422, "key_reused", "This Idempotency-Key was used for another prompt; use a new key.")


async def _said_before(call: Call, key: RunKey, id: str, body: str) -> bool:
    after = 0
    while page := await call.api.engine.store.read(key, "inbox", after=after, limit=PAGE):
        if any(s.request_id == id and s.body == body for s in page):
            return True
        after = page[-1].seq
    return False


# ---------------------------------------------------------------- cancel, resume, hand-over


async def cancel(call: Call) -> Answer:
    """Stop it for good: an idle run ends here, a held one when its driver hears of it (202)."""
    seen = await call.run("cancel")
    run = seen.run
    assert run is not None
    if run.ended:
        return Answer(body=seen_view(call, seen))
    await call.api.engine.store.signal(run.key, Signal(kind="cancel"))
    ending = call.api.spawn(call.api.engine.advance(run.key, carrier=None, wall=call.left))
    advanced = await asyncio.shield(ending)
    if advanced.outgoing:
        await call.api.send_outbox(run.key)
    await call.api.part_from(run.key, run.carrier)
    ended = advanced.run is not None and advanced.run.ended
    return await now_shown(call, run.key, 200 if ended else 202)


async def resume(call: Call) -> Answer:
    """Go on after a failure, a brake or a cancel. A run that is under way is left alone."""
    seen = await call.run("resume")
    run = seen.run
    assert run is not None
    if not run.ended:
        return Answer(body=seen_view(call, seen))
    if run.stop_reason == "finished":
        raise Problem(409, "nothing_to_resume", "The run finished; give it a new prompt with /input.")
    wanted = given(call.body.limits)
    if not call.who.trusted:
        limited(call.api.settings.limits, call.body.limits, free=False)
    await admit_round(call, run)
    await signal(call, run.key, Signal(kind="resume", body=codec.dumps({"limits": wanted}), reopens=True))
    return await now_shown(call, run.key)


async def hand_over(call: Call) -> Answer:
    """Another kind of driver carries the run from here on."""
    seen, body = await call.run("hand-over"), call.body
    assert seen.run is not None
    key, before = seen.run.key, seen.run.carrier
    carriage = {"carrier": body.carrier, "takeover_after": call.api.silence(body.carrier, body.takeover_after)}
    await signal(call, key, Signal(kind="carry", body=codec.dumps(carriage), **carriage))
    if before != body.carrier:
        await call.api.part_from(key, before)
    return await now_shown(call, key)


# ---------------------------------------------------------------- fork


async def fork(call: Call) -> Answer:
    """A new run with the history up to a step of this one, and something else after it."""
    seen, body = await call.run("fork"), call.body
    run = seen.run
    assert run is not None
    if body.step >= run.step:
        raise Problem(404, "no_such_step", f"The run's newest step is {run.step - 1}.", path="$.step")
    steps = await _history(call, run, body.step)
    new = _forked(call, run, steps)
    await admit_round(call, run)
    created, copy = await create(call.api, call.named(token_hex(16)), new)
    if created:
        await call.api.call(copy.key, copy.carrier)
    return made(call, copy)


async def _history(call: Call, run: Run, last: int) -> list[Step]:
    """All steps up to `last`. Raises Problem 410 when some were pruned."""
    steps: list[Step] = []
    while len(steps) <= last:
        page = await call.api.engine.store.read(run.key, "steps", after=len(steps) - 1, limit=PAGE)
        if not page or page[0].index != len(steps):
            raise pruned()
        steps += page
    return steps[: last + 1]


def _forked(call: Call, run: Run, steps: Sequence[Step]) -> New:
    """What the fork is made of. Raises Problem 409 where an ended step is not followed by a prompt."""
    edit, at = call.body.edit, steps[-1] if steps else None
    prompt = edit.user_prompt if edit is not None else None
    if at is not None and at.status in TERMINAL and prompt is None:
        raise Problem(409, "prompt_needed", "That step ended the round; give edit.userPrompt for what comes next.", path="$.edit")
    fresh = prompt is not None or at is None
    same_round = at is None or at.round == run.round
    return New(
        agent=run.agent,
        adapter=run.adapter,
        prompt=codec.dumps(prompt) if prompt is not None else run.prompt if same_round else None,
        limits=_limits(call, run),
        carrier=call.body.carrier,
        takeover_after=call.api.silence(call.body.carrier, None),
        owner=run.owner,
        parent=codec.dumps({"run": run.key.id, "step": call.body.step, "kind": "fork"}),
        labels=run.labels,
        steps=tuple(replace(s, request=None) for s in steps),
        state=_state(edit, steps),
        floor=max((s.floor for s in steps if s.floor is not None), default=0),
        round=0 if at is None else at.round + (prompt is not None),
        tally=codec.pack(Tally(fresh=fresh, base=len(steps))),
    )


def _limits(call: Call, run: Run) -> str:
    edit = call.body.edit
    if edit is None or edit.limits is None:
        return run.limits
    return codec.pack(limited(codec.limits(run.limits), edit.limits, free=call.who.trusted))


def _state(edit: Any, steps: Sequence[Step]) -> str | None:
    """The state as the newest of these steps left it, unless the edit says otherwise."""
    from msgspec import UNSET

    if edit is not None and edit.state is not UNSET:
        return codec.dumps(edit.state)
    return next((s.state for s in reversed(steps) if s.state is not None), None)
