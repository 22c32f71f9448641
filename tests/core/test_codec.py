"""Values and their canonical text: everything JSON comes back, nothing else gets in, what is unknown is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steprelay.core import codec
from steprelay.core.errors import BadInput, SchemaTooNew, StateInvalid
from steprelay.core.model import (
    SCHEMA,
    Call,
    End,
    ErrorInfo,
    Interrupt,
    Limits,
    Result,
    State,
    Tally,
    Text,
    Thought,
    Usage,
    Wait,
)  # fmt: skip
from steprelay.core.retry import BASE, CAP, backoff

texts = st.text(alphabet=st.characters(codec=None), max_size=20)  # lone surrogates and NUL too
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
counts = st.integers(0, 10**12)
usages = st.builds(
    Usage, requests=counts, input_tokens=counts, output_tokens=counts, cached_tokens=counts, tool_calls=counts,
    usd=st.none() | st.floats(0, 1e9),
)  # fmt: skip
errors = st.builds(ErrorInfo, code=texts, message=texts, retryable=st.booleans())
extras = st.dictionaries(texts.map(lambda t: f"x-{t}"), values, max_size=3)
tallies = st.builds(
    Tally, total=usages, round=usages, last_request=usages, steps=counts, began_at=st.none() | st.floats(0, 1e10),
    fresh=st.booleans(), last_error=st.none() | errors, thought=st.none() | texts, queued=st.lists(values, max_size=3).map(tuple),
    extra=extras,
)  # fmt: skip
waits = st.builds(
    Wait, reason=texts, until=st.none() | st.floats(0, 1e10), needs=st.lists(texts, max_size=3).map(tuple),
    got=st.dictionaries(texts, values, max_size=3), extra=extras,
)  # fmt: skip
limits = st.builds(Limits, steps=st.none() | counts, usd=st.none() | st.floats(0, 1e6), attempts=counts, extra=extras)
parts = st.one_of(
    st.builds(Text, text=texts, role=st.sampled_from(["user", "assistant"]), id=st.none() | texts, delta=st.booleans()),
    st.builds(Thought, text=texts),
    st.builds(Call, id=texts, name=texts, args=values),
    st.builds(Result, id=texts, name=texts, value=values, status=st.sampled_from(["ok", "error", "unknown", "denied"])),
    st.builds(State, value=values),
    st.builds(Interrupt, id=texts, kind=st.sampled_from(["question", "approval", "external"]), payload=values),
    st.builds(End, status=st.just("FAILED"), output=values, error=st.none() | errors, until=st.none() | st.floats(0, 1e10)),
    usages,
)


@given(values)
def test_json_comes_back_and_is_plain_ascii(value: Any) -> None:
    text = codec.dumps(value)
    assert codec.loads(text) == value
    assert text.isascii()
    assert "\0" not in text
    assert codec.dumps(codec.loads(text)) == text  # canonical: the same value is the same text


@given(st.one_of(tallies, waits, limits))
def test_payloads_come_back_with_fields_of_a_later_release(payload: Any) -> None:
    assert codec.unpack(type(payload), codec.pack(payload)) == payload


@given(parts)
def test_parts_come_back(part: Any) -> None:
    assert codec.part_from(codec.loads(codec.dumps(codec.part_to(part)))) == part


def test_defaults_are_not_written() -> None:
    assert codec.pack(Tally()) == codec.pack(Limits()) == "{}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"bytes", {"a": [float("-inf")]}])
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(BadInput):
        codec.dumps(value)


def test_an_endless_value_is_refused_and_not_a_crash() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BadInput):
        codec.dumps(endless)


@pytest.mark.parametrize(("cls", "text"), [(Tally, "[]"), (Tally, "7"), (Wait, "{}"), (Limits, "nonsense")])
def test_what_is_no_such_payload_is_invalid_state(cls: Any, text: str) -> None:
    with pytest.raises(StateInvalid):
        codec.unpack(cls, text)


@pytest.mark.parametrize("data", [None, "text", {}, {"type": "novel"}, {"type": "text"}, {"type": ["text"]}])
def test_what_is_no_part_is_invalid_state(data: Any) -> None:
    with pytest.raises(StateInvalid):
        codec.part_from(data)


def test_a_newer_schema_is_too_new() -> None:
    codec.check_schema(SCHEMA)
    with pytest.raises(SchemaTooNew, match="deploy the newer release"):
        codec.check_schema(SCHEMA + 1)


@given(usages, usages)
def test_usage_adds_up(a: Usage, b: Usage) -> None:
    both = a + b
    assert both.tokens == a.tokens + b.tokens
    assert (both.usd is None) == (a.usd is None and b.usd is None)


@given(st.integers(1, 10_000), st.text(max_size=10))
def test_backoff_doubles_up_to_its_cap_and_spreads_over_its_upper_half(tries: int, seed: str) -> None:
    full = min(CAP, BASE * 2.0 ** (min(tries, 32) - 1))
    assert full / 2 <= backoff(tries, seed) <= full
    assert backoff(tries, seed) == backoff(tries, seed)


def test_backoff_differs_between_runs() -> None:
    assert len({backoff(3, f"run{n}") for n in range(50)}) > 40


def test_the_text_is_what_any_json_reader_reads() -> None:
    assert json.loads(codec.dumps({"b": 1, "a": "\ud800"})) == {"a": "\ud800", "b": 1}
