"""What to serve: a file, a module, or the name of something in one; and the App it comes to."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..core.errors import ConfigError, StepRelayError

if TYPE_CHECKING:
    from ..app import App

DEMO = "@demo"
"""The target that is always there: the shipped demo agent, reading a folder: `@demo:FOLDER`."""
NAMES = ("app", "agent", "agents")
"""What a target is expected to be called in its module, in this order."""


def find(target: str | None, folder: Path) -> str:
    """The target itself, or without one: `[tool.steprelay] app`, then `agent.py` or `app.py`, then the demo agent."""
    if target:
        return target
    from ..config import pyproject

    configured = pyproject(folder).get("app")
    if configured:
        return str(configured)
    for name in ("agent.py", "app.py"):
        if (folder / name).is_file():
            return name
    return f"{DEMO}:{folder}"


def load(target: str, **options: Any) -> App:
    """The App a target names; anything an adapter recognises becomes one. `options` go to `App`, or over the settings of
    one that is there already (`auth`). Raises ConfigError that says what was looked for."""
    from ..app import App

    if target.partition(":")[0] == DEMO:
        return App({"demo": _demo(target.partition(":")[2])}, **options)
    where, _, name = target.rpartition(":") if _has_name(target) else (target, "", "")
    module = _module(where)
    found = _named(module, name or _guessed(module, where), target)
    if isinstance(found, App):
        if "auth" in options:
            found.auth = options["auth"]
        return found
    return App(found, **options)


def settled(target: str) -> str:
    """The target with its name: `agent.py` is `agent.py:app`. Raises ConfigError."""
    where, _, name = target.rpartition(":") if _has_name(target) else (target, "", "")
    module = _module(where)
    name = name or _guessed(module, where)
    _named(module, name, target)
    return f"{where}:{name}"


def title(target: str) -> str:
    """How a target is spoken of."""
    kind, _, folder = target.partition(":")
    return f"the demo agent on {_short(folder)}" if kind == DEMO else target


def _short(folder: str) -> str:
    path = os.path.relpath(folder or ".")
    return "this folder" if path == "." else path


def _demo(folder: str) -> Any:
    try:
        from ..demo.agent import build
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("steprelay"):
            raise
        raise ConfigError(f"the demo agent needs {e.name!r}: pip install 'steprelay[pydantic-ai]'") from e
    return build(Path(folder or "."))


def _has_name(target: str) -> bool:
    head, colon, tail = target.rpartition(":")
    return bool(colon) and tail.isidentifier() and len(head) > 1  # C:\agent.py has no name


def _module(where: str) -> ModuleType:
    path = Path(where)
    if where.endswith(".py") or os.sep in where:
        if not path.is_file():
            raise ConfigError(f"there is no file {where!r}; give FILE.py, a module, or module:name")
        return _imported(where, lambda: _from_file(path.resolve()))
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return _imported(where, lambda: importlib.import_module(where))


def _from_file(path: Path) -> ModuleType:
    """Import a file as a script's neighbours would see it: its folder first on the path, itself under its own name."""
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


def _imported(where: str, load: Any) -> ModuleType:
    try:
        module: ModuleType = load()
        return module
    except StepRelayError:
        raise
    except Exception as e:
        if isinstance(e, ModuleNotFoundError) and e.name == where.partition(".")[0]:
            raise ConfigError(f"there is no file or module {where!r}; give FILE.py, a module, or module:name") from e
        at = [f for f in traceback.extract_tb(e.__traceback__) if not f.filename.startswith("<frozen")][-1]
        raise ConfigError(f"{where} cannot be imported: {type(e).__name__}: {e} ({_short(at.filename)}:{at.lineno})") from e


def _named(module: ModuleType, name: str, target: str) -> Any:
    try:
        return getattr(module, name)
    except AttributeError:
        there = ", ".join(_candidates(module)) or "none"
        raise ConfigError(f"{target!r}: the module has no {name!r}; apps and agents in it: {there}") from None


def _guessed(module: ModuleType, where: str) -> str:
    for name in NAMES:
        if hasattr(module, name):
            return name
    candidates = _candidates(module)
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ConfigError(f"{where} has several agents: say which, {where}:{candidates[0]} or {where}:{candidates[-1]}")
    raise ConfigError(f"{where} has no app or agent; call one `app` or `agent`, or name it: {where}:NAME")


def _candidates(module: ModuleType) -> list[str]:
    """Names of a module that are an App or an agent of a framework."""
    from .. import registry
    from ..app import App

    def fits(value: Any) -> bool:
        frameworks = (cls.__module__.partition(".")[0] for cls in type(value).__mro__)
        return isinstance(value, App) or any(f in registry.AGENTS for f in frameworks)

    return [name for name, value in vars(module).items() if not name.startswith("_") and fits(value)]
