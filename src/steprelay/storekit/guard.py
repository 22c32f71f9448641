"""The one guard of `claim`, in Python: for stores that hold the run's row while they decide.

A store that decides inside its server (SQL function, script) writes these few lines in that language; the store suite
holds both to the same answers.
"""

from __future__ import annotations

from typing import Literal

from ..core import codec
from ..core.model import Filter, New, Refused, Request, Run, RunKey, Signal, Step
from ..core.noun import replace

Reason = Literal["replay", "conflict", "busy", "later", "waiting", "ended", "index"]
NEVER = float("inf")


def created(key: RunKey, new: New, now: float) -> tuple[Run, list[Step]]:
    """The rows of a new run."""
    run = Run(
        key=key, agent=new.agent, adapter=new.adapter, prompt=new.prompt, status=new.status, stop_reason=new.stop_reason,
        due_at=now if new.due else None, ended=not new.due, step=len(new.steps), round=new.round, carrier=new.carrier,
        takeover_after=new.takeover_after, owner=new.owner, floor=new.floor, state=new.state, scratchpad=new.scratchpad,
        limits=new.limits, tally=new.tally, create_hash=new.create_hash, parent=new.parent, labels=new.labels,
        notify_url=new.notify_url, created_at=now, updated_at=now,
    )  # fmt: skip
    return run, [replace(s, committed_at=s.committed_at or now) for s in new.steps]


def refusal(
    run: Run, known: Step | None, *, carrier: str | None, expect: int | None, request: Request | None, now: float
) -> Refused | None:  # fmt: skip
    """Why this claim is not granted, None if it is. `known`: the step that has the request's id. The step of a refusal that
    is no replay is left for the store to fill in."""

    def no(reason: Reason, step: Step | None = None, until: float | None = None, who: str | None = None) -> Refused:
        return Refused(reason=reason, run=run, step=step, now=now, until=until, carrier=who)

    if known is not None and known.request is not None and request is not None:
        return no("replay" if known.request.hash == request.hash else "conflict", known)
    if expect is not None and expect != run.step:
        return no("index")
    if run.ended:
        return no("ended")
    if held(run, now):
        return no("busy", until=run.lease_until, who=run.carrier)
    if run.due_at is None:
        return no("waiting")
    if run.due_at > now:
        return no("later")
    if carrier is not None and (until := free_for(run, carrier, now)) is not None:
        return no("busy", until=None if until == NEVER else until, who=run.carrier)
    return None


def granted(run: Run, *, claim_id: str, holder: str, lease: float, carrier: str | None, now: float) -> Run:
    """The row once the claim is granted. A run of `any` carrier stays one."""
    return replace(
        run,
        fence=run.fence + 1,
        attempts=run.attempts + 1,
        claim_id=claim_id,
        holder=holder,
        lease_until=now + lease,
        carrier=run.carrier if carrier is None or run.carrier == "any" else carrier,
    )


def heard(run: Run, signal: Signal, now: float) -> Run:
    """The row after a signal has been added to its inbox."""
    if signal.carrier is not None:
        run = replace(run, carrier=signal.carrier, takeover_after=signal.takeover_after)
    if signal.reopens:
        run = replace(run, ended=False)
    return run if run.ended or held(run, now) else replace(run, due_at=now)


def held(run: Run, now: float) -> bool:
    return run.claim_id is not None and run.lease_until > now


def free_for(run: Run, carrier: str, now: float) -> float | None:
    """None: this carrier may have the run now. Else when it may."""
    if run.carrier in (carrier, "any"):
        return None
    if run.takeover_after is None:
        return NEVER
    until = max(run.due_at or 0.0, run.lease_until) + run.takeover_after
    return None if until <= now else until


def emptied(run: Run) -> Run:
    """What is left of a pruned run."""
    return replace(run, pruned=True, prompt=None, state=None, scratchpad=None, tail=None, floor=run.step)


def matches(run: Run, f: Filter) -> bool:
    return (
        run.key.tenant == f.tenant
        and (not f.status or run.status in f.status)
        and f.agent in (None, run.agent)
        and f.owner in (None, run.owner)
        and (f.label is None or codec.loads(run.labels).get(f.label[0]) == f.label[1])
        and (f.before is None or (run.created_at, run.key.id) < f.before)
    )
