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
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from secrets import token_hex
from typing import Any

from . import children
from .core import machine
from .core.errors import AgentError, SchemaTooNew, StateInvalid, StepRelayError, StoreUnavailable
from .core.model import (
    Busy, Claim, Claimed, Commit, Committed, Fenced, New, Outcome, Refused, Reply, Request, Run, RunKey, Step, Text,
)  # fmt: skip
from .lease import Lease, Wall, insist
from .core.noun import Noun, replace
from .ledger import StepContext
from .ports import Agent, Store
from .watch import Listen, Observer, View, Watch

FOREVER = 10 * 365 * 86_400.0


class Advanced(Noun):
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
        lease: float = 15.0, observer: Observer | None = None, ids: Callable[[], str] = lambda: token_hex(16),
    ) -> None:  # fmt: skip
        """`view(adapter)` answers that adapter's pure `view`; `ids` makes claim ids; `lease` is in seconds."""
        self.store, self.agents, self.lease, self._ids = store, agents, lease, ids
        self._cold = [a.warm for a in agents.values() if hasattr(a, "warm")]
        self._watch = Watch(view, observer)
        self.parts, self.tell, self.observe = self._watch.parts, self._watch.tell, self._watch.observe

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
        limit, loop = Wall(wall), asyncio.get_running_loop()
        while self._cold:  # adapters with a `warm` import their frameworks while the first claim is on its way
            warming = loop.run_in_executor(None, self._cold.pop())
            warming.add_done_callback(lambda f: f.cancelled() or f.exception())  # the step will say it better
        claim = partial(
            self.store.claim, key, holder=holder, lease=self.lease, carrier=carrier, expect=expect, request=request, new=new,
            claim_id=self._ids(),  # one for all tries: a claim whose answer was lost is granted again
        )  # fmt: skip
        claimed = await insist(claim, self.lease)
        if isinstance(claimed, Claimed) and not machine.whole(claimed):
            claimed = await insist(claim, self.lease)  # granted again, and loaded anew
        if isinstance(claimed, Refused):
            self._watch.refused(claimed)
            outcome, run, step = machine.refused(claimed), claimed.run, claimed.step
            return Advanced(outcome=outcome, run=run, step=step, now=claimed.now, refused=claimed.reason)
        so_far = Advanced(outcome=None, run=claimed.run, step=(claimed.steps or (None,))[-1], now=claimed.now)
        while True:
            began = loop.time()
            commit = await self._judge(claimed, request, limit, listen)
            spent = loop.time() - began
            commit = replace(commit, outbox=(*commit.outbox, *children.news(claimed.run, commit)))
            keep = commit.status == "RUNNING" and commit.after == 0 and more is not None and more(spent)
            if keep and commit.step:  # a request id belongs to its last commit
                commit = replace(commit, step=replace(commit.step, request=None))
            committed, kept = await self._commit(claimed, commit, self.lease if keep else None)
            if isinstance(committed, Fenced):
                self._watch.report("fenced", claimed)
                return replace(so_far, outcome=Busy(until=None, carrier=claimed.run.carrier), refused="fenced")
            now = committed.now
            self._watch.report("step" if commit.step else "release", claimed, commit, spent, now)
            run = machine.apply(claimed.run, commit, now=now, unread=committed.inbox, renew=self.lease if kept else None)
            so_far = replace(so_far, run=run, now=now, outgoing=so_far.outgoing or bool(commit.outbox))
            if commit.step:
                step = replace(commit.step, committed_at=now)
                so_far = replace(so_far, step=step, taken=(*so_far.taken, step))
                self.tell(run, step, listen)
            if run.claim_id is None:
                return replace(so_far, outcome=machine.outcome(run, now))
            claimed = _renewed(claimed, run, so_far.taken[-1], committed, commit)

    async def _judge(self, claimed: Claimed, request: Request | None, wall: Wall, listen: Listen | None) -> Commit:
        """From a claim to what shall be committed."""
        try:
            opened = machine.open(claimed, request)
            if isinstance(opened, Commit):
                return opened
            turn = opened.turn
        except (StateInvalid, TypeError, ValueError, KeyError, AttributeError) as e:  # a payload of another shape than ours
            if not isinstance(e, SchemaTooNew):
                return machine.invalid(claimed, e)
            await self._commit(claimed, machine.untouched(claimed, after=30.0), None)
            raise
        agent = self.agents.get(turn.agent)
        if agent is None:
            known = ", ".join(map(repr, self.agents)) or "none"
            error = AgentError(f"this app has no agent {turn.agent!r} (it has: {known})", final=True)
            return machine.failed(opened, error, claimed.now)
        async with Lease(self.store, claimed.claim, self.lease, wall) as lease:
            context = StepContext(turn, lease, wall, listen)
            began = asyncio.get_running_loop().time()
            task: asyncio.Future[Any] = self._watch.context(opened).run(asyncio.ensure_future, agent.step(turn, context))
            try:
                await asyncio.wait({task, lease.stop}, timeout=wall.left, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:  # this process is asked to end: hand the run back, whole
                await _stopped(task, wall.grace)
                back = replace(machine.untouched(claimed, after=0.0), ledger=dict(lease.unsent))
                with suppress(StoreUnavailable):
                    await asyncio.shield(self._commit(claimed, back, None))
                raise
            overrun = not task.done() and not lease.stop.done()
            await _stopped(task, wall.grace)
        now = claimed.now + asyncio.get_running_loop().time() - began
        commit = self._fold(opened, task, lease, now, overrun=overrun)
        blobs = {**commit.blobs, **context.blobs} if commit.step else {}
        return replace(commit, blobs=blobs, ledger=lease.recorded if commit.keep_ledger else dict(lease.unsent))

    def _fold(self, opened: machine.Opened, task: asyncio.Future[Reply], lease: Lease, now: float, *, overrun: bool) -> Commit:
        cancelled = lease.stop.done()
        try:
            reply = task.result()
        except BaseException as error:  # also InvalidStateError: the agent did not stop when it was told to
            if cancelled:
                said = (Text(text=lease.said),) if lease.said else ()
                return machine.fold(opened, Reply(parts=said), said, now, cancelled=True)
            late = AgentError("the host's time was up before the step was done")
            return machine.failed(opened, late if overrun else error, now, overrun=overrun)
        try:
            return machine.fold(opened, reply, self._watch.seen(opened.claimed.run.adapter, reply), now, cancelled=cancelled)
        except StepRelayError as e:
            refused = AgentError(str(e), final=True)
        except Exception as e:  # rubbish where a Reply has a shape: the agent's fault, and no reason to try again
            refused = AgentError(f"the agent's reply cannot be read ({type(e).__name__}: {e})", final=True)
        return machine.failed(opened, refused, now, overrun=overrun)

    async def _commit(self, claimed: Claimed, commit: Commit, renew: float | None) -> tuple[Committed | Fenced, bool]:
        """Commit, and never assume: a lost answer is resolved by the same compare-and-set, then by looking. Answers also
        whether the claim is kept: not after a lost answer (the inbox went with it), nor when the run was handed over."""
        claim = claimed.claim
        committed = await insist(lambda: self.store.commit(claim, commit, renew=renew), self.lease)
        kept = False
        if isinstance(committed, Committed):
            carrier = next((s.carrier for s in reversed(committed.inbox) if s.carrier), claim.carrier)
            kept = renew is not None and carrier in (claim.carrier, "any")
        elif (at := await self._ours(claim, commit)) is not None:
            committed = Committed(now=at)
        if renew is not None and not kept and isinstance(committed, Committed):
            idle = Commit(status=commit.status, after=0.0, tally=commit.tally, inbox_read=commit.inbox_read, attempts=0)
            await insist(lambda: self.store.commit(replace(claim, index=claim.index + 1), idle), self.lease)
        return committed, kept

    async def _ours(self, claim: Claim, commit: Commit) -> float | None:
        """When a commit that came back fenced was made by an earlier try whose answer was lost; None: it never was."""
        if commit.step is None:
            runs = await insist(lambda: self.store.read(claim.key, "run"), self.lease)
            ours = [r.updated_at for r in runs if (r.step, r.fence, r.claim_id) == (claim.index, claim.fence, None)]
        else:
            steps = await insist(lambda: self.store.read(claim.key, "steps", after=claim.index - 1, limit=1), self.lease)
            ours = [s.committed_at for s in steps if (s.index, s.claim_id) == (claim.index, claim.claim_id)]
        return ours[0] if ours else None


def _renewed(old: Claimed, run: Run, step: Step, committed: Committed, commit: Commit) -> Claimed:
    """The claim after a commit that kept it, as the store would load it."""
    steps = tuple(s for s in (*old.steps, step) if s.index >= run.floor)
    ledger = {**old.ledger, **commit.ledger} if commit.keep_ledger else {}
    claim = replace(old.claim, index=run.step)
    return Claimed(claim=claim, run=run, steps=steps, inbox=committed.inbox, ledger=ledger, now=committed.now)


async def _stopped(task: asyncio.Future[Any], grace: float) -> None:
    """Let a task end: it is cancelled if it has not, and given a moment to hand over what it has."""
    for _ in range(2):
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=grace)
    if task.done() and not task.cancelled():
        task.exception()  # looked at: when the claim is lost nobody else will
