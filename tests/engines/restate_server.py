"""What Restate's server says about itself."""

from __future__ import annotations

from typing import Any

import httpx

from steprelay.testing.engines import Restate, engine

HELD = "status != 'completed' and target_service_key = '{}'"


async def invocations(run: str, where: str = HELD) -> list[dict[str, Any]]:
    """A run's invocations: id, status, journal_size."""
    server = engine("restate")
    assert isinstance(server, Restate)
    query = f"select id, status, journal_size from sys_invocation where {where.format(run)}"
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{server.admin}/query", json={"query": query}, headers={"accept": "application/json"})
    rows: list[dict[str, Any]] = answer.raise_for_status().json()["rows"]
    return rows
