"""A provider that answers 429, and the other runs that would have asked it next."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from models import Script
from openai_server import serving
from pydantic_ai import Agent
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers.openai import OpenAIProvider

from steprelay import App
from steprelay.agents.pydantic_ai import PydanticAIAgent
from steprelay.stores.memory import MemoryStore


def a_model(url: str) -> OpenAIChatModel:
    return OpenAIChatModel("gpt-5-mini", provider=OpenAIProvider(base_url=url, api_key="none"))


async def test_one_429_keeps_all_runs_of_the_model_from_asking() -> None:
    with serving((429, {"retry-after": "2"}), "one", "two", "three") as server:
        agents = {"a": Agent(a_model(server.url)), "other": Agent(Script("free").model)}
        app = App(agents, store=MemoryStore(), auth=False, observer=None, ui=False)
        page = httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost")
        for id in ("first", "second", "third"):
            await app.start("go", id=id)
        began = time.monotonic()
        refused = await page.post("/api/runs/first/step", json={})
        assert (refused.json()["status"], refused.json()["stopReason"]) == ("WAITING", "rate_limited")
        waits = await page.post("/api/runs/second/step", json={})
        assert (waits.status_code, waits.json()["status"], waits.headers["retry-after"] in "23") == (202, "CONTINUE", True)
        told = (await page.get("/api/runs/second/explain")).json()
        assert told["why"] == "provider_pause"
        assert server.url not in told["words"]
        assert len(server.requests) == 1
        assert (await app.result(await app.start("go", agent="other"))).strip() == "free"
        answers = await asyncio.gather(*(app.result(id) for id in ("first", "second", "third")))
        assert time.monotonic() - began >= 1.9
        assert {a.strip() for a in answers} == {"one", "two", "three"}
        assert len(server.requests) == 4
        await page.aclose()
        await app.shutdown()


def test_who_is_called_is_known_beforehand() -> None:
    here, there = a_model("http://here/v1"), a_model("http://there/v1")
    names = [PydanticAIAgent(Agent(m)).provider for m in (here, there, WrapperModel(here), FallbackModel(here, TestModel()))]
    assert names[0] == names[2] == "openai:gpt-5-mini at http://here/v1/"
    assert len(set(names)) == 3
    assert names[3] == "openai:gpt-5-mini at http://here/v1/, test:test"


@pytest.mark.parametrize(("model", "provider"), [("openai:gpt-5", "openai:gpt-5"), (None, None)])
def test_a_model_that_is_only_named_is_called_by_that_name(
    model: str | None, provider: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert PydanticAIAgent(Agent(model, defer_model_check=True)).provider == provider
