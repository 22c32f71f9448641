"""The Python on the pages runs, and its agents do what the page says."""

import json
import re
from pathlib import Path

import pytest

from steprelay import AgentError, App
from steprelay.core.model import RunKey, Signal

ROOT = Path(__file__).parents[2]
PAGES = [p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if "```python" in p.read_text(encoding="utf-8")]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Keys and stores that a page takes for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPRELAY_STORE", "memory:")
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-key")
    monkeypatch.setenv("STEPRELAY_SECRET", "a secret that only these tests know")


def run_blocks(page):
    """Run a page's blocks one after another in one namespace; answers what each App in them was, in order."""
    namespace, apps = {"__name__": "page"}, []
    for block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        exec(compile(block, page, "exec"), namespace)
        if "app = App(" in block:
            apps.append(namespace["app"])
    return namespace, apps


def written(name):
    return Path(name).read_text(encoding="utf-8")


@pytest.mark.slow  # the first import of a provider takes seconds
@pytest.mark.parametrize("page", [str(p.relative_to(ROOT)) for p in PAGES])
def test_the_python_on_a_page_runs(page):
    namespace, _ = run_blocks(page)
    assert any(isinstance(v, App) for v in namespace.values())


@pytest.mark.slow
async def test_the_example_of_the_readme_answers(monkeypatch):
    from pydantic_ai.models.test import TestModel

    namespace, (app, *_) = run_blocks("README.md")
    with namespace["agent"].override(model=TestModel()):
        run = await app.start("How much tea have we?")
        assert "12" in json.dumps(await app.result(run)) or "stock" in json.dumps(await app.result(run))
    steps = await app.store.read(RunKey(app.tenant, run), "steps")
    assert len(steps) == 3, "a request, its tools, a request"


async def test_the_agents_of_the_agents_page_do_what_it_says():
    _, (count, stock, post, clean, _checkout, survey, editor, nightly, braked) = run_blocks("docs/agents.md")
    assert await survey.result(await survey.start("go")) == ["Sun in Cairo.", "Sun in Oslo.", "Sun in Rome."]
    await survey.shutdown()
    told = json.loads(await editor.result(await editor.start("go")))  # the test model calls every tool
    assert told == {"compare": ["Sun in a."], "ask_look": "a"}
    await editor.shutdown()
    assert list(nightly.clockwork.runs.values()) == ["nightly"]
    assert await count.result(await count.start("go")) == 3
    assert await braked.result(await braked.start("go")) == 3
    assert braked.limits.usd == 0.50
    assert await post.result(await post.start("hello")) == "posted"
    assert written("board.txt") == "hello\n"
    waits = await stock.start("Order tea")
    with pytest.raises(AgentError, match="AWAITING_INPUT"):
        await stock.result(waits)
    asks = await clean.start("go")
    with pytest.raises(AgentError, match="AWAITING_INPUT"):
        await clean.result(asks)
    key = RunKey(clean.tenant, asks)
    (step,) = await clean.store.read(key, "steps")
    (asked,) = [p for p in clean.engine.parts("function", step) if p.type == "interrupt"]
    body = {"id": asked.id, "status": "resolved", "payload": {"approved": True}}
    await clean.store.signal(key, Signal(kind="answer", body=json.dumps(body), request_id=f"answer:{asked.id}"))
    assert await clean.result(asks) == "3 files deleted"


async def test_the_event_of_the_agents_page_is_delivered_to_its_address():
    import httpx

    _, (*_, checkout, _survey, _editor, _nightly, _braked) = run_blocks("docs/agents.md")
    run = await checkout.start("go")
    with pytest.raises(AgentError, match="WAITING"):
        await checkout.result(run)
    url = written("bill.txt").rpartition(" ")[2]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(checkout.asgi)) as payer:
        assert (await payer.post(url, json={"sum": 5})).json() == {"sessionId": run, "first": True}
    assert await checkout.result(run) == "paid 5 €"
