"""Wakers: ways to have a run carried by another process, or by this one in a moment.

A wake is a hint. It may be lost, doubled or late: the lease decides who carries, and the sweeper finds what was lost.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

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


class HttpWaker(Waker):
    """Asks this app's own public URL, signed with the driver secret: for functions that end.

    The call is over as soon as the other side has answered 202; a delay is left to the sweeper, which is told by `due_at`.
    """

    def __init__(self, url: str, secret: str, *, path: str = "/api/carry", timeout: float = 10.0) -> None:
        """`url`: scheme and host; `secret`: the driver secret, as `whsec_…`."""
        self._url, self._secret, self._timeout = url.rstrip("/") + path, secret, timeout

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        import httpx
        from standardwebhooks import Webhook

        if after > 0:
            return
        body = json.dumps({"tenant": key.tenant, "id": key.id, "carrier": carrier})
        message, at = f"msg_{secrets.token_hex(16)}", datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": Webhook(self._secret).sign(message, at, body),
        }
        try:
            async with httpx.AsyncClient(timeout=self._timeout) as client:
                answer = await client.post(self._url, content=body, headers=headers)
                answer.raise_for_status()
        except httpx.HTTPError as e:
            raise StoreUnavailable(
                f"the self-call to {self._url} failed ({type(e).__name__}); the sweeper will find the run"
            ) from e
