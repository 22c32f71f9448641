"""The rules of the house: what is imported when, how large things may be, what is registered, what is never said."""

from __future__ import annotations

import ast
import importlib
import io
import json
import pkgutil
import re
import subprocess
import sys
import tokenize
from functools import cache
from pathlib import Path

import pytest

import steprelay
from steprelay import registry

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "steprelay"
KERNEL = [*sorted((SRC / "core").glob("*.py")), *(SRC / f"{n}.py" for n in ("ports", "engine", "lease", "ledger"))]
LOADED_BY_IMPORT = {"steprelay", "steprelay.core", "steprelay.core.errors", "steprelay.core.model", "steprelay.core.noun"}
"""What `import steprelay` loads, and nothing else: the nouns and the error tree."""


@cache
def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [p for name in listed.split("\0") if name and (p := ROOT / name).is_file()]


def python_files() -> list[Path]:
    return [p for p in tracked() if p.suffix == ".py"]


def in_python(code: str) -> str:
    """The standard output of a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True, timeout=60).stdout


def test_import_loads_the_nouns_and_nothing_else() -> None:
    loaded = json.loads(
        in_python(
            "import sys; before = set(sys.modules); import steprelay, json; print(json.dumps(sorted(set(sys.modules) - before)))"
        )
    )
    ours = {m for m in loaded if m.partition(".")[0] == "steprelay"}
    assert ours == LOADED_BY_IMPORT
    foreign = {m.partition(".")[0] for m in loaded} - {"steprelay"} - sys.stdlib_module_names
    assert foreign == set()


def test_import_costs_less_than_60_ms_of_cpu() -> None:
    cost = "import time; began = time.process_time(); import steprelay; print((time.process_time() - began) * 1000)"
    in_python(cost)  # writes the bytecode
    runs = sorted(float(in_python(cost)) for _ in range(5))
    assert runs[2] < 60, runs


def test_public_names_are_exactly_those_of_all() -> None:
    assert list(steprelay.__all__) == sorted(steprelay.__all__)
    late = set(steprelay._LATE)
    here = {
        n
        for n, v in vars(steprelay).items()
        if not n.startswith(("_", "@")) and not hasattr(v, "__path__") and n != "annotations"
    }
    submodules = {m.name for m in pkgutil.iter_modules(steprelay.__path__)}
    public = {n for n in here if n not in submodules and n not in ("TYPE_CHECKING", "Any")}
    assert public | late == set(steprelay.__all__)
    for name in steprelay.__all__:
        assert getattr(steprelay, name) is not None


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, comments or docstrings."""
    text = path.read_text("utf-8")
    silent = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_kernel_stays_small_enough_to_read_in_an_afternoon() -> None:
    """At most 1,200 lines of code; what is no business of the kernel goes to a module of its own (docs/decisions/018)."""
    sizes = {str(p.relative_to(SRC)): code_lines(p) for p in KERNEL}
    assert sum(sizes.values()) <= 1200, sizes


@pytest.mark.parametrize("kind", ["stores", "agents"])
def test_every_adapter_is_registered_and_every_registration_leads_somewhere(kind: str) -> None:
    package = importlib.import_module(f"steprelay.{kind}")
    files = {m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")}
    named = {target.partition(":")[0].split(".")[2] for target in getattr(registry, kind.upper()).values()}
    assert named == files
    for name in getattr(registry, kind.upper()):
        assert isinstance(registry.load(kind, name), type)


def test_functions_and_files_stay_readable() -> None:
    """Think at 40 lines a function and 300 a file; stop at 80 and 600."""
    long = []
    for path in python_files():
        text = path.read_text("utf-8")
        if text.count("\n") > 600:
            long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > 80:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {size} lines")
    assert long == []


def test_nothing_is_left_for_later_and_no_test_is_skipped() -> None:
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    skipping = re.compile(r"pytest\.(mark\.)?skip|mark\.xfail|importor" + r"skip")
    found = []
    for path in tracked():
        if path.suffix not in {".py", ".js", ".ts", ".tsx", ".sql", ".lua", ".md", ".sh", ".toml", ".html", ".css"}:
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if unfinished.search(line) or (path.suffix == ".py" and path != Path(__file__) and skipping.search(line)):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []


def test_no_file_names_a_package_registry() -> None:
    hosts = re.compile(
        "|".join(
            re.escape(h)
            for h in (
                "py" + "pi.org",
                "python" + "hosted.org",
                "npm" + "js.org",
                "npm" + "js.com",
                "deb." + "debian",
                "proxy." + "golang",
                "crates" + ".io",
            )
        )
    )
    found = []
    for path in tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {m.group()}" for m in hosts.finditer(text)]
    assert found == []


def test_import_contracts_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    checked = subprocess.run([lint, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout


def test_no_two_test_modules_have_one_name() -> None:
    """pytest imports them by it."""
    names = [p.name for p in Path(__file__).parent.rglob("*.py") if p.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
