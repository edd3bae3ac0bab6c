"""The verification computes every record's lines again, from the book that the record names."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger import books
from counterfoil.ledger.query import Filter, LedgerReader
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.reprice import decode, reprice
from counterfoil.record import codec
from counterfoil.record.charge import Charge
from emulators.control import START_MS, write
from emulators.ledgers import USAGE, priced, verified


@pytest.fixture
def folder(tmp_path: Path, book: PriceBook) -> DataFolder:
    """Give a data folder that has the book."""
    made = DataFolder.create(tmp_path / "data")
    books.store(made.books, book)
    return made


def cheaper(charge: Charge) -> Charge:
    """The same lines, each at half the rate: they still add up."""
    lines = tuple(
        msgspec.structs.replace(
            line, unit_price_nanos=line.unit_price_nanos // 2 * 2 // 2, amount_nanos=line.amount_nanos // 2
        )
        for line in charge.lines
        if line.amount_nanos % 2 == 0
    )
    return Charge(lines, sum(line.amount_nanos for line in lines), charge.state)


@pytest.mark.parametrize("lines_twice", [True, False], ids=["in the attempt too", "once"])
def test_lines_that_follow_from_the_book_hold(folder: DataFolder, book: PriceBook, lines_twice: bool) -> None:
    """Every one is bit for bit what the book gives."""
    write(folder, [priced(book, number, lines_twice=lines_twice) for number in range(1, 20)])
    assert verified(folder).problems == []


def test_lines_that_only_add_up_are_found(folder: DataFolder, book: PriceBook) -> None:
    """A record written with another price, chained and signed like any other, is named with its line."""
    right = book.price("openai", "gpt-4o-mini", USAGE, START_MS)
    wrong = cheaper(right)
    assert wrong.lines
    write(folder, [priced(book, 1), priced(book, 2, wrong), priced(book, 3)])
    problems = verified(folder).problems
    assert {(problem.kind, problem.sequence) for problem in problems} == {("price", 2)}


@pytest.mark.parametrize("harm", ["deleted", "altered"])
def test_a_book_that_is_gone_or_altered_is_found(folder: DataFolder, book: PriceBook, harm: str) -> None:
    """Without its book a record's price can no longer be shown; the first such record is named."""
    write(folder, [priced(book, number) for number in (1, 2)])
    [path] = folder.books.iterdir()
    if harm == "deleted":
        path.unlink()
    else:
        other = PriceBook.build(books.bundled_catalog(), providers={"local": "openai"})
        books.store(folder.books, other).rename(path)
    first = verified(folder).problems[0]
    assert (first.kind, first.writer, first.sequence) == ("price", "w0", 1)
    assert book.digest in first.message


def test_the_slim_reading_prices_as_the_whole_record_does(folder: DataFolder, book: PriceBook) -> None:
    """Over every record, narrowed by a filter or not."""
    write(folder, [priced(book, number) for number in range(1, 8)])
    reader = LedgerReader(folder)
    for wanted in (Filter(), Filter(team_id="acme"), Filter(model_id="openai/gpt-4o-mini")):
        found = list(reader.canonical(wanted))
        assert len(found) == 7
        for data in found:
            assert reprice(book, decode(data)) == reprice(book, codec.decode(data))
    assert list(reader.canonical(Filter(provider="none"))) == []
    assert list(reader.canonical(Filter(provider="\ud800"))) == []
    reader.close()
