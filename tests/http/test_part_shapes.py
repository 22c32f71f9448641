"""The parts in the OpenAPI document are those of the model, field by field."""

import typing

import http_world as w
import msgspec
import pytest

from steprelay.core import model
from steprelay.http import shapes, wire

PARTS = {part.type: part for part in typing.get_args(model.Part)}
SHAPES = {shape.__struct_config__.tag: shape for shape in typing.get_args(shapes.Part)}


def test_every_part_has_its_shape():
    assert SHAPES.keys() == PARTS.keys()


@pytest.mark.parametrize("type", PARTS)
def test_a_shape_has_the_fields_of_its_part(type: str):
    assert set(SHAPES[type].__struct_encode_fields__) == {wire.camel(f) for f in PARTS[type].fields}


@pytest.mark.parametrize(
    "part",
    [
        model.Text(text="hi", id="t", delta=True),
        model.Text(text="hi", role="user"),
        model.Thought(text="hm"),
        model.Call(id="c", name="search", args={"q": [1]}),
        model.Result(id="c", name="search", value="found", status="denied", ms=1.5, blob="0/read"),
        model.State(value=None),
        model.Interrupt(id="i", kind="approval", prompt="?", payload=[1], schema={"type": "object"}),
        model.Usage(requests=1, input_tokens=2, usd=0.5),
        model.End(status="FAILED", stop_reason="agent_error", error=model.ErrorInfo(code="c", message="m", retryable=True)),
        model.End(status="WAITING", until=1.5),
    ],
)
def test_what_is_sent_has_the_shape(part: model.Part):
    seen = msgspec.convert(wire.part_view(part), shapes.Part)
    assert msgspec.to_builtins(seen)["type"] == part.type


async def test_the_parts_of_a_run_have_the_shape():
    world = w.World(w.three_steps)
    async with world.server() as c:
        await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1"})
        for _ in range(3):
            await c.post("/api/runs/s1/step", json={})
        page = msgspec.convert((await c.get("/api/runs/s1/parts")).json(), shapes.PartList)
        steps = msgspec.convert((await c.get("/api/runs/s1/steps")).json(), shapes.StepList)
    assert [p.part for p in page.parts] == [part for step in steps.steps for part in step.parts]
    assert page.parts
