"""What commands print: a table for people, or with ``--json`` JSON for programs. Standard output holds results alone.

Tables are plain text, so they read the same on a terminal, in a pipe and in a log. Nothing from outside reaches the
terminal as a control character.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from counterfoil.tenancy.documents import plain


def lines(*texts: str) -> None:
    """Print each text as one line."""
    sys.stdout.write("".join(f"{text}\n" for text in texts))


def json(value: Any) -> None:
    """Print ``value`` as indented JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def listing(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool, empty: str) -> None:
    """Print ``rows`` as a table of ``columns``, or all they hold as a JSON array; ``empty`` says there are none."""
    if as_json:
        json(list(rows))
    elif not rows:
        sys.stderr.write(f"{empty}\n")
    else:
        lines(*table(rows, columns))


def details(row: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, a line for each of its parts."""
    if as_json:
        json(row)
    else:
        width = max(len(name) for name in row)
        lines(*(f"{name:<{width}}  {cell(value)}".rstrip() for name, value in row.items()))


def document(value: Struct, *, as_json: bool) -> None:
    """Print one thing of the tenancy, as the control plane shows it."""
    details(plain(value), as_json=as_json)


def in_path(text: str) -> str:
    """``text`` as one segment of a path."""
    return quote(text, safe="")


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """The lines of a table with a heading, columns aligned."""
    grid = [[name.upper().replace("_", " ") for name in columns]]
    grid += [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[index]) for line in grid) for index in range(len(columns))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in grid]


def cell(value: Any) -> str:
    """``value`` on one line, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value) or "-"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return "".join(letter if letter.isprintable() else "�" for letter in str(value))
