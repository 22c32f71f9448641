"""What `steprelay doctor` looks at: a site in a folder, and a site that is there."""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...core.errors import ConfigError
from .serve import LIFE
from .weight import judge, weigh

Finding = tuple[str, str]
"""`ok`, `note` or `bad`, and one line."""
DECLARED = {
    "agent-step": (r"", ""),
    "start-job-background": (r"\bbackground:\s*true\b", "export const config = { background: true };"),
    "sweep": (r"\bschedule:\s*[\"'`]", 'export const config = { schedule: "* * * * *" };'),
}
"""The functions, and what each has to say of itself."""
FUNCTION = "/.netlify/functions"
QUICK = 5.0
"""Seconds in which a background function has answered."""
LIVES = 50.0
"""Seconds a request should live at least."""


def look(folder: Path) -> Iterator[Finding]:
    """Look at netlify.toml, the functions' files and the bundle."""
    try:
        site = tomllib.loads((folder / "netlify.toml").read_text("utf-8"))
    except tomllib.TOMLDecodeError as e:
        yield "bad", f"netlify.toml cannot be read: {e}"
        return
    functions = site.get("functions", {})
    yield from _declared(folder / functions.get("directory", site.get("build", {}).get("functions", "netlify/functions")))
    rewrite = next((r for r in site.get("redirects", []) if r.get("from") == "/api/*" and r.get("status") == 200), None)
    if rewrite is None:
        yield "bad", "netlify.toml does not rewrite /api/* to the agent; steprelay init netlify shows how"
    elif str(rewrite.get("to", "")).startswith("http"):
        yield _signed(rewrite)
        return
    if "python/**" not in functions.get("included_files", []):
        yield "bad", 'netlify.toml does not put Python into the functions: [functions] included_files = ["python/**"]'
    if "steprelay build netlify" not in site.get("build", {}).get("command", ""):
        yield "note", "the build command in netlify.toml does not run steprelay build netlify"
    yield from _bundle(folder / "python")


def _signed(rewrite: dict[str, Any]) -> Finding:
    """Of a rewrite to an agent elsewhere."""
    if rewrite.get("signed") == "STEPRELAY_PROXY_SECRET":
        return "ok", f"requests to {rewrite['to']} are signed"
    return (
        "bad",
        f'requests to {rewrite["to"]} are not signed, so it takes none: signed = "STEPRELAY_PROXY_SECRET" in netlify.toml',
    )


def _declared(folder: Path) -> Iterator[Finding]:
    well = True
    for name, (pattern, line) in DECLARED.items():
        file = folder / f"{name}.mjs"
        if not file.is_file():
            well = False
            yield "bad", f"there is no {file.relative_to(folder.parent.parent)}; steprelay init netlify makes it"
        elif not re.search(pattern, file.read_text("utf-8")):
            well = False
            yield "bad", f"{name} is declared as an ordinary function; its file must hold `{line}`"
    if well:
        yield "ok", "the three functions are declared as they should be"


def _bundle(python: Path) -> Iterator[Finding]:
    if not (python / "bundle.json").is_file():
        yield "note", "nothing is built yet: steprelay build netlify"
        return
    try:
        said = judge(weigh(python), deployed=False)
    except ConfigError as e:
        yield "bad", str(e)
        return
    yield "ok", said[0]
    yield from (("note", line) for line in said[1:])


def visit(url: str, secret: str | None, *, wall: bool = False) -> Iterator[Finding]:
    """Ask a site that is there. `wall`: measure how long a request lives, which needs its secret."""
    import httpx

    with httpx.Client(base_url=url.rstrip("/"), timeout=30) as client:
        try:
            yield from _answers(client)
            yield from _background(client)
            if wall:
                yield from _life(client, secret)
        except httpx.HTTPError as e:
            yield "bad", f"{url} cannot be reached: {type(e).__name__}: {e}"


def _answers(client: Any) -> Iterator[Finding]:
    told = client.get("/api/health")
    about = _json(told)
    if told.status_code == 200 and about.get("status") == "ok":
        yield "ok", f"Python answers below /api: steprelay {about.get('version')}, store {about.get('store')}"
    else:
        yield "bad", f"/api/health answers {told.status_code}: {about.get('detail', told.text[:200])}; see the function's log"
    own = client.get(f"{FUNCTION}/agent-step")
    if own.status_code == 405:
        yield "ok", f"{FUNCTION}/agent-step is there"
    else:
        yield (
            "bad",
            f"{FUNCTION}/agent-step answers {own.status_code}, not 405 to a GET; is netlify/functions/agent-step.mjs deployed?",
        )


def _background(client: Any) -> Iterator[Finding]:
    """A background function answers 202 before anything of it runs; of what it then thinks of us nothing comes back."""
    began = time.monotonic()
    told = client.post(f"{FUNCTION}/start-job-background", json={})
    spent = time.monotonic() - began
    if told.status_code == 404:
        yield "bad", "start-job-background is not deployed: jobs are carried by nobody"
    elif "x-steprelay-waited" in told.headers or told.status_code != 202 or spent > QUICK:
        yield "bad", f"start-job-background is no background function; its file must hold `{DECLARED['start-job-background'][1]}`"
    else:
        yield "ok", f"start-job-background is a background function: it answered after {spent * 1000:.0f} ms"


def _life(client: Any, secret: str | None) -> Iterator[Finding]:
    import httpx

    if secret is None:
        yield "note", "how long a request lives is measured for the server key only: set STEPRELAY_SECRET as it is there"
        return
    began, text, status = time.monotonic(), "", 0
    try:
        with client.stream("GET", LIFE, headers={"authorization": f"Bearer {secret}"}) as told:
            status = told.status_code
            for piece in told.iter_text():
                text += piece
    except httpx.HTTPError:
        pass
    lived = time.monotonic() - began
    if status != 200:
        yield "bad", f"{LIFE} answers {status or 'nothing'}: is STEPRELAY_SECRET the one that is set there?"
    elif text.endswith("not cut\n") and lived >= LIVES:
        yield "ok", f"a request lives for {lived:.0f} s, as it is told to"
    else:
        yield "bad", f"a request is cut after {lived:.0f} s: set STEPRELAY_DEADLINE={max(1, int(lived * 0.9))} there"


def _json(told: Any) -> dict[str, Any]:
    try:
        body = told.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
