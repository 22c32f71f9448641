"""The suite's agent in Pydantic AI, with a model that does as it is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from subject_function import Meeting

from steprelay.agents.pydantic_ai import PydanticAIAgent
from steprelay.testing.agent_checks.outside import Outside

ADAPTER = "pydantic_ai"


def make(case: str, outside: Outside, version: int) -> PydanticAIAgent:
    def call(name: str, *ids: str) -> ModelResponse:
        return ModelResponse(parts=[ToolCallPart(name, {}, tool_call_id=i) for i in ids])

    def script(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        turns = sum(isinstance(m, ModelResponse) for m in messages)
        results = [p.content for m in messages for p in m.parts if isinstance(p, ToolReturnPart)]
        match case:
            case "pay" | "ask" | "together" | "change" if turns == 0:
                name = {"pay": "pay", "ask": "wipe", "together": "meet", "change": "look"}[case]
                return call(name, *(["c1", "c2", "c3"] if case == "together" else ["c1"]))
            case "many" if turns < 200:
                return call("look", f"c{turns:03}")
            case "pay" | "ask":
                return ModelResponse(parts=[TextPart(str(results[-1]))])
            case "change":
                return ModelResponse(parts=[TextPart(f"version {version}")])
        return ModelResponse(parts=[TextPart("together" if case == "together" else "done")])

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        while case == "talk":
            yield "word "
            await asyncio.sleep(0.005)
        for i, part in enumerate(script(messages, info).parts):
            if isinstance(part, ToolCallPart):
                yield {i: DeltaToolCall(name=part.tool_name, json_args=json.dumps(part.args), tool_call_id=part.tool_call_id)}
            elif isinstance(part, TextPart):
                yield part.content

    agent = Agent(FunctionModel(script, stream_function=stream))
    meeting: list[Meeting] = []

    @agent.tool_plain(metadata={"effect": "once"})
    def pay() -> str:
        return outside.effect("pay")

    @agent.tool_plain(metadata={"effect": "needs_approval"})
    def wipe() -> str:
        return outside.effect("wipe")

    @agent.tool_plain(metadata={"effect": "read"})
    def look() -> str:
        return "seen"

    @agent.tool_plain(metadata={"effect": "read"})
    async def meet() -> str:
        if not meeting:
            meeting.append(Meeting(3))
        return await meeting[0].meet()

    return PydanticAIAgent(agent)
