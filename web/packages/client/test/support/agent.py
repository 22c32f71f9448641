"""The agent behind the client's tests: it speaks word by word, and each attempt of a step says other words."""

import asyncio

from steprelay import App
from steprelay.core.model import Reply, Text

STEPS = 4


async def speaker(turn, ctx):
    words = [f"{turn.step}.{turn.attempt}.{i} " for i in range(12)]
    for word in words:
        ctx.emit(Text(text=word, id="t", delta=True))
        await asyncio.sleep(0.01)  # so that a process can die between two words
    said = (Text(text="".join(words)),)
    return Reply(then="finish", output="done", parts=said) if turn.step == STEPS - 1 else Reply(parts=said)


app = App(speaker)
