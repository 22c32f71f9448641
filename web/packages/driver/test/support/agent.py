"""The agent behind the tests of engines: it does what its prompt says, and notes every call in a file.

The prompt is JSON, all of it optional but `steps`: {"steps": 5, "waits": {"1": 1.0}, "asks": [2], "slow": {"3": 1.0}}.
"""

import asyncio
import json
import os

from steprelay import App
from steprelay.core.model import Interrupt, Limits, Reply


def noted(turn):
    with open(os.environ["WITNESS"], "a") as witness:
        witness.write(f"{turn.key.id} {turn.step}\n")


async def planned(turn, ctx):
    plan = json.loads(turn.prompt)
    await asyncio.sleep(plan.get("slow", {}).get(str(turn.step), 0))
    noted(turn)
    if turn.step + 1 == plan["steps"]:
        return Reply(then="finish", output="the words of the run")
    if turn.step in plan.get("asks", ()):
        return Reply(then="ask", interrupts=(Interrupt(id=f"q{turn.step}", kind="question", prompt="Well?"),))
    if (after := plan.get("waits", {}).get(str(turn.step))) is not None:
        return Reply(then="wait", after=after)
    return Reply(messages=(f"step {turn.step}",))


app = App(planned, limits=Limits(steps=None, repeats=None))
