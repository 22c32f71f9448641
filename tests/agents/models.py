"""Fake models for Pydantic AI: each turn is written down beforehand."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, ThinkingPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel

Turn = str | Sequence[Any] | Callable[[list[ModelMessage], AgentInfo], Any]


def call(name: str, id: str, **args: Any) -> ToolCallPart:
    return ToolCallPart(name, args, tool_call_id=id)


class Script:
    """Turn n of a run answers `turns[n]`: words, parts, or a function of what the model is sent. `sent` keeps that."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = turns
        self.sent: list[tuple[list[ModelMessage], AgentInfo]] = []

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(self._answer, stream_function=self._stream)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        self.sent.append((list(messages), info))
        turn: Any = self.turns[sum(isinstance(m, ModelResponse) for m in messages)]
        turn = turn(messages, info) if callable(turn) else turn
        return ModelResponse(parts=[TextPart(turn)] if isinstance(turn, str) else list(turn))

    async def _stream(self, messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        for i, part in enumerate(self._answer(messages, info).parts):
            if isinstance(part, ToolCallPart):
                yield {i: DeltaToolCall(name=part.tool_name, json_args=json.dumps(part.args), tool_call_id=part.tool_call_id)}
            elif isinstance(part, ThinkingPart):
                yield {i: DeltaThinkingPart(content=part.content)}
                yield {i: DeltaThinkingPart(signature="signed")}
            elif isinstance(part, TextPart):
                for piece in part.content.split(" "):
                    yield piece + " "


def look() -> str:
    return "seen"


def results(messages: list[Any]) -> list[Any]:
    return [p.content for m in messages if isinstance(m, ModelRequest) for p in m.parts if isinstance(p, ToolReturnPart)]
