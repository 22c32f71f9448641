"""The outbox, delivered: signals to other runs, new runs, webhooks. At least once; the receiver knows repeats by their id."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import uuid4

from ..core import codec
from ..core.errors import StepRelayError
from ..core.model import New, Outgoing, RunKey, Signal, Value
from ..core.retry import backoff
from ..engine import Engine
from ..ports import Waker

PATIENCE = 20
"""Tries after which a message is tried once an hour; for as long the receiver of a signal may still be missing, because its own
start is on the way."""
PAGE = 100


class Outbox:
    """Delivers what runs have committed for others. `new` makes a run of a start message (children.start) and fields of New;
    `secret` signs webhooks (Standard Webhooks, `whsec_…`)."""

    def __init__(
        self, engine: Engine, waker: Waker | None, *, new: Callable[..., New], secret: str | None = None, timeout: float = 10.0
    ) -> None:  # fmt: skip
        self._engine, self._waker, self._new, self._secret, self._timeout = engine, waker, new, secret, timeout

    async def deliver(self, key: RunKey) -> int:
        """Deliver what one run has for others; answers how many went out. What fails comes again, later each time."""
        sent, now, page = 0, None, await self._engine.store.read(key, "outbox", limit=PAGE)
        while page:
            for out in page:
                if out.tries:  # it waits for its time, which is the store's
                    now = now or await self._now(key)
                    if out.due_at is None or out.due_at > now:
                        continue
                sent += await self._delivered(key, out)
            page = await self._engine.store.read(key, "outbox", after=page[-1].seq, limit=PAGE) if len(page) == PAGE else []
        return sent

    async def _now(self, key: RunKey) -> float:
        return (await self._engine.store.claim(key, claim_id=uuid4().hex, holder="", lease=0, carrier=None)).now

    async def _delivered(self, key: RunKey, out: Outgoing) -> bool:
        try:
            await self._send(key, out)
        except (StepRelayError, OSError) as e:
            retry = 3600.0 if out.tries >= PATIENCE else backoff(out.tries + 1, str(key)) * 4
            await self._engine.store.ack(key, [out.seq], retry_after=retry)
            self._engine.observe({"event": "undelivered", "run": key.id, "to": out.kind, "tries": out.tries + 1, "why": str(e)})
            return False
        await self._engine.store.ack(key, [out.seq])
        return True

    async def _send(self, key: RunKey, out: Outgoing) -> None:
        body = codec.loads(out.body)
        target = RunKey(key.tenant, out.target)
        match out.kind:
            case "signal":
                await self._signal(target, out, body)
            case "start":
                await self._start(key, target, out, body)
            case "wake":
                await self._wake(target, body["carrier"])
            case "webhook":
                await self._post(out)

    async def _signal(self, target: RunKey, out: Outgoing, body: Value) -> None:
        """A signal, and what it asks for: a cancelled run that nobody holds ends now, any other is woken."""
        signal = Signal(kind=body["kind"], body=codec.dumps(body["body"]), request_id=out.request_id)
        told = await self._engine.store.signal(target, signal)
        if told is None:
            if out.tries < PATIENCE:
                raise OSError(f"there is no run {target.id!r} yet")
        elif signal.kind == "cancel":
            if told.first and (await self._engine.advance(target, carrier=None)).outgoing:
                await self.deliver(target)
        elif told.run.carrier != "client":
            await self._wake(target, told.run.carrier)

    async def _start(self, key: RunKey, target: RunKey, out: Outgoing, body: Value) -> None:
        """Create a child and have it carried. It belongs to whom its parent belongs; a stranger under its id is no child."""
        rows = await self._engine.store.read(key, "run")
        parent = {"run": key.id, **({"id": out.request_id} if body["report"] else {})}
        new = self._new(body, parent=codec.dumps(parent), owner=rows[0].owner if rows else None)
        told = await self._engine.store.claim(target, claim_id=uuid4().hex, holder="", lease=0, carrier=None, new=new)
        if body["report"] and told.run is not None and told.run.parent != new.parent:
            error = {"code": "id_taken", "message": f"there is another run with the id {target.id!r}"}
            failed = {"id": out.request_id, "status": "FAILED", "error": error}
            signal = Signal(kind="child", body=codec.dumps(failed), request_id=f"{target.id}.taken")
            await self._engine.store.signal(key, signal)
        else:
            await self._wake(target, new.carrier)

    async def _wake(self, key: RunKey, carrier: str) -> None:
        if self._waker is not None:
            await self._waker.wake(key, carrier)

    async def _post(self, out: Outgoing) -> None:
        import httpx
        from standardwebhooks import Webhook

        at = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": out.request_id,
            "webhook-timestamp": str(int(at.timestamp())),
        }
        if self._secret:
            headers["webhook-signature"] = Webhook(self._secret).sign(out.request_id, at, out.body)
        try:
            async with httpx.AsyncClient(timeout=self._timeout) as client:
                (await client.post(out.target, content=out.body, headers=headers)).raise_for_status()
        except httpx.HTTPError as e:
            raise OSError(f"{type(e).__name__} from the webhook's receiver") from e
