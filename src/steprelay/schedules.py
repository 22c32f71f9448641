"""Schedules: a schedule is a run that waits and starts others.

Its agent sleeps until the next time of a cron expression, starts a run with its commit, and sleeps again. So it lives in the
store like any run: whoever sweeps keeps it going, any number of processes start one run a time, and a time that was slept
through is made up for once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from .children import start
from .core.errors import ConfigError
from .core.model import Limits, Reply, Text, Turn, Value

AGENT = "steprelay:schedule"
"""The name under which the agent of all schedules is known to the engine."""
FOREVER = Limits(steps=None, repeats=None, tool_errors=None, attempts=1_000_000, releases=1_000_000)
LOST = 30
"""Looks, the last ones an hour apart, after which a schedule that no process knows any more ends."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to start which agent with what. `cron`: five fields as Debian's cron reads them; `tz`: a name of the IANA time
    zones; `agent`: the app's default unless told; `limits`: fields of Limits, over the app's own. Raises ConfigError."""

    cron: str
    _: KW_ONLY
    prompt: Value
    agent: str | None = None
    tz: str = "UTC"
    limits: Mapping[str, Value] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from cronsim import CronSimError

        try:
            self.after(0.0)
        except (CronSimError, StopIteration) as e:
            raise ConfigError(f"{self.cron!r} is no time that ever comes ({e}); give five fields, such as '0 3 * * *'") from e
        except (KeyError, ValueError, OSError) as e:
            raise ConfigError(f"the time zone {self.tz!r} is not known here ({e}); give a name such as 'Europe/Paris'") from e
        if unknown := set(self.limits) - set(Limits.fields):
            raise ConfigError(f"there is no limit {min(unknown)!r}; there are {', '.join(Limits.fields)}")

    def after(self, at: float) -> float:
        """The first time later than `at`, both in seconds since the epoch."""
        from zoneinfo import ZoneInfo

        from cronsim import CronSim

        return next(CronSim(self.cron, datetime.fromtimestamp(at, ZoneInfo(self.tz)))).timestamp()


class Clockwork:
    """The agent behind the runs of all schedules of an app. `salt` makes their ids and those of the runs they start ones that
    nobody outside can guess, and take."""

    def __init__(self, schedules: Mapping[str, Schedule], *, salt: str = "", clock: Callable[[], float] = time.time) -> None:
        self._salt, self.clock = salt, clock
        self.runs: dict[str, str] = {}
        """The name of each schedule by the id of its run. Another time is another run, another prompt is not."""
        for name, schedule in schedules.items():
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name):
                raise ConfigError(f"{name!r} cannot name a schedule; use letters, digits, '-', '_' and '.'")
            self.runs[f"schedule-{name}-{self._hash(name, schedule.cron, schedule.tz)[:12]}"] = name
        self._schedules = schedules

    async def step(self, turn: Turn, ctx: Any) -> Reply:
        """Start what is due, and sleep until the next time."""
        state, now = turn.state or {}, self.clock()
        name, due = self.runs.get(turn.key.id), state.get("next")
        if name is None:
            return self._lost(turn, state)
        if due is not None and now < due:  # this host's clock is behind the store's
            return Reply(then="wait", after=due - now, release=True)
        schedule = self._schedules[name]
        following = schedule.after(now)
        asleep = Reply(then="wait", after=following - now, state={"next": following}, floor=turn.step)
        if due is None:
            return asleep
        at = datetime.fromtimestamp(due, UTC).isoformat()
        labels = {**schedule.labels, "schedule": name, "scheduled_for": at}
        begun = start(
            self._hash(name, at)[:32], schedule.prompt, agent=schedule.agent, limits=schedule.limits, labels=labels, report=False
        )
        said = Text(text=f"{at}: started {begun.target}")
        return Reply(
            then="wait", after=asleep.after, state=asleep.state, floor=turn.step, outbox=(begun,), parts=(said,)
        )  # fmt: skip

    def _lost(self, turn: Turn, state: dict[str, Value]) -> Reply:
        """No schedule of this process: another version of the app may know it, or it was taken out of the code."""
        looks = state.get("looks", 0) + 1
        if looks > LOST:
            return Reply(then="finish", output="no process knows this schedule any more", state={})
        return Reply(then="wait", after=min(3600.0, 15.0 * 2**looks), state={**state, "looks": looks}, floor=turn.step)

    def _hash(self, *words: str) -> str:
        return sha256("\0".join((self._salt, *words)).encode()).hexdigest()
