"""One process of a relay: `one_process.py STORE first|dies|last` prints its spans, one JSON line each."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from steprelay import App, Reply, RunKey

KEY = RunKey("default", "run-1")


async def main(store: str, role: str) -> None:
    async def agent(turn: Any, ctx: Any) -> Reply:
        with trace.get_tracer("mine").start_as_current_span(f"inside {role}"):
            pass
        if role == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return Reply() if turn.step < 2 else Reply(then="finish", output="done")

    app = App({"scout": agent}, store=store, lease=0.5)
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda s: s.to_json(indent=None) + "\n")))
    trace.set_tracer_provider(provider)
    if role == "last":
        await app.result(KEY.id)
    else:
        await app.start("go", id=KEY.id)
        await app.engine.advance(KEY, carrier="process")
    await app.shutdown()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
