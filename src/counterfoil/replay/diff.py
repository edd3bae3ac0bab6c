"""The difference between two generations, as data that a program, a page and a terminal can show. Pure.

Text is compared word by word (runs of white space are words too, so nothing is lost). ``similarity`` is the share of
words that both have in the same order, 2 × common ÷ total, between 0 and 1; it says how alike two texts are, not
which is better. Word comparison is quadratic in the worst case, so it is bounded: beyond :data:`WORDS_MAX` words a
side the comparison goes line by line, and beyond :data:`LINES_MAX` lines only equality is told (``method`` says which).

A figure that one side does not know has no difference: ``change`` is null. An unknown cost is null, never 0.
"""

from __future__ import annotations

import difflib
import re
from enum import StrEnum
from typing import Any, Final, cast

import msgspec
from msgspec import Struct, UnsetType

from counterfoil.record.charge import INCOMPLETE
from counterfoil.record.record import Record
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.replay.text import Said, ToolCall
from counterfoil.wire.pointer import joined

WORDS_MAX: Final = 8_000
"""Words a side that are compared as words; some 30 KB of English, a tenth of a second at worst."""
LINES_MAX: Final = 8_000
"""Lines a side that are compared as lines, when there are too many words."""

_WORDS = re.compile(r"\s+|[^\W_]+|[\W_]", re.UNICODE)
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


class Method(StrEnum):
    """How finely two texts were compared."""

    WORDS = "words"
    LINES = "lines"
    EQUALITY = "equality"


class Change(Struct, frozen=True):
    """A run of text: ``op`` is ``equal``, ``delete`` (only in a), ``insert`` (only in b)."""

    op: str
    text: str


class TextDifference(Struct, frozen=True):
    """How two texts differ. The texts of ``equal`` and ``delete`` runs are a; of ``equal`` and ``insert`` runs, b."""

    equal: bool
    similarity: float | None
    method: Method
    changes: tuple[Change, ...] = ()


class Figure(Struct, frozen=True):
    """One number on both sides; ``change`` is b − a and ``ratio`` b ÷ a, null where that has no meaning."""

    a: float | int | None
    b: float | int | None
    change: float | int | None
    ratio: float | None


class Pair(Struct, frozen=True):
    """One word on both sides."""

    a: Any
    b: Any
    equal: bool


class ToolDifference(Struct, frozen=True):
    """The tool calls at one place in the order. ``fields`` are JSON pointers into the arguments that differ."""

    index: int
    a: ToolCall | None
    b: ToolCall | None
    fields: tuple[str, ...] = ()


class Difference(Struct, frozen=True, kw_only=True):
    """Everything that two generations differ in. ``content`` is false when a body is missing and only figures remain.

    ``equal`` says that both answers say the same: text, refusal, tool calls, finish reason, status and error.
    """

    a: str
    b: str
    equal: bool
    content: bool
    text: TextDifference | None
    refusal: Pair
    tool_calls_equal: bool | None
    tool_calls: tuple[ToolDifference, ...]
    model: Pair
    finish_reason: Pair
    status_code: Pair
    error_code: Pair
    tokens: dict[str, Figure]
    latency_ms: Figure
    generation_ms: Figure
    throughput: Figure
    cost_nanos: Figure
    cost_state: Pair


def compare(a: Record, b: Record, said_a: Said | None, said_b: Said | None) -> Difference:
    """The difference of two records and, where both bodies are there, of what they say."""
    texts = text(said_a.text, said_b.text) if said_a is not None and said_b is not None else None
    tools = tool_calls(said_a.tool_calls, said_b.tool_calls) if said_a is not None and said_b is not None else ()
    both = said_a is not None and said_b is not None
    refusals = pair(said_a.refusal if said_a else None, said_b.refusal if said_b else None)
    finish = pair(a.finish_reason, b.finish_reason)
    status, error = pair(a.status_code, b.status_code), pair(a.error_code, b.error_code)
    same_bytes = not both or (said_a is not None and said_b is not None and said_a.digest == said_b.digest)
    told = (texts is None or texts.equal) and refusals.equal and not tools and same_bytes
    return Difference(
        a=a.request_id,
        b=b.request_id,
        equal=both and told and finish.equal and status.equal and error.equal,
        content=both,
        text=texts,
        refusal=refusals,
        tool_calls_equal=not tools if both else None,
        tool_calls=tools,
        model=pair(a.model_id, b.model_id),
        finish_reason=finish,
        status_code=status,
        error_code=error,
        tokens=tokens(a.usage, b.usage),
        latency_ms=figure(a.latency_ms, b.latency_ms),
        generation_ms=figure(a.generation_ms, b.generation_ms),
        throughput=figure(a.throughput, b.throughput),
        cost_nanos=figure(known_cost(a), known_cost(b)),
        cost_state=pair(a.cost_state, b.cost_state),
    )


def known_cost(record: Record) -> int | None:
    """The cost, or None when it is unknown or known in part only: an unknown never passes for zero."""
    return None if record.cost_state in INCOMPLETE else record.cost_nanos


def text(a: str, b: str) -> TextDifference:
    """How two texts differ, as finely as their length allows."""
    if a == b:
        return TextDifference(True, 1.0, Method.WORDS, (Change("equal", a),) if a else ())
    words_a, words_b = _WORDS.findall(a), _WORDS.findall(b)
    if max(len(words_a), len(words_b)) <= WORDS_MAX:
        return _runs(words_a, words_b, Method.WORDS)
    lines_a, lines_b = _LINES.findall(a), _LINES.findall(b)
    if max(len(lines_a), len(lines_b)) <= LINES_MAX:
        return _runs(lines_a, lines_b, Method.LINES)
    return TextDifference(False, None, Method.EQUALITY)


def _runs(a: list[str], b: list[str], method: Method) -> TextDifference:
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=len(a) + len(b) > 2 * 2_000)
    changes: list[Change] = []
    common = 0
    for op, from_a, to_a, from_b, to_b in matcher.get_opcodes():
        if op == "equal":
            common += to_a - from_a
            changes.append(Change("equal", "".join(a[from_a:to_a])))
            continue
        if to_a > from_a:
            changes.append(Change("delete", "".join(a[from_a:to_a])))
        if to_b > from_b:
            changes.append(Change("insert", "".join(b[from_b:to_b])))
    return TextDifference(False, round(2 * common / (len(a) + len(b)), 6), method, tuple(changes))


def tool_calls(a: tuple[ToolCall, ...], b: tuple[ToolCall, ...]) -> tuple[ToolDifference, ...]:
    """The places where the tool calls differ, in order; empty when they are the same by structure."""
    found: list[ToolDifference] = []
    for index in range(max(len(a), len(b))):
        left = a[index] if index < len(a) else None
        right = b[index] if index < len(b) else None
        if left is None or right is None or left.name != right.name:
            found.append(ToolDifference(index, left, right))
            continue
        fields = tuple(differing(left.arguments, right.arguments))
        if fields:
            found.append(ToolDifference(index, left, right, fields))
    return tuple(found)


def differing(a: Any, b: Any, at: str = "") -> list[str]:
    """JSON pointers (RFC 6901) of the deepest places where two JSON values differ; ``""`` is the whole value."""
    if isinstance(a, dict) and isinstance(b, dict):
        left, right = cast("dict[str, Any]", a), cast("dict[str, Any]", b)
        found: list[str] = []
        for name in sorted({*left, *right}):
            here = at + joined((name,))
            both = name in left and name in right
            found += differing(left[name], right[name], here) if both else [here]
        return found
    if isinstance(a, list) and isinstance(b, list):
        one, other = cast("list[Any]", a), cast("list[Any]", b)
        pairs = enumerate(zip(one, other, strict=False))
        found = [pointer for index, (x, y) in pairs for pointer in differing(x, y, f"{at}/{index}")]
        return found + [f"{at}/{index}" for index in range(min(len(one), len(other)), max(len(one), len(other)))]
    same = a == b and isinstance(a, bool) == isinstance(b, bool)
    return [] if same else [at]


def tokens(a: Usage, b: Usage) -> dict[str, Figure]:
    """Every meter that either side has. Usage that was not reported is null, not 0."""
    left, right = _meters(a), _meters(b)
    return {name: figure(_count(a, left, name), _count(b, right, name)) for name in {**left, **right}}


def _count(usage: Usage, counts: dict[str, int], name: str) -> int | None:
    if usage.source is UsageSource.ABSENT:
        return None
    return counts.get(name, 0)


def _meters(usage: Usage) -> dict[str, int]:
    counts = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }
    for prefix, part in (
        ("prompt_tokens_details.", usage.prompt_tokens_details),
        ("completion_tokens_details.", usage.completion_tokens_details),
        ("", usage.meters),
    ):
        if not isinstance(part, UnsetType):
            counts |= {prefix + name: count for name, count in part.items()}
    return counts


def figure(a: float | None, b: float | None) -> Figure:
    """One number on both sides."""
    if a is None or b is None:
        return Figure(a, b, None, None)
    change = b - a
    return Figure(a, b, round(change, 6) if isinstance(change, float) else change, round(b / a, 6) if a else None)


def pair(a: Any, b: Any) -> Pair:
    """One word on both sides."""
    return Pair(a, b, a == b)


def plain(difference: Difference) -> dict[str, Any]:
    """A difference as JSON values."""
    return msgspec.to_builtins(difference)
