"""What must hold after every history, read off the store and compared with what the outside saw."""

from __future__ import annotations

from collections import Counter

from ..core import codec
from ..core.machine import TERMINAL
from ..core.model import End, Limits, Result, Run, RunKey, Step, Usage
from ..core.noun import replace
from .sim_world import Violation, World


async def judge(world: World, key: RunKey, limits: Limits) -> str:
    """Check one run; answers it as text. Raises Violation."""
    run: Run = (await world.store.read(key, "run"))[0]
    steps: list[Step] = await world.store.read(key, "steps", limit=100_000)
    _gapless(run, steps)
    _ends(run, steps)
    _promises(world, key, steps)
    _requests(steps)
    _effects(world, key, limits)
    _money(run, steps)
    world.counted["steps"] += len(steps)
    world.counted[f"ended {run.stop_reason}"] += 1
    return f"{run}\n{steps}"


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)


def _gapless(run: Run, steps: list[Step]) -> None:
    _must([s.index for s in steps] == list(range(run.step)), f"{run.key}: {run.step} steps, rows {[s.index for s in steps]}")


def _ends(run: Run, steps: list[Step]) -> None:
    for s in steps:
        end = next((p for p in codec.parts_from(s.parts) if isinstance(p, End)), None)
        _must((end is not None) == (s.status != "RUNNING"), f"{run.key}: step {s.index} is {s.status}, its end part {end}")
        _must(
            end is None or (end.status, end.stop_reason) == (s.status, s.stop_reason),
            f"{run.key}: step {s.index} says two things",
        )
    _must(run.ended and run.status in TERMINAL, f"{run.key} did not end: {run.status}")
    _must(run.claim_id is None and run.due_at is None, f"{run.key} ended, but is held or due")
    _must(
        (steps[-1].status, steps[-1].stop_reason) == (run.status, run.stop_reason), f"{run.key}: its newest step is not its end"
    )


def _promises(world: World, key: RunKey, steps: list[Step]) -> None:
    """What a driver was told is still there, unchanged."""
    for (k, index), told in world.acks.items():
        if k == key:
            kept = steps[index] if index < len(steps) else None
            _must(_plain(kept) == _plain(told), f"{key}: step {index} was acknowledged as {told}, and is {kept}")


def _plain(step: Step | None) -> Step | None:
    return None if step is None else replace(step, committed_at=0.0)


def _requests(steps: list[Step]) -> None:
    twice = [r for r, n in Counter(s.request.id for s in steps if s.request).items() if n > 1]
    _must(not twice, f"requests {twice} took more than one step each")


def _effects(world: World, key: RunKey, limits: Limits) -> None:
    for (k, name), times in world.ran.items():
        _must(k != key or times <= 1, f"{key}: the once tool {name} ran {times} times")
    cancels = sum(heard.kind == "cancel" for heard in world.heard.get(key, []))
    allowed = limits.attempts * (1 + cancels)  # a cancelled round may be followed by one that begins with the same index
    for (k, step), deaths in world.deaths.items():
        _must(k != key or deaths <= allowed, f"{key}: step {step} killed {deaths} hosts; {allowed} are allowed")


def _money(run: Run, steps: list[Step]) -> None:
    """The account is the sum of the rows, plus what dead attempts are charged."""
    tally = codec.tally(run.tally)
    spent = sum((codec.unpack(Usage, s.usage) for s in steps), Usage())
    results = sum(isinstance(p, Result) for s in steps for p in codec.parts_from(s.parts))
    charged = tally.total.requests - spent.requests
    _must(tally.total.tool_calls == results, f"{run.key}: {tally.total.tool_calls} tool calls counted, {results} in the rows")
    _must(0 <= charged <= run.fence, f"{run.key}: {charged} requests charged to the dead, {run.fence} claims")
    _must(
        tally.total.tokens == spent.tokens + 15 * charged,
        f"{run.key}: {tally.total.tokens} tokens counted, {spent.tokens} in rows",
    )
