"""The tables' figures that depend on n, as charts that a forge draws: Mermaid's `xychart-beta`."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil


def chart(title: str, unit: str, steps: Sequence[int], lines: Sequence[Sequence[float]]) -> str:
    """A fenced block with one line for each sequence of values, a value for each n; the y axis begins at zero. Mermaid draws
    no legend: the title has to say which line is which."""
    top = ceil(1.1 * max(value for line in lines for value in line))
    drawn = [f"    line [{', '.join(f'{value:.2f}' for value in line)}]" for line in lines]
    head = [
        "xychart-beta",
        f'    title "{title}"',
        f'    x-axis "steps of the run" [{", ".join(map(str, steps))}]',
        f'    y-axis "{unit}" 0 --> {top}',
    ]
    return "\n".join(["```mermaid", *head, *drawn, "```"])
