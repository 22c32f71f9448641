"""Streams: a step while it is taken, and a run that somebody follows. The work never depends on who listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.responses import Response

from ..core import codec
from ..core.model import Refused, Run, Step
from ..engine import Advanced
from . import wire
from .api import Answer, Call
from .past import PAGE, before_all, before_step, cursor
from .problem import translated
from .runs import POLL, committed
from .steps import Ask, advance, answered
from .streams import Encoder, Sse, encoder
from ..watch import Live

if TYPE_CHECKING:
    from sse_starlette import ServerSentEvent

HEARTBEAT = 10
SOON = 1.0
"""Seconds in which a refusal still gets its own HTTP status; after that the stream begins."""
FOLLOW = 300.0
"""Seconds a reader is served by one response at most; then it comes again, with its Last-Event-ID."""


async def stream_step(call: Call, ask: Ask) -> Answer:
    """The step's parts as they come, then its envelope. What is refused at once is refused with its own status."""
    speaking = _encoder(call)
    opening = speaking.begin(await before_step(call, ask, speaking))
    heard: asyncio.Queue[Live | None] = asyncio.Queue()
    said = asyncio.Event()  # there is something to stream, or nothing to come

    def hear(live: Live | None) -> None:
        heard.put_nowait(live)
        said.set()

    task = call.api.spawn(advance(call, ask, listen=hear))
    task.add_done_callback(lambda _: hear(None))
    with suppress(TimeoutError):
        async with asyncio.timeout(SOON):
            await said.wait()
    status, headers = 200, {}
    if task.done() and heard.qsize() <= 1:  # nothing was said
        told = answered(call, ask, task.result())
        status, headers = told.status, dict(told.headers)
    events = _step_events(call, ask, speaking, opening, heard, task)
    return Answer(stream=_response(events, speaking, status, headers))


async def _step_events(
    call: Call, ask: Ask, speaking: Encoder, opening: list[Sse], heard: asyncio.Queue[Live | None], task: asyncio.Task[Advanced]
) -> AsyncIterator[ServerSentEvent]:
    for event in opening:
        yield _sse(event)
    while (live := await heard.get()) is not None:
        for event in speaking.live(live):
            yield _sse(event)
    try:
        advanced = task.result()
        if advanced.replayed and advanced.run is not None and advanced.step is not None:
            for live in committed(call, advanced.run, advanced.step):
                for event in speaking.live(live):
                    yield _sse(event)
        for event in speaking.end(answered(call, ask, advanced).body):
            yield _sse(event)
    except Exception as e:
        for event in speaking.broken(translated(e).body):
            yield _sse(event)


# ---------------------------------------------------------------- following a run


async def follow(call: Call) -> Answer:
    """The committed parts from a step on, and those to come; what is being said goes out as `tail`, once a second at most.

    Ends when the round has ended or a person is needed. A reader that comes back with its Last-Event-ID gets that step
    again from its start: what it had of it, it drops.
    """
    seen = await call.run("read")
    speaking = _encoder(call)
    had = cursor(call)
    after = call.number("after", -1, -1, 2**31) if had is None else had.step - 1
    return Answer(stream=_response(_followed(call, seen, speaking, after), speaking, 200, {}))


async def _followed(call: Call, seen: Refused, speaking: Encoder, after: int) -> AsyncIterator[ServerSentEvent]:
    assert seen.run is not None
    clock = asyncio.get_running_loop().time
    end = clock() + min(FOLLOW, call.wall / 2)
    tail: str | None = None
    past = await before_all(call, seen.run, seen.step, speaking, after)
    after = past.step - 1
    for event in speaking.begin(past):
        yield _sse(event)
    while True:
        run = seen.run
        async for live in _new(call, run, after):
            after = live.step
            for event in speaking.live(live):
                yield _sse(event)
        if run.ended or (run.status == "AWAITING_INPUT" and run.claim_id is None):
            step, parts = seen.step, call.api.parts(run, seen.step)
            for event in speaking.end(wire.snapshot(run, step, parts, seen.now)):
                yield _sse(event)
            return
        if clock() >= end:
            for event in speaking.end(None):
                yield _sse(event)
            return
        if (said := _tail(run)) != tail and said:
            tail = said
            for event in speaking.tail(run.step, run.attempts, said):
                yield _sse(event)
        await asyncio.sleep(POLL)
        seen = await call.api.look(run.key)
        assert seen.run is not None


async def _new(call: Call, run: Run, after: int) -> AsyncIterator[Live]:
    while after < run.step - 1:
        steps: Sequence[Step] = await call.api.engine.store.read(run.key, "steps", after=after, limit=PAGE)
        if not steps:
            return
        for step in steps:
            for live in committed(call, run, step):
                yield live
        after = steps[-1].index


def _tail(run: Run) -> str | None:
    tail = codec.loads(run.tail)
    return tail.get("text") if isinstance(tail, dict) else None


# ---------------------------------------------------------------- on the wire


def _encoder(call: Call) -> Encoder:
    return encoder(call.query("protocol") or "plain", call.query("runId"))


def _sse(event: Sse) -> ServerSentEvent:
    from sse_starlette import ServerSentEvent

    data = event.data if isinstance(event.data, str) else wire.encode(event.data).decode()
    return ServerSentEvent(data, event=event.event, id=event.id)


def _response(events: AsyncIterator[ServerSentEvent], speaking: Encoder, status: int, headers: dict[str, str]) -> Response:
    from sse_starlette import EventSourceResponse

    shown = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **speaking.headers, **headers}
    response: Response = EventSourceResponse(events, status_code=status, headers=shown, ping=HEARTBEAT)
    return response
