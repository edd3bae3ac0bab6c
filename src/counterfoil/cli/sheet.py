"""Comma-separated values, for spreadsheets: exact dollars, no formulas, and an empty cell where nothing is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from counterfoil.record import words
from counterfoil.record.charge import CostState
from counterfoil.record.money import dollars

RECORD: Final = (
    "created_at", "request_id", "team_id", "app_id", "key_id", "endpoint", "model_id", "provider", "native_response_id",
    "stream", "byok", "status_code", "success", "error_code", "finish_reason", "latency_ms", "generation_ms",
    "prompt_tokens", "completion_tokens", "usage_source", "cost_usd", "cost_nanos", "cost_state", "byok_fee_nanos",
    "session_id", "end_user", "tags", "replay_of",
)  # fmt: skip
"""The columns of a record; those of its nested parts by a name of their own."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet would compute. Names come from clients and providers."""


def line(cells: Iterable[Any]) -> str:
    """One line, its end included."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow([text(cell) for cell in cells])
    return written.getvalue()


def text(value: Any) -> Any:
    """A cell: text without control characters or a formula, true and false in lower case, nothing for null."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str):
        return value
    shown = words.printable(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def labels(tags: Mapping[str, Any]) -> str | None:
    """A client's labels in one text: ``project=x, stage=test``; None without any."""
    return ", ".join(f"{name}={value}" for name, value in tags.items()) or None


def usd(nanos: int) -> str:
    """Exact dollars as a number that a sheet reads; no sign of a currency."""
    return dollars(nanos).replace("$", "")


def record(value: Mapping[str, Any], columns: Sequence[str] = RECORD) -> str:
    """The line of one record as it is listed. Tokens that nobody told and a cost that nobody knows are empty."""
    usage = value["usage"]
    known = value["cost_state"] != CostState.UNKNOWN or value["cost_nanos"]
    told = usage["source"] != "absent"
    found = {
        **value,
        "prompt_tokens": usage["prompt_tokens"] if told else None,
        "completion_tokens": usage["completion_tokens"] if told else None,
        "usage_source": usage["source"],
        "cost_usd": usd(value["cost_nanos"]) if known else None,
        "cost_nanos": value["cost_nanos"] if known else None,
        "byok_fee_nanos": value.get("byok_fee", {}).get("nanos"),
        "tags": labels(value["tags"]),
    }
    return line(found.get(name) for name in columns)
