"""An agent every word of which is a secret, and apps that stand for processes."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from steprelay import App, Call, Reply, Result, RunKey, Text, Thought, Usage, telemetry

CANARY = "canary"
SPENT = Usage(requests=1, input_tokens=100, output_tokens=20, cached_tokens=60, usd=0.25)


def secretive(turn: Any, ctx: Any) -> Reply:
    """Searches twice, the second time in vain, then answers."""
    if turn.step == 2:
        return Reply(then="finish", output=f"{CANARY} answer", parts=(Text(text=f"{CANARY} words"),), usage=SPENT)
    status = "ok" if turn.step == 0 else "error"
    call = Call(id=f"c{turn.step}", name="search", args={"q": f"{CANARY} argument"})
    result = Result(id=call.id, name="search", value=f"{CANARY} result", status=status, ms=5.0)
    message = {"model_name": "gpt-x", "provider_name": "acme", "said": f"{CANARY} message"}
    parts = (Thought(text=f"{CANARY} thought"), call, result)
    return Reply(messages=(message,) if turn.step == 0 else (), parts=parts, usage=SPENT)


class Process:
    """An app with a tracer provider of its own."""

    def __init__(self, store: Any, agent: Any = secretive, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.heard: list[dict[str, Any]] = []
        watch = telemetry.observer(next=self.heard.append, tracer_provider=self.provider, **options)
        self.app = App({"scout": agent}, store=store, observer=watch, lease=5.0)

    async def step(self, run: str, **options: Any) -> Any:
        """One step, as soon as the run may be claimed."""
        async with asyncio.timeout(20):
            while True:
                advanced = await self.app.engine.advance(RunKey("default", run), carrier="process", **options)
                if advanced.refused not in ("busy", "later"):
                    return advanced
                await asyncio.sleep(0.01)

    async def dies(self, run: str) -> None:
        """Claims the next step and is never heard of again."""
        key = RunKey("default", run)
        await self.app.store.claim(key, claim_id="dead", holder="", lease=0.001, carrier="process")

    @property
    def spans(self) -> tuple[Any, ...]:
        return self.exporter.get_finished_spans()
