"""The demo agent: its tools keep to their folder, and the offline model finds and quotes what is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from agent_bench import Bench
from pydantic_ai.exceptions import ToolFailed
from pydantic_ai.models.function import FunctionModel

from steprelay.core.model import Call, Text, Thought
from steprelay.demo import words
from steprelay.demo.agent import build
from steprelay.demo.model import NAME, SAYS, OfflineModel
from steprelay.demo.tools import Folder, calculate

Benches = Callable[..., Bench]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for path, text in {
        "README.md": "# Larder\n\nA service that keeps recipes.\n",
        "docs/storage.md": "# Storage\n\nRecipes are stored in a SQLite file.\n\nA backup is taken every night at three.\n",
        "src/backup.py": "import sqlite3\n\n\ndef backup(path):\n    '''Copies the recipes to a second disk.'''\n    return path\n",
        "src/menu.py": "def menu():\n    return ['soup']\n",
        ".git/config": "backup = secret\n",
        "node_modules/x/index.js": "backup()\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    (root / "photo.bin").write_bytes(b"backup\0\1\2")
    (tmp_path / "outside.txt").write_text("backup of the neighbours")
    (root / "link.txt").symlink_to(tmp_path / "outside.txt")
    return root


# ---------------------------------------------------------------- tools


def test_files_are_listed_without_binaries_links_and_what_is_passed_over(root: Path) -> None:
    listed = Folder(root).list_files()
    assert [f["path"] for f in listed["files"]] == ["README.md", "docs/storage.md", "src/backup.py", "src/menu.py"]
    assert Folder(root).list_files("*.py")["total"] == 2
    assert [f["path"] for f in Folder(root).list_files("docs/*")["files"]] == ["docs/storage.md"]


def test_search_finds_lines_that_hold_all_words(root: Path) -> None:
    found = Folder(root).search("BACKUP taken")
    assert found == {
        "hits": [{"path": "docs/storage.md", "line": 5, "text": "A backup is taken every night at three."}],
        "total": 1,
    }
    assert {h["path"] for h in Folder(root).search("backup")["hits"]} == {"docs/storage.md", "src/backup.py"}


def test_read_file_gives_the_lines_asked_for(root: Path) -> None:
    assert Folder(root).read_file("docs/storage.md", 3, 3) == {
        "path": "docs/storage.md", "start": 3, "end": 3, "lines": 5, "text": "Recipes are stored in a SQLite file.",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["../outside.txt", "link.txt", "/etc/passwd", ".git/config", "docs/../../outside.txt", "no.txt", "photo.bin"])  # fmt: skip
def test_nothing_outside_the_folder_is_read(root: Path, path: str) -> None:
    with pytest.raises(ToolFailed):
        Folder(root).read_file(path)


@pytest.mark.parametrize(
    ("expression", "value"), [("1 + 2 * 3", 7), ("-2 ** 2", -4), ("sqrt(16) / 8", 0.5), ("max(1, 2, 3) % 2", 1)]
)
def test_calculate(expression: str, value: float) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "9 ** 9 ** 9", "1 / 0", "a + 1", "'x' * 9", "(1", "True + 1", "1e999"]
)
def test_what_is_no_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(ToolFailed):
        calculate(expression)


# ---------------------------------------------------------------- words


def test_the_words_of_a_question() -> None:
    assert words.terms("How is the backup of recipes stored in `docs_dir`?") == {
        "docs_dir": "docs_dir", "backup": "backup", "recip": "recipes", "stor": "stored",
    }  # fmt: skip
    assert words.terms("what is this about?") == {}
    assert list(words.terms("What's in the cook's larder, and who's its owner?").values()) == ["cook", "larder", "owner"]


@pytest.mark.parametrize(
    ("question", "sums"),
    [
        ("what is 17% of 4,200?", ["17 / 100 * 4200"]),
        ("and 3 * (4 + 5)?", ["3 * (4 + 5)"]),
        ("2 × 3,5", ["2 * 3.5"]),
        ("released 2024-05-01 in version 3.11", []),
        ("pages 8-15", []),
        ("src/menu.py", []),
    ],
)
def test_the_arithmetic_of_a_question(question: str, sums: list[str]) -> None:
    assert words.sums(question) == sums


# ---------------------------------------------------------------- the offline model


async def ask(bench: Benches, root: Path, question: str, **limits: Any) -> tuple[Bench, str]:
    b = bench(build(root, OfflineModel(pace=0)), question, **limits)
    run = await b.finish()
    assert run.status == "COMPLETED", await b.parts()
    return b, await b.output()


async def test_it_searches_reads_quotes_and_says_what_it_is(bench: Benches, root: Path) -> None:
    b, answer = await ask(bench, root, "When is the backup of the recipes taken?", usd=1.0)
    assert SAYS in answer
    assert "`docs/storage.md:" in answer
    assert "taken every night at three" in answer
    tools = [c.name for c in await b.parts(Call)]
    assert {"list_files", "search", "read_file"} <= set(tools)
    assert "backup of the neighbours" not in answer
    assert 7 <= len(await b.steps()) <= 15
    assert len(await b.parts(Thought)) == len([s for s in await b.steps()]) // 2 + 1
    assert NAME in (await b.steps())[0].messages[1]


async def test_quoted_lines_are_really_there(bench: Benches, root: Path) -> None:
    import re

    _, answer = await ask(bench, root, "Where are recipes stored and copied?")
    quotes = re.findall(r"`([^`:]+):(\d+)` — “([^”]+)”", answer)
    assert quotes
    for path, line, text in quotes:
        there = " ".join("\n".join((root / path).read_text().split("\n")[int(line) - 1 :]).split())
        assert there.startswith(text.rstrip("…"))


async def test_it_says_when_it_found_nothing(bench: Benches, root: Path) -> None:
    _, answer = await ask(bench, root, "Who is the quartermaster of Xanadu?")
    assert "I found nothing in this folder for" in answer
    assert "quartermaster" in answer


async def test_it_works_arithmetic_out(bench: Benches, root: Path) -> None:
    b, answer = await ask(bench, root, "What is 17% of 4,200?")
    assert "= 714" in answer
    assert [c.name for c in await b.parts(Call)] == ["calculate"]


async def test_it_streams(bench: Benches, root: Path) -> None:
    b, answer = await ask(bench, root, "When is the backup taken?")
    live = [x.part for x in b.live if not x.committed and isinstance(x.part, Text)]
    assert len(live) > 10
    assert "".join(p.text for p in live) == answer


async def test_a_brake_makes_it_say_what_it_has(bench: Benches, root: Path) -> None:
    b, answer = await ask(bench, root, "When is the backup taken?", steps=4)
    assert SAYS in answer
    assert len(await b.steps()) == 5


async def test_a_second_question_starts_anew(bench: Benches, root: Path) -> None:
    b, _ = await ask(bench, root, "What is 2 + 2?")
    await b.prompt("When is the backup taken?")
    assert (await b.finish()).status == "COMPLETED"
    assert "every night" in await b.output()


def test_a_provider_is_used_when_there_is_a_key(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "STEPRELAY_MODEL"):
        monkeypatch.delenv(name, raising=False)
    assert isinstance(build(root).model, OfflineModel)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    assert build(root).model.system == "anthropic"
    monkeypatch.setenv("STEPRELAY_MODEL", "offline")
    assert isinstance(build(root).model, OfflineModel)
    own = FunctionModel(lambda *_: None)  # type: ignore[arg-type,return-value]
    assert build(root, own).model is own
