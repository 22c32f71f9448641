"""What a run shows to those who watch: its parts, live and committed, and one event a step for logs, metrics and traces."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from typing import Any

from .core import codec, machine
from .core.model import Claimed, Commit, Part, Refused, Reply, Run, Step, Usage, Value
from .core.noun import Noun


class Live(Noun):
    """A part on its way to somebody who watches: SSE id `<step>.<attempt>.<index>`, or `<step>.c.<index>` once committed."""

    step: int
    attempt: int
    index: int
    part: Part
    committed: bool = False

    @property
    def id(self) -> str:
        return f"{self.step}.{'c' if self.committed else self.attempt}.{self.index}"


Observer = Callable[[dict[str, Value]], None]
"""Hears what happened. One with a method `begin` is called before each attempt as well, in the context the agent will have."""
View = Callable[[str], Callable[[Value], Iterable[Part]]]
Listen = Callable[[Live], None]
_log = logging.getLogger("steprelay")


class Event(dict[str, Value]):
    """What happened to a run, fit for a log: ids, counts and reasons, never a prompt, a message or a secret.

    What it was made from stands beside it for observers that look deeper: the run as it was claimed, the commit, the
    step row (of a replay: the one that was answered), and `parts()`, which is content. `now`: by the store's clock."""

    def __init__(
        self, said: dict[str, Value], run: Run, now: float, *, claimed: Claimed | None = None, commit: Commit | None = None,
        step: Step | None = None, parts: Callable[[], tuple[Part, ...]] = tuple,
    ) -> None:  # fmt: skip
        super().__init__(said)
        self.run, self.now, self.claimed, self.commit, self.step, self.parts = run, now, claimed, commit, step, parts

    @property
    def attempted(self) -> bool:
        """Whether a step was taken, or tried and released; False when there was only a look."""
        if self.step is not None or self.commit is None:
            return self.commit is not None
        before, after = codec.tally(self.run.tally), codec.tally(self.commit.tally)
        return after.releases > before.releases or after.failures > before.failures

    @property
    def died(self) -> int:
        """Attempts right before this one that did not live to tell."""
        if not self.attempted or (self.commit and self.commit.stop_reason == "state_invalid"):
            return 0
        tally = codec.tally(self.run.tally)
        return max(0, self.run.attempts - 1 - tally.failures - tally.charged)


class Watch:
    """`view(adapter)` answers that adapter's pure `view`."""

    def __init__(self, view: View, observer: Observer | None = None) -> None:
        self._view, self._observer = view, observer

    def parts(self, adapter: str, step: Step) -> tuple[Part, ...]:
        """Everything a step row says, in order: its messages as that adapter shows them, then its own parts."""
        view = self._view(adapter)
        return (*(p for m in step.messages for p in view(codec.loads(m))), *codec.parts_from(step.parts))

    def seen(self, adapter: str, reply: Reply) -> tuple[Part, ...]:
        """The same of a reply that is not committed yet. Raises AgentError for one that makes no sense."""
        machine.check_reply(reply)
        view = self._view(adapter)
        return (*(p for m in reply.messages for p in view(m)), *reply.parts)

    def tell(self, run: Run, step: Step, listen: Listen | None) -> None:
        """Show a committed step to somebody who listens."""
        if listen is not None:
            for i, part in enumerate(self.parts(run.adapter, step)):
                listen(Live(step=step.index, attempt=step.attempt, index=i, part=part, committed=True))

    def observe(self, event: dict[str, Any]) -> None:
        """Tell the observer; never a prompt, a message or a secret. Whatever it raises is logged: no run shall suffer from
        being watched."""
        self._told(self._observer, event)

    def context(self, opened: machine.Opened) -> Context:
        """The context for the agent of an attempt that begins now, as the observer's `begin` leaves it."""
        context, claimed = copy_context(), opened.claimed
        begin = getattr(self._observer, "begin", None)
        if begin is not None:
            event = Event({"event": "begin", **_where(claimed)}, claimed.run, claimed.now, claimed=claimed)
            context.run(self._told, begin, event)
        return context

    def report(self, what: str, claimed: Claimed, commit: Commit | None = None, spent: float = 0.0, now: float = 0.0) -> None:
        """The one event of a step, a release, or a claim that was lost (`fenced`)."""
        if self._observer is None:
            return
        run, step = claimed.run, commit.step if commit else None
        usage = codec.unpack(Usage, step.usage if step else None)
        said = {
            "event": what, **_where(claimed), "status": commit and commit.status, "stop_reason": commit and commit.stop_reason,
            "ms": round(spent * 1000, 1), "tokens": usage.tokens, "usd": usage.usd,
        }  # fmt: skip
        parts = (lambda: self.parts(run.adapter, step)) if step else tuple
        self.observe(Event(said, run, now, claimed=claimed, commit=commit, step=step, parts=parts))

    def refused(self, refused: Refused) -> None:
        """A request that came again was answered with its step."""
        run, step = refused.run, refused.step
        if refused.reason == "replay" and run is not None and step is not None:
            said = {"event": "replay", "tenant": run.key.tenant, "run": run.key.id, "agent": run.agent, "step": step.index}
            self.observe(Event(said, run, refused.now, step=step))

    def _told(self, observer: Observer | None, event: dict[str, Any]) -> None:
        if observer is None:
            return
        try:
            observer(event)
        except Exception:
            _log.exception("the observer failed on a %r event", event.get("event"))


def _where(claimed: Claimed) -> dict[str, Value]:
    run = claimed.run
    return {
        "tenant": run.key.tenant, "run": run.key.id, "agent": run.agent, "step": run.step, "attempt": run.attempts,
        "carrier": claimed.claim.carrier,
    }  # fmt: skip
