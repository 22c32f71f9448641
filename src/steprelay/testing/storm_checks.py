"""The judge of a storm: the store's rows against what the outside file saw."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import codec
from ..core.model import RunKey, Step
from .storm_worker import POISON, Weather, chained

ATTEMPTS = 3
"""What a poisonous step may cost; limits of the poison runs."""
KINDS = ("lost", "doubled", "stale commit", "wrong replay", "second once run", "unbounded attempts", "unfinished", "error")


@dataclass
class Verdict:
    """What the outside saw, counted, and what was wrong, as (kind, words)."""

    seen: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def must(self, holds: bool, kind: str, words: str) -> None:
        if not holds:
            self.wrong.append((kind, words))

    def count(self, kind: str) -> int:
        return sum(k == kind for k, _ in self.wrong)


async def judge(store: Any, weather: Weather) -> Verdict:
    """Read everything and compare."""
    verdict = Verdict()
    events: dict[str, list[list[Any]]] = defaultdict(list)
    for line in _lines(weather.outside):
        kind, *rest = json.loads(line)
        events[kind].append(rest)
        verdict.seen[kind] += 1
    rows: dict[str, list[Step]] = {}
    for key in weather.every_run():
        steps = rows[key.id] = await store.read(key, "steps", limit=1_000_000)
        (run,) = await store.read(key, "run")
        verdict.steps += len(steps)
        verdict.must(run.ended and run.claim_id is None, "unfinished", f"{key}: {run.status} at step {run.step}")
        verdict.must([s.index for s in steps] == list(range(run.step)), "lost", f"{key}: rows {[s.index for s in steps][:9]}…")
        _history(verdict, key, steps, weather)
        await _signals(verdict, store, key, events["signal"])
    _claims(verdict, rows, events["claim"])
    _answers(verdict, rows, events)
    tools = Counter((run, step) for run, step in events["tool"])
    for (run, step), times in tools.items():
        verdict.must(times == 1, "second once run", f"{run} step {step}: the tool ran {times} times")
    for (run, step), times in Counter((r, s) for r, s in events["poison"]).items():
        verdict.must(times <= ATTEMPTS, "unbounded attempts", f"{run} step {step} killed {times} hosts")
    for event in events["error"]:
        verdict.must(False, "error", str(event))
    return verdict


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _history(verdict: Verdict, key: RunKey, steps: list[Step], weather: Weather) -> None:
    """Every step saw exactly the steps before it, and was taken once."""
    if key.id.startswith(POISON):
        return
    verdict.must(len(steps) == weather.steps, "doubled", f"{key}: {len(steps)} steps, {weather.steps} were to be taken")
    before: tuple[Any, ...] = ()
    for step in steps:
        messages = tuple(codec.loads(m) for m in step.messages)
        said = messages[-1] if messages else {}
        verdict.must(said.get("n") == step.index, "doubled", f"{key}: row {step.index} holds step {said.get('n')}")
        verdict.must(said.get("before") == chained(before), "lost", f"{key}: step {step.index} was taken on another history")
        before += messages


async def _signals(verdict: Verdict, store: Any, key: RunKey, sent: list[list[Any]]) -> None:
    inbox = Counter(s.request_id for s in await store.read(key, "inbox", limit=1_000_000))
    for run, name in sent:
        if run == key.id:
            verdict.must(inbox[name] >= 1, "lost", f"{key}: signal {name}")
    for name, times in inbox.items():
        verdict.must(times == 1, "doubled", f"{key}: signal {name} is there {times} times")


def _claims(verdict: Verdict, rows: dict[str, list[Step]], claims: list[list[Any]]) -> None:
    """A step may only be committed by the newest claim of its index."""
    newest: dict[tuple[str, int], tuple[int, str]] = {}
    for run, index, fence, claim_id in claims:
        newest[run, index] = max(newest.get((run, index), (0, "")), (fence, claim_id))
    for run, steps in rows.items():
        for step in steps:
            _, claim_id = newest.get((run, step.index), (0, step.claim_id))
            verdict.must(
                claim_id == step.claim_id, "stale commit", f"{run} step {step.index} was committed by a claim that was over"
            )


def _answers(verdict: Verdict, rows: dict[str, list[Step]], events: dict[str, list[list[Any]]]) -> None:
    """Whoever was told of a step finds it there; a repeated request gets the step it made."""
    for run, index, claim_id, name in events["answer"]:
        kept = rows[run][index] if index < len(rows[run]) else None
        verdict.must(kept is not None and kept.claim_id == claim_id, "lost", f"{run} step {index} was acknowledged")
        verdict.must(
            name is None or (kept is not None and kept.request is not None and kept.request.id == name), "wrong replay",
            f"{run} step {index} was told to request {name}",
        )  # fmt: skip
    for run, index, claim_id, name in events["replay"]:
        kept = rows[run][index] if index < len(rows[run]) else None
        right = kept is not None and kept.claim_id == claim_id and kept.request is not None and kept.request.id == name
        verdict.must(right, "wrong replay", f"{run}: request {name} was answered with step {index}")
    for event in events["wrong"]:
        verdict.must(False, "wrong replay", f"{event}")
    for run, steps in rows.items():
        for step in steps:
            name = step.request.id if step.request else ""
            verdict.must(
                not name.isdigit() or int(name) == step.index, "wrong replay", f"{run} step {step.index} by request {name}"
            )
