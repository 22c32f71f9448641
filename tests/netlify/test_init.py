"""What `steprelay init netlify` makes, adds, shows and leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from steprelay.cli import cli
from steprelay.core.errors import ConfigError
from steprelay.deploy.netlify import plan

SITE = """\
# ours
[build]
  command = "npm run build"
  publish = "dist"

[[redirects]]
  from = "/*"
  to = "/index.html"
  status = 200
"""


def init(folder: Path, *arguments: str):
    return CliRunner().invoke(cli, ["init", "netlify", str(folder), *arguments])


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_empty_folder_becomes_a_site_and_stays_one(tmp_path) -> None:
    first = init(tmp_path / "site")
    assert first.exit_code == 0
    made = files(tmp_path / "site")
    assert {
        "agent.py",
        "netlify.toml",
        "requirements.txt",
        "index.html",
        "src/main.tsx",
        ".env.example",
        ".gitignore",
        "README.md",
    } <= set(made)
    assert {f"netlify/functions/{n}.mjs" for n in ("agent-step", "start-job-background", "sweep")} <= set(made)
    again = init(tmp_path / "site")
    assert (again.exit_code, again.output) == (0, "Nothing to do.\n")
    assert files(tmp_path / "site") == made


def test_its_agent_is_an_app(tmp_path) -> None:
    init(tmp_path)
    code = "import agent, asyncio; app = agent.app; app.store; print(app.settings.anonymous_start)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "same-origin"
    assert len((tmp_path / "agent.py").read_text().splitlines()) < 20


def test_the_wheel_it_brings_is_this_installation(tmp_path) -> None:
    init(tmp_path)
    [wheel] = (tmp_path / "vendor").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        assert packed.testzip() is None
        names = set(packed.namelist())
        assert {"steprelay/deploy/netlify/page/src/main.tsx", "steprelay/deploy/netlify/client/src/index.ts"} <= names
        assert packed.read("steprelay/app.py") == (Path(plan.steprelay.__file__).parent / "app.py").read_bytes()
        record = packed.read(next(n for n in names if n.endswith("/RECORD"))).decode().splitlines()
    assert {line.split(",")[0] for line in record} == names
    assert f"./vendor/{wheel.name}[postgres]\n" == (tmp_path / "requirements.txt").read_text()


def test_the_client_of_the_page_is_vendored_as_its_source(tmp_path) -> None:
    init(tmp_path)
    package = json.loads((tmp_path / "package.json").read_text())
    vendored = json.loads((tmp_path / "vendor/client/package.json").read_text())
    assert package["dependencies"]["@steprelay/client"] == "file:vendor/client"
    assert vendored["name"] == "@steprelay/client"
    assert all((tmp_path / "vendor/client" / path).is_file() for path in vendored["exports"].values())


def test_a_site_that_is_there_is_shown_what_it_lacks_and_left_alone(tmp_path) -> None:
    (tmp_path / "netlify.toml").write_text(SITE)
    (tmp_path / "requirements.txt").write_text("numpy")
    (tmp_path / "agent.py").write_text("mine = True\n")
    told = init(tmp_path)
    assert told.exit_code == 1
    assert "+./vendor/steprelay-" in told.output
    assert "2 of your files should change as shown" in told.output
    assert (tmp_path / "netlify.toml").read_text() == SITE
    assert not (tmp_path / "src").exists()  # it has a page of its own


def test_when_told_to_it_adds_to_them_and_takes_nothing_away(tmp_path) -> None:
    (tmp_path / "netlify.toml").write_text(SITE)
    (tmp_path / "requirements.txt").write_text("numpy")
    (tmp_path / "agent.py").write_text("mine = True\n")
    (tmp_path / ".gitignore").write_text("dist/\n")
    assert init(tmp_path, "--overwrite").exit_code == 0
    site = tomllib.loads((tmp_path / "netlify.toml").read_text())
    assert site["build"]["command"].endswith("steprelay build netlify && npm run build")
    assert site["build"]["publish"] == "dist"
    assert site["functions"] == {"directory": "netlify/functions", "included_files": ["python/**"]}
    assert [r["from"] for r in site["redirects"]] == ["/api/*", "/*"]  # the first that fits is taken
    assert (tmp_path / "netlify.toml").read_text().startswith("# ours\n")
    assert (tmp_path / "requirements.txt").read_text().splitlines()[0] == "numpy"
    assert (tmp_path / ".gitignore").read_text().splitlines()[0] == "dist/"
    assert (tmp_path / "agent.py").read_text() == "mine = True\n"
    assert init(tmp_path).output == "Nothing to do.\n"


def test_a_function_that_was_changed_is_shown_and_put_right_only_when_told(tmp_path) -> None:
    init(tmp_path)
    file = tmp_path / "netlify/functions/start-job-background.mjs"
    shipped = file.read_text()
    file.write_text(shipped.replace("background: true", "background: false"))
    told = init(tmp_path)
    assert told.exit_code == 1
    assert "-export const config = { background: false };" in told.output
    assert "background: false" in file.read_text()
    init(tmp_path, "--overwrite")
    assert file.read_text() == shipped


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("[build]\npublish = 'x'\n", {"command", "publish"}),
        ("[functions]\nnode_bundler = 'nft'\n", {"command"}),
        ("[build]\ncommand = 'make'\n", {"command"}),
    ],
)
def test_every_shape_of_a_netlify_toml_comes_out_whole(text, has) -> None:
    merged = plan.with_site(text)
    site = tomllib.loads(merged)
    assert has <= set(site["build"])
    assert "steprelay build netlify" in site["build"]["command"]
    assert "python/**" in site["functions"]["included_files"]
    assert plan.with_site(merged) == merged


def test_what_cannot_be_changed_in_place_is_said(tmp_path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        plan.with_site("[build\n")
    with pytest.raises(ConfigError, match="included_files"):
        plan.with_site('[functions]\nincluded_files = ["data/**"]\n')
    with pytest.raises(ConfigError, match=r"before the command in netlify.toml"):
        plan.with_site('[build]\ncommand = """\nmake\n"""\n')


def test_what_is_ignored_is_added_once() -> None:
    once = plan.with_ignored("dist/\n.env\n")
    assert once.startswith("dist/\n.env\n")
    assert once.count(".env") == 1 + once.count("/.env")
    assert plan.with_ignored(once) == once


@pytest.mark.slow
def test_an_installed_wheel_makes_the_same_site_as_the_repository(tmp_path) -> None:
    root = Path(__file__).parents[2]
    code = f"from hatchling.build import build_wheel; print(build_wheel({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, timeout=120)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as packed:
        packed.extractall(tmp_path / "installed")
    code = "from steprelay.cli import main; main(['init', 'netlify', 'site'])"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    init(tmp_path / "from-here")
    theirs, ours = files(tmp_path / "site"), files(tmp_path / "from-here")
    wheel = next(name for name in ours if name.endswith(".whl"))
    assert {name: data for name, data in theirs.items() if name != wheel} == {
        name: data for name, data in ours.items() if name != wheel
    }
