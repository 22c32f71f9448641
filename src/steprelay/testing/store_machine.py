"""Random histories: every verb in any order, on a store and on MemoryStore as the model; both must say the same.

    from hypothesis import settings
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(lambda: StoreMachine(open_an_empty_store()), settings=settings(deadline=None))

Time is part of the history (`pass_time`), so a failure shrinks to a few verbs that anybody can repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ..core.errors import StoreError
from ..core.model import Claimed, Commit, Committed, Filter, New, Outgoing, Request, RunKey, Signal, Step
from ..core.noun import replace
from ..ports import Store
from ..stores.memory import MemoryStore

T = TypeVar("T")
TENANT = "acme"
KEYS = st.sampled_from([RunKey(TENANT, "a"), RunKey(TENANT, "a"), RunKey(TENANT, "a"), RunKey(TENANT, "b"), RunKey("zeta", "a")])
CARRIERS = st.sampled_from([None, "client", "background", "any"])
REQUESTS = st.sampled_from([None, None, Request(id="q1", hash="x"), Request(id="q1", hash="y"), Request(id="q2", hash="x")])
SPANS = st.sampled_from([None, 0.0, 5.0, 30.0])
NAMES = st.sampled_from(["n:1", "n:2", "m"])
COUNTERS = st.sampled_from(["count:1", "count:2"])
STATUSES = st.sampled_from(["RUNNING", "WAITING", "AWAITING_INPUT", "COMPLETED"])
EVERY = 10_000


class StoreMachine(RuleBasedStateMachine):
    """One history of an empty store, which is closed at its end."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._store, self._model = store, MemoryStore()
        self._now = 1_700_000_000.0
        self._claims: list[Claimed] = []  # all that were ever granted: dead ones must stay dead
        self._ids = 0
        self._await(store.migrate())

    def teardown(self) -> None:
        self._await(self._store.close())
        self._loop.close()

    def _await(self, act: Awaitable[T]) -> T:
        return self._loop.run_until_complete(act)

    def _both(self, verb: Callable[[Store], Awaitable[T]]) -> T | None:
        """The answer of both, which must be one; None where both refuse."""
        wanted, answered = self._try(verb(self._model)), self._try(verb(self._store))
        assert answered == wanted, f"the store answered {answered!r}, the model {wanted!r}"
        return None if wanted == StoreError else wanted

    def _try(self, act: Awaitable[T]) -> T | Any:
        try:
            return self._await(act)
        except StoreError:
            return StoreError

    # ------------------------------------------------------------ the verbs

    @rule(seconds=st.sampled_from([1.0, 5.0, 15.0, 40.0]))
    def pass_time(self, seconds: float) -> None:
        self._now += seconds

    @rule(key=KEYS, outlive=st.booleans())
    def claim_plainly(self, key: RunKey, outlive: bool) -> None:
        """The path that gets histories forward: wait for whoever has it, and take it."""
        self._now += 15.0 if outlive else 0.0
        self.claim(key, 15.0, None, None, False, None, "client", 5.0, True, True)

    @precondition(lambda self: self._claims)
    @rule(request=REQUESTS, keep=st.booleans(), sent=st.integers(0, 2))
    def step_plainly(self, request: Request | None, keep: bool, sent: int) -> None:
        self._commit(self._claims[-1], True, "RUNNING", 0.0, None, request, keep, True, False, sent, None)

    @rule(
        key=KEYS, lease=st.sampled_from([0.0, 15.0, 15.0, 15.0]), carrier=CARRIERS, request=REQUESTS, again=st.booleans(),
        expect=st.sampled_from([None, None, None, 0, 1, 2]), owned=st.sampled_from(["client", "background", "any"]),
        takeover=SPANS, due=st.sampled_from([True, True, True, False]), create=st.booleans(),
    )  # fmt: skip
    def claim(
        self, key: RunKey, lease: float, carrier: str | None, request: Request | None, again: bool, expect: int | None,
        owned: str, takeover: float | None, due: bool, create: bool,
    ) -> None:  # fmt: skip
        self._ids += not again
        new = New(
            agent="x", adapter="function", prompt='"go"', carrier=owned, takeover_after=takeover, due=due, labels='{"k":"v"}'
        )
        claimed = self._both(
            lambda s: s.claim(
                key, claim_id=f"c{self._ids}", holder="h", lease=lease, carrier=carrier, expect=expect, request=request,
                new=new if create else None, now=self._now,
            )
        )  # fmt: skip
        if isinstance(claimed, Claimed):
            self._claims.append(claimed)

    @precondition(lambda self: self._claims)
    @rule(
        data=st.data(), stepped=st.sampled_from([True, True, False]), status=STATUSES, after=SPANS, renew=SPANS, request=REQUESTS,
        keep=st.booleans(), read=st.booleans(), floor=st.booleans(), sent=st.integers(0, 2),
        attempts=st.sampled_from([None, 0]),
    )  # fmt: skip
    def commit(
        self, data: Any, stepped: bool, status: Any, after: float | None, renew: float | None, request: Request | None,
        keep: bool, read: bool, floor: bool, sent: int, attempts: int | None,
    ) -> None:  # fmt: skip
        self._commit(self._pick(data), stepped, status, after, renew, request, keep, read, floor, sent, attempts)

    def _commit(
        self, claimed: Claimed, stepped: bool, status: Any, after: float | None, renew: float | None, request: Request | None,
        keep: bool, read: bool, floor: bool, sent: int, attempts: int | None,
    ) -> None:  # fmt: skip
        run, claim = claimed.run, claimed.claim
        step = Step(
            index=claim.index, round=0, attempt=1, carrier=claim.carrier, claim_id=claim.claim_id, status=status, request=request,
            messages=(f'"{self._ids}"', "{}"),
        )  # fmt: skip
        made = Commit(
            status=status, after=after, ended=status == "COMPLETED", step=step if stepped else None, tally=f'"{self._ids}"',
            floor=claim.index if floor else None, inbox_read=max((s.seq for s in claimed.inbox if read), default=run.inbox_read),
            outbox=tuple(Outgoing(kind="wake", target=str(n)) for n in range(sent)), blobs={"b": str(self._ids)} if keep else {},
            ledger={"l": str(self._ids)}, keep_ledger=keep, attempts=attempts,
        )  # fmt: skip
        committed = self._both(lambda s: s.commit(claim, made, renew=renew, now=self._now))
        if isinstance(committed, Committed) and renew is not None:
            (row,) = self._await(self._model.read(claim.key, "run"))
            self._claims.append(replace(claimed, claim=replace(claim, index=row.step), run=row, inbox=committed.inbox))

    @precondition(lambda self: self._claims)
    @rule(data=st.data(), tail=st.sampled_from([None, '"words"']), ledger=st.dictionaries(NAMES, st.just("1"), max_size=2))
    def progress(self, data: Any, tail: str | None, ledger: dict[str, str]) -> None:
        claim = self._pick(data).claim
        self._both(lambda s: s.progress(claim, lease=15.0, tail=tail, ledger=ledger, now=self._now))

    def _pick(self, data: Any) -> Claimed:
        """The newest claim, or one of the two before it: dead by now, or of another run."""
        picked: Claimed = self._claims[-1 - data.draw(st.integers(0, min(2, len(self._claims) - 1)))]
        return picked

    @rule(
        key=KEYS, kind=st.sampled_from(["prompt", "cancel", "event", "carry"]), request_id=st.sampled_from([None, "s1", "s2"]),
        reopens=st.booleans(), carrier=CARRIERS, takeover=SPANS,
    )  # fmt: skip
    def signal(
        self, key: RunKey, kind: Any, request_id: str | None, reopens: bool, carrier: str | None, takeover: float | None
    ) -> None:  # fmt: skip
        self._ids += 1
        sent = Signal(
            kind=kind, body=str(self._ids), request_id=request_id, reopens=reopens, carrier=carrier, takeover_after=takeover
        )  # fmt: skip
        self._both(lambda s: s.signal(key, sent, now=self._now))

    @rule(key=KEYS, seqs=st.lists(st.integers(1, 6), max_size=4, unique=True), retry=SPANS)
    def ack(self, key: RunKey, seqs: list[int], retry: float | None) -> None:
        self._both(lambda s: s.ack(key, seqs, retry, now=self._now))

    @rule(ago=st.sampled_from([0.0, 10.0]), status=st.sampled_from([(), ("COMPLETED",)]))
    def prune(self, ago: float, status: Any) -> None:
        self._both(lambda s: s.prune(self._now - ago, Filter(tenant=TENANT, status=status), now=self._now))

    @rule()
    def due(self) -> None:
        rows = {r.key: r.due_at or 0.0 for tenant in (TENANT, "zeta") for r in self._list(self._model, tenant)}
        for carriers in (None, [], ["client"], ["background"], ["client", "background"]):
            wanted = self._await(self._model.due(carriers, EVERY, now=self._now))
            answered = self._await(self._store.due(carriers, EVERY, now=self._now))
            assert sorted(map(repr, answered)) == sorted(map(repr, wanted)), carriers
            since = [rows[d.key] for d in answered if d.why == "step"]
            assert since == sorted(since), "longest due first"

    @rule(
        name=NAMES, value=st.sampled_from(["1", "2"]), expect=st.sampled_from([None, "1", "2"]), ttl=st.sampled_from([5.0, 60.0])
    )
    def put_if(self, name: str, value: str, expect: str | None, ttl: float) -> None:
        self._both(lambda s: s.put_if(name, value, ttl=ttl, expect=expect, now=self._now))

    @rule(name=COUNTERS, by=st.sampled_from([1, -1, 0.5]), ttl=st.sampled_from([5.0, 60.0]))
    def incr(self, name: str, by: float, ttl: float) -> None:
        self._both(lambda s: s.incr(name, by, ttl=ttl, now=self._now))

    @rule(name=NAMES)
    def values(self, name: str) -> None:
        self._both(lambda s: s.get(name, now=self._now))
        self._both(lambda s: s.scan("n:", now=self._now))

    # ------------------------------------------------------------ what people see

    @invariant()
    def the_views_are_the_same(self) -> None:
        for tenant in (TENANT, "zeta"):
            runs = self._list(self._store, tenant)
            assert runs == self._list(self._model, tenant)
            for run in runs:
                self._both(lambda s, k=run.key: s.read(k, "steps", limit=EVERY))  # type: ignore[misc]
                self._both(lambda s, k=run.key: s.read(k, "inbox", limit=EVERY))  # type: ignore[misc]
                self._both(lambda s, k=run.key: s.read(k, "outbox", limit=EVERY))  # type: ignore[misc]
                self._both(lambda s, k=run.key: s.read(k, "blob", name="b"))  # type: ignore[misc]

    def _list(self, store: Store, tenant: str) -> list[Any]:
        return self._await(store.read(Filter(tenant=tenant), "runs", limit=EVERY))
