"""Why a run stands still, who holds it, what happens next: in words, and in fields. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..core import codec
from ..core.model import Part, Run, Step, Wait
from . import wire


def explain(run: Run, step: Step | None, parts: Sequence[Part], now: float) -> wire.Object:
    """`step`, `parts`: the newest step."""
    view = wire.run_view(run, step, parts, now)
    why, words, until = _why(run, view, now)
    wait = codec.wait(run.wait)
    takeover = None if run.ended or run.takeover_after is None else _silent_since(run, now) + run.takeover_after
    return {
        "sessionId": run.key.id,
        "words": words,
        "why": why,
        "status": run.status,
        "stopReason": run.stop_reason,
        "holder": view["lease"]["holder"],
        "carrier": run.carrier,
        "until": None if until is None else wire.time(until),
        "takeoverAt": None if takeover is None else wire.time(takeover),
        "needs": [n for n in wait.needs if n not in wait.got] if wait and not run.ended else [],
        "attempts": run.attempts,
        "next": view["next"],
        "error": view["error"],
    }


def _why(run: Run, view: wire.Object, now: float) -> tuple[str, str, float | None]:
    """A code, a sentence, and until when it stays like this."""
    if run.ended:
        return "ended", _ending(run, view), None
    if wire.held(run, now):
        return "held", _holding(run, now), run.lease_until
    wait = codec.wait(run.wait)
    if run.due_at is not None and run.due_at <= now:
        return _due(run, now)
    if wait is not None and (words := _no_room(run, wait, now)):
        return wait.reason, words, run.due_at
    if run.status == "AWAITING_INPUT":
        asked = "; ".join(f"{i['prompt'] or i['kind']!r}" for i in view["interrupts"]) or "an answer"
        end = f" After {wire.time(run.due_at)} it is cancelled as expired." if run.due_at is not None else ""
        return "input", f"It waits for a person: {asked}. Answer with POST /api/runs/{run.key.id}/input.{end}", run.due_at
    if wait is not None and wait.needs:
        missing = ", ".join(n for n in wait.needs if n not in wait.got)
        end = f", at most until {wire.time(run.due_at)}" if run.due_at is not None else ""
        return "external", f"It waits for {wait.reason} {missing}{end}.", run.due_at
    reason = run.stop_reason or "timer"
    when = "" if run.due_at is None else f" in {span(run.due_at - now)}"
    if reason in ("retry", "rate_limited"):
        error = view["error"]
        last = f" Last error: {error['message']}" if error else ""
        return "backoff", f"Step {run.step} did not work out ({reason}); it is tried again{when}.{last}", run.due_at
    return "timer", f"It waits for a {reason}; the next step is due{when}.", run.due_at


def _no_room(run: Run, wait: Wait, now: float) -> str | None:
    """What keeps a run from going on that could: others are at work (see drivers/gate.py)."""
    shown, when = wait.extra, span((run.due_at or now) - now)
    match wait.reason:
        case "concurrency":
            line = f", {shown['ahead']} in line before it" if shown.get("ahead") else ""
            return f"It waits for a slot of {shown['key']!r}: all {shown['limit']} are taken{line}. It is tried again in {when}."
        case "provider_pause":
            return f"The provider has refused another run for now (429) and is left alone. It is tried again in {when}."
        case _:
            return None


def _ending(run: Run, view: wire.Object) -> str:
    error = view["error"]
    why = f": {error['message']}" if error else ""
    go_on = (
        "A new prompt starts another round." if run.status == "COMPLETED" else "`resume` goes on from the last committed step."
    )
    return f"It has ended: {run.status}, {run.stop_reason}{why}. {go_on}"


def _holding(run: Run, now: float) -> str:
    again = f" (attempt {run.attempts})" if run.attempts > 1 else ""
    who = f"{run.carrier}, process {run.holder}," if run.holder else run.carrier
    return (
        f"Step {run.step}{again} is under way: {who} holds the run for another {span(run.lease_until - now)} and renews that "
        "while it lives. If it died, the next driver takes the same step when that is over."
    )


def _due(run: Run, now: float) -> tuple[str, str, float | None]:
    lost = (
        f" The last holder gave no sign of life since {wire.time(run.lease_until)}; attempt {run.attempts + 1} is next."
        if run.claim_id is not None
        else ""
    )
    waits = span(now - (run.due_at or now))
    if run.carrier == "any":
        return "due", f"Step {run.step} is due for {waits}; any driver may take it.{lost}", None
    if run.takeover_after is None:
        return "carrier", (
            f"Step {run.step} is due for {waits}; it belongs to {run.carrier!r}, and nobody else may take it. Ask for a step "
            f"as {run.carrier!r}, or hand the run over.{lost}"
        ), None  # fmt: skip
    takeover = _silent_since(run, now) + run.takeover_after
    if takeover > now:
        return "carrier", (
            f"Step {run.step} is due for {waits}; it belongs to {run.carrier!r}. If that stays silent, anyone may take over in "
            f"{span(takeover - now)}.{lost}"
        ), takeover  # fmt: skip
    return "due", f"Step {run.step} is due for {waits}; {run.carrier!r} has been silent, so any driver may take it.{lost}", None


def _silent_since(run: Run, now: float) -> float:
    return max(run.due_at if run.due_at is not None else now, run.lease_until)


def span(seconds: float) -> str:
    """A span for people."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
