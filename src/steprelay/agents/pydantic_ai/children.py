"""Runs that a tool starts. What the tool returns stands for their output, which the model gets when they have ended.

    from steprelay.agents.pydantic_ai import spawn

    @agent.tool_plain(metadata={"effect": "read"})
    def research(topic: str) -> Any:
        \"\"\"Have somebody look into a topic.\"\"\"
        return spawn(f"Look into {topic}.", agent="researcher", limits={"steps": 8})

A list of them is several at once, and its result the list of their outputs. `delegate` makes such tools. Returning them does
nothing by itself: the commit of the step starts the runs, once, so that such a tool is `read`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...children import child_id, shares, start
from ...core.errors import AgentError
from ...core.model import Limits, Message, Outgoing, Turn, Value

SPAWN = "$steprelay.spawn"
"""Under this name the metadata of a deferred call tells what it starts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spawn:
    """A run to be started with the commit of the step; see `spawn`."""

    prompt: Value
    agent: str | None = None
    limits: dict[str, Value] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)


def spawn(
    prompt: Value, *, agent: str | None = None, limits: Mapping[str, Value] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Spawn:  # fmt: skip
    """What a tool returns to have another run work on `prompt`: that run's output becomes the result of the call.

    `agent`: the app's default unless told. `limits`: fields of Limits. Steps, tool calls, tokens and usd are taken from what
    this run has left; children that name none share it equally with this run. When there is too little left, or the other
    run fails, the call has failed and the model is told why. Raises AgentError for a limit that does not exist.
    """
    if unknown := set(limits or ()) - set(Limits.fields):
        raise AgentError(f"spawn: there is no limit {min(unknown)!r}; there are {', '.join(Limits.fields)}", final=True)
    return Spawn(prompt=prompt, agent=agent, limits=dict(limits or {}), labels=dict(labels or {}))


def delegate(agents: Mapping[str, str], *, limits: Mapping[str, Value] | None = None) -> Any:
    """A toolset with which the model hands tasks to other agents of the app: one tool `ask_NAME(task)` for each.

    `agents`: what the model is told of each, by name. `limits`: of each task, see `spawn`.

        Agent(model, toolsets=[delegate({"researcher": "Looks things up.", "writer": "Writes them down."})])
    """
    from pydantic_ai import FunctionToolset

    toolset: FunctionToolset[Any] = FunctionToolset()
    for name, description in agents.items():
        toolset.add_function(
            _asker(name, limits), name=f"ask_{name}", description=description, takes_ctx=False, metadata={"effect": "read"}
        )
    return toolset


def _asker(name: str, limits: Mapping[str, Value] | None) -> Callable[[str], Any]:
    def ask(task: str) -> Any:
        return spawn(task, agent=name, limits=limits)

    return ask


# ---------------------------------------------------------------- what the adapter does with them


def told(value: Any) -> dict[str, Value] | None:
    """What a tool has returned, if that is to start runs, as it is kept in the ledger."""
    if isinstance(value, Spawn):
        return {"children": [asdict(value)], "many": False}
    if isinstance(value, list | tuple) and value and all(isinstance(v, Spawn) for v in value):
        return {"children": [asdict(v) for v in value], "many": True}
    return None


def starts(asked: Mapping[str, Any], turn: Turn) -> tuple[dict[str, Value], tuple[Outgoing, ...], dict[str, Value]]:
    """Start the children of these calls: what to remember of each call, the messages that start them, what is lent to each.

    When there is too little left for all of them, none is started, and every call is remembered as failed."""
    children = {
        call: [(child_id(turn, f"{call}/{i}"), c) for i, c in enumerate(told["children"])] for call, told in asked.items()
    }
    every = [child for several in children.values() for child in several]
    try:
        lent = dict(zip([id for id, _ in every], shares(turn.left, [c["limits"] for _, c in every]), strict=True))
    except AgentError as e:
        return {call: {"error": str(e)} for call in asked}, (), {}
    calls = {call: {"ids": [id for id, _ in several], "many": asked[call]["many"]} for call, several in children.items()}
    return calls, tuple(start(id, **{**c, "limits": c["limits"] | lent[id]}) for id, c in every), dict(lent)


def ids_of(calls: Mapping[str, Any]) -> tuple[str, ...]:
    """All children of these calls."""
    return tuple(id for told in calls.values() for id in told.get("ids", ()))


def ended(inbox: tuple[Message, ...]) -> dict[str | None, Value]:
    """The ends of children that have come, by id."""
    return {m.id: m.body for m in inbox if m.kind == "child"}


def outcome(call: Mapping[str, Any], ends: Mapping[str | None, Value]) -> tuple[bool, Value]:
    """Whether a call that has started runs has worked, and its result: an output, a list of them, or why there is none.

    Of several, one that failed stands in the list as `{"error": …}`; only when all did the call has failed."""
    if "error" in call:
        return False, call["error"]
    bodies = [ends.get(id) or {"status": "CANCELLED"} for id in call["ids"]]
    worked = any(b["status"] == "COMPLETED" for b in bodies)
    if not call["many"]:
        return worked, bodies[0].get("output") if worked else _why(bodies[0])
    if not worked:
        return False, "; ".join(dict.fromkeys(map(_why, bodies)))
    return True, [b.get("output") if b["status"] == "COMPLETED" else {"error": _why(b)} for b in bodies]


def _why(body: Value) -> str:
    said = (body.get("error") or {}).get("message")
    return f"The run that was to do this ended {body['status']}" + (f": {said}" if said else ".")
