"""Schema versions as numbered SQL files: `sql/<family>/NNN_name.sql`, applied in order, never edited once released."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str


def migrations(family: str) -> list[Migration]:
    """All migrations of a family of stores (`sqlite`, `postgres`), oldest first."""
    found = []
    for file in files(__package__).joinpath("sql", family).iterdir():
        stem, _, kind = file.name.partition(".")
        if kind == "sql":
            found.append(Migration(version=int(stem[:3]), name=stem, sql=file.read_text("utf-8")))
    return sorted(found, key=lambda m: m.version)


def pending(family: str, version: int) -> list[Migration]:
    """What a database at `version` (0 = empty) lacks. Raises ConfigError when it is newer than this release."""
    known = migrations(family)
    newest = known[-1].version
    if version > newest:
        raise ConfigError(
            f"the database has schema version {version}, this steprelay knows versions up to {newest}: "
            "deploy the release that migrated it, or a newer one"
        )
    return [m for m in known if m.version > version]
