"""How long a request may live: measured from its arrival, told by the host, capped by the setting; nobody else is believed."""

from __future__ import annotations

import json

import http_world as w
import pytest

from steprelay.core.model import Reply
from steprelay.drivers.wake import signed
from steprelay.http.auth import driver_secret


def remembers(seen: list[float]):
    def agent(turn, ctx):
        seen.append(ctx.remaining())
        return Reply(then="finish", output="x")

    return agent


async def remaining(told: str, **settings) -> float:
    """What an agent is told to have left when a client says so much."""
    seen: list[float] = []
    world = w.World(remembers(seen), **settings)
    async with world.server(**{"x-steprelay-wall-ms": told}) as c:
        assert (await c.post("/api/agent-step", json={"sessionId": "s", "userPrompt": "x"})).status_code == 200
    return seen[0]


@pytest.mark.parametrize(("told", "settings", "least", "most"), [
    ("1000", {"wall": 60.0}, 50, 59),  # anybody could say so
    ("20000", {"wall": 60.0, "wall_header": True}, 10, 19),
    ("900000", {"wall": 60.0, "wall_header": True}, 800, 899),  # the table knows requests, the proxy knows this one
    ("900000", {"wall": 60.0, "wall_header": True, "deadline": 26.0}, 20, 25),
    ("-5", {"wall": 60.0, "wall_header": True}, 50, 59),
    ("nan", {"wall": 60.0, "wall_header": True}, 50, 59),
])  # fmt: skip
async def test_the_wall_of_a_step(told, settings, least, most) -> None:
    assert least < await remaining(told, **settings) < most


async def test_a_signed_self_call_is_believed_and_the_time_it_took_to_arrive_counts() -> None:
    world = w.World(w.three_steps, wall=60.0)
    body = json.dumps({"tenant": "default", "id": "s", "carrier": "background"})
    headers = {**signed(driver_secret(w.SECRET), body), "x-steprelay-wall-ms": "900000", "prefer": "wait"}
    async with world.client() as c:
        assert (await c.post("/api/carry", content=body, headers=headers)).status_code == 202
    assert 890 < world.walls[0] < 900
