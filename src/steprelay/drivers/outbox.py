"""The outbox, delivered: signals to other runs, new runs, webhooks. At least once; the receiver knows repeats by their id."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

from ..core import codec
from ..core.errors import StepRelayError
from ..core.model import New, Outgoing, RunKey, Signal
from ..core.retry import backoff
from ..engine import Engine
from ..ports import Waker


class Outbox:
    """Delivers what runs have committed for others. `secret` signs webhooks (Standard Webhooks, `whsec_…`)."""

    def __init__(self, engine: Engine, waker: Waker | None, *, secret: str | None = None, timeout: float = 10.0) -> None:
        self._engine, self._waker, self._secret, self._timeout = engine, waker, secret, timeout

    async def deliver(self, key: RunKey) -> int:
        """Deliver what is due of one run; answers how many went out. What fails comes again, later each time."""
        sent = 0
        for out in await self._engine.store.read(key, "outbox"):
            try:
                await self._send(key, out)
            except (StepRelayError, OSError) as e:
                retry = 3600.0 if out.tries >= 20 else backoff(out.tries + 1, str(key)) * 4
                await self._engine.store.ack(key, [out.seq], retry_after=retry)
                self._engine.observe(
                    {"event": "undelivered", "run": key.id, "to": out.kind, "tries": out.tries + 1, "why": str(e)}
                )
            else:
                await self._engine.store.ack(key, [out.seq])
                sent += 1
        return sent

    async def _send(self, key: RunKey, out: Outgoing) -> None:
        body = codec.loads(out.body)
        target = RunKey(key.tenant, out.target)
        match out.kind:
            case "signal":
                signal = Signal(kind=body["kind"], body=codec.dumps(body["body"]), request_id=out.request_id)
                told = await self._engine.store.signal(target, signal)
                if told is not None and told.run.carrier != "client":
                    await self._wake(target, told.run.carrier)
            case "start":
                new = New(**{**body, "parent": codec.dumps({"run": key.id, "id": out.request_id})})
                await self._engine.store.claim(target, claim_id=uuid4().hex, holder="", lease=0, carrier=None, new=new)
                await self._wake(target, new.carrier)
            case "wake":
                await self._wake(target, body["carrier"])
            case "webhook":
                await self._post(out)

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
