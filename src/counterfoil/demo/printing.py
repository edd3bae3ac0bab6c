"""Records side by side: what differs in text, tokens, time and cost.

One record is shown by :mod:`counterfoil.cli.render`, the way ``counterfoil generations show`` does it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from counterfoil.record import words
from counterfoil.record.money import dollars

_PIECES: Final = re.compile(r"\S+\s*|\s+")
_MARKS: Final = {"=": ("", "", ""), "-": ("[-", "-]", "red"), "+": ("{+", "+}", "green")}
"""How a piece of a difference begins, ends and is coloured; the signs are those of ``wdiff``."""
_KNOWN_COST: Final = frozenset({"exact", "free", "suppressed", "playback"})


class Run(NamedTuple):
    """One generation to compare: a heading, the text its client got, and its record."""

    heading: str
    text: str
    record: dict[str, Any]


class _Figure(NamedTuple):
    """One row of figures: where a record has it, and how a person reads it."""

    label: str
    value: Callable[[dict[str, Any]], float | None]
    show: Callable[[float], str]


def side_by_side(runs: Sequence[Run]) -> RenderableType:
    """The runs as columns; every column after the first says how it differs from the first."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("", style="dim", no_wrap=True)
    for run in runs:
        table.add_column(run.heading, ratio=1, overflow="fold")
    first = runs[0]
    table.add_row("record", *(run.record["request_id"] for run in runs))
    table.add_row("rerun of", *(run.record.get("replay_of") or "–" for run in runs))
    for figure in _FIGURES:
        table.add_row(figure.label, *_figures(figure, runs))
    table.add_row("cost", *(_cost(run, None if run is first else first) for run in runs))
    table.add_row("text", *(Text(_line(run.text)) for run in runs))
    return Group(table, *(_verdict(first, run) for run in runs[1:]))


def word_difference(before: str, after: str) -> Iterator[tuple[str, str]]:
    """``after`` as ``before`` changed, word by word: pairs of ``=``, ``-`` or ``+`` and the piece of text."""
    old, new = _PIECES.findall(before), _PIECES.findall(after)
    for tag, i, j, k, m in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield "=", "".join(old[i:j])
            continue
        if i < j:
            yield "-", "".join(old[i:j])
        if k < m:
            yield "+", "".join(new[k:m])


def similarity(before: str, after: str) -> float:
    """How much of the two texts' words is common: 1.0 for equal texts, 0.0 for nothing in common."""
    return difflib.SequenceMatcher(a=_PIECES.findall(before), b=_PIECES.findall(after), autojunk=False).ratio()


def _tokens(name: str) -> Callable[[dict[str, Any]], float | None]:
    def value(record: dict[str, Any]) -> float | None:
        return None if record["usage"]["source"] == "absent" else record["usage"][name]

    return value


def _field(name: str) -> Callable[[dict[str, Any]], float | None]:
    def value(record: dict[str, Any]) -> float | None:
        return record[name]

    return value


_FIGURES: Final = (
    _Figure("input tokens", _tokens("prompt_tokens"), "{:,.0f}".format),
    _Figure("output tokens", _tokens("completion_tokens"), "{:,.0f}".format),
    _Figure("first output", _field("latency_ms"), words.duration),
    _Figure("in all", _field("generation_ms"), words.duration),
    _Figure("tokens/s", _field("throughput"), "{:.1f}".format),
)


def _figures(figure: _Figure, runs: Sequence[Run]) -> Iterator[str]:
    base = figure.value(runs[0].record)
    for run in runs:
        value = figure.value(run.record)
        if value is None:
            yield "not known"
        elif run is runs[0] or base is None:
            yield figure.show(value)
        elif value == base:
            yield f"{figure.show(value)} (the same)"
        else:
            yield f"{figure.show(value)} ({'+' if value > base else '−'}{figure.show(abs(value - base))})"


def _cost(run: Run, first: Run | None) -> str:
    shown = words.cost(run.record["cost_nanos"], run.record["cost_state"])
    if first is None or not _KNOWN_COST.issuperset({run.record["cost_state"], first.record["cost_state"]}):
        return shown
    difference = run.record["cost_nanos"] - first.record["cost_nanos"]
    return f"{shown} ({'the same' if difference == 0 else f'{difference:+,} nano-dollars, {dollars(difference)}'})"


def _verdict(first: Run, run: Run) -> Text:
    if first.text == run.text:
        return Text(f"{run.heading}: the text is the same, to the byte.", style="green")
    shown = Text(f"{run.heading}: {similarity(first.text, run.text):.0%} of the words are common. ", style="yellow")
    for mark, piece in word_difference(first.text, run.text):
        begin, end, style = _MARKS[mark]
        words_only = piece.rstrip()
        shown.append(f"{begin}{_line(words_only)}{end}", style=style or "default")
        shown.append(_line(piece[len(words_only) :]))
    return shown


def _line(text: str) -> str:
    return words.printable(text.replace("\n", " "))
