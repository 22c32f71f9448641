"""Keeping the store in order: `migrate`, `sweep`, `prune`, `doctor`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..config import Settings
    from ..ports import Store

_OPTIONAL = (
    ("postgres", "asyncpg"), ("pydantic-ai", "pydantic-ai-slim"), ("otel", "opentelemetry-sdk"), ("metrics", "prometheus-client"),
)  # fmt: skip
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Span(click.ParamType[float]):
    """Seconds, given as `10s`, `5m`, `12h`, `30d` or a plain number."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"{value!r} is no span of time; give 10s, 5m, 12h or 30d.", param, ctx)
        return float(match[1]) * UNITS[match[2] or "s"]


def _with_store(work: Callable[[Store], Awaitable[Any]]) -> Any:
    import asyncio

    from ..app import open_store
    from ..config import settings

    async def inner() -> Any:
        store = open_store(settings().store)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(inner())


@click.command()
def migrate() -> None:
    """Bring the store's schema up to date. Safe twice, and while it is in use."""
    applied = _with_store(lambda store: store.migrate())
    click.echo("\n".join(f"applied {name}" for name in applied) or "Nothing to do: the schema is up to date.")


@click.command()
@click.argument("target", required=False, metavar="[FILE|MODULE[:NAME]]")
@click.option("--every", type=Span(), help="Go on sweeping, this often (10s); else once.")
def sweep(target: str | None, every: float | None) -> None:
    """Carry on what is due and carried by nobody, and deliver what was not. Any number may sweep at once."""
    import asyncio

    from ..drivers.sweep import Sweep
    from ..drivers.wake import TaskWaker
    from .target import find, load

    app = load(find(target, Path.cwd()))
    here = isinstance(app.waker, TaskWaker)  # else somebody else is woken to carry on
    sweeper = Sweep(app.engine, app.carry, app.outbox.deliver) if here else app.sweeper

    async def work() -> None:
        try:
            while True:
                swept = await sweeper.once()
                failed = f", {swept.failed} failed (see the log)" if swept.failed else ""
                click.echo(f"{swept.runs} runs carried on, {swept.delivered} messages delivered{failed}")
                if every is None:
                    return
                await asyncio.sleep(every)
        finally:
            await app.shutdown()

    asyncio.run(work())


@click.command()
@click.option("--older-than", type=Span(), default="30d", show_default=True, help="Runs that ended and were not touched since.")
@click.option("--tenant", default="default", show_default=True, help="Whose runs.")
def prune(older_than: float, tenant: str) -> None:
    """Empty old runs: their steps go, what they were and came to stays. Also history that no agent needs any more."""
    from ..core.model import Filter

    n = _with_store(lambda store: store.prune(time.time() - older_than, Filter(tenant=tenant)))
    click.echo(f"{n} runs emptied.")


@click.command()
@click.argument("url", required=False)
@click.option("--wall", is_flag=True, help="Measure how long a request to URL lives: about a minute.")
def doctor(url: str | None, wall: bool) -> None:
    """Look at this installation, and at the site in this folder; with URL, at the Netlify site there. Every finding names its
    remedy. Exit code 1 when something must be done."""
    from ..config import settings
    from ..deploy.netlify.doctor import visit

    marks = {"ok": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}
    bad = False
    for grade, line in visit(url, settings().secret, wall=wall) if url else findings():
        mark, hue = marks[grade]
        click.secho(f"{mark} ", fg=hue, nl=False)
        click.echo(" ".join(line.split()))
        bad = bad or grade == "bad"
    raise SystemExit(1 if bad else 0)


def findings() -> Iterator[tuple[str, str]]:
    """Pairs of `ok`, `note` or `bad`, and one line."""
    from .. import __version__
    from ..config import settings
    from ..core.errors import StepRelayError
    from ..drivers.function import NOTE

    yield "ok", f"steprelay {__version__} on Python {sys.version.split()[0]}"
    yield from _extras()
    if (Path.cwd() / "netlify.toml").is_file():
        from ..deploy.netlify.doctor import look

        yield from look(Path.cwd())
    try:
        now = settings()
        yield from _secret(now)
        yield "ok", _with_store(lambda store: store.check())
        if cut := _with_store(lambda store: store.get(NOTE)):
            yield "bad", cut
    except StepRelayError as e:
        yield "bad", str(e)
    except Exception as e:  # a doctor does not fall ill with its patient
        yield "bad", f"the store cannot be opened: {type(e).__name__}: {e}; check STEPRELAY_STORE"


def _extras() -> Iterator[tuple[str, str]]:
    from importlib.metadata import PackageNotFoundError, version

    for extra, package in _OPTIONAL:
        try:
            yield "ok", f"{package} {version(package)}"
        except PackageNotFoundError:
            yield "note", f"{package} is not installed; if you need it: pip install 'steprelay[{extra}]'"


def _secret(now: Settings) -> Iterator[tuple[str, str]]:
    if now.secret:
        yield "ok", "STEPRELAY_SECRET is set"
    else:
        yield (
            "note",
            (
                "STEPRELAY_SECRET is not set: only this machine may be served; make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            ),
        )
    if now.deadline and not now.public_url:
        yield (
            "bad",
            "STEPRELAY_DEADLINE is set but not STEPRELAY_PUBLIC_URL: a run cannot outlive a request; set it to this site's URL",
        )
