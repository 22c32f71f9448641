"""The OpenAPI document is sound, and lists exactly the routes that answer."""

from __future__ import annotations

import re

import http_world as w
from starlette.routing import Route

VERBS = {"get", "post"}


async def document() -> tuple[w.World, dict]:
    world = w.World(w.three_steps)
    async with world.client() as c:
        return world, (await c.get("/api/openapi.json")).json()


def refs(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)


async def test_every_route_is_in_it_and_nothing_else():
    world, doc = await document()
    routed = {(r.path_format, m.lower()) for r in world.app.routes if isinstance(r, Route) for m in r.methods - {"HEAD"}}
    listed = {(path, verb) for path, verbs in doc["paths"].items() for verb in verbs}
    assert routed == listed


async def test_every_listed_route_answers():
    _, doc = await document()
    world = w.World(w.three_steps)
    async with world.server() as c:
        await c.post("/api/runs", json={"userPrompt": "x", "sessionId": "s1"})
        for path, verbs in doc["paths"].items():
            for verb, operation in verbs.items():
                url = path.replace("{id}", "s1").replace("{token}", "x").replace("{name}", "0/read")
                answer = await c.request(verb, url)
                assert answer.status_code != 405
                assert answer.status_code == 501 or str(answer.status_code) in operation["responses"], (
                    verb,
                    path,
                    answer.status_code,
                )


async def test_it_is_sound():
    _, doc = await document()
    assert doc["openapi"] == "3.1.0"
    assert {"title", "version"} <= doc["info"].keys()
    ids = [op["operationId"] for verbs in doc["paths"].values() for op in verbs.values()]
    assert len(ids) == len(set(ids))
    for path, verbs in doc["paths"].items():
        assert verbs.keys() <= VERBS
        for operation in verbs.values():
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert all(re.fullmatch(r"[1-5]\d\d", status) and r["description"] for status, r in operation["responses"].items())
    schemas = doc["components"]["schemas"]
    for ref in refs(doc):
        assert ref.removeprefix("#/components/schemas/") in schemas
    used = {r.rsplit("/", 1)[1] for r in refs(doc)}
    assert used == set(schemas)


async def test_shapes_are_in_camel_case_and_refuse_unknown_fields():
    _, doc = await document()
    body = doc["components"]["schemas"]["AgentStep"]
    assert body["properties"].keys() == {"sessionId", "userPrompt", "agent", "expectedStep"}
    assert (body["required"], body["additionalProperties"]) == (["sessionId"], False)
