"""A model without a model: it plans by rules, uses the agent's real tools, and quotes what it finds. Needs no key.

It is no language model and says so. It looks the question's words up in the folder (`list_files`, `search`, `read_file`),
works out arithmetic (`calculate`), and answers with the best passages and where they stand. What it does next follows from
the messages alone, so it can be stopped anywhere and carried on by another process, like any other model.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ModelResponseStreamEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)  # fmt: skip
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

from . import words
from .words import Line

NAME = "steprelay-offline"
SAYS = "offline demo model - no LLM"
KNOWN = ("list_files", "search", "read_file", "calculate")
AT_ONCE = 3
AROUND = (6, 12)
"""Lines read before and after a hit."""


@dataclass
class Seen:
    """What the messages of this round say: the task, and what the tools have answered so far."""

    task: str = ""
    turns: int = 0
    files: list[str] = field(default_factory=list)
    total: int = 0
    listed: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    hits: list[tuple[str, Line]] = field(default_factory=list)
    read: list[Line] = field(default_factory=list)
    spots: set[tuple[str, int]] = field(default_factory=set)
    sums: dict[str, Any] = field(default_factory=dict)

    @property
    def worth(self) -> dict[str, float]:
        return words.weights({t: n for t, n in self.counts.items() if n})

    @property
    def unread(self) -> list[tuple[str, int, float]]:
        """Spots worth reading that no window has covered yet."""
        lines = {(line.path, line.number) for line in self.read}
        return [s for s in words.places(self.hits, self.worth) if s[:2] not in lines and s[:2] not in self.spots]


@dataclass(frozen=True)
class Move:
    """What the model does in one turn: a thought, and calls, or the answer."""

    thought: str
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    answer: str = ""


def look_back(messages: Sequence[ModelMessage]) -> Seen:
    """Read the messages from the newest prompt on."""
    seen, calls = Seen(), dict[str, ToolCallPart]()
    for message in messages:
        if isinstance(message, ModelResponse):
            seen.turns += 1
            calls |= {c.tool_call_id: c for c in message.tool_calls}
            continue
        for part in message.parts:
            if isinstance(part, UserPromptPart):
                content = part.content if isinstance(part.content, str) else [c for c in part.content if isinstance(c, str)]
                seen = Seen(task=content if isinstance(content, str) else " ".join(content))
            elif isinstance(part, ToolReturnPart) and (call := calls.get(part.tool_call_id)):
                _note(seen, part.tool_name, call.args_as_dict(raise_if_invalid=False), part.content)
    return seen


def _note(seen: Seen, tool: str, args: dict[str, Any], content: Any) -> None:
    """Take in one tool result; what failed, or was cut to a text, counts as done without a finding."""
    found = content if isinstance(content, dict) else {}
    match tool:
        case "list_files":
            seen.listed = True
            seen.files, seen.total = [f["path"] for f in found.get("files", [])], found.get("total", 0)
        case "search":
            query = str(args.get("query"))
            seen.counts[query] = found.get("total", 0)
            seen.hits += [(query, Line(h["path"], h["line"], h["text"])) for h in found.get("hits", [])]
        case "read_file":
            seen.spots.add((str(args.get("path")), int(args.get("start", 1)) + AROUND[0]))
            rows = found.get("text", "").split("\n") if found else []
            seen.read += [Line(found["path"], found["start"] + i, row) for i, row in enumerate(rows)]
        case "calculate":
            seen.sums[str(args.get("expression"))] = content


def plan(seen: Seen, tools: set[str]) -> Move:
    """The next move: sums and a look around, the words of the question, the best places, then the answer."""
    terms, sums = words.terms(seen.task), words.sums(seen.task)
    if not tools & set(KNOWN):
        return Move("I have no tools here.", answer=_answer(seen, terms))
    if not seen.listed and not seen.sums:
        calls = [("calculate", {"expression": s}) for s in sums] if "calculate" in tools else []
        if "list_files" in tools and (terms or not sums):
            calls.append(("list_files", {}))
        if calls:
            return Move(_opening(terms, sums), calls)
    if "search" in tools and (queries := _queries(seen, terms)):
        what = words.together([f"'{terms.get(q, q)}'" for q in queries])
        return Move(f"{_so_far(seen)} Now I search for {what}.", [("search", {"query": q}) for q in queries])
    if "read_file" in tools and (spots := seen.unread) and len(seen.spots) < 2 * AT_ONCE:
        best = spots[: AT_ONCE - 1] if len(seen.spots) else spots[:AT_ONCE]
        where = words.together([f"{path}:{line}" for path, line, _ in best])
        reads = [("read_file", {"path": p, "start": max(1, n - AROUND[0]), "end": n + AROUND[1]}) for p, n, _ in best]
        return Move(f"{_so_far(seen)} The best places look like {where}. I read around them.", reads)
    if "read_file" in tools and not seen.read and (readme := _readme(seen)) and not seen.spots:
        return Move(f"No line matches. {readme} may say what this folder is.", [("read_file", {"path": readme, "end": 40})])
    return Move(
        "I have seen enough to answer." if seen.read or seen.sums else "I found nothing to go by.", answer=_answer(seen, terms)
    )


def _opening(terms: dict[str, str], sums: list[str]) -> str:
    about = (
        f"The words that matter here: {words.together(list(terms.values()))}."
        if terms
        else "The question names nothing to look for."
    )
    return about + (" There is arithmetic to work out." if sums else "") + (" First I look around." if terms or not sums else "")


def _so_far(seen: Seen) -> str:
    if seen.read:
        return f"I have read {len(seen.read)} lines."
    if not seen.counts:
        return f"There are {seen.total} files."
    return f"{sum(seen.counts.values())} lines match so far."


def _queries(seen: Seen, terms: dict[str, str]) -> list[str]:
    """What to search for next: the terms in turn; then, once, the two rarest together, and what was not found in short."""
    if seen.spots:
        return []
    left = [t for t in terms if t not in seen.counts]
    if left:
        return left[:AT_ONCE]
    if len(seen.counts) > len(terms):
        return []
    poor = [t for t in terms if not seen.counts[t]]
    wider = dict.fromkeys(w[:5] for t in poor for w in t.split() if len(w) > 5)
    both = words.pair(seen.counts)
    return [q for q in (*([both] if both else []), *wider) if q not in seen.counts][:AT_ONCE]


def _readme(seen: Seen) -> str | None:
    return next((f for f in seen.files if f.rpartition("/")[2].lower().startswith("readme")), None)


def _answer(seen: Seen, terms: dict[str, str]) -> str:
    said = [f"({SAYS}: what follows is looked up and quoted, not reasoned.)"]
    said += [f"{expression} = {value:.10g}" for expression, value in seen.sums.items() if isinstance(value, int | float)]
    said += [f"{expression}: {value}" for expression, value in seen.sums.items() if not isinstance(value, int | float)]
    best = words.passages(seen.read, seen.worth)
    if best:
        files = len({p.path for p in best})
        where = "1 file" if files == 1 else f"{files} files"
        said.append(f"On {words.together(list(terms.values()))}, the {len(best)} best passages, from {where} of {seen.total}:")
        said += [f"{i}. `{p.path}:{p.start}` — “{words.quoted(p)}”" for i, p in enumerate(best, 1)]
    elif terms or not seen.sums:
        said.append(_nothing(seen, terms))
    return "\n\n".join(said)


def _nothing(seen: Seen, terms: dict[str, str]) -> str:
    if not terms:
        return "I found nothing: the question names nothing I could look for. Ask about a word that the files may contain."
    tried = words.together([f"'{t}'" for t in terms.values()])
    shown = f" Some of its {seen.total} files: {', '.join(f'`{f}`' for f in seen.files[:8])}." if seen.files else ""
    return f"I found nothing in this folder for {tried}.{shown}"


class OfflineModel(Model):
    """`pydantic_ai.Model` over `plan`. `pace` is the seconds between two pieces of a stream."""

    free = True  # it costs nothing: a limit in money can be kept

    def __init__(self, pace: float = 0.02) -> None:
        super().__init__()
        self.pace = pace

    @property
    def model_name(self) -> str:
        return NAME

    @property
    def system(self) -> str:
        return "steprelay"

    @property
    def provider(self) -> None:
        return None

    async def request(
        self, messages: list[ModelMessage], model_settings: ModelSettings | None, model_request_parameters: ModelRequestParameters
    ) -> ModelResponse:
        return _response(messages, model_request_parameters)

    @asynccontextmanager
    async def request_stream(
        self, messages: list[ModelMessage], model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters, run_context: Any = None,
    ) -> AsyncIterator[StreamedResponse]:  # fmt: skip
        whole = _response(messages, model_request_parameters)
        yield OfflineStream(model_request_parameters=model_request_parameters, whole=whole, pace=self.pace)


def _response(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> ModelResponse:
    seen, tools = look_back(messages), {t.name for t in parameters.function_tools}
    move = plan(seen, tools)
    turn = sum(isinstance(m, ModelResponse) for m in messages)
    parts: list[Any] = [ThinkingPart(move.thought)]
    parts += [ToolCallPart(name, args, tool_call_id=f"offline_{turn}_{i}") for i, (name, args) in enumerate(move.calls)]
    parts += [TextPart(move.answer)] if move.answer else []
    return ModelResponse(parts=parts, usage=_usage(messages, parts), model_name=NAME, provider_name="steprelay")


def _usage(messages: Sequence[ModelMessage], parts: Sequence[Any]) -> RequestUsage:
    """As if words were tokens; the price is none."""
    read = sum(len(str(getattr(p, "content", "")).split()) for m in messages if isinstance(m, ModelRequest) for p in m.parts)
    said = sum(len(str(getattr(p, "content", None) or getattr(p, "args", "")).split()) for p in parts)
    return RequestUsage(input_tokens=read, output_tokens=said, cost=Decimal(0))


@dataclass
class OfflineStream(StreamedResponse):
    """A finished response, handed out word by word."""

    whole: ModelResponse
    pace: float
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        for index, part in enumerate(self.whole.parts):
            for event in self._events(index, part):
                yield event
                await asyncio.sleep(self.pace)
        self._usage = self.whole.usage

    def _events(self, index: int, part: Any) -> Iterator[ModelResponseStreamEvent]:
        manager = self._parts_manager
        if isinstance(part, ToolCallPart):
            yield manager.handle_tool_call_part(
                vendor_part_id=index, tool_name=part.tool_name, args=part.args, tool_call_id=part.tool_call_id
            )
            return
        handle = manager.handle_text_delta if isinstance(part, TextPart) else manager.handle_thinking_delta
        for piece in re.findall(r"\s*\S+\s*$|\s*\S+", part.content):
            yield from handle(vendor_part_id=index, content=piece)

    @property
    def model_name(self) -> str:
        return NAME

    @property
    def provider_name(self) -> str:
        return "steprelay"

    @property
    def provider_url(self) -> None:
        return None

    @property
    def timestamp(self) -> datetime:
        return self.at
