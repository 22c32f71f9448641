"""`steprelay build netlify`: what a site's build command runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..core.errors import ConfigError

if TYPE_CHECKING:
    from ..deploy.netlify.bundle import Site

_NAME = "import sys; from steprelay.cli.target import settled; print(settled(sys.argv[1]))"
_MIGRATE = "from steprelay.cli import main; main(['migrate'])"


@click.group()
def build() -> None:
    """Make what a host runs."""


@build.command()
@click.argument("target", required=False, metavar="[FILE|MODULE[:NAME]]")
@click.option("--python", metavar="PATH|VERSION", help="Copy this interpreter, or fetch this version; else this one's version.")
@click.option("--out", type=click.Path(path_type=Path), default="python", show_default=True, help="Where the bundle goes.")
def netlify(target: str | None, python: str | None, out: Path) -> None:
    """Bundle Python, packages and agent for Netlify's functions, and migrate the database that is configured.

    Packages come from requirements.txt (and constraints.txt, if there is one); code is every Python file of this folder, and
    what `[tool.steprelay] include` in pyproject.toml names.
    """
    from ..deploy.netlify import bundle, weight

    began = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"» {time.monotonic() - began:5.1f} s  {line}")

    site = _site(target, out)
    say("looking for the interpreter")
    bundle.build(site, bundle.interpreter(python), say)
    say("importing the agent")
    name = _named(site)
    bundle.finish(site.out, name, os.environ)
    for line in weight.judge(weight.weigh(site.out), deployed="NETLIFY" in os.environ):
        say(line)
    say(_migrated(site, os.environ))
    say(f"done: {_shown(site.out)} serves {name}")


def _site(target: str | None, out: Path) -> Site:
    from ..config import pyproject
    from ..deploy.netlify.bundle import Site
    from .target import DEMO, find

    folder = Path.cwd()
    found = find(target, folder)
    if found.startswith(DEMO):
        raise ConfigError("there is no agent.py or app.py here; run this in the site's folder, or name the file")
    include = pyproject(folder).get("include", [])
    if not isinstance(include, list) or not all(isinstance(p, str) for p in include):
        raise ConfigError(f"[tool.steprelay] include is {include!r}; give a list of patterns such as ['prompts/*.txt']")
    return Site(
        folder=folder, out=folder / out, target=found, requirements=folder / "requirements.txt", include=tuple(include)
    )  # fmt: skip


def _named(site: Site) -> str:
    """Import the agent in the bundle, where only its own packages are; answers its full name. Raises ConfigError."""
    from ..deploy.netlify import bundle

    try:
        return bundle.run(
            str(site.out / "bin/python3"), "-c", _NAME, site.target, cwd=site.out / "app", env=bundle.environment(site.out)
        ).splitlines()[-1]
    except ConfigError as e:
        raise ConfigError(f"{site.target} cannot be imported in the bundle: {str(e).splitlines()[-1]}") from e


def _migrated(site: Site, environ: Mapping[str, str]) -> str:
    """Migrate the database that is configured for this deploy, with the bundle itself; answers what happened."""
    from ..config import VARIABLES, settings, store_kind
    from ..deploy.netlify import bundle

    store = settings(environ=environ, folder=site.folder).store
    if store_kind(store) in ("sqlite", "memory"):
        told = "no database is configured: set NETLIFY_DB_URL or STEPRELAY_STORE to a PostgreSQL URL, for builds and functions"
        if "NETLIFY" in environ:
            raise ConfigError(told)
        return f"{told} (not migrated)"
    context = f" of {environ['CONTEXT']}" if environ.get("CONTEXT") else ""
    where = next((v for v in VARIABLES["store"] if environ.get(v)), "pyproject.toml")
    try:
        done = bundle.run(
            str(site.out / "bin/python3"), "-c", _MIGRATE, cwd=site.out / "app", env=bundle.environment(site.out, environ)
        )  # fmt: skip
    except ConfigError as e:
        raise ConfigError(f"the database{context} in {where} cannot be migrated: {e}") from e
    return f"database{context} ({where}): {', '.join(done.splitlines())}"


def _shown(path: Path) -> str:
    return os.path.relpath(path)
