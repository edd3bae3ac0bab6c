"""A record is inspected on its own: its columns, price and bodies; by one process or by several."""

from __future__ import annotations

from pathlib import Path

import apsw
import msgspec
import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger import books, crew
from counterfoil.ledger.packing import Packer, Unpacker
from counterfoil.ledger.rows import GENERATION_COLUMNS
from counterfoil.pricing.book import PriceBook
from emulators.control import write
from emulators.ledgers import priced, verified

COLUMNS = [name.strip() for name in GENERATION_COLUMNS.split(",")][4:-1]
OTHER = {int: 7, str: "other", bytes: b"0123456789abcdef", type(None): 3}


@pytest.fixture
def folder(tmp_path: Path, book: PriceBook) -> DataFolder:
    """Give a ledger of forty priced calls."""
    made = DataFolder.create(tmp_path / "data")
    books.store(made.books, book)
    write(made, [priced(book, number, request=b'{"n":1}' if number % 2 else None) for number in range(1, 41)])
    return made


@pytest.mark.parametrize("workers", [1, 3])
def test_a_good_ledger_holds(folder: DataFolder, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """With as many bodies counted as there are."""
    monkeypatch.setattr("counterfoil.ledger.verify.PART_RECORDS_MIN", 10)
    monkeypatch.setattr(crew, "PART_RECORDS_MIN", 10)
    report = verified(folder, workers=workers)
    assert (report.problems, report.records, report.bodies) == ([], 40, 20)


@pytest.mark.parametrize("column", COLUMNS)
def test_any_other_value_in_any_column_is_found(folder: DataFolder, column: str) -> None:
    """The record is named, and the column."""
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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"}}", b'},"further":1}'),
        (b',"capture":{', b',"kept":{'),
        (b'"latency_ms":1.0', b'"latency_ms":"1.0"'),
        (b'"usage":{"prompt_tokens":', b'"usage":{"prompt_tokens":"1","prompt_tokens":'),
        (b"}}", b"}"),
    ],
)
def test_a_record_that_is_written_otherwise_is_found(folder: DataFolder, before: bytes, after: bytes) -> None:
    """Beside the break of the chain: it is no record of ours."""
    connection = apsw.Connection(str(folder.ledger_db))
    data = Unpacker().unpack(connection.execute("SELECT record FROM generations WHERE seq = 6").get)
    assert before in data
    packed = Packer().pack(after.join(data.rsplit(before, 1)))
    connection.execute("UPDATE generations SET record = ? WHERE seq = 6", (packed,))
    connection.close()
    assert [(each.kind, each.sequence) for each in verified(folder).problems] == [("digest", 6), ("record", 6)]
