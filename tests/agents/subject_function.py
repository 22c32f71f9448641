"""The suite's agent as plain functions."""

from __future__ import annotations

import asyncio

from steprelay.agents.function import FunctionAgent, FunctionContext
from steprelay.core.errors import ToolError
from steprelay.core.model import Reply, Text, Turn
from steprelay.testing.agent_checks.outside import Outside

ADAPTER = "function"


def make(case: str, outside: Outside, version: int) -> FunctionAgent:
    async def finish(turn: Turn, ctx: FunctionContext) -> str:
        return "done"

    async def pay(turn: Turn, ctx: FunctionContext) -> Reply:
        if turn.state is None:
            return Reply(state={"about": "to pay"})
        return Reply(then="finish", output=await told(ctx, "pay", "once"))

    async def ask(turn: Turn, ctx: FunctionContext) -> Reply:
        return Reply(then="finish", output=await told(ctx, "wipe", "needs_approval"))

    async def told(ctx: FunctionContext, name: str, effect: str) -> str:
        try:
            return str(await ctx.call(name, outside.effect, name, effect=effect))  # type: ignore[arg-type]
        except ToolError as e:
            return str(e)

    async def together(turn: Turn, ctx: FunctionContext) -> str:
        begun = Meeting(3)
        await asyncio.gather(*(ctx.call(f"meet {i}", begun.meet, effect="read") for i in range(3)))
        return "together"

    async def talk(turn: Turn, ctx: FunctionContext) -> None:
        while True:
            ctx.emit(Text(text="word ", delta=True, id="0"))
            await asyncio.sleep(0.005)

    async def change(turn: Turn, ctx: FunctionContext) -> Reply | str:
        if turn.state is None:
            await ctx.call("look", lambda: "seen", effect="read")
            return Reply(state={"looked": True})
        return f"version {version}"

    async def many(turn: Turn, ctx: FunctionContext) -> Reply:
        n = turn.state or 0
        if n == 200:
            return Reply(then="finish", output="done")
        await ctx.call("look", lambda: "seen", effect="read")
        return Reply(state=n + 1)

    return FunctionAgent({f.__name__: f for f in (finish, pay, ask, together, talk, change, many)}[case])


class Meeting:
    """Nobody leaves before all have come."""

    def __init__(self, people: int) -> None:
        self._missing, self._all = people, asyncio.Event()

    async def meet(self) -> str:
        self._missing -= 1
        if self._missing == 0:
            self._all.set()
        await self._all.wait()
        return "met"
