"""A record is inspected in a quick way and, where that does not say yes, whole; by one process or by several."""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec
import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger import books, crew
from counterfoil.ledger.rows import GENERATION_COLUMNS
from counterfoil.pricing.book import PriceBook
from counterfoil.record.record import Attempt, CaptureInfo, Record
from counterfoil.record.scan import ScannedAttempt, ScannedRecord
from counterfoil.record.usage import Usage, UsageSource
from emulators.control import START_MS, settlement, write
from emulators.ledgers import verified

USAGE = Usage(1000, 200, 1200, {"cached_tokens": 100}, source=UsageSource.REPORTED)
COLUMNS = [name.strip() for name in GENERATION_COLUMNS.split(",")][4:-1]
OTHER = {int: 7, str: "other", bytes: b"0123456789abcdef", type(None): 3}


@pytest.fixture(scope="module")
def book() -> PriceBook:
    """Give the bundled catalogue."""
    return PriceBook.build(books.bundled_catalog())


@pytest.fixture
def folder(tmp_path: Path, book: PriceBook) -> DataFolder:
    """Give a ledger of forty priced calls, the quick way's kind."""
    made = DataFolder.create(tmp_path / "data")
    books.store(made.books, book)
    charge = book.price("openai", "gpt-4o-mini", USAGE, START_MS)
    attempt = Attempt(
        number=1,
        provider="openai",
        model="gpt-4o-mini",
        key_source="operator",
        status_code=200,
        error_code=None,
        latency_ms=1.0,
        generation_ms=2.0,
        usage=USAGE,
        pricing_lines=charge.lines,
        cost_nanos=charge.nanos,
    )
    priced = {
        "usage": USAGE,
        "cost_nanos": charge.nanos,
        "pricing_lines": charge.lines,
        "cost_state": charge.state,
        "attempts": (attempt,),
        "book": book.digest,
    }
    write(made, [settlement(number, request=b'{"n":1}' if number % 2 else None, **priced) for number in range(1, 41)])
    return made


def test_it_reads_every_field_of_a_record() -> None:
    """What is scanned are the fields of a record and of an attempt, each with its name, and ``capture``."""
    assert set(ScannedRecord.__struct_fields__) == {*Record.__struct_fields__, "capture"}
    assert set(ScannedAttempt.__struct_fields__) == set(Attempt.__struct_fields__)
    assert {"state", "digest", "retention_days"} <= set(CaptureInfo.__struct_fields__)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_good_ledger_holds(folder: DataFolder, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """With as many bodies counted as there are."""
    monkeypatch.setattr("counterfoil.ledger.verify.PART_RECORDS_MIN", 10)
    monkeypatch.setattr(crew, "PART_RECORDS_MIN", 10)
    report = verified(folder, workers=workers)
    assert (report.problems, report.records, report.bodies) == ([], 40, 20)


@pytest.mark.parametrize("column", COLUMNS)
def test_any_other_value_in_any_column_is_found(folder: DataFolder, column: str) -> None:
    """In a record that the quick way would let pass; the record is named, and the column."""
    connection = apsw.Connection(str(folder.ledger_db))
    value = connection.execute(f"SELECT {column} FROM generations WHERE seq = 5").get
    connection.execute(f"UPDATE generations SET {column} = ? WHERE seq = 5", (OTHER[type(value)],))
    connection.close()
    problems = verified(folder).problems
    assert (problems[0].kind, problems[0].writer, problems[0].sequence) == ("record", "w0", 5)
    assert column in problems[0].message


def test_several_processes_find_what_one_does(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems of the chain first, then those of the records in their order, whoever found them."""
    connection = apsw.Connection(str(folder.ledger_db))
    connection.execute("UPDATE generations SET cost_nanos = cost_nanos + 1 WHERE seq IN (3, 17, 39)")
    connection.execute("UPDATE bodies SET sealed = zeroblob(64) WHERE seq = 21")
    connection.execute("UPDATE generations SET record = x'01' WHERE seq = 30")
    connection.close()
    alone = verified(folder)
    monkeypatch.setattr("counterfoil.ledger.verify.PART_RECORDS_MIN", 10)
    monkeypatch.setattr(crew, "PART_RECORDS_MIN", 10)
    together = verified(folder, workers=4)
    assert msgspec.structs.asdict(together) == msgspec.structs.asdict(alone)
    assert [(each.kind, each.sequence) for each in alone.problems] == [
        ("digest", 30),
        ("record", 3),
        ("record", 17),
        ("body", 21),
        ("record", 30),
        ("record", 39),
    ]
