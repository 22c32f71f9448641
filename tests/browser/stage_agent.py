"""The agent behind the browser tests: what it does is in its prompt, and a step can be held until a file appears.

"4 steps"        so many steps, then an answer           "approval"     asks before it deletes
"hold 2 NAME"    step 2 waits for the file NAME          "question"     asks before it answers
"slowly"         words take their time                   "fails"        gives up in step 1
"stumbles"       the first attempt at step 1 breaks off in the middle of a sentence
"""

import asyncio
import os
import re
from pathlib import Path

from steprelay import App
from steprelay.core.errors import Denied
from steprelay.core.model import Interrupt, Limits, Reply, Text, Thought, Usage

GATES = Path(os.environ["STAGE_GATES"])
SPENT = Usage(requests=1, input_tokens=200, output_tokens=40, usd=0.001)


async def look(query):
    return [f"{query}: nothing unusual"]


async def delete(branches):
    return f"{branches} branches deleted"


async def says(turn, ctx, kind, words):
    """Words as a model gives them: in pieces, then whole."""
    for word in words.split(" "):
        ctx.emit(kind(text=f"{word} ", delta=True, id=kind.__name__))
        if "slowly" in str(turn.prompt):
            await asyncio.sleep(0.05)
    return kind(text=words)


async def held(turn, ctx):
    if gate := re.search(rf"hold {turn.step} (\w+)", str(turn.prompt)):
        while not (GATES / gate[1]).exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.02)


async def approval(turn, ctx):
    try:
        gone = await ctx.call("delete", delete, branches=14, effect="needs_approval", ask={"branches": 14})
    except Denied as e:
        gone = f"Nothing was deleted: {e}."
    return Reply(then="finish", output=gone, usage=SPENT)


async def question(turn, ctx):
    for message in turn.inbox:
        if message.kind == "answer":
            said = await says(turn, ctx, Text, f"So {message.body['payload']}.")
            return Reply(then="finish", output=said.text, parts=(said,), usage=SPENT)
    asked = Interrupt(id=f"colour{turn.step}", kind="question", prompt="Which colour?", schema={"enum": ["red", "blue"]})
    return Reply(then="ask", interrupts=(asked,), usage=SPENT)


async def stage(turn, ctx):
    prompt = str(turn.prompt)
    if "approval" in prompt:
        return await approval(turn, ctx)
    if "question" in prompt:
        return await question(turn, ctx)
    thought = await says(turn, ctx, Thought, f"Looking at part {turn.step}.")
    await held(turn, ctx)
    if "fails" in prompt and turn.step:
        return Reply(then="fail", error="the source is gone", parts=(thought,))
    if "stumbles" in prompt and turn.step == 1 and turn.attempt == 1:
        await says(turn, ctx, Text, "This half will be")
        raise RuntimeError("the line is down")
    ctx.emit(thought)
    await ctx.call("look", look, query=f"part {turn.step}", effect="read")
    first = turn.state or {"first": turn.step, "round": turn.round}
    if first["round"] != turn.round:
        first = {"first": turn.step, "round": turn.round}
    if turn.step - first["first"] + 1 < int((re.search(r"(\d+) steps?", prompt) or ["", "3"])[1]):
        return Reply(usage=SPENT, state=first)
    answer = await says(turn, ctx, Text, f"I have looked at everything for “{prompt[:40]}”.")
    return Reply(then="finish", output=answer.text, parts=(answer,), usage=SPENT, state=first)


app = App({"stage": stage}, limits=Limits(steps=None, repeats=None), starts_a_minute=1000)
