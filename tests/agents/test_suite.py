"""The agent suite over every adapter there is."""

from __future__ import annotations

from steprelay import registry
from steprelay.testing.agent_suite import AgentSuite


class TestFunction(AgentSuite):
    subject = "subject_function:make"


class TestPydanticAI(AgentSuite):
    subject = "subject_pydantic_ai:make"


def test_every_registered_adapter_is_held_to_the_suite() -> None:
    held = {c.subject.partition(":")[0].removeprefix("subject_") for c in AgentSuite.__subclasses__()}
    assert held == set(registry.AGENTS)
