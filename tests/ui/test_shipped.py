"""The page is in the wheel, whole, and loads nothing that is not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[2]
UI = ROOT / "src" / "steprelay" / "ui"
LINKED = re.compile(r"""(?:from |import |src=|href=)["'](?:\./)?([\w./-]+\.(?:js|css|svg))["']""")


def test_the_wheel_holds_the_page(tmp_path: Path) -> None:
    build = "import hatchling.build, sys; print(hatchling.build.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as opened:
        names = set(opened.namelist())
        assert b"<title>steprelay</title>" in opened.read("steprelay/ui/index.html")
    assert {f"steprelay/ui/{p.name}" for p in UI.iterdir()} <= names


def test_every_file_that_is_linked_is_there_and_every_file_is_linked() -> None:
    there = {p.name for p in UI.iterdir()} - {"index.html"}
    linked = {name for p in UI.iterdir() if p.suffix in (".html", ".js") for name in LINKED.findall(p.read_text())}
    assert linked == there


def test_no_markup_is_made_from_text() -> None:
    for script in UI.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script.read_text()
        ), script.name


def test_no_file_is_long() -> None:
    assert {p.name: n for p in UI.iterdir() if (n := len(p.read_text().splitlines())) > 400} == {}
