"""Runs that a run starts: their ids, their share of what is left, the message that starts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import floor

from .core import codec
from .core.errors import AgentError
from .core.model import Outgoing, Turn, Value


def child_id(turn: Turn, name: str) -> str:
    """The same for every attempt of a step, so that a repeated step starts no second child."""
    return sha256("\0".join((turn.key.tenant, turn.key.id, f"{turn.base}/{name}")).encode()).hexdigest()[:32]


def start(
    id: str, prompt: Value, *, agent: str | None, limits: Mapping[str, Value], labels: Mapping[str, str], report: bool = True
) -> Outgoing:  # fmt: skip
    """The message that starts a run. `agent` None: the app's default; `limits`: over the app's own; `report`: whether the
    end of its first round is told to the run that starts it."""
    body = {"agent": agent, "prompt": prompt, "limits": dict(limits), "labels": dict(labels), "report": report}
    return Outgoing(kind="start", target=id, body=codec.dumps(body), request_id=id)


def shares(left: Mapping[str, float], wanted: Sequence[Mapping[str, Value]]) -> list[dict[str, float]]:
    """What is lent to each child of one step: what it was promised, else an equal share of the rest, of which the parent
    keeps one. `left`: of each brake, see Turn. Raises AgentError when there is not enough."""
    lent: list[dict[str, float]] = [{n: w[n] for n in left if w.get(n) is not None} for w in wanted]
    for name, rest in left.items():
        rest -= sum(given.get(name, 0) for given in lent) + (name == "steps")  # this step counts as well
        poor = [given for given in lent if name not in given]
        part = rest / (len(poor) + 1)
        part = part if name == "usd" else floor(part)
        if rest < 0 or (poor and part <= 0):
            raise AgentError(
                f"{name}: {left[name]:g} left is too little for {len(wanted)} children; raise limits.{name} of this run, or "
                f"give each child less with spawn(…, limits={{{name!r}: …}})",
                final=True,
            )
        for given in poor:
            given[name] = part
    return lent
