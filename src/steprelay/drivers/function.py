"""Hosts whose background work is a function of its own: it is called, answers at once, and goes on behind its answer.

Whether it is such a function is declared in the site, and a wrong declaration looks right until runs are cut off: it lives
as long as any request, and its caller waits for it. That waiting is how it is noticed here.
"""

from __future__ import annotations

import logging

from ..core.errors import StepRelayError, StoreUnavailable
from ..core.model import RunKey
from ..engine import Engine
from .wake import HttpWaker

NOTE = "host/background"
"""The name under which the store keeps that the background function is none; see `admin.findings`."""
NOTED = 900.0
"""Seconds for which that is remembered."""
PATIENCE = 5.0
"""Seconds in which a background function has answered: it does so before anything of it runs."""
HURRY = 0.5
"""Seconds that remain of it where it is known to be none."""
RESERVE = 5.0
"""Seconds kept of a request's life, for the proxy and the relay."""
_log = logging.getLogger("steprelay")


class FunctionWaker(HttpWaker):
    """Calls the background function, signed. Where it turns out to be an ordinary one, runs are carried for as long as one
    of those lives, and somebody is told."""

    def __init__(self, url: str, secret: str, *, path: str, engine: Engine, request: float) -> None:
        """`request`: seconds an ordinary function may live here."""
        super().__init__(url, secret, path=path)
        self._engine, self._request, self._patience = engine, request, PATIENCE

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        from httpx import ReadTimeout

        if after > 0:
            return
        try:
            waited = "x-steprelay-waited" in await self.call(key, carrier, read=self._patience)
        except StoreUnavailable as e:
            if not isinstance(e.__cause__, ReadTimeout):
                raise
            waited = True  # it was sent, and somebody works on it while we wait
        if waited:
            await self._tell()

    async def wall(self, told: float | None) -> float | None:
        """Seconds a carrier here may live: what it was told, or less, where that is known to be wrong."""
        if told is None or await self._engine.store.get(NOTE) is None:
            return told
        self._patience = HURRY
        return min(told, self._request - RESERVE)

    async def _tell(self) -> None:
        why = (
            f"{self._path} answers only when it is done, so it is no background function and lives {self._request:.0f} s, not 15 "
            "minutes; its file must hold `export const config = { background: true }`. Runs go on, in shorter legs"
        )
        self._patience = HURRY
        self._engine.observe({"event": "background_undeclared", "why": why})
        _log.warning(why)
        try:
            await self._engine.store.put_if(NOTE, why, ttl=NOTED, expect=None)
        except StepRelayError as e:
            _log.warning("that could not be noted: %s", e)
