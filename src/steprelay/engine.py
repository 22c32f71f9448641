"""The one place where claim, step and commit meet.

    claim ── refused ──────────────────────────────▶ outcome
      │
      ▼
    machine.open ── no step is due ──▶ commit ─────▶ outcome
      │
      ▼
    agent.step  under a lease, up to the wall
      │
      ▼
    machine.fold / failed ──▶ commit ──▶ outcome,  or on to the next step with the claim renewed

Nothing is held open between claim and commit; whatever dies in between costs one attempt.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

from .core import codec, machine
from .core.errors import AgentError, BadInput, SchemaTooNew, StateInvalid, StoreUnavailable
from .core.model import (
    Again, Busy, Claimed, Commit, Committed, Fenced, Live, New, Outcome, Part, Refused, Reply, Request, Run, RunKey,
    Step, Text, Usage, Value,
)  # fmt: skip
from .lease import Lease, Wall
from .ledger import Listen, StepContext
from .ports import Agent, Store

T = TypeVar("T")
Observer = Callable[[dict[str, Value]], None]
View = Callable[[str], Callable[[Value], Any]]
GRACE = 2.0
"""Seconds a cancelled agent gets to hand over what it has."""
FOREVER = 10 * 365 * 86_400.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Advanced:
    """What one call of `advance` came to. `step`: the newest (or replayed) step; `refused`: why no claim was granted;
    `outgoing`: something was put into the outbox."""

    outcome: Outcome | None  # None: there is no such run
    run: Run | None
    step: Step | None
    now: float
    taken: tuple[Step, ...] = ()
    refused: str | None = None
    outgoing: bool = False

    @property
    def replayed(self) -> bool:
        return self.refused == "replay"


class Engine:
    """Drives runs of `agents` in `store`. Hosts and drivers know nothing below this."""

    def __init__(
        self, store: Store, agents: Mapping[str, Agent], view: View, *,
        lease: float = 15.0, observer: Observer | None = None, ids: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:  # fmt: skip
        """`view(adapter)` answers that adapter's pure `view`; `ids` makes claim ids; `lease` is in seconds."""
        self.store, self.agents, self._view, self.lease = store, agents, view, lease
        self._observer, self._ids = observer, ids

    async def advance(
        self, key: RunKey, *, carrier: str | None, holder: str = "", wall: float = FOREVER, expect: int | None = None,
        request: Request | None = None, new: New | None = None, listen: Listen | None = None,
        more: Callable[[float], bool] | None = None,
    ) -> Advanced:  # fmt: skip
        """Take the next step of a run, if it is due and ours to take.

        `wall`: seconds this host still lives. `listen` hears every part live. `more(seconds of the step just taken)` says
        whether another step fits: then the claim is kept and the loop goes on. Raises StoreUnavailable when the store
        stays away for most of a lease: what became of the step is then found out by repeating the request.
        """
        limit = Wall(wall)
        claim_id = self._ids()  # one for all tries: a claim whose answer was lost is granted again
        claimed = await self._insist(
            lambda: self.store.claim(
                key, claim_id=claim_id, holder=holder, lease=self.lease, carrier=carrier, expect=expect, request=request, new=new
            )
        )
        taken: tuple[Step, ...] = ()
        outgoing = False
        while True:
            if isinstance(claimed, Refused):
                outcome = machine.refused(claimed) if claimed.run else None
                return Advanced(outcome=outcome, run=claimed.run, step=claimed.step, now=claimed.now, refused=claimed.reason)
            began = time.monotonic()
            commit = await self._judge(claimed, request, limit, listen)
            spent = time.monotonic() - began
            if commit is None:
                return self._lost(claimed, taken)
            keep = commit.status == "RUNNING" and commit.after == 0 and more is not None and more(spent)
            committed = await self._commit(claimed, commit, self.lease if keep else None)
            if isinstance(committed, Fenced):
                self._report("fenced", claimed, commit, spent)
                return self._lost(claimed, taken)
            self._report("step" if commit.step else "release", claimed, commit, spent)
            run = machine.apply(
                claimed.run, commit, now=committed.now, unread=committed.inbox, renew=self.lease if keep else None
            )
            step = replace(commit.step, committed_at=committed.now) if commit.step else None
            if step:
                taken += (step,)
                self.tell(run, step, listen)
            outgoing = outgoing or bool(commit.outbox)
            if run.claim_id is None:
                newest = step or (taken or claimed.steps or (None,))[-1]
                return Advanced(
                    outcome=machine.outcome(run, committed.now),
                    run=run,
                    step=newest,
                    now=committed.now,
                    taken=taken,
                    outgoing=outgoing,
                )
            claimed = self._renewed(claimed, run, step, committed, commit)

    async def _judge(self, claimed: Claimed, request: Request | None, wall: Wall, listen: Listen | None) -> Commit | None:
        """From a claim to what shall be committed; None: the claim was lost on the way."""
        try:
            machine.gapless(claimed.steps, claimed.run.floor, claimed.run.step)
            opened = machine.open(claimed, request)
        except SchemaTooNew:
            await self._commit(claimed, machine.untouched(claimed, after=30.0), None)
            raise
        except StateInvalid as e:
            return machine.invalid(claimed, e)
        if isinstance(opened, Commit):
            return opened
        turn = opened.turn
        agent = self.agents.get(turn.agent)
        if agent is None:
            known = ", ".join(map(repr, self.agents)) or "none"
            return machine.failed(
                opened, AgentError(f"this app has no agent {turn.agent!r} (it has: {known})", final=True), claimed.now
            )
        async with Lease(self.store, claimed.claim, self.lease, wall) as lease:
            context = StepContext(turn, lease, wall, listen)
            began = asyncio.get_running_loop().time()
            task: asyncio.Future[Any] = asyncio.ensure_future(agent.step(turn, context))
            try:
                await asyncio.wait({task, lease.stop}, timeout=wall.left, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:  # this process is asked to end: hand the run back, whole
                await _stopped(task)
                await asyncio.shield(self._commit(claimed, machine.untouched(claimed, after=0.0), None))
                raise
            overrun = not task.done() and not lease.stop.done()
            await _stopped(task)
        if lease.stop.done() and lease.stop.result() == "fenced":
            return None
        now = claimed.now + asyncio.get_running_loop().time() - began
        commit = self._fold(opened, task, lease, now, overrun=overrun)
        blobs = {**commit.blobs, **context.blobs} if commit.step else {}
        return replace(commit, blobs=blobs, ledger=lease.unsent())

    def _fold(self, opened: machine.Opened, task: asyncio.Future[Reply], lease: Lease, now: float, *, overrun: bool) -> Commit:
        cancelled = lease.stop.done()
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if cancelled and error is not None:
            said = (Text(text=lease.said),) if lease.said else ()
            return machine.fold(opened, Reply(parts=said), said, now, cancelled=True)
        if overrun and error is not None:
            error = AgentError("the host's time was up before the step was done")
        if error is None:
            try:
                reply = task.result()
                return machine.fold(opened, reply, self._seen(opened.claimed.run.adapter, reply), now, cancelled=cancelled)
            except (AgentError, BadInput, StateInvalid) as e:
                error = AgentError(str(e), final=True)
        return machine.failed(opened, error, now, overrun=overrun)

    async def _commit(self, claimed: Claimed, commit: Commit, renew: float | None) -> Committed | Fenced:
        """Commit, and never assume: a lost answer is resolved by the same compare-and-set, then by looking."""
        claim = claimed.claim
        committed = await self._insist(lambda: self.store.commit(claim, commit, renew=renew))
        if isinstance(committed, Committed) or commit.step is None:
            return committed
        rows = await self._insist(lambda: self.store.read(claim.key, "steps", after=claim.index - 1, limit=1))
        if not rows or rows[0].claim_id != claim.claim_id:
            return committed
        if renew is not None:  # ours, but what came in meanwhile went with the answer: go on with a fresh claim
            ahead = replace(claim, index=claim.index + 1)
            idle = Commit(status=commit.status, after=0.0, tally=commit.tally, inbox_read=commit.inbox_read, attempts=0)
            await self._insist(lambda: self.store.commit(ahead, idle))
        return Committed(now=rows[0].committed_at)

    async def _insist(self, verb: Callable[[], Awaitable[T]]) -> T:
        """Repeat a verb while the store is away, for most of a lease. Every verb is safe to repeat."""
        loop = asyncio.get_running_loop()
        until, delay = loop.time() + self.lease * 0.8, 0.05
        while True:
            try:
                return await verb()
            except StoreUnavailable:
                if loop.time() + delay > until:
                    raise
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    def _renewed(self, old: Claimed, run: Run, step: Step | None, committed: Committed, commit: Commit) -> Claimed:
        steps = (*old.steps, step) if step else old.steps
        ledger = {**old.ledger, **commit.ledger} if commit.keep_ledger else {}
        return Claimed(
            claim=replace(old.claim, index=run.step),
            run=run,
            steps=tuple(s for s in steps if s.index >= run.floor),
            inbox=committed.inbox,
            ledger=ledger,
            now=committed.now,
        )

    def _lost(self, claimed: Claimed, taken: tuple[Step, ...]) -> Advanced:
        run = claimed.run
        newest = (taken or claimed.steps or (None,))[-1]
        busy = Busy(until=None, carrier=run.carrier)
        return Advanced(outcome=busy, run=run, step=newest, now=claimed.now, taken=taken, refused="fenced")

    # ------------------------------------------------------------ views

    def parts(self, adapter: str, step: Step) -> tuple[Part, ...]:
        """Everything a step row says, in order: its messages as that adapter shows them, then its own parts."""
        view = self._view(adapter)
        return (*(p for m in step.messages for p in view(codec.loads(m))), *codec.parts_from(step.parts))

    def _seen(self, adapter: str, reply: Reply) -> tuple[Part, ...]:
        machine.check_reply(reply)
        view = self._view(adapter)
        return (*(p for m in reply.messages for p in view(m)), *reply.parts)

    def tell(self, run: Run, step: Step, listen: Listen | None) -> None:
        if listen is not None:
            for i, part in enumerate(self.parts(run.adapter, step)):
                listen(Live(step=step.index, attempt=step.attempt, index=i, part=part, committed=True))

    def observe(self, event: dict[str, Value]) -> None:
        """Tell the observer; never a prompt, a message or a secret."""
        if self._observer is not None:
            self._observer(event)

    def _report(self, what: str, claimed: Claimed, commit: Commit, spent: float) -> None:
        usage = codec.unpack(Usage, commit.step.usage if commit.step else None)
        run = claimed.run
        self.observe(
            {
                "event": what, "tenant": run.key.tenant, "run": run.key.id, "agent": run.agent, "step": run.step,
                "attempt": run.attempts, "carrier": claimed.claim.carrier, "status": commit.status,
                "stop_reason": commit.stop_reason, "ms": round(spent * 1000, 1), "tokens": usage.tokens, "usd": usage.usd,
            }
        )  # fmt: skip


async def _stopped(task: asyncio.Future[Any]) -> None:
    """Let a task end: it is cancelled if it has not, and given a moment to hand over what it has."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=GRACE)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=GRACE)


def again(outcome: Outcome | None) -> bool:
    """Whether the next step is due now."""
    return isinstance(outcome, Again) and outcome.after <= 0
