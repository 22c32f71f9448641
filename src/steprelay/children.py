"""What passes between runs: the ids, shares and starting messages of children, and the news of a run that comes to rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from math import floor

from .core import codec
from .core.errors import AgentError, StateInvalid
from .core.machine import TERMINAL
from .core.model import Commit, Outgoing, Run, Tally, Turn, Value


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


def news(run: Run, commit: Commit) -> Iterator[Outgoing]:
    """Who has to hear of this commit: the webhook of an end or a question, the parent of an ended child, the children of a
    run that ends without having wanted to. Whatever of the run cannot be read is left out, and told to nobody."""
    parts = [codec.loads(p) for p in commit.step.parts] if commit.step else []
    end = next((p for p in reversed(parts) if p["type"] == "end"), None)
    if end is None or end["status"] == "WAITING":
        return
    asked = [p for p in parts if p["type"] == "interrupt"]
    told = {**end, "run": run.key.id, "step": run.step, "interrupts": asked}
    name = f"{run.key.id}.{run.step}"
    if run.notify_url:
        kind = "run.awaiting_input" if asked else "run.ended"
        yield Outgoing(kind="webhook", target=run.notify_url, body=codec.dumps({"type": kind, "data": told}), request_id=name)
    tally, parent = _read(commit, run)
    if end["status"] in TERMINAL and {"id", "run"} <= parent.keys():  # a fork has a parent too, which does not wait for it
        told |= {"id": parent["id"], "usage": codec.plain(tally.total), "steps": tally.steps}
        yield Outgoing(kind="signal", target=parent["run"], body=codec.dumps({"kind": "child", "body": told}), request_id=name)
    if end["status"] in ("FAILED", "CANCELLED"):
        cancel = codec.dumps({"kind": "cancel", "body": None})
        yield from (Outgoing(kind="signal", target=c, body=cancel, request_id=f"cancel:{name}") for c in tally.children)


def _read(commit: Commit, run: Run) -> tuple[Tally, dict[str, str]]:
    """The account and the parent of a run, empty where they are no longer what they were."""
    try:
        tally = codec.tally(commit.tally)
    except StateInvalid:
        tally = Tally()
    try:
        parent = codec.loads(run.parent)
    except StateInvalid:
        parent = None
    return tally, parent if isinstance(parent, dict) else {}
