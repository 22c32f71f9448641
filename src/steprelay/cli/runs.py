"""`steprelay runs …`: look at runs and steer them, in the configured store or through a server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import click

from .client import Client, connect
from .stats import stats

Work = Callable[[Client], Awaitable[Any]]
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
HUES = {"COMPLETED": "green", "FAILED": "red", "CANCELLED": "red", "AWAITING_INPUT": "yellow"}


@click.group()
@click.option("--url", envvar="STEPRELAY_URL", help="A server, such as https://agents.example.com; else the configured store.")
@click.pass_context
def runs(ctx: click.Context, url: str | None) -> None:
    """Look at runs and steer them."""
    ctx.obj = url


def _do(ctx: click.Context, work: Work) -> Any:
    import asyncio

    async def inner() -> Any:
        async with connect(ctx.obj) as client:
            return await work(client)

    return asyncio.run(inner())


@runs.command("list")
@click.option("--status", help="RUNNING, WAITING, AWAITING_INPUT, COMPLETED, FAILED or CANCELLED.")
@click.option("--agent", help="Only runs of this agent.")
@click.option("--limit", default=20, show_default=True)
@click.pass_context
def list_(ctx: click.Context, status: str | None, agent: str | None, limit: int) -> None:
    """The newest runs."""
    from rich.table import Table

    from .show import console

    found = _do(ctx, lambda c: c.get("runs", status=status, agent=agent, limit=limit))["runs"]
    if not found:
        click.echo("No runs yet. Start one: steprelay run agent.py 'a task'")
        return
    table = Table(box=None, pad_edge=False, header_style="bright_black")
    for column in ("run", "agent", "status", "carrier"):
        table.add_column(column, no_wrap=column == "run")
    table.add_column("steps", justify="right")
    table.add_column("age", justify="right")
    for run in found:
        table.add_row(run["sessionId"], run["agent"], _state(run), run["carrier"], str(run["step"] + 1), ago(run["createdAt"]))
    console().print(table)


@runs.command()
@click.argument("run")
@click.pass_context
def show(ctx: click.Context, run: str) -> None:
    """One run: why it stands where it stands, its relay track, its steps."""

    async def work(client: Client) -> Any:
        return await client.get(f"runs/{run}"), await client.steps(run), await client.get(f"runs/{run}/explain")

    row, steps, why = _do(ctx, work)
    from .show import Feed, carried, console, counted, ending, from_wire, print_end, size, track

    out, rows = console(), [from_wire(s) for s in steps]
    out.print(f"{row['sessionId']} · {row['agent']} · {row['status'].lower()}", style="bold", markup=False)
    out.print(why["words"], markup=False)
    out.print()
    out.print(track(rows, width=min(120, out.width), now=row["carrier"] if row["lease"]["held"] else ""))
    out.print(f"{counted(rows)} · {size(rows)} · {carried(rows)}", style="bright_black")
    out.print()
    feed = Feed(out)
    for one in rows:
        feed.tell(one)
    if rows:
        print_end(out, ending(rows[-1].parts))


@runs.command()
@click.argument("run")
@click.pass_context
def tail(ctx: click.Context, run: str) -> None:
    """Follow a run until its round is over or it waits for you. Whoever carries it: this only looks."""
    import asyncio

    from .show import Feed, console, ending, from_wire, print_end

    async def work(client: Client) -> None:
        out = console()
        feed = Feed(out)
        while True:
            row = await client.get(f"runs/{run}")
            for step in await client.steps(run, feed.rows[-1].index if feed.rows else -1):
                feed.tell(from_wire(step))
            if row["status"] in (*ENDED, "AWAITING_INPUT"):
                print_end(out, ending(feed.rows[-1].parts) if feed.rows else None)
                return
            await asyncio.sleep(0.5)

    _do(ctx, work)


@runs.command()
@click.argument("run")
@click.pass_context
def cancel(ctx: click.Context, run: str) -> None:
    """Stop a run for good. A step under way ends within seconds; no later one is taken."""
    row = _do(ctx, lambda c: c.post(f"runs/{run}/cancel"))
    if row["status"] == "CANCELLED":
        click.echo("Stopped by you.")
    elif row["isTerminal"]:
        click.echo(f"It had ended before: {row['status'].lower()}.")
    else:
        click.echo("Told to stop: the step under way is the last.")


@runs.command()
@click.argument("run")
@click.option("--steps", type=int, help="How many steps the round may take from here.")
@click.option("--usd", type=float, help="How much money.")
@click.option("--tokens", type=int, help="How many tokens.")
@click.pass_context
def resume(ctx: click.Context, /, run: str, **limits: float | None) -> None:
    """Let a run go on after it failed or a brake stopped it."""
    given = {k: v for k, v in limits.items() if v is not None}
    row = _do(ctx, lambda c: c.post(f"runs/{run}/resume", {"limits": given} if given else {}))
    click.echo(f"{row['sessionId']} goes on at step {row['step'] + 1}, carried by {row['carrier']}.")


@runs.command()
@click.argument("run")
@click.argument("answer")
@click.option("--id", "interrupt", help="Which question, if there are several.")
@click.pass_context
def answer(ctx: click.Context, run: str, answer: str, interrupt: str | None) -> None:
    """Answer a run that waits for you: yes or no to an approval, words to a question."""

    async def work(client: Client) -> Any:
        asked = (await client.get(f"runs/{run}")).get("interrupts") or []
        ids = [i["id"] for i in asked]
        if not ids or (interrupt and interrupt not in ids):
            raise click.UsageError(f"{run} does not wait for {interrupt or 'an answer'}.")
        if len(ids) > 1 and not interrupt:
            raise click.UsageError(f"{run} has several questions; say which with --id: {', '.join(ids)}.")
        one = next(i for i in asked if i["id"] == (interrupt or ids[0]))
        payload: Any = {"approved": answer.lower() in ("yes", "y")} if one["kind"] == "approval" else answer
        return await client.post(f"runs/{run}/input", [{"interruptId": one["id"], "status": "resolved", "payload": payload}])

    row = _do(ctx, work)
    click.echo(f"Answered. The next step of {row['sessionId']} is due.")


@runs.command()
@click.argument("run")
@click.option("--step", type=int, required=True, help="The last step the new run keeps.")
@click.option("--prompt", help="Another task to go on with.")
@click.pass_context
def fork(ctx: click.Context, run: str, step: int, prompt: str | None) -> None:
    """A new run with the history of this one, up to a step."""
    made = _do(ctx, lambda c: c.post(f"runs/{run}/fork", {"step": step, **({"edit": {"userPrompt": prompt}} if prompt else {})}))
    click.echo(made["sessionId"])
    click.echo(f"Nobody carries it yet: steprelay run FILE --go-on {made['sessionId']}", err=True)


@runs.command("hand-over")
@click.argument("run")
@click.argument("carrier")
@click.option("--takeover-after", type=float, help="Seconds of silence after which anyone may take it.")
@click.pass_context
def hand_over(ctx: click.Context, run: str, carrier: str, takeover_after: float | None) -> None:
    """Have a run carried by somebody else: client, background, temporal, …"""
    row = _do(ctx, lambda c: c.post(f"runs/{run}/hand-over", {"carrier": carrier, "takeoverAfter": takeover_after}))
    click.echo(f"Handed over to {row['carrier']}, from step {row['step'] + 1}.")


runs.add_command(stats)


def _state(run: dict[str, Any]) -> str:
    if run["status"] in ENDED and not run["isTerminal"]:
        return "[cyan]goes on[/]"  # a prompt or a resume is there, and nobody has taken the step yet
    words = run["status"].lower().replace("_", " ")
    why = (run["stopReason"] or "").replace("_", " ")
    return f"[{HUES.get(run['status'], 'cyan')}]{words}[/]{f' · {why}' if why and why not in (words, 'finished') else ''}"


def ago(at: str) -> str:
    """How long a time of the wire lies back: `3 min`."""
    seconds = max(0, time.time() - datetime.fromisoformat(at).timestamp())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
