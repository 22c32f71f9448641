"""The few words the checks are written in. Time is a parameter everywhere: `T` is when a test begins."""

from __future__ import annotations

from typing import Any

from ...core.model import Claimed, Commit, Committed, New, Outgoing, Refused, Request, Run, RunKey, Signal, Step
from ...core.noun import replace
from ...ports import Store

T = 1_700_000_000.0
KEY = RunKey("acme", "r1")
LEASE = 15.0


def new(**fields: Any) -> New:
    return New(**{"agent": "a", "adapter": "function", "prompt": '"go"', **fields})


def request(name: str, hash: str = "h") -> Request:
    return Request(id=name, hash=hash)


async def create(store: Store, key: RunKey = KEY, *, now: float = T, **fields: Any) -> Run:
    made = await store.claim(key, claim_id="create", holder="", lease=0, carrier=None, new=new(**fields), now=now)
    assert isinstance(made, Refused)
    assert made.reason == "created"
    assert made.run is not None
    return made.run


async def ask(
    store: Store, key: RunKey = KEY, *, now: float = T, id: str = "c1", carrier: str | None = "client", **options: Any
) -> Claimed | Refused:  # fmt: skip
    """A claim, whatever comes of it."""
    return await store.claim(key, claim_id=id, holder="host-" + id, carrier=carrier, now=now, **{"lease": LEASE, **options})


async def take(store: Store, key: RunKey = KEY, **options: Any) -> Claimed:
    """A claim that must be granted."""
    claimed = await ask(store, key, **options)
    assert isinstance(claimed, Claimed), claimed
    return claimed


async def no(store: Store, key: RunKey = KEY, **options: Any) -> Refused:
    """A claim that must be refused."""
    refused = await ask(store, key, **options)
    assert isinstance(refused, Refused), refused
    return refused


def step(claimed: Claimed, **fields: Any) -> Step:
    run = claimed.run
    made = Step(
        index=claimed.claim.index, round=run.round, attempt=run.attempts, carrier=claimed.claim.carrier,
        claim_id=claimed.claim.claim_id, status="RUNNING", messages=('{"m":1}',), claimed_at=claimed.now,
    )  # fmt: skip
    return replace(made, **fields)


def forward(claimed: Claimed, *, request: Request | None = None, **fields: Any) -> Commit:
    """A commit of the claimed step, due again at once; everything that was unread is taken in."""
    seen = max((s.seq for s in claimed.inbox), default=claimed.run.inbox_read)
    plain: dict[str, Any] = {"status": "RUNNING", "after": 0.0, "tally": "{}", "inbox_read": seen}
    return Commit(**{**plain, "step": step(claimed, request=request), **fields})


def release(claimed: Claimed, **fields: Any) -> Commit:
    """A commit without a step."""
    return forward(claimed, **{"step": None, **fields})


def end(claimed: Claimed, **fields: Any) -> Commit:
    """The last step of a round."""
    done = step(claimed, status="COMPLETED", stop_reason="finished")
    return forward(
        claimed, **{"status": "COMPLETED", "stop_reason": "finished", "after": None, "ended": True, "step": done, **fields}
    )


async def go(
    store: Store, key: RunKey = KEY, *, now: float = T, id: str = "c1", request: Request | None = None, **fields: Any
) -> Run:
    """One whole step; the row afterwards."""
    claimed = await take(store, key, now=now, id=id, carrier=None)
    committed = await store.commit(claimed.claim, forward(claimed, request=request, **fields), now=now)
    assert isinstance(committed, Committed)
    return await row(store, key)


async def finish(store: Store, key: RunKey = KEY, *, now: float = T, id: str = "last", **fields: Any) -> Run:
    claimed = await take(store, key, now=now, id=id, carrier=None)
    assert isinstance(await store.commit(claimed.claim, end(claimed, **fields), now=now), Committed)
    return await row(store, key)


async def row(store: Store, key: RunKey = KEY) -> Run:
    run: Run
    (run,) = await store.read(key, "run")
    return run


def prompt(body: str = '"more"', **fields: Any) -> Signal:
    return Signal(**{"kind": "prompt", "body": body, "reopens": True, **fields})


def webhook(name: str) -> Outgoing:
    return Outgoing(kind="webhook", target="https://example.org/hook", body='{"a":1}', request_id=name)
