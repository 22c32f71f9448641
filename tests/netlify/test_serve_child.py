"""What the child of a function instance takes for a store."""

import pytest

from steprelay.core.errors import ConfigError
from steprelay.deploy.netlify.serve import load

AGENT = "from steprelay import App\n\nasync def agent(turn, ctx):\n    return 'done'\n\napp = App(agent)\n"


@pytest.fixture
def target(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    name = f"child_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(AGENT)
    monkeypatch.setenv("STEPRELAY_STORE", f"sqlite:{tmp_path}/runs.db")
    monkeypatch.delenv("NETLIFY_DEV", raising=False)
    monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    return f"{tmp_path}/{name}.py:app"


def test_a_function_keeps_no_files(target, monkeypatch):
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "agent-step")
    with pytest.raises(ConfigError, match="a function keeps no files: set NETLIFY_DB_URL or STEPRELAY_STORE"):
        load(target)


@pytest.mark.parametrize("environ", [{}, {"AWS_LAMBDA_FUNCTION_NAME": "agent-step", "NETLIFY_DEV": "true"}])
def test_on_this_machine_files_stay(target, monkeypatch, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    app = load(target)
    assert app.settings.store.startswith("sqlite:")
    assert app.http["wall_header"] is True
