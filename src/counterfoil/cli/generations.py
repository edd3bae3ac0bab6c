"""``counterfoil generations``: records for people and for programs."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console, RenderableType

from counterfoil.api.generations import manifest, page_answer
from counterfoil.cli import erasure, output, records, render, sheet, sums
from counterfoil.cli import replay as rerun
from counterfoil.cli.records import ALL, PAGE, Records, Selection
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.database import readable
from counterfoil.ledger.proof import prove
from counterfoil.record import words
from counterfoil.record.coverage import Sums

app = App(name="generations", help="Records: list, show, follow, add up, export, replay, compare, erase.")
app.command(sums.summary)
app.command(erasure.erase)
app.command(rerun.replay)
app.command(rerun.diff)

TAIL_SECONDS: Final = 0.5
TAIL_SEEN_MAX: Final = 100_000
"""Records a follower remembers having shown. Lists go by the time a call began, so a long call is shown after calls
that began later."""
PLAIN_WIDTH: Final = 200
"""The width of a table that no terminal limits."""

AnyId = Annotated[str, Parameter(help="Our id (gen_…), or the provider's own.")]


@app.command(name="list")
def list_(
    *,
    selection: Selection = ALL,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=PAGE), help="At most so many.")] = 50,
    cursor: Annotated[str | None, Parameter(help="Go on where a page with --json ended: its `next`.")] = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """List records, newest first, and what all that were asked for add up to."""
    with records.opened(source) as ledger:
        rows = ledger.page(selection, cursor, limit)
        if as_json:
            sys.stdout.write(page_answer(rows.data, rows.next).decode() + "\n")
            return
        if not rows.data:
            sys.stderr.write("There are no such records.\n")
            return
        _print(render.Listing(msgspec.json.decode(row) for row in rows.data))
        output.lines(_sum(ledger.summary(selection), shown=len(rows.data)))


@app.command
def show(
    generation_id: AnyId,
    /,
    *,
    proof: Annotated[bool, Parameter(help="Print a proof that anyone can check offline.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Show one record: who, when, what, how long, what it cost and why. With --json the record itself."""
    if proof:
        _show_proof(generation_id, source)
        return
    with records.opened(source) as ledger:
        data = ledger.one(generation_id)
    if as_json:
        sys.stdout.write(data.decode() + "\n")
    else:
        _print(render.record(msgspec.json.decode(data)))


@app.command
def tail(
    *,
    selection: Selection = ALL,
    count: Annotated[int, Parameter(name=("--count", "-n"), help="Begin with so many that are there already.")] = 10,
    once: Annotated[bool, Parameter(help="Print those and end.", negative=())] = False,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Follow new records as they are written, until Ctrl-C. One line each; with --json the record."""
    with records.opened(source) as ledger:
        for row in _following(ledger, selection, min(count, PAGE), once=once):
            sys.stdout.write((row.decode() if as_json else _line(msgspec.json.decode(row))) + "\n")
            sys.stdout.flush()


@app.command
def export(
    *,
    selection: Selection = ALL,
    output_file: Annotated[
        Path | None, Parameter(name=("--output", "-o"), help="Write to this file instead of the standard output.")
    ] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", help="JSON lines, which are written anyway.", negative=(), show_default=False)
    ] = True,
    as_csv: Annotated[
        bool, Parameter(name="--csv", help="Comma-separated values instead, without a manifest.", negative=())
    ] = False,
    source: Source = LOCAL,
) -> None:
    """Write every record as a JSON line, newest first, then a manifest with their number and SHA-256."""
    del as_json  # taken like everywhere else; it is what is written unless --csv is given
    exported = _sheet if as_csv else _exported
    if output_file is None:
        with records.opened(source) as ledger:
            for line in exported(ledger, selection):
                sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
        return
    draft = output_file.with_name(output_file.name + ".part")
    try:
        with records.opened(source) as ledger, draft.open("wb") as file:
            file.writelines(exported(ledger, selection))
        draft.replace(output_file)
    except OSError as error:
        raise ConfigError(f"{output_file} cannot be written ({error.strerror or error}).") from error


def _show_proof(generation_id: str, source: Source) -> None:
    remote = source.remote()
    if remote is not None:
        output.json(remote.get(f"/v1/generations/{output.in_path(generation_id)}/proof"))
        return
    with records.reader(source) as ledger:
        stored = records.found(ledger, generation_id, str(source.root))
        with readable():
            proof = prove(DataFolder.existing(source.root), stored)
        output.json(proof)


def _exported(ledger: Records, selection: Selection) -> Iterator[bytes]:
    """The same bytes as ``GET /v1/generations/export``."""
    digest, count, added = hashlib.sha256(), 0, Sums()
    for row in records.every(ledger, selection):
        line = row + b"\n"
        digest.update(line)
        count += 1
        added.add(row)
        yield line
    yield manifest(count, digest.hexdigest(), added)


def _sheet(ledger: Records, selection: Selection) -> Iterator[bytes]:
    """A line a record, for a spreadsheet."""
    yield sheet.line(sheet.RECORD).encode()
    for row in records.every(ledger, selection):
        yield sheet.record(msgspec.json.decode(row)).encode()


def _following(ledger: Records, selection: Selection, count: int, *, once: bool) -> Iterator[bytes]:
    """The newest ``count`` records, then new ones as they come; the oldest first, each once."""
    seen: OrderedDict[str, None] = OrderedDict()
    first = True
    while True:
        fresh = _unseen(ledger, selection, seen)
        for request_id in fresh:
            seen[request_id] = None
        while len(seen) > TAIL_SEEN_MAX:
            seen.popitem(last=False)
        yield from reversed(list(fresh.values())[: count if first else None])
        if once:
            return
        first = False
        time.sleep(TAIL_SECONDS)


def _unseen(ledger: Records, selection: Selection, seen: Collection[str]) -> dict[str, bytes]:
    """The records of the newest pages, back to one that holds a record already seen; at first, of one page."""
    fresh: dict[str, bytes] = {}
    cursor: str | None = None
    while True:
        rows = ledger.page(selection, cursor, PAGE)
        named = {_identity(row): row for row in rows.data}
        unseen = {request_id: row for request_id, row in named.items() if request_id not in seen}
        fresh |= unseen
        cursor = rows.next
        if cursor is None or not seen or len(unseen) < len(named):
            return fresh


def _identity(row: bytes) -> str:
    return msgspec.json.decode(row, type=_Identity).request_id


class _Identity(msgspec.Struct):
    request_id: str


def _line(value: dict[str, Any]) -> str:
    said = "ok" if value["success"] else value["error_code"]
    tokens = "-" if value["usage"]["source"] == "absent" else f"{value['usage']['total_tokens']} tokens"
    parts = (
        value["created_at"],
        value["request_id"],
        str(value["status_code"]),
        said,
        value["model_id"],
        tokens,
        words.duration(value["generation_ms"]),
        words.cost(value["cost_nanos"], value["cost_state"]),
    )
    return "  ".join(words.printable(part) for part in parts)


def _sum(summary: dict[str, Any], shown: int) -> str:
    cost = words.total(
        summary["cost_nanos"],
        records=summary["records"],
        unknown=summary["unknown_cost"],
        partial=summary["partial_cost"],
        estimated=summary["estimated_cost"],
    )
    tokens = f"{summary['prompt_tokens']:,} tokens in, {summary['completion_tokens']:,} out"
    said = f"{shown} of {summary['records']:,} records, {summary['errors']:,} failed · {tokens} · cost {cost}"
    missing = summary["unpriced_meters"]
    if missing:
        said += "\nnot wholly priced: " + ", ".join(f"{words.printable(name)} ({n:,})" for name, n in missing.items())
    byok = summary["byok"]
    if byok["records"]:
        said += f"\nof these with teams' own keys: {byok['records']:,}"
        said += f", paid to providers {_byok(byok, 'cost')}, operator's fees {_byok(byok, 'fee')}"
    return said


def _byok(byok: dict[str, int], amount: str) -> str:
    return words.total(
        byok[f"{amount}_nanos"],
        records=byok["records"],
        unknown=0,
        partial=byok[f"unknown_{amount}"],
        estimated=byok[f"estimated_{amount}"],
    )


def _print(renderable: RenderableType) -> None:
    """Print for people: as wide as the terminal, or wide enough for everything where there is none."""
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(file=sys.stdout, width=width, highlight=False).print(renderable)
