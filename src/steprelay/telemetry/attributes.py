"""What spans say: `gen_ai.*` as the GenAI semantic conventions have it, `steprelay.*` for what is ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..core import codec
from ..core.model import Call, Part, Step, Text, Thought, Usage, Value

Attributes = dict[str, str | int | float | bool]


def reason(why: str | None) -> Attributes:
    return {} if why is None else {"steprelay.stop_reason": why}


def usage(spent: Usage) -> Attributes:
    said: Attributes = {
        "gen_ai.usage.input_tokens": spent.input_tokens, "gen_ai.usage.output_tokens": spent.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": spent.cached_tokens,
    }  # fmt: skip
    known = {k: v for k, v in said.items() if v}
    return known if spent.usd is None else {**known, "steprelay.usd": spent.usd}


def model(step: Step | None) -> Attributes:
    """The newest model and provider that the framework's own messages name."""
    found: Attributes = {}
    for message in _messages(step):
        for name, attribute in (("model_name", "gen_ai.response.model"), ("provider_name", "gen_ai.provider.name")):
            if isinstance(value := message.get(name), str) and value:
                found[attribute] = value
    return found


def _messages(step: Step | None) -> Iterator[Mapping[str, Value]]:
    for text in step.messages if step else ():
        if isinstance(message := codec.loads(text), dict):
            yield message


def words(parts: Iterable[Part]) -> Attributes:
    """What the agent said, as the conventions write it."""
    said: list[Value] = []
    for part in parts:
        match part:
            case Text(role="assistant"):
                said.append({"type": "text", "content": part.text})
            case Thought():
                said.append({"type": "reasoning", "content": part.text})
            case Call():
                said.append({"type": "tool_call", "id": part.id, "name": part.name, "arguments": part.args})
            case _:
                pass
    return {"gen_ai.output.messages": message("assistant", said)} if said else {}


def message(role: str, parts: list[Value]) -> str:
    return codec.dumps([{"role": role, "parts": parts}])


def text(value: Value) -> str:
    return value if isinstance(value, str) else codec.dumps(value)
