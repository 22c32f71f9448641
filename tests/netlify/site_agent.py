"""The agent of the test sites. What a step does is said in the prompt: `do:argument`."""

import asyncio
import os
import signal
import time
from pathlib import Path

from steprelay import App, Limits, Reply, Text
from steprelay.drivers import function, hosts

if short := os.environ.get("TEST_REQUEST_SECONDS"):  # an ordinary function lives as long here
    hosts.HOSTS = (hosts.Host(**{f: getattr(hosts.HOSTS[0], f) for f in hosts.Host.__slots__} | {"request": float(short)}),)
    function.PATIENCE = function.RESERVE = 0.6


def appears(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)


async def agent(turn, ctx):
    do, _, argument = str(turn.prompt).partition(":")
    return await globals()[f"do_{do}"](turn, ctx, argument)


async def do_say(turn, ctx, words):
    return words


async def do_pid(turn, ctx, _):
    return os.getpid()


async def do_wall(turn, ctx, _):
    return ctx.remaining()


async def do_die(turn, ctx, _):
    """Dies as a killed process does, at its first attempt."""
    if turn.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


async def do_halves(turn, ctx, file):
    """One piece of text, and the other when the file is there."""
    ctx.emit(Text(text="first", id="t", delta=True))
    await asyncio.to_thread(appears, Path(file))
    ctx.emit(Text(text="second", id="t", delta=True))
    return "both"


async def do_count(turn, ctx, numbers):
    """So many steps of a quarter of a second."""
    n, of = turn.state or 0, int(numbers)
    await asyncio.sleep(0.25)
    return Reply(state=n + 1) if n + 1 < of else Reply(then="finish", output=n + 1)


async def do_hang(turn, ctx, file):
    """A step that ends when the file is there."""
    await asyncio.to_thread(Path(f"{file}.begun").touch)
    await asyncio.to_thread(appears, Path(file))
    return "ended"


app = App(agent, anonymous_start="allow", limits=Limits(steps=100), starts_a_minute=100)
