"""What a bulk run would do, for people: calls and cost by target, what cannot be run again, what nobody can price."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from counterfoil.cli import output
from counterfoil.record import words
from counterfoil.record.money import dollars

_COLUMNS: Final = ("target", "calls", "at least", "at most", "no estimate", "cannot be made")
_NAMED_MAX: Final = 10
"""Generations named on a terminal; --json has more."""


def show(rehearsal: dict[str, Any], *, as_json: bool) -> None:
    """Print it."""
    if as_json:
        output.json(rehearsal)
        return
    output.lines("Nothing was sent.", *_lines(rehearsal))


def _lines(rehearsal: dict[str, Any]) -> Iterator[str]:
    rows = [_row(one, "") for one in rehearsal["targets"]] + [_row(one, "judge ") for one in rehearsal["judges"]]
    yield from output.table(rows, _COLUMNS)
    yield f"{rehearsal['items']:,} generations, {rehearsal['calls']:,} calls, {_cost(rehearsal)}"
    if rehearsal["extrapolated"]:
        yield f"reckoned from {rehearsal['looked_at']:,} of them, taken evenly"
    if rehearsal["excluded"]:
        yield f"left out: {_counts(rehearsal['excluded'])}"
    named = [*rehearsal["not_replayable"], *(one for target in rehearsal["targets"] for one in target["named"])]
    yield from (f"  {one['request_id']}  {words.printable(one['reason'])}" for one in named[:_NAMED_MAX])
    if len(named) > _NAMED_MAX:
        yield f"  … {len(named) - _NAMED_MAX:,} more with --json"


def _row(one: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "target": kind + words.printable(one["name"]),
        "calls": one["calls"],
        "at least": dollars(one["low_nanos"]),
        "at most": dollars(one["high_nanos"]),
        "no estimate": _counts(one["unestimated"]),
        "cannot be made": _counts(one["cannot"]),
    }


def _counts(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {words.printable(reason)}" for reason, count in sorted(reasons.items()))


def _cost(rehearsal: dict[str, Any]) -> str:
    said = f"{dollars(rehearsal['low_nanos'])} to {dollars(rehearsal['high_nanos'])}"
    if rehearsal["unestimated"]:
        said += f", and {rehearsal['unestimated']:,} calls that nobody can price"
    if rehearsal["fits_budget"] is None:
        return said
    budget = dollars(rehearsal["budget_nanos"])
    return f"{said}; {'within' if rehearsal['fits_budget'] else 'perhaps beyond'} the budget of {budget}"
