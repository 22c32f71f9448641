"""What `dev`, `run` and `sweep` understand as an agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from steprelay import App, ConfigError
from steprelay.cli.target import find, load, title


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


FUNCTION = "async def {name}(turn, ctx):\n    return 1\n"
APP = "from steprelay import App\nasync def f(turn, ctx):\n    return 1\n{name} = App({{'tea': f}}, store='memory:')\n"


def test_without_a_target_the_configured_one_is_first_then_files_then_the_demo(folder: Path) -> None:
    assert find(None, folder) == "agent.py"
    (folder / "agent.py").unlink()
    assert find(None, folder) == f"@demo:{folder}"
    write(folder, "app.py", "")
    assert find(None, folder) == "app.py"
    write(folder, "pyproject.toml", '[tool.steprelay]\napp = "shop.agents:tea"\n')
    assert find(None, folder) == "shop.agents:tea"
    assert find("other.py", folder) == "other.py"


@pytest.mark.parametrize("name", ["app", "agent", "whatever"])
def test_an_app_is_taken_as_it_is(folder: Path, name: str) -> None:
    write(folder, "some.py", APP.format(name=name))
    app = load("some.py", auth=False)
    assert isinstance(app, App)
    assert list(app.agents) == ["tea"]
    assert app.auth is False


def test_an_agent_becomes_an_app(folder: Path) -> None:
    assert list(load("agent.py", store="memory:").agents) == ["agent"]


def test_agents_by_name_become_one_app(folder: Path) -> None:
    write(folder, "many.py", FUNCTION.format(name="a") + FUNCTION.format(name="b") + "agents = {'tea': a, 'coffee': b}\n")
    assert list(load("many.py", store="memory:").agents) == ["tea", "coffee"]


@pytest.mark.slow
def test_an_agent_of_a_framework_is_found_by_its_kind(folder: Path) -> None:
    write(folder, "shop.py", "from pydantic_ai import Agent\nkeeper = Agent('test')\n")
    assert load("shop.py", store="memory:").adapters == {"agent": "pydantic_ai"}


@pytest.mark.parametrize("target", ["shop.agents:tea", "shop/agents.py:tea", "./shop/agents.py:tea"])
def test_modules_files_and_names(folder: Path, target: str) -> None:
    write(folder, "shop/__init__.py", "")
    write(folder, "shop/agents.py", FUNCTION.format(name="tea"))
    assert list(load(target, store="memory:").agents) == ["agent"]


def test_a_file_may_import_its_neighbours(folder: Path) -> None:
    write(folder, "deep/helper.py", "LIMIT = 3\n")
    write(folder, "deep/main.py", "from helper import LIMIT\n" + FUNCTION.format(name="agent"))
    assert load("deep/main.py", store="memory:")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\n", "call one `app` or `agent`"),
        ("import nothing_like_this\n", "ModuleNotFoundError: No module named 'nothing_like_this' (broken.py:1)"),
        ("a = 1\nb = a / 0\n", "ZeroDivisionError: division by zero (broken.py:2)"),
        ("def agent(:\n", "SyntaxError"),
        ("from pydantic_ai import Agent\nx = Agent('test')\ny = Agent('test')\n", "broken.py:x or broken.py:y"),
        ("agent = 42\n", "which no adapter knows"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(folder: Path, text: str, says: str) -> None:
    write(folder, "broken.py", text)
    with pytest.raises(ConfigError) as e:
        load("broken.py", store="memory:")
    assert says in str(e.value)


@pytest.mark.slow
def test_the_demo_agent_is_always_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPRELAY_MODEL", "offline")
    app = load(f"@demo:{folder}", store="memory:")
    assert list(app.agents) == ["demo"]
    assert title(f"@demo:{folder}") == "the demo agent on this folder"
