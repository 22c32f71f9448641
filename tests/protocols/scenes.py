"""Every way a run can go, played on a real app: what a reader of it hears is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel
from reader import Event, Reader

from steprelay.core.errors import Denied
from steprelay.core.model import Interrupt, Limits, Reply, State, Text, Thought, Usage

Forward = Callable[[float], None]
Scene = Callable[[str, Forward], Awaitable[Reader]]
SCENES: dict[str, Scene] = {}
SPENT = Usage(requests=1, input_tokens=20, output_tokens=5)


def scene(play: Scene) -> Scene:
    SCENES[play.__name__] = play
    return play


# ---------------------------------------------------------------- agents


def says(ctx: Any, kind: type[Text] | type[Thought], words: str) -> Text | Thought:
    """Words as a model gives them: in pieces, then whole."""
    for piece in words.split(" "):
        ctx.emit(kind(text=piece + " ", id=kind.__name__, delta=True))
    return kind(text=words)


async def searches(turn: Any, ctx: Any) -> Reply:
    """Thinks and searches twice, under the same key; then answers."""
    if turn.step < 2:
        ctx.emit(says(ctx, Thought, f"Part {turn.step} is missing."))
        await ctx.call("search", _found, query=turn.step, effect="read")
        return Reply(usage=SPENT)
    return Reply(then="finish", output="Both are there.", parts=(says(ctx, Text, "Both are there."),), usage=SPENT)


def _found(query: int) -> list[str]:
    return [f"part {query}"]


async def asks(turn: Any, ctx: Any) -> Reply:
    for message in turn.inbox:
        return Reply(then="finish", output=f"To {message.body['payload']}.", parts=(Text(text=f"To {message.body['payload']}."),))
    said = says(ctx, Text, "Let me see.")
    town = Interrupt(id="town", kind="question", prompt="Which town?", schema={"enum": ["Oslo", "Rome"]})
    return Reply(then="ask", interrupts=(town,), parts=(said,))


async def deletes(turn: Any, ctx: Any) -> Reply:
    try:
        gone = await ctx.call(
            "delete", lambda branches: f"{branches} gone", branches=14, effect="needs_approval", ask={"branches": 14}
        )
    except Denied as e:
        gone = f"Nothing was deleted: {e}."
    return Reply(then="finish", output=gone)


async def never_ends(turn: Any, ctx: Any) -> Reply:
    if turn.landing:
        return Reply(then="finish", output="That is as far as I came.")
    return Reply(parts=(says(ctx, Thought, f"Still at it, {turn.step}."),))


def fails_at_first(broken: type[Exception]) -> Any:
    """Breaks in the middle of step 1, after words, and does better at the second attempt."""

    async def agent(turn: Any, ctx: Any) -> Reply:
        if turn.step == 0:
            return Reply(parts=(says(ctx, Text, "First this."),))
        said = (says(ctx, Thought, f"Attempt {turn.attempt}."), says(ctx, Text, "Now the rest."))
        if turn.attempt == 1:
            raise broken("the line is down")
        return Reply(then="finish", output="Done.", parts=said)

    return agent


class Hangs:
    """Says half of step 1 and stops there until it is let go, the first time."""

    def __init__(self) -> None:
        self.free = asyncio.Event()

    async def __call__(self, turn: Any, ctx: Any) -> Reply:
        if turn.step == 0:
            return Reply(parts=(says(ctx, Text, "First this."),))
        ctx.emit(Thought(text="Hm", id="t", delta=True))
        ctx.emit(Text(text="Half of", id="x", delta=True))
        if turn.attempt == 1:
            await self.free.wait()
        ctx.emit(Text(text=" it.", id="x", delta=True))
        return Reply(then="finish", output="Half of it.", parts=(Thought(text="Hm"), Text(text="Half of it.")))


def model(*turns: list[Any]) -> FunctionModel:
    """A model that answers turn after turn."""

    async def stream(messages: list[ModelMessage], info: AgentInfo) -> Any:
        for i, part in enumerate(turns[sum(isinstance(m, ModelResponse) for m in messages)]):
            match part:
                case ToolCallPart():
                    yield {
                        i: DeltaToolCall(name=part.tool_name, json_args=part.args_as_json_str(), tool_call_id=part.tool_call_id)
                    }
                case ThinkingPart():
                    yield {i: DeltaThinkingPart(content=part.content)}
                case TextPart():
                    for piece in part.content.split(" "):
                        yield f"{piece} "

    return FunctionModel(stream_function=stream)


def helper(*turns: list[Any]) -> Agent[None, str]:
    agent = Agent(model(*turns))

    @agent.tool_plain(metadata={"effect": "read"})
    def weather(town: str) -> str:
        return f"rain in {town}"

    @agent.tool_plain(metadata={"effect": "needs_approval"})
    def book(town: str) -> str:
        return f"booked {town}"

    return agent


# ---------------------------------------------------------------- scenes


@scene
async def finish(protocol: str, forward: Forward) -> Reader:
    reader = Reader(searches, protocol)
    await reader.start()
    await reader.run()
    return reader


@scene
async def question(protocol: str, forward: Forward) -> Reader:
    reader = Reader(asks, protocol)
    await reader.start()
    await reader.run()
    await reader.ask("POST", "/api/runs/r/input", [{"interruptId": "town", "payload": "Oslo"}])
    await reader.run()
    return reader


async def _verdict(protocol: str, payload: Any) -> Reader:
    reader = Reader(deletes, protocol)
    await reader.start()
    await reader.run()
    await reader.ask("POST", "/api/runs/r/input", [{"interruptId": "0/delete", "payload": payload}])
    await reader.run()
    return reader


@scene
async def approved(protocol: str, forward: Forward) -> Reader:
    return await _verdict(protocol, {"approved": True})


@scene
async def denied(protocol: str, forward: Forward) -> Reader:
    return await _verdict(protocol, {"approved": False, "reason": "too many"})


@scene
async def parallel_tools(protocol: str, forward: Forward) -> Reader:
    """A thought and two calls of one response, of which one needs an approval."""
    calls = [ToolCallPart("weather", {"town": "Oslo"}, "c1"), ToolCallPart("book", {"town": "Oslo"}, "c2")]
    reader = Reader(helper([ThinkingPart("Rain or not?"), *calls], [TextPart("Booked, with umbrella.")]), protocol)
    await reader.start()
    await reader.run()
    (asked,) = (await reader.ask("GET", "/api/runs/r"))["interrupts"]
    await reader.ask("POST", "/api/runs/r/input", [{"interruptId": asked["id"], "payload": {"approved": True}}])
    await reader.run()
    return reader


@scene
async def cancelled(protocol: str, forward: Forward) -> Reader:
    reader = Reader(searches, protocol)
    await reader.start()
    await reader.step()
    await reader.ask("POST", "/api/runs/r/cancel")
    await reader.step()
    return reader


@scene
async def error(protocol: str, forward: Forward) -> Reader:
    async def fails(turn: Any, ctx: Any) -> Reply:
        if turn.step == 0:
            return Reply(parts=(says(ctx, Text, "I will try."),))
        return Reply(then="fail", error="the source is gone")

    reader = Reader(fails, protocol)
    await reader.start()
    await reader.run()
    return reader


@scene
async def brake(protocol: str, forward: Forward) -> Reader:
    reader = Reader(never_ends, protocol, limits=Limits(steps=2))
    await reader.start()
    await reader.run()
    return reader


@scene
async def retried(protocol: str, forward: Forward) -> Reader:
    """The attempt fails in front of the reader, who comes back when it is time."""
    reader = Reader(fails_at_first(RuntimeError), protocol)
    await reader.start()
    await reader.step()
    await reader.step()
    forward(60)
    await reader.step()
    return reader


def _half(event: Event) -> bool:
    return "Half of" in str(event["data"])


@scene
async def died(protocol: str, forward: Forward) -> Reader:
    """The process dies in the middle of a step: its lease runs out, and the next one takes the step again."""
    agent = Hangs()
    reader = Reader(agent, protocol)
    await reader.start()
    await reader.step(0)
    await reader.step(1, until=_half)
    forward(60)
    await reader.step(1)
    agent.free.set()
    return reader


@scene
async def lost(protocol: str, forward: Forward) -> Reader:
    """The line is cut in the middle of a step, which is committed all the same: the same request is answered with it."""
    agent = Hangs()
    reader = Reader(agent, protocol)
    await reader.start()
    await reader.step(0)
    await reader.step(1, until=_half)
    agent.free.set()
    await _committed(reader, 1)
    await reader.step(1)
    return reader


@scene
async def replay(protocol: str, forward: Forward) -> Reader:
    """Every answer is lost on its last metre: each step is asked for twice."""
    reader = Reader(searches, protocol)
    await reader.start()
    for step in range(3):
        await reader.step(step, until=lambda e: "steprelay" not in str(e["data"]) and "FINISH" not in str(e["data"]))
        await _committed(reader, step)
        await reader.step(step)
    return reader


async def _committed(reader: Reader, step: int) -> None:
    while (await reader.ask("GET", "/api/runs/r"))["step"] < step:
        pass


@scene
async def second_round(protocol: str, forward: Forward) -> Reader:
    async def echoes(turn: Any, ctx: Any) -> Reply:
        words = f"You said {turn.prompt}."
        return Reply(then="finish", output=words, parts=(says(ctx, Text, words),))

    reader = Reader(echoes, protocol)
    await reader.start("one")
    await reader.run()
    await reader.ask("POST", "/api/runs/r/input", {"userPrompt": "two"})
    await reader.run()
    return reader


@scene
async def page_opened(protocol: str, forward: Forward) -> Reader:
    """A page is opened while the run is under way, and follows it to the end."""
    reader = Reader(searches, protocol)
    await reader.start()
    driver = Reader(searches, "plain", store=reader.app.store)
    await driver.step()
    reader.hears.clear()
    following = asyncio.create_task(reader.follow())
    await reader.hears.wait()
    await driver.run()
    await following
    return reader


@scene
async def reopened(protocol: str, forward: Forward) -> Reader:
    """A page is opened where a person is asked already, and the answer is given there."""
    reader = Reader(deletes, protocol)
    await reader.start()
    await Reader(deletes, "plain", store=reader.app.store).run()
    await reader.follow()
    await reader.ask("POST", "/api/runs/r/input", [{"interruptId": "0/delete", "payload": True}])
    await reader.run()
    return reader


@scene
async def state_and_output(protocol: str, forward: Forward) -> Reader:
    """An agent that shows a state and answers with data, without a word."""

    async def counts(turn: Any, ctx: Any) -> Reply:
        shown = (State(value={"count": turn.step}),)
        return Reply(parts=shown) if turn.step == 0 else Reply(then="finish", output={"count": 1}, parts=shown)

    reader = Reader(counts, protocol)
    await reader.start()
    await reader.run()
    return reader
