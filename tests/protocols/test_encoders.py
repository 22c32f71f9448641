"""What recordings do not show: a stream that breaks, one that ends before its run, and words that differ when committed."""

from __future__ import annotations

import pytest

from steprelay.core.model import Call, Result, Text, Thought
from steprelay.http.streams import ENCODERS, AgUi, AiSdk, Encoder, Past
from steprelay.watch import Live

PROBLEM = {"status": 503, "code": "store_unavailable", "detail": "The store cannot be reached now."}


def told(encoder: Encoder, *parts: tuple[object, bool], attempt: int = 1) -> list[str]:
    """The types of what is said of these parts of step 0: (part, committed)."""
    lives = [Live(step=0, attempt=attempt, index=i, part=p, committed=c) for i, (p, c) in enumerate(parts)]  # type: ignore[arg-type]
    return [e.data["type"] for live in lives for e in encoder.live(live) if not isinstance(e.data, str)]


def begun(protocol: str) -> Encoder:
    encoder = ENCODERS[protocol](None)
    encoder.begin(Past(thread="r"))
    return encoder


@pytest.mark.parametrize(("protocol", "said"), [("agui", "RUN_ERROR"), ("aisdk", "error")])
def test_a_request_that_breaks_says_so_and_is_told_from_a_run_that_failed(protocol: str, said: str) -> None:
    encoder = begun(protocol)
    encoder.live(Live(step=0, attempt=1, index=0, part=Text(text="Half", id="x", delta=True)))
    events = encoder.broken(PROBLEM)
    failed = next(e for e in events if e.event == "error")
    assert isinstance(failed.data, dict)
    assert failed.data["type"] == said
    assert "The store cannot be reached now." in failed.data.values()
    types = [e.data["type"] for e in events if isinstance(e.data, dict)]
    assert types[0] in ("TEXT_MESSAGE_END", "text-end")


@pytest.mark.parametrize("protocol", ["agui", "aisdk"])
def test_a_stream_that_ends_before_its_run_closes_what_is_open_and_ends_nothing(protocol: str) -> None:
    encoder = begun(protocol)
    encoder.live(Live(step=0, attempt=1, index=0, part=Text(text="Half", id="x", delta=True)))
    types = [e.data if isinstance(e.data, str) else e.data["type"] for e in encoder.end(None)]
    assert types in (["TEXT_MESSAGE_END", "STEP_FINISHED"], ["text-end", "finish-step", "[DONE]"])


@pytest.mark.parametrize("protocol", ["agui", "aisdk"])
def test_what_others_say_concerns_the_reader_and_not_the_conversation(protocol: str) -> None:
    (event,) = begun(protocol).tail(3, 1, "So far")
    assert isinstance(event.data, dict)
    assert event.data["type"] in ("CUSTOM", "data-steprelay-tail")
    assert event.data.get("transient", True)


def test_pieces_that_take_turns_are_messages_of_their_own() -> None:
    pieces = [Text(text="a", id="1", delta=True), Text(text="b", id="2", delta=True), Text(text="c", id="1", delta=True)]
    types = told(begun("aisdk"), *((p, False) for p in pieces))
    assert types == ["start-step", *["text-start", "text-delta", "text-end"] * 2, "text-start", "text-delta"]


def test_the_same_words_twice_are_told_twice() -> None:
    parts = [(Text(text="Again."), False), (Text(text="Again."), False), (Text(text="Again."), True), (Text(text="Again."), True)]
    assert told(begun("agui"), *parts).count("TEXT_MESSAGE_START") == 2


def test_a_result_whose_call_nobody_saw_brings_it_along() -> None:
    result = Result(id="c", name="search", value=[1])
    assert told(AgUi(), (result, True)) == [
        "STEP_STARTED", "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_RESULT",
    ]  # fmt: skip
    assert told(AiSdk(), (result, True)) == ["start-step", "tool-input-available", "tool-output-available"]


@pytest.mark.parametrize(
    ("status", "said"), [("error", "tool-output-error"), ("unknown", "tool-output-error"), ("denied", "tool-output-denied")]
)
def test_how_a_tool_ended(status: str, said: str) -> None:
    result = Result(id="c", name="search", value="no", status=status)  # type: ignore[arg-type]
    assert told(AiSdk(), (Call(id="c", name="search"), False), (result, False))[-1] == said


def test_another_attempt_in_the_same_stream_begins_anew() -> None:
    encoder = begun("agui")
    told(encoder, (Thought(text="Hm", id="t", delta=True), False))
    assert told(encoder, (Thought(text="Hm", id="t", delta=True), False), attempt=2)[:4] == [
        "REASONING_MESSAGE_END", "REASONING_END", "STEP_FINISHED", "STEP_STARTED",
    ]  # fmt: skip
