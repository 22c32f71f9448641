"""Figures for Prometheus, of this process alone: counted as events come, written down when somebody asks.

Counting is adding to a dict; the library (`steprelay[metrics]`) is loaded by the first request for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from .core import codec
from .core.errors import ConfigError
from .core.machine import TERMINAL
from .core.model import Result, Usage, Value
from .watch import Event, Observer

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 300.0, 900.0)
"""Upper bounds of the histogram of step seconds; above is infinity."""
MOST = 500
"""Label sets kept for one figure; what else comes is counted as `other`: a model may think up names of tools."""
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "steprelay_steps": ("Committed steps.", ("agent", "carrier", "status")),
    "steprelay_rounds": ("Rounds that ended.", ("agent", "status", "reason")),
    "steprelay_attempts_died": ("Attempts that did not live to commit.", ("agent",)),
    "steprelay_fenced": ("Steps of this process that somebody else had taken over.", ("agent",)),
    "steprelay_replays": ("Repeated requests, answered from the store.", ("agent",)),
    "steprelay_releases": ("Attempts given up without a step, to be repeated.", ("agent", "reason")),
    "steprelay_tokens": ("Tokens of model requests.", ("agent", "kind")),
    "steprelay_usd": ("Money for model requests whose price is known.", ("agent",)),
    "steprelay_tool_calls": ("Answers of tools.", ("agent", "tool", "status")),
}
SECONDS = "steprelay_step_seconds"


class Metrics:
    """An observer that counts, and calls `next` as well."""

    def __init__(self, next: Observer | None = None) -> None:
        self._next = next
        self.begin = getattr(next, "begin", None)
        self.counts: dict[str, dict[tuple[str, ...], float]] = {name: defaultdict(float) for name in COUNTERS}
        self.seconds: dict[tuple[str, ...], list[float]] = {}  # a count for each bucket, the one above, and the sum

    def __call__(self, event: dict[str, Value]) -> None:
        if isinstance(event, Event):
            self._count(event)
        if self._next is not None:
            self._next(event)

    def text(self) -> tuple[bytes, str]:
        """The exposition format and its content type. Raises ConfigError with the install line when the library is not there."""
        try:
            from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        except ModuleNotFoundError as e:
            raise ConfigError(f"metrics need {e.name!r}: pip install 'steprelay[metrics]'") from e
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Any]:
        """The figures as the library's families."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        for name, (words, labels) in COUNTERS.items():
            counter = CounterMetricFamily(name, words, labels=labels)
            for values, n in sorted(self.counts[name].items()):
                counter.add_metric(values, n)
            yield counter
        histogram = HistogramMetricFamily(SECONDS, "Seconds from claim to commit.", labels=("agent", "carrier"))
        for values, kept in sorted(self.seconds.items()):
            sums = [sum(kept[: i + 1]) for i in range(len(BUCKETS) + 1)]
            bounds = [*map(str, BUCKETS), "+Inf"]
            histogram.add_metric(values, list(zip(bounds, sums, strict=True)), sum_value=kept[-1])
        yield histogram

    def _count(self, event: Event) -> None:
        agent, kind, commit, step = str(event["agent"]), event["event"], event.commit, event.step
        if kind in ("fenced", "replay"):
            self._add("steprelay_fenced" if kind == "fenced" else "steprelay_replays", agent)
        if commit is None or not event.attempted:
            return
        self._add("steprelay_attempts_died", agent, by=event.died)
        if step is None:
            self._add("steprelay_releases", agent, str(commit.stop_reason))
            return
        self._add("steprelay_steps", agent, step.carrier, step.status)
        self._time(event["ms"] / 1000, agent, step.carrier)
        if step.status in TERMINAL:
            self._add("steprelay_rounds", agent, step.status, str(step.stop_reason))
        usage = codec.unpack(Usage, step.usage)
        for what in ("input", "output", "cached"):
            self._add("steprelay_tokens", agent, what, by=getattr(usage, f"{what}_tokens"))
        self._add("steprelay_usd", agent, by=usage.usd or 0.0)
        for part in event.parts():
            if isinstance(part, Result):
                self._add("steprelay_tool_calls", agent, part.name, part.status)

    def _add(self, name: str, *labels: str, by: float = 1.0) -> None:
        counts = self.counts[name]
        if by:
            counts[_kept(counts, labels)] += by

    def _time(self, seconds: float, *labels: str) -> None:
        kept = self.seconds.setdefault(_kept(self.seconds, labels), [0.0] * (len(BUCKETS) + 2))
        kept[bisect_left(BUCKETS, seconds)] += 1
        kept[-1] += seconds


def _kept(known: dict[tuple[str, ...], Any], labels: tuple[str, ...]) -> tuple[str, ...]:
    return labels if labels in known or len(known) < MOST else ("other",) * len(labels)


__all__ = ["BUCKETS", "COUNTERS", "MOST", "SECONDS", "Metrics"]
