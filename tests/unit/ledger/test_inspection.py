"""A record is inspected in a quick way and, where that does not say yes, whole; by one process or by several."""

from __future__ import annotations

from pathlib import Path
from types import UnionType
from typing import Any, get_args

import apsw
import msgspec
import pytest
from msgspec import Raw, Struct, UnsetType

from counterfoil.folder import DataFolder
from counterfoil.ledger import books, crew
from counterfoil.ledger.rows import GENERATION_COLUMNS
from counterfoil.pricing.book import PriceBook
from counterfoil.record.record import Attempt, CaptureInfo, Record
from counterfoil.record.scan import ScannedAttempt, ScannedRecord
from emulators.control import write
from emulators.ledgers import priced, verified

COLUMNS = [name.strip() for name in GENERATION_COLUMNS.split(",")][4:-1]
OTHER = {int: 7, str: "other", bytes: b"0123456789abcdef", type(None): 3}


@pytest.fixture
def folder(tmp_path: Path, book: PriceBook) -> DataFolder:
    """Give a ledger of forty priced calls, the quick way's kind."""
    made = DataFolder.create(tmp_path / "data")
    books.store(made.books, book)
    write(made, [priced(book, number, request=b'{"n":1}' if number % 2 else None) for number in range(1, 41)])
    return made


def kinds(annotation: Any) -> set[Any]:
    """What a field may hold, but for not being there: what is scanned is written with what was read, and no more."""
    either = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return set(either) - {UnsetType}


@pytest.mark.parametrize(("scanned", "whole"), [(ScannedRecord, Record), (ScannedAttempt, Attempt)])
def test_it_reads_every_field_of_a_record(scanned: type[Struct], whole: type[Struct]) -> None:
    """Under the same names, in the same order and with the same types, but for the parts that stay as they are.

    What differed would not be wrong but slow: it would not be written as it was read, and every record be read whole.
    """
    fields = {field.name: field for field in msgspec.structs.fields(scanned) if field.name != "capture"}
    assert list(fields) == list(whole.__struct_fields__)
    for field in msgspec.structs.fields(whole):
        if fields[field.name].type not in (Raw, tuple[ScannedAttempt, ...]):
            assert kinds(fields[field.name].type) == kinds(field.type), field.name
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
