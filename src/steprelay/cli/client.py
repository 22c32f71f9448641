"""The HTTP API as the command line uses it: of a server, or of the configured store in this very process.

There is one way to ask. Without a URL the app is served to ourselves, without a socket.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from ..core.errors import BadInput, ConfigError, StepRelayError, StoreUnavailable
from ..core.model import RunKey
from ..ports import Waker

if TYPE_CHECKING:
    import httpx


class Pruned(BadInput):
    """The run has ended and its history is gone."""


class Client:
    """Calls of `/api`. Every refusal is raised as a StepRelayError with the server's own words."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def get(self, path: str, **query: Any) -> Any:
        return await self._ask("GET", path, params={k: v for k, v in query.items() if v is not None})

    async def post(self, path: str, body: Any = None) -> Any:
        return await self._ask("POST", path, json={} if body is None else body)

    async def steps(self, run: str, after: int = -1) -> list[dict[str, Any]]:
        """All steps of a run after an index."""
        rows: list[dict[str, Any]] = []
        while True:
            page = (await self.get(f"runs/{run}/steps", after=after, limit=200))["steps"]
            rows += page
            if len(page) < 200:
                return rows
            after = page[-1]["index"]

    async def _ask(self, method: str, path: str, **options: Any) -> Any:
        import httpx

        try:
            response = await self._http.request(method, path, **options)
        except httpx.TransportError as e:
            raise StoreUnavailable(f"{self._http.base_url} does not answer ({type(e).__name__}); is the server running?") from e
        if response.is_success:
            return response.json() if response.content else None
        raise _refusal(response)


def _refusal(response: httpx.Response) -> StepRelayError:
    try:
        problem = response.json()
        said = problem.get("detail") or problem.get("title") or response.reason_phrase
    except ValueError:
        said = response.reason_phrase
    said = said.rstrip(".")
    match response.status_code:
        case 401 | 403:
            return ConfigError(f"{said}; set STEPRELAY_SECRET to the secret of that server")
        case 404:
            return BadInput(f"{said}; steprelay runs list shows what there is")
        case 410:
            return Pruned(said)
        case 503:
            return StoreUnavailable(said)
        case _:
            return BadInput(said)


@asynccontextmanager
async def connect(url: str | None) -> AsyncIterator[Client]:
    """A client of the server at `url` (scheme and host), or of the configured store."""
    import httpx

    if url is not None:
        secret = os.environ.get("STEPRELAY_SECRET")
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        async with httpx.AsyncClient(base_url=f"{url.rstrip('/')}/api/", headers=headers, timeout=30) as http:
            yield Client(http)
        return
    from ..app import App

    app = App({"none": _nobody}, auth=False, ui=False, waker=_Asleep())
    try:
        transport = httpx.ASGITransport(app=app.asgi)
        async with httpx.AsyncClient(base_url="http://localhost/api/", transport=transport, timeout=30) as http:
            yield Client(http)
    finally:
        await app.shutdown()


class _Asleep(Waker):
    """Wakes nobody: this process has no agents, a run that it carried would fail. The sweeper of a server finds it."""

    async def wake(self, key: RunKey, carrier: str, after: float = 0.0) -> None:
        return


async def _nobody(turn: Any, ctx: Any) -> None:
    """Stands where an app wants an agent: nothing is run from here."""
