"""How long hosts let a request live: a pure table, by what the environment says.

It is where the clock starts from, never what is believed: a loop measures from the arrival of its request, a proxy in front
says more exactly what is left (`x-steprelay-wall-ms`), and `STEPRELAY_DEADLINE` caps both. A host that kills earlier than
it should costs one attempt of one step each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """Seconds a request may live, by kind of function. None: the host tells with each request, or has no wall."""

    name: str
    marks: tuple[str, ...]
    """Variables that are set there, and only there."""
    request: float | None
    background: float | None
    scheduled: float | None
    carries_at: str | None = None
    """The path of the function that carries runs in the background, where that is one of its own."""
    named: str | None = None
    """The variable that holds this function's name, where a function can be called by it."""

    def function(self, environ: Mapping[str, str]) -> str | None:
        """The name under which this function can invoke itself."""
        return environ.get(self.named) if self.named else None


HOSTS = (
    # Netlify, limits of functions: 60 s, background 15 minutes, scheduled 30 s. First: its functions run on Lambda.
    Host(
        name="netlify",
        marks=("NETLIFY",),
        request=60.0,
        background=900.0,
        scheduled=30.0,
        carries_at="/.netlify/functions/start-job-background",
    ),
    # AWS Lambda: set for each function, at most 15 minutes; the context of each request tells what is left.
    Host(
        name="lambda",
        marks=("AWS_LAMBDA_FUNCTION_NAME",),
        request=None,
        background=None,
        scheduled=None,
        named="AWS_LAMBDA_FUNCTION_NAME",
    ),
    # Vercel, maxDuration: 300 s unless set otherwise. Only cron calls and requests: no background functions.
    Host(name="vercel", marks=("VERCEL",), request=300.0, background=300.0, scheduled=300.0),
)
SERVER = Host(name="server", marks=(), request=None, background=None, scheduled=None)
"""A process that lives on."""


def here(environ: Mapping[str, str]) -> Host:
    """The host this process runs on."""
    return next((h for h in HOSTS if any(environ.get(m) for m in h.marks)), SERVER)


def wall(environ: Mapping[str, str], cap: float | None = None) -> float | None:
    """Seconds a request may live here when nothing more exact is said; `cap`: the deadline that was set. None: for ever."""
    known = [s for s in (here(environ).request, cap) if s is not None]
    return min(known, default=None)
