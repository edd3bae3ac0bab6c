"""``counterfoil ledger``: whether everything is there and is what it was, and what it comes to."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Final

import apsw
import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from counterfoil.cli import evidence, output, records
from counterfoil.cli.prices import book_named
from counterfoil.cli.records import ALL, Selection
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import books
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.verify import Verifier
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import read_overlay
from counterfoil.pricing.reprice import Comparison, Sums, decode, refee, reprice
from counterfoil.process.pauses import tame_collector
from counterfoil.record.money import dollars

app = App(name="ledger", help="The ledger: verify, figures, checkpoints, repricing.")
app.command(evidence.checkpoint)
app.command(evidence.checkpoints)

BROKEN: Final = 1
PROGRESS_RECORDS: Final = 4096


@app.command
def stats(*, as_json: AsJson = False, source: Source = LOCAL) -> None:
    """Show the ledger's figures: records, open intents, bodies, bytes."""
    remote = source.remote()
    if remote is not None:
        output.details(remote.get("/v1/ledger"), as_json=as_json)
        return
    reader = LedgerReader(DataFolder.existing(source.root))
    try:
        output.details(reader.stats(), as_json=as_json)
    finally:
        reader.close()


@app.command
def verify(
    *,
    chain_only: Annotated[bool, Parameter(help="Check the chain and its checkpoints only.", negative=())] = False,
    checkpoints: Annotated[
        Path | None, Parameter(help="The folder, or the file, in which the checkpoints are kept a second time.")
    ] = None,
    workers: Annotated[
        int, Parameter(help="Processes that check the records of a large ledger.", validator=Number(gte=1))
    ] = 1,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> int:
    """Check that nothing was altered, lost or put in. The exit code is 0 only when everything holds.

    With --url the gateway verifies itself, beside its work, and this waits; the key needs `admin` over all teams.
    """
    remote = source.remote()
    if remote is None:
        found = _verified(source, chain_only=chain_only, checkpoints=checkpoints, workers=workers)
    elif workers > 1:
        raise ConfigError("A gateway verifies itself by one process: use --workers with --data.")
    elif checkpoints is not None:
        raise ConfigError("A second place is read from here: use --data. A gateway holds itself to its own.")
    else:
        found = evidence.verified(remote, chain_only=chain_only)
    if as_json:
        output.json(found)
    else:
        output.lines(*_told(found))
    return 0 if found["ok"] else BROKEN


def _verified(source: Source, *, chain_only: bool, checkpoints: Path | None, workers: int) -> dict[str, Any]:
    """What a verification of the folder here finds."""
    folder = DataFolder.existing(source.root)
    tame_collector()
    began = time.monotonic()
    try:
        now_ms = wall_ms()
        report = Verifier(folder, now_ms=now_ms, deep=not chain_only, workers=workers, witness=checkpoints).run()
    except apsw.Error as error:
        raise GatewayFault("ledger_unavailable", f"The ledger cannot be read ({error}).") from error
    return {
        "ok": not report.problems,
        "records": report.records,
        "checkpoints": report.checkpoints,
        "bodies": report.bodies,
        "seconds": round(time.monotonic() - began, 3),
        "problems": [msgspec.to_builtins(problem) for problem in report.problems],
    }


def _told(found: dict[str, Any]) -> list[str]:
    problems = found["problems"]
    if not problems:
        checked = f"{found['records']} records, {found['bodies']} bodies, {found['checkpoints']} signed checkpoints"
        return [f"Intact: {checked} ({found['seconds']:.2f} s)."]
    first = problems[0]
    return [
        f"NOT INTACT: {len(problems)} problem(s) in {found['records']} records.",
        f"First bad: {first['writer']} number {first['sequence']} {first['request_id']}".rstrip(),
        *(f"  {p['kind']}: {p['writer']} number {p['sequence']}: {p['message']}" for p in problems[:20]),
    ]


@app.command(name="reprice")
def reprice_(
    *,
    book: Annotated[
        str | None,
        Parameter(help="A stored book by the beginning of its hash, or `bundled`; the newest catalogue by default."),
    ] = None,
    prices_file: Annotated[Path | None, Parameter(help="Lay this price file over the newest catalogue.")] = None,
    where: Annotated[
        tuple[str, ...],
        Parameter(help="Only what this holds for, `model=openai/gpt-4o`: any option below, by its name.", negative=()),
    ] = (),
    selection: Selection = ALL,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Show what the calls would have cost under another book. Nothing is changed."""
    tame_collector()
    if book is not None and prices_file is not None:
        raise ConfigError("Give --book or --prices-file, not both.")
    selection = records.where(selection, where)
    other = _newest_catalog(prices_file, source) if book is None else book_named(book, source)
    if source.remote() is None:
        with records.reader(source) as reader:
            wanted = selection.filter()
            comparison = _compared(reader.canonical(wanted), reader.summary(wanted).records, other)
    else:
        with records.opened(source) as ledger:
            total = ledger.summary(selection)["records"]
            comparison = _compared(records.every(ledger, selection), total, other)
    _show_comparison(comparison, other.digest, as_json=as_json)


def _compared(rows: Iterable[bytes], total: int, other: PriceBook) -> Comparison:
    """What ``rows``, records as JSON, cost and would cost under ``other``."""
    comparison = Comparison()
    with _progress("Repricing") as progress:
        task = progress.add_task("Repricing", total=total)
        for data in rows:
            record = decode(data)
            comparison.add(record, reprice(other, record), refee(other, record))
            if not comparison.all.records % PROGRESS_RECORDS:
                progress.update(task, completed=comparison.all.records)
    return comparison


def _newest_catalog(prices_file: Path | None, source: Source) -> PriceBook:
    """The newest catalogue under a price file, or under the operator's own prices as they are in force."""
    overlay = book_named(None, source).overlay if prices_file is None else read_overlay(prices_file)
    return PriceBook.build(books.bundled_catalog(), overlay)


def _show_comparison(comparison: Comparison, digest: str, *, as_json: bool) -> None:
    def row(name: str, sums: Sums) -> dict[str, Any]:
        return {"name": name, **msgspec.to_builtins(sums), "difference_nanos": sums.difference_nanos}

    parts = {"model": comparison.by_model, "team": comparison.by_team, "meter": comparison.by_meter}
    if as_json:
        output.json(
            {"book": digest, "all": row("all", comparison.all)}
            | {f"by_{part}": [row(name, sums) for name, sums in sorted(by.items())] for part, by in parts.items()}
        )
        return
    for part, by in (("all", {"all": comparison.all}), *parts.items()):
        rows = [
            {
                part: name,
                "records": sums.records,
                "charged": _amount(sums.charged_nanos, sums.charged_unpriced),
                "would cost": _amount(sums.repriced_nanos, sums.repriced_unpriced),
                "difference": _difference(sums),
                "operator's fees": _fees(sums),
            }
            for name, sums in sorted(by.items())
        ]
        fees = ("operator's fees",) if part != "meter" and any(row["operator's fees"] for row in rows) else ()
        output.lines(*output.table(rows, (part, "records", "charged", "would cost", "difference", *fees)), "")


def _fees(sums: Sums) -> str:
    if not (sums.charged_fee_nanos or sums.repriced_fee_nanos):
        return ""
    return f"{dollars(sums.charged_fee_nanos)} → {dollars(sums.repriced_fee_nanos)}"


def _amount(nanos: int, unpriced: int) -> str:
    if not unpriced:
        return dollars(nanos)
    return f"{f'at least {dollars(nanos)}' if nanos else 'unknown'} ({unpriced} not wholly priced)"


def _difference(sums: Sums) -> str:
    """Of what has a price on both sides nothing is left to say when neither has one."""
    if not (sums.charged_unpriced or sums.repriced_unpriced):
        return dollars(sums.difference_nanos)
    priced = sums.charged_nanos or sums.repriced_nanos
    return f"{dollars(sums.difference_nanos)} of what is priced" if priced else "unknown"


def _progress(name: str) -> Progress:
    columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=not sys.stderr.isatty())
