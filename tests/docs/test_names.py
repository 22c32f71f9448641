"""What the pages name is there: functions, files, headings."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from steprelay.http.app import ENDPOINTS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PACKAGES = sorted(p.stem for p in (ROOT / "src/steprelay").iterdir() if p.suffix == ".py" or p.is_dir())
DOTTED = re.compile(rf"`((?:{'|'.join(p for p in PACKAGES if not p.startswith('_'))})(?:\.\w+)+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def resolve(name):
    """The object behind `core.machine.open`; raises when there is none."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(["steprelay", *parts[:cut]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[cut:]:
            fields = getattr(found, "__dataclass_fields__", {})
            found = fields[attribute] if attribute in fields else getattr(found, attribute)
        return found
    raise AttributeError(name)


def anchor(heading):
    """The anchor a heading gets on a forge."""
    return re.sub(r"[^\w\- ]", "", heading.strip("# ").lower()).replace(" ", "-")


def test_a_name_that_is_gone_is_noticed():
    assert resolve("core.machine.open").__name__ == "open"
    with pytest.raises(AttributeError):
        resolve("core.machine.no_such_thing")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_function_named_on_a_page_exists(page):
    for name in DOTTED.findall(page.read_text(encoding="utf-8")):
        if not name.endswith((".py", ".md", ".sql")):
            assert resolve(name) is not None, name


def test_the_life_of_a_request_names_its_stations():
    named = DOTTED.findall((ROOT / "docs/lifecycle.md").read_text())
    stations = ["drivers.loop.Loop.pulse", "engine.Engine.advance", "ports.Store.claim", "core.machine.open", "ports.Agent.step",
                "core.machine.fold", "ports.Store.commit", "core.machine.outcome", "http.wire.answer"]  # fmt: skip
    assert [n for n in named if n in stations] == stations


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in LINK.findall(text):
        if "://" in link:
            continue
        path, _, mark = link.partition("#")
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), f"{page.name}: {link}"
        if mark:
            headings = [anchor(line) for line in target.read_text().splitlines() if line.startswith("#")]
            assert mark in headings, f"{page.name}: {link}"


def test_the_picture_of_the_house_is_the_one_the_imports_are_checked_by():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = next(c["layers"] for c in config if c["type"] == "layers")
    picture = re.search(r"## The house\n\n```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]
    drawn = [re.split(r"\s{2,}", line)[0] for line in picture.splitlines()]
    assert drawn == [re.sub(r"[()]", "", layer).replace(" : ", " | ") for layer in checked]


def test_the_http_page_names_every_route_and_no_other():
    page = (ROOT / "docs/http.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(GET|POST) (/[^`? ]+)`", page))
    assert named == {(e.method, e.path) for e in ENDPOINTS}
