"""The examples, end to end: each App answers over HTTP as a browser would drive it."""

import importlib.util
from pathlib import Path

import httpx
import pytest

from steprelay import App
from steprelay.cli import target

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A function that loads an example in an empty folder and answers a client of its App."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPRELAY_STORE", "sqlite:runs.db")
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(key, raising=False)

    def load(name):
        spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.app.auth = False
        return module, Client(module.app)

    return load


class Client:
    """Presses the button: one step after another."""

    def __init__(self, app):
        self.app = app
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost")

    async def __aenter__(self):
        return self

    async def __aexit__(self, *exc):
        await self.http.aclose()
        await self.app.shutdown()

    async def post(self, path, body):
        answer = await self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def drive(self, run, prompt=None):
        """Step until the run needs no more steps; answers every envelope."""
        body = {"sessionId": run} | ({"userPrompt": prompt} if prompt else {})
        seen = [await self.post("/api/agent-step", body)]
        while seen[-1]["next"]["action"] == "pulse":
            seen.append(await self.post("/api/agent-step", {"sessionId": run, "expectedStep": seen[-1]["step"] + 1}))
        return seen


def test_every_example_is_tested_and_is_a_target_of_dev(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPRELAY_STORE", "memory:")
    assert {p.stem for p in FOLDER.glob("*.py")} == {"function_agent", "approval", "pydantic_agent"}
    for path in FOLDER.glob("*.py"):
        assert isinstance(target.load(target.find(str(path), tmp_path)), App)
        assert f"steprelay dev examples/{path.name}" in path.read_text(encoding="utf-8")


async def test_the_link_checker_checks_a_page_a_step(served, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("[b](b.md) [gone](gone.md) [web](https://example.com)")
    (tmp_path / "docs/b.md").write_text("[a](a.md#top) [logo](logo.png)")
    module, client = served("function_agent")
    async with client:
        seen = await client.drive("check", "docs")
    assert [e["status"] for e in seen] == ["CONTINUE", "CONTINUE", "CONTINUE", "COMPLETED"]
    assert seen[-1]["output"] == "2 broken links in 2 pages.\n- docs/a.md: gone.md\n- docs/b.md: logo.png"
    assert module.JOURNAL.read_text() == "2 broken links in 2 pages\n"


async def test_the_link_checker_stays_in_its_folder(served):
    _, client = served("function_agent")
    async with client:
        answer = await client.http.post("/api/agent-step", json={"sessionId": "out", "userPrompt": "/etc"})
        assert (answer.json()["status"], answer.json()["stopReason"]) == ("ERROR", "agent_error")
        assert "is no folder below" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("approved", "left"), [(True, False), (False, True)])
async def test_nothing_is_deleted_before_a_person_says_so(served, tmp_path, approved, left):
    cache = tmp_path / "src/__pycache__"
    cache.mkdir(parents=True)
    _, client = served("approval")
    async with client:
        *_, asked = await client.drive("tidy", ".")
        assert asked["status"] == "AWAITING_INPUT"
        (question,) = asked["interrupts"]
        assert question["payload"] == {"delete": ["src/__pycache__"]}
        assert cache.is_dir()
        answers = [{"interruptId": question["id"], "payload": {"approved": approved, "reason": "I need them"}}]
        await client.post("/api/runs/tidy/input", {"answers": answers})
        *_, done = await client.drive("tidy")
    assert done["output"] == ("1 folders deleted." if approved else "Nothing was deleted: I need them")
    assert cache.is_dir() == left


async def test_nothing_to_tidy_up_is_said_at_once(served):
    _, client = served("approval")
    async with client:
        (only,) = await client.drive("tidy", ".")
    assert (only["status"], only["output"]) == ("COMPLETED", "Nothing to tidy up.")


async def test_the_notes_agent_answers_from_files_without_a_key(served, tmp_path):
    (tmp_path / "tea.txt").write_text("The teapot stands on the second shelf.\n")
    _, client = served("pydantic_agent")
    async with client:
        seen = await client.drive("ask", "Where is the teapot?")
    assert seen[-1]["status"] == "COMPLETED"
    assert "second shelf" in seen[-1]["output"]
    assert "tea.txt" in seen[-1]["output"]


async def test_a_note_is_saved_once_and_after_a_yes(served, tmp_path):
    from pydantic_ai.models.test import TestModel

    module, client = served("pydantic_agent")
    async with client:
        with module.agent.override(model=TestModel(call_tools=["list_files", "save_note"])):
            *_, asked = await client.drive("note", "Keep this")
            assert asked["stopReason"] == "approval"
            assert not module.NOTES.exists()
            (question,) = asked["interrupts"]
            await client.post(
                "/api/runs/note/input", {"answers": [{"interruptId": question["id"], "payload": {"approved": True}}]}
            )
            *_, done = await client.drive("note")
    assert done["status"] == "COMPLETED"
    assert module.NOTES.read_text().count("## ") == 1
