"""What the doctor finds in a site's folder, and at a site that is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from netlify_world import SECRET, linked_site, platform

from steprelay.cli import cli
from steprelay.deploy.netlify import doctor


def site(folder: Path) -> Path:
    assert CliRunner().invoke(cli, ["init", "netlify", str(folder)]).exit_code == 0
    return folder


def found(folder: Path) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {"ok": [], "note": [], "bad": []}
    for grade, line in doctor.look(folder):
        told[grade].append(line)
    return told


def test_a_site_as_it_was_made_has_nothing_wrong_but_is_not_built(tmp_path) -> None:
    told = found(site(tmp_path))
    assert told["bad"] == []
    assert told["ok"] == ["the three functions are declared as they should be"]
    assert told["note"] == ["nothing is built yet: steprelay build netlify"]


@pytest.mark.parametrize(("path", "was", "becomes", "said"), [
    ("netlify/functions/start-job-background.mjs", "background: true", "background: false", "declared as an ordinary function"),
    ("netlify/functions/sweep.mjs", "schedule:", "timetable:", "sweep is declared as an ordinary function"),
    ("netlify.toml", "python/**", "data/**", "does not put Python into the functions"),
    ("netlify.toml", "/api/*", "/v1/*", "does not rewrite /api/* to the agent"),
    ("netlify.toml", "[build]", "[build", "cannot be read"),
])  # fmt: skip
def test_what_is_wrong_in_a_folder_is_found_with_its_remedy(tmp_path, path, was, becomes, said) -> None:
    file = site(tmp_path) / path
    file.write_text(file.read_text().replace(was, becomes))
    assert any(said in line for line in found(tmp_path)["bad"])


@pytest.mark.parametrize(("line", "grade"), [('signed = "STEPRELAY_PROXY_SECRET"', "ok"), ("", "bad")])
def test_a_site_whose_agent_is_elsewhere_signs_what_it_sends_there(tmp_path, line, grade) -> None:
    assert CliRunner().invoke(cli, ["init", "netlify", str(tmp_path), "--backend", "https://a.example"]).exit_code == 0
    file = tmp_path / "netlify.toml"
    file.write_text(file.read_text().replace('signed = "STEPRELAY_PROXY_SECRET"', line))
    told = found(tmp_path)
    assert [line for line in told[grade] if "https://a.example/api/:splat" in line]
    assert (told["bad"] == []) == (grade == "ok")


def test_a_function_that_is_missing_is_found(tmp_path) -> None:
    (site(tmp_path) / "netlify/functions/sweep.mjs").unlink()
    assert found(tmp_path)["bad"] == ["there is no netlify/functions/sweep.mjs; steprelay init netlify makes it"]


def test_the_command_looks_at_the_site_it_is_run_in(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(site(tmp_path))
    assert "the three functions are declared as they should be" in CliRunner().invoke(cli, ["doctor"]).output


def visited(url: str, **options) -> list[tuple[str, str]]:
    return list(doctor.visit(url, SECRET, **options))


@pytest.mark.slow
def test_a_site_that_is_there_answers_for_itself(tmp_path, monkeypatch) -> None:
    """Its functions have a limit of eight seconds here, of which a request is told four."""
    monkeypatch.setattr(doctor, "LIVES", 1.5)
    folder = linked_site(tmp_path)
    for file in (folder / "netlify/functions").iterdir():
        file.write_text(file.read_text().replace("(request, context);", "(request, context, 8000);"))
    with platform(folder) as world:
        told = visited(world.url, wall=True)
        assert [grade for grade, _ in told] == ["ok"] * 4, told
        [(grade, line)] = list(doctor.visit(world.url, "another secret, that is long", wall=True))[3:]
        assert (grade, "answers 401" in line) == ("bad", True)


@pytest.mark.slow
def test_a_site_of_shorter_breath_and_with_a_wrong_declaration_is_found_out(tmp_path) -> None:
    with platform(linked_site(tmp_path), "--undeclared", "20000", PLATFORM_CUT="4000") as world:
        bad = [line for grade, line in visited(world.url, wall=True) if grade == "bad"]
    assert any("is no background function" in line for line in bad)
    assert any(re.search(r"is cut after [45] s: set STEPRELAY_DEADLINE=[34] there", line) for line in bad)


def test_nobody_there_is_one_finding() -> None:
    [(grade, line)] = visited("http://127.0.0.1:1")
    assert (grade, "cannot be reached" in line) == ("bad", True)
