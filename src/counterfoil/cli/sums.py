"""``counterfoil generations summary``: what records add up to, in all and told apart, for people, programs and sheets.

The groups add up to the whole, to the nano. A sum says how many of its records could not be priced, in every form.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from counterfoil.api.filtering import grouping
from counterfoil.cli import output, records, sheet
from counterfoil.cli.records import ALL, Selection
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.errors import ConfigError
from counterfoil.record import words

PLAIN_WIDTH: Final = 200
"""The width of a table that no terminal limits."""
_COUNTS: Final = ("records", "successes", "errors", "prompt_tokens", "completion_tokens", "cost_nanos")
_KNOWN: Final = ("unknown_cost", "partial_cost", "estimated_cost")


def summary(
    *,
    by: Annotated[
        str | None, Parameter(help="Tell apart by these, comma-separated: team, app, key, model, day, month, …")
    ] = None,
    selection: Selection = ALL,
    as_csv: Annotated[bool, Parameter(name="--csv", help="Print comma-separated values.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Add records up: counts, tokens, cost, and how much of the cost is not known."""
    if as_csv and as_json:
        raise ConfigError("Give --csv or --json, not both.")
    names = grouping(by)
    with records.opened(source) as ledger:
        found = ledger.summary(selection, names)
    if as_json:
        output.json(found)
    elif as_csv:
        _write_csv(names, found.get("groups", [found]))
    else:
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        Console(file=sys.stdout, width=width, highlight=False).print(table(names, found))


def table(names: Sequence[str], found: Mapping[str, Any]) -> Table:
    """A row a group, and the whole below them."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=bool(names))
    total = _cells(found)
    for number, name in enumerate(names):
        shown.add_column(name.replace("_", " "), footer="" if number else "all", overflow="fold")
    for heading, sum_ in zip(("records", "failed", "in", "out", "cost"), total, strict=True):
        shown.add_column(heading, footer=sum_, justify="right", no_wrap=True)
    for group in found.get("groups", [found]):
        shown.add_row(*(Text(words.printable(group[name] or "–")) for name in names), *_cells(group))
    return shown


def _cells(sums: Mapping[str, Any]) -> list[Text]:
    cost = words.total(
        sums["cost_nanos"],
        records=sums["records"],
        unknown=sums["unknown_cost"],
        partial=sums["partial_cost"],
        estimated=sums["estimated_cost"],
    )
    counts = (sums["records"], sums["errors"], sums["prompt_tokens"], sums["completion_tokens"])
    return [*(Text(f"{count:,}") for count in counts), Text(cost)]


def _write_csv(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """``cost_usd`` is exact, empty where nothing is known; the last columns count what is not, or not wholly, in it."""
    sys.stdout.write(sheet.line([*names, *_COUNTS, "cost_usd", *_KNOWN]))
    for row in rows:
        known = row["unknown_cost"] < row["records"] or not row["records"]
        cost = sheet.usd(row["cost_nanos"]) if known else None
        told, counts, states = ([row[name] for name in some] for some in (names, _COUNTS, _KNOWN))
        sys.stdout.write(sheet.line([*told, *counts, cost, *states]))
