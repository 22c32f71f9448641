"""What a question is about, by rules: words to look for, arithmetic, and which lines answer best. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STOP = frozenset(
    """
    a about above after all also an and any are as at be because been before being between both but by can could did do does
    doing done each either else ever every explain few find folder file files for from get give had has have having here how
    if in into is it its just kind like list look make many may me mean means might more most much must my need no nor not
    of off on once one only or other our out over own please project question quote quotes repo repository said same say
    says see shall she should show so some such tell than that the their them then there these they this those through to
    too two under until up us use used uses using very was way we well were what whats when where whether which while who
    whom whose why will with within without word words would yes you your actually describe calculate compute answer happen
    happens work works code aber als am an auch auf aus bei bin bis da das dass dein dem den der des die dies diese dieser
    doch du durch ein eine einem einen einer es für gibt hat haben hier ich ihr im ist ja kann kein mein mit nach nicht noch
    nun nur oder ohne schon sein sich sie sind so um und uns unter viel vom von vor wann war warum was wer wie wird wo wurde
    zu zum zur
    """.split()  # noqa: SIM905
)
ENDINGS = (
    "izations", "ization", "ations", "ation", "ingly", "ments", "ment", "ings", "ing", "ies", "ied", "ions", "ion", "edly",
    "ers", "ed", "er", "es", "ly", "s", "e", "y",
)  # fmt: skip
TERMS = 6
_QUOTED = re.compile(r"(?<!\w)[\"“„`']([^\"“”„`'\n]{3,60})[\"”“`'](?!\w)")
_WORD = re.compile(r"[^\W_][\w.\-]*\w|\w\w+")
_NUMBER = r"\d+(?:[.,]\d+)*"
_SUM = re.compile(rf"(?<![\w.\-/])[(\s]*-?{_NUMBER}[)\s]*(?:(?:\*\*|[+*×÷/%^]|\s[-−]\s)[(\s]*-?{_NUMBER}[)\s]*)+(?![\w\-/])")
_PERCENT = re.compile(rf"({_NUMBER})\s*(?:%|percent|per cent|prozent)\s*(?:of|von)\s*({_NUMBER})", re.IGNORECASE)


def terms(question: str) -> dict[str, str]:
    """Up to six things to search for, `{what to search: as the question says it}`; quoted words and names first."""
    quoted = {q.strip().lower(): q.strip() for q in _QUOTED.findall(question) if not sums(q)}
    names: dict[str, str] = {}
    words: dict[str, str] = {}
    for word in _WORD.findall(_QUOTED.sub(" ", question)):
        low = word.lower()
        if low in STOP or len(low) < 3 or low[0].isdigit():
            continue
        if "_" in word or "." in word or any(c.isupper() for c in word[1:]):
            names[low] = word
        else:
            words.setdefault(stem(low), word)
    return dict([*quoted.items(), *names.items(), *words.items()][:TERMS])


def pair(counts: dict[str, int]) -> str | None:
    """The two rarest terms that were found, as one query: a line with both says more than two lines."""
    found = sorted((n, t) for t, n in counts.items() if n and " " not in t)
    return " ".join(sorted(t for _, t in found[:2])) if len(found) > 1 else None


def stem(word: str) -> str:
    """The part of a word that its relatives share, roughly: `retries` and `retrying` give `retr`, `lease` gives `leas`."""
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word


def sums(question: str) -> list[str]:
    """Arithmetic in the question, as expressions."""
    found = [f"{_plain(a)} / 100 * {_plain(b)}" for a, b in _PERCENT.findall(question)]
    for m in _SUM.finditer(_PERCENT.sub(" ", question)):
        text = m.group().strip()
        text = text.translate(str.maketrans("×÷−", "*/-")).replace("^", "**")
        text = re.sub(_NUMBER, lambda n: _plain(n.group()), text)
        text += ")" * (text.count("(") - text.count(")"))
        if text.count("(") == text.count(")"):
            found.append(text)
    return found[:3]


def _plain(number: str) -> str:
    """`4,200` and `4.200,5` as Python writes them."""
    if re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", number):
        return number.replace(",", "")
    return number.replace(",", ".") if number.count(",") == 1 and "." not in number else number.replace(",", "")


@dataclass(frozen=True)
class Line:
    """One line of a file that was found or read."""

    path: str
    number: int
    text: str


@dataclass(frozen=True)
class Passage:
    """A few lines that stand together, with what they are worth."""

    path: str
    start: int
    end: int
    text: str
    score: float


def weights(counts: dict[str, int]) -> dict[str, float]:
    """What finding a term is worth: the rarer it is, the more."""
    return {term: math.log(2.0 + 400.0 / (1 + n)) for term, n in counts.items()}


def places(hits: Iterable[tuple[str, Line]], worth: dict[str, float], near: int = 4) -> list[tuple[str, int, float]]:
    """The spots worth reading, best first: `(path, line, score)`. A spot counts every term found within `near` lines."""
    by_path: dict[str, list[tuple[int, str]]] = {}
    for term, line in hits:
        by_path.setdefault(line.path, []).append((line.number, term))
    spots = []
    for path, found in by_path.items():
        named = sum(worth.get(t, 0.0) for t in worth if t in path.lower()) / 2
        for number in {n for n, _ in found}:
            terms_here = {t for n, t in found if abs(n - number) <= near}
            spots.append((path, number, sum(worth.get(t, 1.0) for t in terms_here) * _kind(path) + named))
    chosen: list[tuple[str, int, float]] = []
    for spot in sorted(spots, key=lambda s: (-s[2], s[0], s[1])):
        if all(spot[0] != c[0] or abs(spot[1] - c[1]) > 3 * near for c in chosen):
            chosen.append(spot)
    return chosen


def _kind(path: str) -> float:
    """Words explain, code does, locks and data merely contain."""
    name = path.rpartition("/")[2].lower()
    if name.endswith((".md", ".rst", ".txt")):
        return 1.6
    if name.endswith((".json", ".lock", ".csv", ".svg", ".min.js", ".map")) or "lock" in name:
        return 0.4
    return 0.9 if "test" in path else 1.0


def passages(read: Iterable[Line], worth: dict[str, float], count: int = 4) -> list[Passage]:
    """The best passages among lines that were read, each at most a short paragraph, at most two of a file."""
    by_path: dict[str, dict[int, str]] = {}
    for line in read:
        by_path.setdefault(line.path, {})[line.number] = line.text
    found = [p for path, lines in by_path.items() for p in _of_file(path, lines, worth)]
    chosen: list[Passage] = []
    for p in sorted(found, key=lambda p: (-p.score, p.path, p.start)):
        if sum(c.path == p.path for c in chosen) < 2 and all(p.text != c.text for c in chosen):
            chosen.append(p)
    return chosen[:count]


def _of_file(path: str, lines: dict[int, str], worth: dict[str, float]) -> list[Passage]:
    """Paragraphs: lines without a blank one between them, cut to five around their best line."""
    found: list[Passage] = []
    for block in _blocks(lines):
        values = [_value(lines[n], worth) for n in block]
        if max(values) <= 0:
            continue
        best = values.index(max(values))
        chosen = block[max(0, best - 2) : best + 3]
        text = "\n".join(lines[n] for n in chosen)
        found.append(Passage(path, chosen[0], chosen[-1], text, _value(text, worth) * _kind(path)))
    return found


def _blocks(lines: dict[int, str]) -> list[list[int]]:
    """Line numbers that stand together; a heading belongs to what it heads."""
    blocks: list[list[int]] = [[]]
    for n in sorted(lines):
        block = blocks[-1]
        if not lines[n].strip():
            continue
        gap = n - block[-1] if block else 1
        heads = len(block) == 1 and lines[block[0]].startswith("#")
        if gap > (2 if heads else 1):
            blocks.append([])
        blocks[-1].append(n)
    return [b for b in blocks if b]


def _value(text: str, worth: dict[str, float]) -> float:
    low = text.lower()
    total = sum(w for t, w in worth.items() if all(part in low for part in t.split()))
    return total * (1.2 if text.lstrip().startswith("#") else 1.0) if _letters(text) else 0.0


def _letters(text: str) -> bool:
    return sum(c.isalpha() for c in text) >= 8


def quoted(passage: Passage, width: int = 300) -> str:
    """A passage as a quote."""
    text = " ".join(passage.text.split())
    return text if len(text) <= width else text[: width - 1] + "…"


def together(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else "".join(names)
