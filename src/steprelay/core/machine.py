"""The rules: what may become of a run. Pure: values in, values out.

The engine walks every claim through three functions:

    open(claimed)            signals, waits and brakes are judged  ->  Opened (take a step) | Commit (no step is due)
    fold(opened, reply, …)   the agent's reply becomes a Commit
    failed(opened, error, …) or its failure does

and `apply` says what a commit does to the row, so that engine, memory store and oracle agree. `TABLE` is the law all of
them run on; docs/states.md is drawn from it. A new brake is one line in `SOFT`, or in `_hard`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Literal

from . import codec
from .noun import Noun, replace
from .retry import backoff
from .errors import AgentError, StateInvalid, StepRelayError, Transient
from .model import (
    Again, Busy, Call, Claimed, Commit, Done, End, ErrorInfo, Interrupt, Limits, Message, Outcome, Part, Refused, Reply, Request,
    Result, Run, Signal, Status, Step, StopReason, Tally, Text, Thought, Turn, Usage, Value, Wait, Waiting,
)  # fmt: skip

Cause = Literal[
    "continue", "finish", "ask", "wait", "retry", "fail", "brake", "land", "cancel",  # of a step
    "due", "answer", "unmet", "expire",  # of a wait
    "prompt", "resume",  # of an ended run
]  # fmt: skip

_ENDED: dict[Cause, Status] = {"prompt": "RUNNING", "resume": "RUNNING"}
_NEXT: dict[Status, dict[Cause, Status]] = {
    "RUNNING": {
        "continue": "RUNNING", "finish": "COMPLETED", "ask": "AWAITING_INPUT", "wait": "WAITING", "retry": "WAITING",
        "fail": "FAILED", "brake": "FAILED", "land": "COMPLETED", "cancel": "CANCELLED",
    },
    "WAITING": {"due": "RUNNING", "unmet": "WAITING", "expire": "CANCELLED", "cancel": "CANCELLED"},
    "AWAITING_INPUT": {"answer": "RUNNING", "unmet": "AWAITING_INPUT", "expire": "CANCELLED", "cancel": "CANCELLED"},
    "COMPLETED": _ENDED, "FAILED": _ENDED, "CANCELLED": _ENDED,
}  # fmt: skip
TABLE: dict[tuple[Status, Cause], Status] = {(status, cause): to for status, row in _NEXT.items() for cause, to in row.items()}
TERMINAL: frozenset[Status] = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
SOFT: dict[str, StopReason] = {
    "steps": "max_steps", "tool_calls": "max_tool_calls", "tokens": "max_tokens", "usd": "max_cost",
    "repeats": "repetition", "tool_errors": "repetition",
}  # fmt: skip
"""What a round stops with when nothing is left of a limit, the first that is spent; the agent may still sum up."""
_WHY: dict[StopReason, str] = {
    "deadline": "the round is older than its limit of {seconds:g} s",
    "step_exceeds_deadline": "step {step} needs longer than its host lets it live; split it, or hand the run to a carrier that "
    "lives longer.",
    "attempts_exhausted": "step {step} was tried {attempts} times and never came to an end.",
}
_FINAL: set[StopReason] = {"agent_error", "expired", "state_invalid"}
INTERVAL = 5.0
"""Seconds between two signs of life of a step."""


class Opened(Noun):
    """A claimed run after its signals: everything `fold` and `failed` need beside the reply."""

    claimed: Claimed
    status: Status
    tally: Tally
    limits: Limits
    round: int
    prompt: Value
    got: dict[str, Value]  # answers, events, children: {id: {kind, body}}, and `met` when that was waited for
    inbox_read: int
    request: Request | None = None
    cancelled: bool = False
    landing: StopReason | None = None

    @property
    def turn(self) -> Turn:
        """What the agent is asked."""
        run, claimed = self.claimed.run, self.claimed
        return Turn(
            key=run.key, agent=run.agent, round=self.round, step=run.step, attempt=run.attempts, base=self.tally.base,
            prompt=self.prompt, fresh=self.tally.fresh, usage=self.tally.round, limits=self.limits, landing=self.landing,
            left=left(self.tally, self.limits),
            inbox=tuple(Message(kind=m["kind"], body=m["body"], id=i) for i, m in self.got.items()),
            messages=tuple(codec.loads(m) for s in claimed.steps for m in s.messages),
            ledger={k: codec.loads(v) for k, v in claimed.ledger.items()},
            state=codec.loads(run.state), scratchpad=codec.loads(run.scratchpad),
        )  # fmt: skip


# ---------------------------------------------------------------- before the step


def open(claimed: Claimed, request: Request | None = None) -> Opened | Commit:
    """Judge a claim. Raises SchemaTooNew (leave the row alone) and StateInvalid (end the run with `invalid`)."""
    run, now = claimed.run, claimed.now
    codec.check_schema(run.schema)
    if not whole(claimed):
        raise StateInvalid(f"steps {run.floor} to {run.step - 1} were wanted, {[s.index for s in claimed.steps][:5]}… came")
    o = _hear(claimed, request)
    if o.cancelled:
        return _end(o, "cancel", "cancelled")
    if o.status in TERMINAL:  # claimed by a signal that does not reopen: nothing to do
        return _release(o, o.status, run.stop_reason, None, attempts=0, ended=True)
    if o.status in ("WAITING", "AWAITING_INPUT"):
        wait = codec.wait(run.wait) or Wait(reason="timer")
        missing = [n for n in wait.needs if n not in o.got]
        passed = wait.until is not None and now >= wait.until
        disturbed = not (wait.needs or passed or wait.until is None)  # a timer, woken early
        if (missing or disturbed) and not _too_old(o, now):
            if passed:
                return _end(o, "expire", "expired", error=f"nobody gave {missing[0]!r} in time")
            after = _within(o, None if wait.until is None else wait.until - now, now)
            status, kept = TABLE[o.status, "unmet"], replace(wait, got=o.got)
            return _release(o, status, run.stop_reason, after, wait=kept, attempts=run.attempts - 1)  # looking was no attempt
        got = {i: {**m, "met": True} if i in wait.needs else m for i, m in o.got.items()}
        o = replace(o, status=TABLE[o.status, "due" if o.status == "WAITING" else "answer"], got=got)
    o = replace(o, tally=replace(_charge_the_dead(run, o.tally), began_at=o.tally.began_at or now))
    landing = _soft(o.tally, o.limits)
    if hard := _hard(o, now):
        if landing and hard != "deadline":
            return _end(o, "land", landing, output=o.tally.thought)
        return _end(o, "brake", hard, error=_why(hard, o))
    return replace(o, landing=landing)


def untouched(claimed: Claimed, after: float | None) -> Commit:
    """Give the claim back with everything as it was: this host cannot go on, another may."""
    run = claimed.run
    return Commit(
        status=run.status, after=after, stop_reason=run.stop_reason, wait=run.wait, tally=run.tally,
        inbox_read=run.inbox_read, attempts=run.attempts - 1,
    )  # fmt: skip


def invalid(claimed: Claimed, error: Exception) -> Commit:
    """The end of a run whose payloads cannot be read: they are left as they are."""
    seen = max((s.seq for s in claimed.inbox), default=claimed.run.inbox_read)
    empty = Opened(
        claimed=claimed, status="RUNNING", tally=Tally(), limits=Limits(), round=claimed.run.round, prompt=None, got={},
        inbox_read=seen,
    )  # fmt: skip
    end = _end(empty, "fail", "state_invalid", error=str(error))
    return replace(end, tally=claimed.run.tally, limits=None)


def _hear(claimed: Claimed, request: Request | None) -> Opened:
    """Take in the unread signals, in their order."""
    run, tally, wait = claimed.run, codec.tally(claimed.run.tally), codec.wait(claimed.run.wait)
    o = Opened(
        claimed=claimed, request=request, status=run.status, round=run.round, prompt=codec.loads(run.prompt), tally=tally,
        limits=codec.limits(run.limits), got={**tally.heard, **(wait.got if wait else {})}, inbox_read=run.inbox_read,
    )  # fmt: skip
    for s in claimed.inbox:
        if o.cancelled and s.reopens:
            break  # left unread: the end that comes now is followed by another claim, which hears it
        o = replace(_heard(o, s.kind, codec.loads(s.body)), inbox_read=s.seq)
    return _reopened(o, "prompt") if o.status in TERMINAL and o.tally.queued else o


def _heard(o: Opened, kind: str, body: Value) -> Opened:
    over, fields = o.status in TERMINAL, body if isinstance(body, dict) else {}
    match kind:
        case "cancel":  # between two rounds it takes back what is queued
            return replace(o, cancelled=o.cancelled or not over, tally=replace(o.tally, queued=()))
        case "prompt":
            first, o = not o.tally.queued, replace(o, tally=replace(o.tally, queued=(*o.tally.queued, body)))
            return _reopened(o, "prompt") if over and first else o
        case "resume" if over:
            limits = codec.build(Limits, codec.plain(o.limits) | (fields.get("limits") or {}))
            return replace(_reopened(o, "resume"), limits=limits)
        case "answer" | "event" | "child" if "id" in fields:
            id, tally = str(body["id"]), _settled(o.tally, body) if kind == "child" else o.tally
            return replace(o, tally=tally, got=o.got if over or id in o.got else {**o.got, id: {"kind": kind, "body": body}})
    return o


def _reopened(o: Opened, cause: Cause) -> Opened:
    """Another round, with the first prompt that is queued; or the old one, resumed."""
    tally = replace(
        o.tally, round=Usage(), steps=0, began_at=None, repeats=0, tool_errors=0, releases=0, last_error=None, heard={}
    )
    o = replace(o, status=TABLE[o.status, cause], got={}, tally=tally)
    if cause == "resume":
        return o
    tally = replace(tally, fresh=True, thought=None, base=o.claimed.run.step, queued=tally.queued[1:])
    return replace(o, round=o.round + 1, prompt=o.tally.queued[0], tally=tally)


def _charge_the_dead(run: Run, tally: Tally) -> Tally:
    """A dead attempt is charged like the last model request: what it really cost nobody can know."""
    dead = run.attempts - 1 - tally.failures - tally.charged
    if dead <= 0:
        return tally
    lost = sum([tally.last_request] * dead, Usage())
    return replace(tally, total=tally.total + lost, round=tally.round + lost, charged=tally.charged + dead)


def _hard(o: Opened, now: float) -> StopReason | None:
    if _too_old(o, now):
        return "deadline"
    if o.claimed.run.attempts <= o.limits.attempts:
        return None
    tail = codec.loads(o.claimed.run.tail)  # how far off its host's wall was at the last sign of life of the newest dead attempt
    left = tail.get("left") if isinstance(tail, dict) else None
    return "step_exceeds_deadline" if left is not None and left <= INTERVAL else "attempts_exhausted"


def _too_old(o: Opened, now: float) -> bool:
    return o.limits.seconds is not None and o.tally.began_at is not None and now - o.tally.began_at >= o.limits.seconds


def left(tally: Tally, limits: Limits) -> dict[str, float]:
    """What the round may still spend, brake by brake: what is lent to a child is gone until it has ended."""
    t, r = tally, tally.round
    spent = {"steps": t.steps, "tool_calls": r.tool_calls, "tokens": r.tokens, "usd": r.usd or 0.0}
    brakes = {n: limit for n in spent if (limit := getattr(limits, n)) is not None}
    return {n: limit - spent[n] - sum(c.get(n, 0) for c in t.children.values()) for n, limit in brakes.items()}


def _soft(tally: Tally, limits: Limits) -> StopReason | None:
    counted = {n: limit - getattr(tally, n) for n in ("repeats", "tool_errors") if (limit := getattr(limits, n)) is not None}
    rest = left(tally, limits) | counted
    return next((reason for name, reason in SOFT.items() if rest.get(name, 1) <= 0), None)


def _settled(tally: Tally, body: Value) -> Tally:
    """A child has ended: what it spent is ours, the rest of what was lent to it is free. A child that is not under way, or
    has reported before, changes nothing."""
    if not isinstance(body, dict) or body.get("id") not in tally.children:
        return tally
    usage, steps = codec.build(Usage, body.get("usage", {})), tally.steps + body.get("steps", 0)
    others = {i: lent for i, lent in tally.children.items() if i != body["id"]}
    return replace(tally, children=others, total=tally.total + usage, round=tally.round + usage, steps=steps)


def _why(hard: StopReason, o: Opened) -> str:
    last = f" Last error: {o.tally.last_error.message}" if o.tally.last_error and hard != "deadline" else ""
    return _WHY[hard].format(step=o.claimed.run.step, seconds=o.limits.seconds, attempts=o.limits.attempts) + last


# ---------------------------------------------------------------- after the step


def fold(o: Opened, reply: Reply, seen: Sequence[Part], now: float, *, cancelled: bool = False) -> Commit:
    """The agent's reply as a commit. `seen`: the reply's messages as parts, and its parts. Raises AgentError for a reply
    that makes no sense, BadInput for one that is not JSON."""
    check_reply(reply)
    if reply.then == "wait" and reply.release and not (cancelled or o.landing):
        return _poll(o, reply, now)
    unasked = {i: m for i, m in o.got.items() if m["kind"] in ("child", "event") and "met" not in m}  # a later wait still may
    unheard = o.tally.fresh and not reply.messages
    o = replace(o, tally=replace(_count(o.tally, reply, seen), heard=unasked, children=o.tally.children | reply.children))
    if cancelled:  # what is queued was sent before the cancel; a prompt without an answer is still to be given
        return _end(replace(o, tally=replace(o.tally, queued=(), fresh=unheard)), "cancel", "cancelled", reply)
    if o.landing:
        return _end(o, "land", o.landing, reply, reply.output if reply.then == "finish" else o.tally.thought)
    if reply.then == "finish":
        return _end(o, "finish", "finished", reply, reply.output)
    if reply.then == "fail":
        return _end(o, "fail", "agent_error", reply, reply.output, reply.error or "the agent gave up without saying why")
    o = replace(o, tally=replace(o.tally, steps=o.tally.steps + 1))
    if reply.then == "continue":
        return _commit(o, "continue", None, reply, 0.0)
    kind, ids, after = reply.reason, reply.needs, reply.after
    if reply.then == "ask":
        kind = "approval" if any(i.kind == "approval" for i in reply.interrupts) else "question"
        ids, after = tuple(i.id for i in reply.interrupts), o.limits.expires
    elif ids and all(i in unasked for i in ids):
        after = 0.0  # what it waits for came before it asked
    until = None if after is None else now + after
    end = End(status=TABLE[o.status, reply.then], stop_reason=kind, until=until)
    wait = Wait(reason=kind, until=until, needs=ids)
    return _commit(o, reply.then, kind, reply, _within(o, after, now), parts=(*reply.interrupts, end), wait=wait)


def failed(o: Opened, error: BaseException, now: float, *, overrun: bool = False) -> Commit:
    """The agent's failure as a commit: a release to try again later, or the end."""
    run = o.claimed.run
    said = str(error) if isinstance(error, StepRelayError) else f"{type(error).__name__}: {error}"
    info = ErrorInfo(code=getattr(error, "code", "agent_error"), message=said[:2000], retryable=True)
    tally = replace(o.tally, last_error=info)
    if isinstance(error, Transient):
        o = replace(o, tally=replace(tally, releases=tally.releases + 1))
        if not o.landing and o.tally.releases <= o.limits.releases:
            after = error.after if error.after is not None else backoff(o.tally.releases, str(run.key))
            return _later(o, "rate_limited" if error.reason == "rate_limited" else "retry", after, now, attempts=0)
        hard: StopReason = "attempts_exhausted"
    else:
        o = replace(o, tally=replace(tally, failures=tally.failures + 1))
        final = isinstance(error, AgentError) and error.final
        if not final and run.attempts < o.limits.attempts:
            return _later(o, "retry", 0.0 if overrun else backoff(o.tally.failures, str(run.key)), now)
        hard = "step_exceeds_deadline" if overrun else "agent_error"
    if o.landing:
        return _end(o, "land", o.landing, output=o.tally.thought)
    return _end(o, "fail", hard, error=info.message)


def check_reply(reply: Reply) -> None:
    if not isinstance(reply, Reply):
        raise AgentError(f"the agent returned {reply!r:.80}; return steprelay.Reply(...)", final=True)
    if reply.then == "ask" and not reply.interrupts:
        raise AgentError('Reply(then="ask") needs interrupts=(Interrupt(...),)', final=True)
    if reply.then == "wait" and reply.after is None and not reply.needs:
        raise AgentError('Reply(then="wait") needs after=seconds or needs=(ids,)', final=True)


def _count(tally: Tally, reply: Reply, seen: Sequence[Part]) -> Tally:
    calls = [p for p in seen if isinstance(p, Call)]
    results = [p for p in seen if isinstance(p, Result)]
    said = [p.text for p in seen if isinstance(p, Thought) or (isinstance(p, Text) and p.role == "assistant")]
    usage = replace(reply.usage, tool_calls=len(results))
    if calls:
        tally = replace(tally, calls=_hash([[c.name, c.args] for c in calls]))
    if results:
        pattern = _hash([tally.calls, [[r.name, r.value, r.status] for r in results]])
        tally = replace(tally, pattern=pattern, repeats=tally.repeats + 1 if pattern == tally.pattern else 1)
    errors = tally.tool_errors
    for r in results:
        errors = errors + 1 if r.status == "error" else 0 if r.status == "ok" else errors
    return replace(
        tally, total=tally.total + usage, round=tally.round + usage, tool_errors=errors, fresh=False, releases=0, failures=0,
        charged=0, last_error=None, thought=said[-1][:2000] if said else tally.thought,
        last_request=replace(usage, tool_calls=0) if usage.requests else tally.last_request,
    )  # fmt: skip


def _hash(value: Value) -> str:
    return sha256(codec.dumps(value).encode()).hexdigest()[:16]


def _later(o: Opened, reason: StopReason, after: float, now: float, attempts: int | None = None) -> Commit:
    """A release until a timer. With `attempts` set anew, what was counted against them is forgotten as well."""
    wait = Wait(reason=reason, until=now + after, got=o.got)
    o = replace(o, tally=replace(o.tally, failures=0, charged=0)) if attempts == 0 else o
    return _release(o, TABLE[o.status, "retry"], reason, _within(o, after, now), wait=wait, attempts=attempts)


def _poll(o: Opened, reply: Reply, now: float) -> Commit:
    """The provider is still at work: come back without a step row."""
    polled = replace(o, tally=replace(o.tally, releases=o.tally.releases + 1))
    if polled.tally.releases > o.limits.releases:
        return _end(o, "brake", "attempts_exhausted", error=f"the provider did not finish in {o.limits.releases} polls")
    later = _later(polled, reply.reason, reply.after or 0.0, now, attempts=0)
    return replace(later, state=_text(reply.state), scratchpad=_text(reply.scratchpad))


def _within(o: Opened, after: float | None, now: float) -> float | None:
    """A wait never outlasts the round's deadline: somebody must come and end it."""
    if o.limits.seconds is None or o.tally.began_at is None:
        return after
    left = max(0.0, o.tally.began_at + o.limits.seconds - now)
    return left if after is None else min(after, left)


# ---------------------------------------------------------------- commits


def _release(
    o: Opened, status: Status, reason: StopReason | None, after: float | None, *,
    wait: Wait | None = None, ended: bool = False, attempts: int | None = None,
) -> Commit:  # fmt: skip
    """Give the claim back without a step. What the signals changed is kept, so that nothing is heard twice."""
    prompt = codec.dumps(o.prompt) if o.round != o.claimed.run.round else None
    return Commit(
        status=status, after=after, stop_reason=reason, ended=ended, wait=codec.pack(wait) if wait else None, prompt=prompt,
        round=o.round, limits=codec.pack(o.limits), tally=codec.pack(o.tally), inbox_read=o.inbox_read, attempts=attempts,
    )  # fmt: skip


def _commit(
    o: Opened, cause: Cause, reason: StopReason | None, reply: Reply, after: float | None, *,
    parts: tuple[Part, ...] = (), wait: Wait | None = None, ended: bool = False,
) -> Commit:  # fmt: skip
    """The commit of a step: its row, and what it changes."""
    run, claim, status, usage = o.claimed.run, o.claimed.claim, TABLE[o.status, cause], codec.plain(reply.usage)
    step = Step(
        index=run.step, round=o.round, attempt=run.attempts, carrier=claim.carrier, claim_id=claim.claim_id,
        status=status, stop_reason=reason, request=o.request, messages=tuple(codec.dumps(m) for m in reply.messages),
        parts=tuple(codec.dumps(codec.part_to(p)) for p in (*reply.parts, *parts)), usage=codec.dumps(usage) if usage else None,
        state=_text(reply.state), floor=reply.floor, claimed_at=o.claimed.now,
    )  # fmt: skip
    o = o if reply.keep_ledger else replace(o, tally=replace(o.tally, base=run.step + 1))
    return replace(
        _release(o, status, reason, after, wait=wait, ended=ended), step=step, state=step.state, floor=reply.floor,
        scratchpad=_text(reply.scratchpad), outbox=reply.outbox, blobs=reply.blobs, keep_ledger=reply.keep_ledger,
    )  # fmt: skip


def _end(
    o: Opened, cause: Cause, reason: StopReason, reply: Reply | None = None, output: Value = None, error: str | None = None
) -> Commit:
    """Every end is a step row. Queued prompts make it the end of the round only: the run is due again at once."""
    info = None if error is None else ErrorInfo(code=reason, message=error, retryable=reason not in _FINAL)
    end = End(status=TABLE[o.status, cause], stop_reason=reason, output=output, error=info)
    tally = replace(o.tally, last_error=info or o.tally.last_error, failures=0, charged=0, releases=0)
    o, after = replace(o, tally=tally), 0.0 if tally.queued else None
    return _commit(o, cause, reason, reply or Reply(), after, parts=(end,), ended=not tally.queued)


def _text(value: Value) -> str | None:
    return None if value is None else codec.dumps(value)


# ---------------------------------------------------------------- what a commit does, and what a driver hears


def apply(run: Run, commit: Commit, *, now: float, unread: Sequence[Signal], renew: float | None = None) -> Run:
    """The row after a commit. `unread`: signals that the commit has not taken in; a renewal needs a run that has not ended."""
    due = None if commit.after is None else now + commit.after
    ended = commit.ended and not any(s.reopens for s in unread)
    kept = renew is not None and not ended
    stepped = commit.step is not None
    attempts = 0 if stepped else run.attempts if commit.attempts is None else commit.attempts
    optional = ("scratchpad", "state", "floor", "prompt", "limits", "round")
    changed = {f: v for f in optional if (v := getattr(commit, f)) is not None}
    return replace(
        run, status=commit.status, stop_reason=commit.stop_reason, due_at=now if unread and not ended else due, ended=ended,
        wait=commit.wait, tally=commit.tally, inbox_read=commit.inbox_read, step=run.step + stepped,
        attempts=1 if kept else attempts, claim_id=run.claim_id if kept else None, holder=run.holder if kept else None,
        lease_until=now + (renew or 0.0) if kept else 0.0, tail=None if stepped else run.tail, updated_at=now, **changed,
    )  # fmt: skip


def outcome(run: Run, now: float) -> Outcome:
    """What a driver should do next about a run that nobody holds."""
    if run.ended:
        return Done(status=run.status, stop_reason=run.stop_reason)
    wait = codec.wait(run.wait)
    signalled = run.status == "AWAITING_INPUT" or (wait is not None and bool(wait.needs))
    if run.due_at is None or (signalled and run.due_at > now):
        return Waiting(until=run.due_at)
    return Again(after=max(0.0, (run.due_at or now) - now))


def refused(r: Refused) -> Outcome | None:
    """The same for a claim that was not granted; None: there is no such run."""
    if r.run is None or r.reason in ("created", "exists"):
        return Again(after=0.0) if r.run else None
    busy = Busy(until=r.until, carrier=r.carrier or r.run.carrier)
    return busy if r.reason == "busy" else outcome(r.run, r.now)


def whole(claimed: Claimed) -> bool:
    """Whether a load has no gap."""
    return [s.index for s in claimed.steps] == list(range(claimed.run.floor, claimed.run.step))


def interrupts_of(steps: Iterable[Step]) -> tuple[Interrupt, ...]:
    """The questions the newest of these steps asked."""
    newest = max(steps, key=lambda s: s.index, default=None)
    return () if newest is None else tuple(p for p in codec.parts_from(newest.parts) if isinstance(p, Interrupt))
