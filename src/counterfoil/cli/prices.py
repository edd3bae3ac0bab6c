"""``counterfoil prices``: price books, what is in them, what differs between them, and prices from elsewhere."""

from __future__ import annotations

import datetime as dt
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from cyclopts import App, Parameter

from counterfoil.cli import output
from counterfoil.cli.times import moment_ms
from counterfoil.cli.where import LOCAL, AsJson, Source
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger import books
from counterfoil.pricing import listing, litellm
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.overlay_file import read_overlay

app = App(name="prices", help="Price books: show, compare, import, history.")

_BOOK_HELP = (
    "A stored book by the beginning of its hash, `bundled`, or a price file. "
    "Default: the newest stored; with --url the one in force."
)
_RATE_COLUMNS: Final = ("meter", "price", "above", "state", "rule_id")
_PREFIX_MIN: Final = 4

At = Annotated[str | None, Parameter(help="The moment: 2026-01-31 or 2026-01-31T12:00Z. Default: now.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Chosen:
    """Which book a command reads."""

    book: Annotated[str | None, Parameter(help=_BOOK_HELP)] = None


NEWEST = Chosen()


@app.command
def show(
    model: Annotated[str | None, Parameter(help="provider/model, or a provider alone.")] = None,
    *,
    tier: Annotated[str | None, Parameter(help="The service tier as served, such as flex.")] = None,
    team: Annotated[str | None, Parameter(help="With this team's own prices.")] = None,
    region: Annotated[str | None, Parameter(help="Served in this region, such as us.")] = None,
    at: At = None,
    as_json: AsJson = False,
    chosen: Chosen = NEWEST,
    source: Source = LOCAL,
) -> None:
    """Show a book: its sources, a provider's models, or the rates of one model and the rule behind each."""
    book = book_named(chosen.book, source)
    at_ms = _at(at)
    if model is None:
        _show_book(book, as_json=as_json)
        return
    provider, slash, name = model.partition("/")
    if not slash:
        rows = [
            _summary(listing.listed(book, *pair, at_ms, tier=tier, team=team, region=region))
            for pair in listing.names(book, provider)
        ]
        output.listing(
            rows,
            ("model", "input", "output", "rates"),
            as_json=as_json,
            empty=f"{provider} is in no list of this book.",
        )
        return
    found = listing.listed(book, provider, name, at_ms, tier=tier, team=team, region=region)
    if as_json:
        output.json({"book": book.digest, **msgspec.to_builtins(found)})
        return
    output.lines(f"{found.name or found.model} at {found.provider}, book {book.digest[:12]}")
    if found.free:
        output.lines("Free of charge.")
    if not found.rates:
        output.lines(f"No price is known: {found.reason}." if not found.free else "Every meter is free.")
        return
    output.lines("", *output.table([msgspec.to_builtins(rate) for rate in found.rates], _RATE_COLUMNS))
    for reason in dict.fromkeys(rate.reason for rate in found.rates if isinstance(rate.reason, str)):
        output.lines(f"fallback: {reason}")


@app.command
def diff(
    old: Annotated[str, Parameter(help="A stored book by the beginning of its hash, `bundled`, or a price file.")],
    new: Annotated[str | None, Parameter(help="As the first. Default: the newest stored.")] = None,
    /,
    *,
    at: At = None,
    as_json: AsJson = False,
    source: Source = LOCAL,
) -> None:
    """Show what differs between two books: models added, removed, and repriced, rate by rate."""
    before, after = book_named(old, source), book_named(new, source)
    found = list(listing.changes(before, after, _at(at)))
    if as_json:
        output.json({"old": before.digest, "new": after.digest, "changes": found})
        return
    if not found:
        output.lines("The two books price every model alike.")
        return
    rows: list[dict[str, Any]] = []
    for change in found:
        rows += [
            {"model": f"{change.provider}/{change.model}", "what": change.what, **rate}
            for rate in change.rates or [{"meter": None}]
        ]
    output.lines(*output.table(rows, ("model", "what", "meter", "above", "old", "new")))
    output.lines(f"{len(found)} models differ.")


@app.command(name="import")
def import_(
    file: Annotated[Path, Parameter(help="LiteLLM's model_prices_and_context_window.json.")],
    *,
    provider: Annotated[tuple[str, ...], Parameter(help="Only these providers.", consume_multiple=True)] = (),
    only_missing: Annotated[
        bool, Parameter(help="Only models that the catalogue does not price.", negative=())
    ] = False,
    to: Annotated[Path | None, Parameter(name="--output", help="Write here instead of the standard output.")] = None,
    as_json: AsJson = False,
) -> None:
    """Turn LiteLLM's price file into a price file for `prices_file`; read it before you use it."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror or error}).") from error
    lists = PriceBook.build(books.bundled_catalog()).lists

    def wanted(owner: str, model: str) -> bool:
        return (not provider or owner in provider) and not (only_missing and lists.find(owner, model) is not None)

    text = litellm.convert(data, wanted)
    overlay = read_overlay(_Text(text))  # what we write must be what we read
    if to is not None:
        try:
            to.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{to} cannot be written ({error.strerror or error}).") from error
    if as_json:
        output.json({"prices": len(overlay.prices), "output": None if to is None else str(to), "yaml": text})
    elif to is None:
        sys.stdout.write(text)
    else:
        output.lines(f"{len(overlay.prices)} prices written to {to}. Use it with: prices_file: {to}")


@app.command
def history(
    model: Annotated[str | None, Parameter(help="provider/model: its dated prices in the chosen book.")] = None,
    *,
    as_json: AsJson = False,
    chosen: Chosen = NEWEST,
    source: Source = LOCAL,
) -> None:
    """List every stored book, or the dated prices of one model."""
    if model is None:
        if source.remote() is not None:
            raise ConfigError("The list of stored books is read from the data folder: use --data.")
        stored = _stored(source)
        columns = ("book", "stored_at", "catalog", "own_rules")
        output.listing(
            stored, columns, as_json=as_json, empty="No book is stored yet; the gateway stores one when it starts."
        )
        return
    provider, _, name = model.partition("/")
    rows: list[dict[str, Any]] = []
    for row in listing.history(book_named(chosen.book, source), provider, name):
        rates: dict[str, Any] = row["rates"]
        said = "  ".join(
            f"{meter} {listing.price_text(meter, rate['price'], rate.get('size', 1_000_000))}"
            for meter, rate in rates.items()
        )
        rows.append(
            {
                "from": _date(row["from_ms"]),
                "to": _date(row["until_ms"]),
                "windows": row["windows"],
                "when": row["when"],
                "rates": rates if as_json else said,
            }
        )
    output.listing(
        rows, ("from", "to", "windows", "when", "rates"), as_json=as_json, empty=f"The book lists no price for {model}."
    )


class _Text:
    """A text that is read like a file."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return "the imported prices"

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self._text


def book_named(name: str | None, source: Source) -> PriceBook:
    """The book a name stands for: the beginning of a stored one's hash, ``bundled``, or a price file; none: the newest.

    Raises :class:`ConfigError` when there is none, or more than one.
    """
    if name == "bundled":
        return PriceBook.build(books.bundled_catalog())
    if name is not None and Path(name).is_file():
        return PriceBook.build(books.bundled_catalog(), read_overlay(Path(name)))
    remote = source.remote()
    if remote is None:
        return _stored_book(name, source)
    if name is not None:
        raise ConfigError(f"There is no file {name}. Stored books are read from the data folder: use --data.")
    try:
        return PriceBook(remote.read("/v1/pricing/book"))
    except msgspec.DecodeError as error:
        raise ConfigError("The gateway's price book cannot be read by this version.") from error


def _stored_book(name: str | None, source: Source) -> PriceBook:
    known = _digests(source)
    if name is None:
        return books.load(_folder(source), known[-1]) if known else PriceBook.build(books.bundled_catalog())
    found = [digest for digest in known if len(name) >= _PREFIX_MIN and digest.startswith(name)]
    if len(found) != 1:
        what = f"{len(found)} stored books begin" if found else "No stored book begins"
        raise ConfigError(f"{what} with {name}, and there is no such file. See: counterfoil prices history")
    return books.load(_folder(source), found[0])


def _folder(source: Source) -> Path:
    return DataFolder.existing(source.root).books


def _digests(source: Source) -> list[str]:
    root = DataFolder(source.root)
    return [digest for digest, _ in books.stored(root.books)] if root.books.is_dir() else []


def _stored(source: Source) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for digest, stored in books.stored(_folder(source)):
        book = books.load(_folder(source), digest)
        catalog, overlay = book.lists.catalog.source, book.overlay
        rows.append(
            {
                "book": digest,
                "stored_at": _date(int(stored * 1000)),
                "catalog": f"{catalog.package} {catalog.version}",
                "own_rules": sum(map(len, (overlay.prices, overlay.adjustments, overlay.fees, overlay.byok))),
            }
        )
    return rows


def _show_book(book: PriceBook, *, as_json: bool) -> None:
    source = book.lists.catalog.source
    names = listing.names(book)
    whole = {
        "book": book.digest,
        "catalog": f"{source.package} {source.version} ({source.license})",
        "catalog_sha256": source.sha256,
        "url": source.url,
        "providers": len(book.lists.names),
        "models": len(names),
        "own_prices": len(book.overlay.prices),
        "adjustments": len(book.overlay.adjustments),
        "fees": len(book.overlay.fees),
        "byok_fees": len(book.overlay.byok),
    }
    if as_json:
        output.json({**whole, "list": {name: len(book.lists.models(name)) for name in book.lists.names}})
    else:
        output.details(whole, as_json=False)


def _summary(found: listing.ListedModel) -> dict[str, Any]:
    rates = {rate.meter: rate.price for rate in found.rates if rate.above is None}
    return {
        "model": found.model,
        "input": "free" if found.free else rates.get("input_tokens"),
        "output": "free" if found.free else rates.get("output_tokens"),
        "rates": len(found.rates),
    }


def _at(text: str | None) -> int:
    now = wall_ms()
    moment = None if text is None else moment_ms(text, now)
    return now if moment is None else moment


def _date(unix_ms: int | None) -> str | None:
    if unix_ms is None:
        return None
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
