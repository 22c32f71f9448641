"""Settings: an argument wins over the environment, the environment over `[tool.steprelay]` in pyproject.toml.

argument          environment                                         default
store             STEPRELAY_STORE, NETLIFY_DB_URL, DATABASE_URL        sqlite:.steprelay/steprelay.db
secret            STEPRELAY_SECRET (+ _PREVIOUS)                       none: only loopback may be served
public_url        STEPRELAY_PUBLIC_URL                                 none: background work stays in this process
anonymous_start   STEPRELAY_ANONYMOUS_START                            deny
deadline          STEPRELAY_DEADLINE                                   none: what this host is known for
lease             STEPRELAY_LEASE                                      15
qstash_token      QSTASH_TOKEN                                         none: background work is started by self-calls
qstash_url        QSTASH_URL                                           https://qstash.upstash.io
lambda_function   STEPRELAY_LAMBDA_FUNCTION                            on AWS Lambda the function itself, else none
temporal          STEPRELAY_TEMPORAL                                   none: that engine carries no runs; else its address
restate           STEPRELAY_RESTATE                                    none, as above: the URL of its ingress
inngest           STEPRELAY_INNGEST                                    none, as above: the URL of its API
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from .core.errors import ConfigError

Anonymous = Literal["deny", "same-origin", "allow"]
DEFAULT_STORE = "sqlite:.steprelay/steprelay.db"
VARIABLES = {
    "store": ("STEPRELAY_STORE", "NETLIFY_DB_URL", "DATABASE_URL"),
    "secret": ("STEPRELAY_SECRET",),
    "previous_secret": ("STEPRELAY_SECRET_PREVIOUS",),
    "public_url": ("STEPRELAY_PUBLIC_URL",),
    "anonymous_start": ("STEPRELAY_ANONYMOUS_START",),
    "deadline": ("STEPRELAY_DEADLINE",),
    "lease": ("STEPRELAY_LEASE",),
    "qstash_token": ("QSTASH_TOKEN",),
    "qstash_url": ("QSTASH_URL",),
    "lambda_function": ("STEPRELAY_LAMBDA_FUNCTION",),
    "temporal": ("STEPRELAY_TEMPORAL",),
    "restate": ("STEPRELAY_RESTATE",),
    "inngest": ("STEPRELAY_INNGEST",),
}
_SECRET = {"secret", "previous_secret", "qstash_token"}
"""Never read from a file that is committed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Everything that can be set. `deadline`: seconds a request may live on this host; `lease`: seconds."""

    store: str = DEFAULT_STORE
    secret: str | None = None
    previous_secret: str | None = None
    public_url: str | None = None
    anonymous_start: Anonymous = "deny"
    deadline: float | None = None
    lease: float = 15.0
    qstash_token: str | None = None
    qstash_url: str = "https://qstash.upstash.io"
    lambda_function: str | None = None
    temporal: str | None = None
    restate: str | None = None
    inngest: str | None = None

    def __repr__(self) -> str:
        return f"Settings(store={store_kind(self.store)!r}, secret={'set' if self.secret else 'not set'})"


def settings(
    arguments: Mapping[str, Any] | None = None, environ: Mapping[str, str] | None = None, folder: Path | None = None
) -> Settings:
    """Resolve the settings. Raises ConfigError naming the setting and what it takes."""
    environ = os.environ if environ is None else environ
    table = pyproject(folder or Path.cwd())
    found: dict[str, Any] = {}
    for name, variables in VARIABLES.items():
        given = (arguments or {}).get(name)
        from_env = next((environ[v] for v in variables if environ.get(v)), None)
        value = next((v for v in (given, from_env, None if name in _SECRET else table.get(name)) if v is not None), None)
        if value is not None:
            found[name] = _checked(name, value, variables[0])
    return Settings(**found)


def pyproject(folder: Path) -> dict[str, Any]:
    """`[tool.steprelay]` of the nearest pyproject.toml; empty if there is none."""
    for parent in (folder, *folder.parents):
        file = parent / "pyproject.toml"
        if file.is_file():
            import tomllib

            try:
                data = tomllib.loads(file.read_text("utf-8"))
            except tomllib.TOMLDecodeError as e:
                raise ConfigError(f"{file} cannot be read: {e}") from e
            table: dict[str, Any] = data.get("tool", {}).get("steprelay", {})
            return table
    return {}


def store_kind(url: str) -> str:
    """`postgres` of `postgres://user:…@host/db`: fit to be shown."""
    return url.split(":", 1)[0]


def _checked(name: str, value: Any, variable: str) -> Any:
    if name in ("deadline", "lease"):
        try:
            seconds = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{name} ({variable}) is {value!r}; give seconds, such as 15") from None
        if not 0.2 <= seconds <= 86_400:
            raise ConfigError(f"{name} ({variable}) is {value!r}; give 0.2 to 86400 seconds")
        return seconds
    if name == "anonymous_start" and value not in get_args(Anonymous):
        raise ConfigError(f"anonymous_start ({variable}) is {value!r}; give one of {', '.join(get_args(Anonymous))}")
    if name == "secret" and len(str(value)) < 16:
        raise ConfigError(
            f"secret ({variable}) is shorter than 16 characters; make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return str(value)
