"""docs/configuration.md and docs/security.md say what the code does."""

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

from steprelay import config
from steprelay.http import auth
from steprelay.http.api import HttpSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")


def rows(text, first):
    """The cells of table rows that begin with this."""
    return [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(first)]


def test_every_setting_is_listed_with_its_variables_and_its_default():
    table = PAGE.split("`App` takes what concerns HTTP")[0]
    listed = {re.findall(r"`(\w+)`", name)[0]: (variables, default) for name, variables, default in rows(table, "| `")}
    assert set(listed) == {f.name for f in fields(config.Settings)} == set(config.VARIABLES)
    defaults = config.Settings()
    for name, (variables, default) in listed.items():
        assert tuple(re.findall(r"`(\w+)`", variables)) == config.VARIABLES[name], name
        value = getattr(defaults, name)
        shown = re.findall(r"`([^`]+)`", default)
        if value is None:
            assert default.startswith("none"), name
        elif isinstance(value, float):
            assert float(shown[0]) == value, name
        else:
            assert shown == [value], name


def test_every_http_setting_is_listed_with_its_default():
    listed = {
        name.strip("`"): default.strip("`") for name, default, _ in rows(PAGE.split("`App` takes what concerns HTTP")[1], "| `")
    }
    elsewhere = {"agents", "tenant", "limits", "wall", "deadline", "anonymous_start", "public_url", "ui"}
    assert listed == {f.name: repr(f.default) for f in fields(HttpSettings) if f.name not in elsewhere}


def test_argument_beats_environment_beats_file(tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        '[tool.steprelay]\nlease = 10\nstore = "sqlite:runs.db"\nsecret = "0123456789abcdef"\n'
    )
    found = config.settings({"store": "memory:"}, {"STEPRELAY_LEASE": "20", "DATABASE_URL": ""}, tmp_path)
    assert (found.store, found.lease, found.secret) == ("memory:", 20.0, None)
    assert config.settings({}, {}, tmp_path).lease == 10.0


def test_every_variable_the_code_reads_is_on_the_page():
    internal = {"STEPRELAY_CHILD_BORN", "STEPRELAY_CHILD_DEATHS", "STEPRELAY_TEST_WITNESS"}
    read = {
        v for p in (ROOT / "src/steprelay").rglob("*.py") for v in re.findall(r"STEPRELAY_[A-Z_]*[A-Z]", p.read_text("utf-8"))
    }
    assert read - internal <= set(re.findall(r"STEPRELAY_[A-Z_]*[A-Z]", PAGE))


def test_the_kinds_of_anonymous_start_and_the_actions_of_a_token_are_on_the_page():
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    assert {r[0].strip("`") for r in rows(page, "| `")} - {"anonymous_start"} == set(get_args(config.Anonymous))
    listed = re.search(r"its actions \(([^)]*)\)", page)
    assert listed is not None
    assert re.findall(r"`([\w-]+)`", listed[1]) == list(auth.ACTIONS)
