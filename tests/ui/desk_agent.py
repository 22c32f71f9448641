"""The agent behind the page's tests: what it does is in its prompt, and a step can be held until a file appears.

"4 steps"        so many steps, then an answer           "approval"     asks before it deletes
"hold 2 NAME"    step 2 waits for the file NAME          "question"     asks before it answers
"long"           a result that is cut, the whole kept
"""

import asyncio
import os
import re
from pathlib import Path

from steprelay import App
from steprelay.core.errors import Denied
from steprelay.core.model import Interrupt, Reply, Text, Thought, Usage

GATES = Path(os.environ["DESK_GATES"])
ANSWER = """It is **42**, see `deep/thought.py:42`.

<img src=x onerror="document.title='pwned'"> stays text.

- one
- two"""
SPENT = Usage(requests=1, input_tokens=200, output_tokens=40, usd=0.001)


async def search(query):
    return [f"{query} 1", f"{query} 2"]


async def delete(branches):
    return f"{branches} gone"


async def desk(turn, ctx):
    said = str(turn.prompt)
    for word in f"Looking at part {turn.step}.".split():
        ctx.emit(Thought(text=f"{word} ", delta=True, id="t"))
    if held := re.search(rf"hold {turn.step} (\w+)", said):
        while not (GATES / held[1]).exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.02)
    ctx.emit(Thought(text=f"Looking at part {turn.step}."))
    if "approval" in said:
        try:
            gone = await ctx.call("delete", delete, branches=14, effect="needs_approval", ask={"branches": 14})
        except Denied:
            gone = "Nothing was deleted."
        return Reply(then="finish", output=gone, usage=SPENT)
    if "question" in said and not turn.inbox and turn.step == 0:
        asked = Interrupt(id="colour", kind="question", prompt="Which colour?", schema={"enum": ["red", "blue"]})
        return Reply(then="ask", interrupts=(asked,), usage=SPENT)
    if turn.inbox and turn.inbox[0].kind == "answer":
        return Reply(then="finish", output=f"So {turn.inbox[0].body['payload']}.", usage=SPENT)
    if "long" in said:
        await ctx.call("log", lambda: "line\n" * 20_000 + "the last line", effect="read", keep=True)
    await ctx.call("look", search, query=f"part {turn.step}", effect="read")
    if turn.step + 1 < int((re.search(r"(\d+) steps", said) or ["", "3"])[1]):
        return Reply(usage=SPENT)
    return Reply(then="finish", output=ANSWER, parts=(Text(text=ANSWER),), usage=SPENT)


app = App({"desk": desk})
