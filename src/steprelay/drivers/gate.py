"""The gate: how many runs of a kind may be at work at once, whoever drives them.

    app = App(agent, concurrency={"key": "label:customer", "limit": 2})

It stands before the store, where every driver has to pass: a claim is granted only with a slot for each key of its run, a
sign of life renews them, the commit gives them back. A run that finds no slot is put off by a release that moves its due
time, so that it is behind the others the next time somebody looks for work; why it waits is in its row.

A provider that has answered 429 is left alone in the same way by all runs that use it, until the time it named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal
from zlib import crc32

from ..core import codec, machine
from ..core.errors import ConfigError, StateInvalid, StoreError
from ..core.model import Alive, Claim, Claimed, Commit, Committed, Fenced, Refused, Run, RunKey, Wait
from ..core.noun import replace
from ..ports import Agent, Store
from .slots import Full, Slot, Slots

FRESH = 1.0
"""Seconds for which a look at a provider's pause is good."""
AGAIN = 30.0
"""Seconds until a run is tried again whose key could not be told."""
REASONS = ("concurrency", "provider_pause")
KeyOf = Callable[[Run], str | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """At most `limit` steps at once of runs with the same key. `key`: see `rules`."""

    key: KeyOf
    limit: int

    def name(self, run: Run) -> str | None:
        """The key of a run; None: this rule does not concern it. Raises ConfigError."""
        try:
            key = self.key(run)
        except Exception as e:
            raise ConfigError(f"the concurrency key of run {run.key.id!r} cannot be told ({type(e).__name__}: {e})") from e
        if key is not None and not isinstance(key, str):
            raise ConfigError(f"the concurrency key of run {run.key.id!r} is {key!r:.80}; give a str, or None for no limit")
        return key


def rules(given: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> tuple[Rule, ...]:
    """What `App(concurrency=…)` was given. `key`: `"agent"`, `"tenant"`, `"label:NAME"` (runs without that label are free),
    or a function of the run; `limit`: a whole number from 1. Raises ConfigError."""
    several = [given] if isinstance(given, Mapping | str) else list(given or ())
    return tuple(_rule(one) for one in several)


def _rule(given: Any) -> Rule:
    if not isinstance(given, Mapping) or given.keys() != {"key", "limit"}:
        raise ConfigError(f'concurrency is {given!r:.80}; give {{"key": "agent", "limit": 2}}, or a list of such')
    limit = given["limit"]
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= 10_000:
        raise ConfigError(f"concurrency has the limit {limit!r:.80}; give a whole number from 1 to 10000")
    return Rule(key=_key_of(given["key"]), limit=limit)


def _key_of(key: Any) -> KeyOf:
    if callable(key):
        return key  # type: ignore[no-any-return]
    match str(key).partition(":"):
        case ("agent", "", ""):
            return lambda run: f"agent:{run.agent}"
        case ("tenant", "", ""):
            return lambda run: f"tenant:{run.key.tenant}"
        case ("label", ":", name) if name:
            return lambda run: f"label:{name}={labels[name]}" if name in (labels := codec.loads(run.labels)) else None
    raise ConfigError(f'concurrency has the key {key!r:.80}; give "agent", "tenant", "label:NAME" or a function of the run')


@dataclass(kw_only=True, slots=True)
class _Held:
    """What a claim has of the gate's."""

    key: RunKey
    provider: str | None
    renewed: float
    ttl: float
    slots: list[tuple[Slots, Slot]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Blocked:
    """Why a run may not go on now, for how long, and what of it is shown."""

    reason: Literal["concurrency", "provider_pause"]
    after: float
    shown: dict[str, Any]


class Gate:
    """A store whose claims need room as well; every other verb is the store's own. `agents`: the only ones it is for. Their
    `provider`, if they have one, names whom their steps call. `observe` hears of every run that is put off."""

    def __init__(
        self, store: Store, rules: Sequence[Rule], agents: Mapping[str, Agent], observe: Callable[[dict[str, Any]], None]
    ) -> None:
        self._store, self._rules, self._observe = store, rules, observe
        self._providers: dict[str, str | None] = {name: getattr(a, "provider", None) for name, a in agents.items()}
        self._pauses = Pauses(store)
        self._held: dict[str, _Held] = {}

    @property
    def needed(self) -> bool:
        """Whether there is anything to hold anybody back for."""
        return bool(self._rules) or any(self._providers.values())

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._store, verb)

    def takes_turns(self, key: RunKey) -> bool:
        """Whether this process holds slots for a run: it then takes one step a claim, so that others get their turn."""
        return any(held.key == key and held.slots for held in self._held.values())

    async def claim(self, key: RunKey, **options: Any) -> Claimed | Refused:
        """See ports.Store. `later` also when there is no room. Raises ConfigError for a key that cannot be told."""
        claimed = await self._store.claim(key, **options)
        if isinstance(claimed, Refused):
            return _as_due(claimed)
        step = _step_of(claimed)
        if step is None or claimed.run.agent not in self._providers:
            return claimed
        try:
            blocked = await self._admit(claimed, options["lease"])
        except ConfigError:
            await self.commit(claimed.claim, machine.untouched(claimed, after=AGAIN))
            raise
        return claimed if blocked is None else await self._put_off(step, blocked)

    async def progress(self, claim: Claim, *, lease: float, **options: Any) -> Alive | Fenced:
        """See ports.Store. Who has lost a slot (its process stood still for longer than a lease) has lost its claim."""
        held = self._held.get(claim.claim_id)
        if held is not None and not await self._renew(held, lease):
            return Fenced(now=0.0)
        return await self._store.progress(claim, lease=lease, **options)

    async def commit(self, claim: Claim, commit: Commit, *, renew: float | None = None, **options: Any) -> Committed | Fenced:
        """See ports.Store."""
        done = await self._store.commit(claim, commit, renew=renew, **options)
        held = self._held.get(claim.claim_id)
        if held is None:
            return done
        with suppress(StoreError):  # what is not given back now is free when the lease would have ended
            if isinstance(done, Committed) and commit.stop_reason == "rate_limited" and held.provider and commit.after:
                await self._pauses.begin(held.provider, done.now, commit.after)
            if renew is not None and not commit.ended and isinstance(done, Committed):
                await self._renew(held, renew)
            else:
                await self._leave(claim.claim_id)
        return done

    # ------------------------------------------------------------ inside

    async def _admit(self, claimed: Claimed, ttl: float) -> _Blocked | None:
        """Take what the run needs: all of it, or nothing."""
        run, claim_id, clock = claimed.run, claimed.claim.claim_id, asyncio.get_running_loop().time()
        self._forget(clock)
        provider = self._providers[run.agent]
        if provider and (left := await self._pauses.left(provider, claimed.now)) > 0:
            return _Blocked(reason="provider_pause", after=left + _spread(run, left), shown={"provider": provider})
        held = self._held[claim_id] = _Held(key=run.key, provider=provider, renewed=clock, ttl=ttl)
        since = _waits_since(run) or claimed.now
        for rule in self._rules:
            name = rule.name(run)
            if name is None:
                continue
            slots = Slots(self._store, f"{run.key.tenant}\0{name}", rule.limit)
            taken = await slots.take(run.key.id, claim_id, since=since, now=claimed.now, ttl=ttl)
            if isinstance(taken, Full):
                await self._leave(claim_id)
                shown = {"key": name, "limit": rule.limit, "ahead": taken.ahead, "since": since}
                return _Blocked(reason="concurrency", after=taken.after, shown=shown)
            held.slots.append((slots, taken))
        return None

    async def _put_off(self, step: machine.Opened, blocked: _Blocked) -> Refused:
        """Release the run until later, with what it was told meanwhile. Looking was no attempt."""
        claimed, run = step.claimed, step.claimed.run
        old = codec.wait(run.wait)
        wait = Wait(
            reason=blocked.reason, until=claimed.now + blocked.after, needs=old.needs if old else (), got=step.got,
            extra=blocked.shown,
        )  # fmt: skip
        commit = Commit(
            status=step.status, after=blocked.after, wait=codec.pack(wait), tally=codec.pack(step.tally),
            inbox_read=step.inbox_read, attempts=run.attempts - 1, round=step.round, prompt=codec.dumps(step.prompt),
            limits=codec.pack(step.limits),
        )  # fmt: skip
        done = await self._store.commit(claimed.claim, commit)
        if isinstance(done, Committed):
            run = machine.apply(run, commit, now=done.now, unread=done.inbox)
            where = {"tenant": run.key.tenant, "run": run.key.id, "agent": run.agent, "step": run.step}
            self._observe({"event": "put_off", **where, "why": blocked.reason, "after": round(blocked.after, 3)})
        newest = claimed.steps[-1] if claimed.steps else None
        return _as_due(Refused(reason="later", run=run, step=newest, now=done.now))

    async def _renew(self, held: _Held, ttl: float) -> bool:
        """Keep the slots. A quarter of their time is let pass first: a step may give more signs of life than that."""
        clock = asyncio.get_running_loop().time()
        if clock - held.renewed < ttl / 4:
            return True
        kept = [await slots.keep(slot, ttl) for slots, slot in held.slots]
        held.renewed = clock
        return all(kept)

    async def _leave(self, claim_id: str) -> None:
        held = self._held.pop(claim_id, None)
        for slots, slot in held.slots if held else ():
            await slots.leave(slot)

    def _forget(self, clock: float) -> None:
        """Drop what claims left behind that never came to a commit: their slots have run out."""
        for claim_id in [c for c, held in self._held.items() if clock - held.renewed > 2 * held.ttl]:
            del self._held[claim_id]


class Pauses:
    """Until when providers want to be left alone: one entry each in the store's kv."""

    def __init__(self, kv: Store) -> None:
        self._kv = kv
        self._known: dict[str, tuple[float, float]] = {}  # looked when, by the loop's clock; until when, by the store's

    async def left(self, provider: str, now: float) -> float:
        """Seconds still to wait; 0 or less: none."""
        clock = asyncio.get_running_loop().time()
        looked, until = self._known.get(provider, (clock - FRESH, 0.0))
        if until <= now and clock - looked >= FRESH:
            until = float(await self._kv.get(_entry(provider)) or 0.0)
            self._known[provider] = (clock, until)
        return until - now

    async def begin(self, provider: str, now: float, seconds: float) -> None:
        """Leave it alone for so long; a longer pause that was begun before stays."""
        until, old = now + seconds, await self._kv.get(_entry(provider))
        if old is None or float(old) < until:
            self._known[provider] = (asyncio.get_running_loop().time(), until)
            await self._kv.put_if(_entry(provider), repr(until), ttl=seconds, expect=old)


def _entry(provider: str) -> str:
    return f"pause/{sha256(provider.encode()).hexdigest()[:32]}"


def _step_of(claimed: Claimed) -> machine.Opened | None:
    """The step that this claim is for; None: there is none to take, or none that can be read."""
    try:
        opened = machine.open(claimed)
    except (StateInvalid, TypeError, ValueError, KeyError, AttributeError):
        return None  # the engine meets the same, and knows what to do
    return opened if isinstance(opened, machine.Opened) else None


def _waits_since(run: Run) -> float | None:
    """When it first asked for a slot, if that is what it waits for."""
    wait = codec.wait(run.wait)
    return wait.extra.get("since") if wait and wait.reason in REASONS else None


def _as_due(refused: Refused) -> Refused:
    """A run that waits for room is due by the clock, whatever signals it was waiting for before."""
    run = refused.run
    wait = codec.wait(run.wait) if run and refused.reason == "later" else None
    return replace(refused, run=replace(run, wait=None)) if run and wait and wait.reason in REASONS else refused


def _spread(run: Run, left: float) -> float:
    """Seconds, up to half of the pause: those who waited for its end do not all come back at once."""
    return left / 2 * crc32(run.key.id.encode()) / 0xFFFFFFFF
