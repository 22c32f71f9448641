"""`steprelay run`: a run in this process, live in the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from ..app import App
    from ..core.model import End, Interrupt, RunKey, Value
    from ..engine import Advanced
    from ..watch import Live


@click.command()
@click.argument("target", metavar="FILE|MODULE[:NAME]")
@click.argument("task", required=False)
@click.option("--agent", help="Which agent, if there are several.")
@click.option("--go-on", "run_id", metavar="RUN", help="Carry an earlier run on instead of starting one.")
def run(target: str, task: str | None, agent: str | None, run_id: str | None) -> None:
    """Give an agent a task and watch it work.

    The run is kept like any other: Ctrl-C or a crash loses nothing, --go-on carries it on.
    """
    import asyncio

    from .target import find, load

    if bool(task) == bool(run_id):
        raise click.UsageError("give a task, or --go-on RUN to carry an earlier one on.")
    app = load(find(target, Path.cwd()))
    end = asyncio.run(_run(app, target, task, agent, run_id))
    if end is None or end.status != "COMPLETED":
        raise SystemExit(1)


async def _run(app: App, target: str, task: str | None, agent: str | None, run_id: str | None) -> End | None:
    import asyncio

    from ..core.errors import BadInput
    from ..core.model import RunKey, Signal
    from .show import console

    out = console()
    key = RunKey(app.tenant, run_id or await app.start(task, agent=agent))
    if run_id:
        ours = Signal(kind="carry", carrier="process", takeover_after=app.settings.lease)  # asked for by name
        if not await app.store.signal(key, ours):
            raise BadInput(f"there is no run {run_id!r} here; steprelay runs list shows what there is")
    try:
        return await Watch(app, key, out).to_the_end()
    except asyncio.CancelledError:
        out.print(f"\nStopped by you; nothing is lost. Go on with: steprelay run {target} --go-on {key.id}", markup=False)
        raise
    finally:
        await app.shutdown()


class Watch:
    """Drives one run from this process and shows what it does."""

    def __init__(self, app: App, key: RunKey, console: Console) -> None:
        from .show import Feed

        self._app, self._key, self._console = app, key, console
        self._feed = Feed(console)
        self._rows = self._feed.rows
        self._said = ""

    async def to_the_end(self) -> End | None:
        """Steps until the round is over or waits for somebody who is not here. Prints each as it is committed."""
        import asyncio

        from ..core.model import Again, Busy, Waiting

        with self._console.status("Thinking…") as self._status:
            while True:
                advanced = await self._app.loop.pulse(self._key, carrier="process", listen=self._live)
                self._show(advanced)
                match advanced.outcome:
                    case Again(after=after):
                        await asyncio.sleep(after)
                    case Busy(until=until):
                        await asyncio.sleep(min(1.0, max(0.1, (until or 0) - advanced.now)))
                    case Waiting() if await self._answered():
                        pass
                    case _:
                        break
        return self._finish(advanced)

    def _live(self, live: Live) -> None:
        from ..core.model import Text, Thought
        from .show import clip

        part = live.part
        if isinstance(part, Text | Thought) and not live.committed:
            self._said = self._said + part.text if part.delta else part.text
            self._status.update(clip(self._said[-300:], 100) or "Thinking…")

    def _show(self, advanced: Advanced) -> None:
        from .show import from_step

        assert advanced.run is not None, self._key
        self._said = ""
        self._status.update("Thinking…")
        for step in advanced.taken:
            self._feed.tell(from_step(step, self._app.engine.parts(advanced.run.adapter, step)))

    async def _answered(self) -> bool:
        """Put the run's questions to whoever sits here; False when nobody does, or the run waits for something else."""
        from ..core import codec
        from ..core.model import Signal
        from .show import questions

        asked = questions(self._rows[-1].parts) if self._rows else []
        if not asked or not sys.stdin.isatty():
            return False
        self._status.stop()
        for interrupt in asked:
            status, payload = _ask(interrupt)
            body = codec.dumps({"id": interrupt.id, "status": status, "payload": payload})
            signal = Signal(kind="answer", body=body, request_id=f"answer:{interrupt.id}")
            await self._app.store.signal(self._key, signal)
        self._status.start()
        return True

    def _finish(self, advanced: Advanced) -> End | None:
        from .show import counted, ending, print_end, questions, track

        end = ending(self._rows[-1].parts) if self._rows else None
        print_end(self._console, end)
        for interrupt in questions(self._rows[-1].parts) if self._rows else []:
            self._console.print(f"Waiting for you: {interrupt.prompt or interrupt.kind}", style="yellow", markup=False)
            self._console.print(f"  answer with: steprelay runs answer {self._key.id} yes", markup=False)
        self._console.print()
        self._console.print(track(self._rows, width=min(120, self._console.width)))
        self._console.print(f"{counted(self._rows)} · {self._key.id}", style="bright_black", markup=False)
        return end


def _ask(interrupt: Interrupt) -> tuple[str, Value]:
    """A person's answer: yes or no to an approval, words to a question."""
    if interrupt.kind == "approval":
        yes = click.confirm(f"{interrupt.prompt or 'May it?'} {interrupt.payload or ''}".strip())
        return "resolved", {"approved": yes}
    return "resolved", click.prompt(interrupt.prompt or "Your answer")
