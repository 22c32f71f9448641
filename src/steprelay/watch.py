"""What a run shows to those who watch: its parts, live and committed, and one event a step for logs, metrics and traces."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .core import codec, machine
from .core.model import Claimed, Commit, Live, Part, Reply, Run, Step, Usage, Value

Observer = Callable[[dict[str, Value]], None]
View = Callable[[str], Callable[[Value], Iterable[Part]]]
Listen = Callable[[Live], None]


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
        """Tell the observer; never a prompt, a message or a secret."""
        if self._observer is not None:
            self._observer(event)

    def report(self, what: str, claimed: Claimed, commit: Commit, spent: float) -> None:
        """The one event of a step."""
        usage = codec.unpack(Usage, commit.step.usage if commit.step else None)
        run = claimed.run
        self.observe(
            {
                "event": what, "tenant": run.key.tenant, "run": run.key.id, "agent": run.agent, "step": run.step,
                "attempt": run.attempts, "carrier": claimed.claim.carrier, "status": commit.status,
                "stop_reason": commit.stop_reason, "ms": round(spent * 1000, 1), "tokens": usage.tokens, "usd": usage.usd,
            }
        )  # fmt: skip
