"""Slots under one name, in the store's kv: how many may work at once, who does, and who waits in what order.

    slot/<name>/s/<i>    one slot: since when it is taken, and by which claim; dies with its holder's lease
    slot/<name>/w/<n>    a place in the line: since when which run waits; dies when nobody comes back for it

A slot is taken by compare-and-set on its own entry, so that there are never more holders than slots, whoever races. The line
is a courtesy on top: whoever came first goes first, as long as it keeps asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from zlib import crc32

from ..ports import Store

SOONEST, LATEST = 0.1, 30.0
"""Seconds between two tries of a run that waits for a slot."""
SHARE = 4
"""The first in line tries again after this part of the time that the holders have been at work: a slot stands empty for a
fraction of a step, and a long step is not asked after all the time."""
GRACE = 5.0
"""Seconds that a place in the line is kept for a run that is late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """One slot, taken: its entry and the value that proves it is ours."""

    entry: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Full:
    """There is none. `ahead`: how many wait in front; `after`: seconds until it is worth another try."""

    ahead: int
    after: float


class Slots:
    """`limit` slots under one name."""

    def __init__(self, kv: Store, name: str, limit: int) -> None:
        self._kv, self.name, self.limit = kv, name, limit
        self._prefix = f"slot/{sha256(name.encode()).hexdigest()[:32]}/"

    async def take(self, run: str, claim_id: str, *, since: float, now: float, ttl: float) -> Slot | Full:
        """A slot for `ttl` seconds, or a place in the line. `since`: when this run began to wait; `now`: the store's clock.
        Repeated for the same claim it answers the same slot."""
        held, line = dict[str, str](), dict[str, str]()
        for entry, value in (await self._kv.scan(self._prefix)).items():
            (held if entry.startswith(f"{self._prefix}s/") else line)[entry] = value
        if mine := next((e for e, v in held.items() if v.endswith(f" {claim_id}")), None):
            return Slot(entry=mine, value=held[mine])
        place = next((e for e, v in line.items() if _waiting(v)[1] == run), None)
        ahead = sum(_waiting(v) < (since, run) for e, v in line.items() if e != place)
        if len(held) + ahead < self.limit and (slot := await self._one_of(set(held), f"{now!r} {claim_id}", ttl)):
            if place is not None:
                await self._drop(place, line[place])
            return slot
        worked = min((now - float(v.split()[0]) for v in held.values()), default=0.0)
        after = min(LATEST, max(SOONEST, worked / SHARE) * (1 + ahead // self.limit))
        place = place or next(e for n in count(crc32(run.encode()) % 8) if (e := f"{self._prefix}w/{n}") not in line)
        await self._kv.put_if(place, f"{since!r} {run}", ttl=after + GRACE, expect=line.get(place))
        return Full(ahead=ahead, after=after)

    async def _one_of(self, held: set[str], value: str, ttl: float) -> Slot | None:
        """Any that is free. Where to begin is drawn from the value, so that those who come at once do not all want the same."""
        start = int.from_bytes(sha256(value.encode()).digest()[:4]) % self.limit
        for i in range(self.limit):
            entry = f"{self._prefix}s/{(start + i) % self.limit}"
            if entry not in held and await self._kv.put_if(entry, value, ttl=ttl, expect=None):
                return Slot(entry=entry, value=value)
        return None

    async def keep(self, slot: Slot, ttl: float) -> bool:
        """Keep it for another `ttl` seconds; False when it was lost."""
        return await self._kv.put_if(slot.entry, slot.value, ttl=ttl, expect=slot.value)

    async def leave(self, slot: Slot) -> None:
        """Give it back."""
        await self._drop(slot.entry, slot.value)

    async def _drop(self, entry: str, value: str) -> None:
        await self._kv.put_if(entry, "", ttl=0.0, expect=value)


def _waiting(value: str) -> tuple[float, str]:
    """Since when, and who: the order of the line."""
    since, _, run = value.partition(" ")
    return float(since), run
