"""Money and time in words, for whatever people read: pages, terminals, reports.

One rule matters here: a cost that is not known is never written as a number, and one that is known in part never as
the whole. Everything that shows money to people goes through :func:`cost` or :func:`total`.
"""

from __future__ import annotations

import re
from typing import Final

from counterfoil.record.charge import CostState
from counterfoil.record.money import dollars

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def cost(nanos: int, state: str) -> str:
    """One record's cost: ``$0.0031``, ``≈ $0.0031``, ``≥ $0.0031``, ``unknown``, ``free`` and the like.

    A state that this version does not know is shown beside the amount, never dropped.
    """
    amount = dollars(nanos)
    match state:
        case CostState.EXACT:
            return amount
        case CostState.ESTIMATED:
            return f"≈ {amount}"
        case CostState.PARTIAL:
            return f"≥ {amount}"
        case CostState.UNKNOWN:
            return "unknown" if nanos == 0 else f"unknown (≥ {amount})"
        case CostState.FREE:
            return "free" if nanos == 0 else amount
        case CostState.SUPPRESSED:
            return "not charged" if nanos == 0 else f"{amount} (suppressed)"
        case CostState.PLAYBACK:
            return "played back" if nanos == 0 else f"{amount} (played back)"
        case _:
            return f"{amount} ({state})"


def total(nanos: int, *, records: int, unknown: int, partial: int, estimated: int = 0) -> str:
    """The sum over ``records``, and how much of it is not known: ``≥ $1.20 (3 of 120 unknown, 1 partial)``."""
    if records and unknown == records:
        return f"unknown ({records} of {records} unknown)"
    sign = "≥ " if unknown or partial else "≈ " if estimated else ""
    parts = [
        f"{unknown} of {records} unknown" if unknown else "",
        f"{partial} of {records} partial" if partial else "",
        f"{estimated} of {records} estimated" if estimated else "",
    ]
    said = ", ".join(part for part in parts if part)
    return f"{sign}{dollars(nanos)}" + (f" ({said})" if said else "")


def duration(ms: float | None) -> str:
    """``0.42 ms``, ``312 ms``, ``4.31 s`` or ``2 min 05 s``; a dash for what was not measured."""
    if ms is None:
        return "–"
    if ms < 10:
        return f"{ms:.2f} ms"
    if ms < 1000:
        return f"{ms:.0f} ms"
    if ms < 60_000:
        return f"{ms / 1000:.2f} s"
    minutes, rest = divmod(round(ms / 1000), 60)
    return f"{minutes} min {rest:02d} s"


def size(count: int) -> str:
    """Bytes in binary units: ``512 B``, ``1.5 KiB``, ``3.2 GiB``."""
    if count < 1024:
        return f"{count} B"
    amount, units = count / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.1f} {units[0]}"


def printable(text: str) -> str:
    """``text`` without power over a terminal: control characters become visible escapes.

    Session ids, model names and error texts come from clients and providers; shown raw they could move the cursor,
    recolour or retitle the operator's terminal.
    """
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
