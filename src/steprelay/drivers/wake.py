"""Wakers: ways to have a run carried by another process, or by this one in a moment.

A wake is a hint. It may be lost, doubled or late: the lease decides who carries, and the sweeper finds what was lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from ..core.errors import StoreUnavailable
from ..core.model import RunKey
from ..ports import Waker

_log = logging.getLogger("steprelay")
Carry = Callable[[RunKey, str], Awaitable[object]]


class TaskWaker(Waker):
    """Carries runs as tasks of this process: for servers that live on."""

    def __init__(self, carry: Carry) -> None:
        self._carry = carry
        self._tasks: set[asyncio.Task[None]] = set()

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        task = asyncio.create_task(self._later(key, carrier, after))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def _later(self, key: RunKey, carrier: str, after: float) -> None:
        await asyncio.sleep(after)
        await self._carry(key, carrier)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.warning("a run could not be carried on, the sweeper will find it: %s", error)

    async def close(self) -> None:
        """End all tasks; each hands its run back."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Wakers(Waker):
    """Asks the waker of a run's carrier: an engine by its name, for everybody else the one that runs go to in the background.
    `engines`: each is asked for when it is first needed, since its SDK may be heavy."""

    def __init__(self, background: Waker, engines: Mapping[str, Callable[[], Waker]]) -> None:
        self._background, self._engines = background, engines

    @property
    def carriers(self) -> tuple[str, ...]:
        """Who comes when woken."""
        return ("background", *self._engines)

    def of(self, carrier: str) -> Waker:
        return self._engines[carrier]() if carrier in self._engines else self._background

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        await self.of(carrier).wake(key, carrier, after)


class HttpWaker(Waker):
    """Asks this app's own public URL, signed with the driver secret: for functions that end.

    The call is over as soon as the other side has answered 202; a delay is left to the sweeper, which is told by `due_at`.
    """

    def __init__(self, url: str, secret: str, *, path: str = "/api/carry", timeout: float = 10.0) -> None:
        """`url`: scheme and host; `secret`: the driver secret, as `whsec_…`."""
        self._path, self._url, self._secret, self._timeout = path, url.rstrip("/") + path, secret, timeout

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        if after <= 0:
            await self.call(key, carrier)

    async def call(self, key: RunKey, carrier: str, *, read: float | None = None) -> Mapping[str, str]:
        """Send it, and answer the headers of what came back; `read`: seconds to wait for that. Raises StoreUnavailable."""
        body = body_of(key, carrier)
        headers = {"content-type": "application/json", **signed(self._secret, body)}
        return await post(self._url, body, headers, self._timeout, "the self-call", read)


class QStashWaker(Waker):
    """Has a message queue call this app: Upstash QStash, or what speaks its API. Its deliveries are repeated until one is
    answered, and a delay is kept: a timer needs no sweeper.

    What it delivers carries our own signature (`Upstash-Forward-*`), so no second set of keys is needed, and `Prefer: wait`:
    a function lives as long as its request is open.
    """

    def __init__(
        self, url: str, secret: str, token: str, *, api: str = "https://qstash.upstash.io", path: str = "/api/carry",
        timeout: float = 10.0,
    ) -> None:  # fmt: skip
        """`url`: this app's scheme and host, as the queue reaches it; `secret`: the driver secret; `token`: the queue's."""
        self._publish = f"{api.rstrip('/')}/v2/publish/{url.rstrip('/')}{path}"
        self._secret, self._token, self._timeout = secret, token, timeout

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        body, seconds = body_of(key, carrier), math.ceil(after)
        forwarded = {"prefer": "wait", **signed(self._secret, body, after=seconds)}
        headers = {
            "authorization": f"Bearer {self._token}",
            "content-type": "application/json",
            **({"upstash-delay": f"{seconds}s"} if seconds else {}),
            **{f"upstash-forward-{name}": value for name, value in forwarded.items()},
        }
        await post(self._publish, body, headers, self._timeout, "the message queue")


def signed(secret: str, body: str, after: float = 0.0) -> dict[str, str]:
    """Standard Webhooks headers of a message that arrives in `after` seconds: its signature is good for minutes around then."""
    from standardwebhooks import Webhook

    message, at = f"msg_{secrets.token_hex(16)}", datetime.now(UTC) + timedelta(seconds=after)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, at, body),
    }


def body_of(key: RunKey, carrier: str) -> str:
    """What `/api/carry` is sent."""
    return json.dumps({"tenant": key.tenant, "id": key.id, "carrier": carrier})


async def post(
    url: str, body: str, headers: dict[str, str], timeout: float, who: str, read: float | None = None
) -> Mapping[str, str]:  # fmt: skip
    """Send a call, and answer the headers of what came back. Raises StoreUnavailable when it was not taken; nothing of ours is told."""
    import httpx

    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(timeout, read=read or timeout)) as client:
            return (await client.post(url, content=body, headers=headers)).raise_for_status().headers
    except httpx.HTTPStatusError as e:
        raise StoreUnavailable(f"{who} answered {e.response.status_code}; the sweeper will find the run") from e
    except httpx.HTTPError as e:
        raise StoreUnavailable(f"{who} failed ({type(e).__name__}); the sweeper will find the run") from e
