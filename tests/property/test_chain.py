"""Whatever is done to a ledger behind the gateway's back, the verification finds it.

Each example takes a good ledger (two writers, bodies, an erasure, checkpoints here and in a second place, some records
behind the derived tables), does it some harm, and asks two questions: does the verification object, and if it does not,
does the ledger still say exactly what it said? ``COUNTERFOIL_TEST_TAMPERINGS`` sets how many examples are tried.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from counterfoil.folder import DataFolder
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.witness import FolderPlace
from emulators.control import request_id, settlement
from emulators.ledgers import opened, settle_all, verified

EXAMPLES = int(os.environ.get("COUNTERFOIL_TEST_TAMPERINGS", "60"))
TAMPERINGS = int(os.environ.get("COUNTERFOIL_TEST_TAMPERINGS", "10000"))

TABLES = ("generations", "bodies", "erasures", "data_keys", "checkpoints", "indexed", "by_team", "by_time", "by_value")

_many = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Good:
    """A good ledger, what it says, older copies of it, and where its checkpoints are kept a second time."""

    def __init__(self, folder: DataFolder, older: list[bytes], witness: Path) -> None:
        self.folder = folder
        self.older = older
        self.witness = witness
        self.said = _say(folder.ledger_db)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    """Give a ledger that verifies."""
    root = tmp_path_factory.mktemp("good")
    folder = DataFolder.create(root / "data")
    witness = root / "second"
    witness.mkdir()

    async def fill() -> list[bytes]:
        async with (
            opened(folder, seconds=[FolderPlace(witness)]) as first,
            opened(folder, seconds=[FolderPlace(witness)]) as two,
        ):
            for n in range(1, 31):
                await (two if n % 3 == 0 else first).settle(
                    settlement(n, team=f"team-{n % 2}", request=None if n % 4 else b'{"n":%d}' % n, end_user=f"u{n}")
                )
            first.erase("team-0", request_id(4))
        older = [folder.ledger_db.read_bytes()]
        for start in (31, 36, 41):
            async with opened(folder, seconds=[FolderPlace(witness)]) as first:
                await settle_all(first, [settlement(n, session_id="s") for n in range(start, start + 5)])
            older.append(folder.ledger_db.read_bytes())
        return older[:-1]

    older = asyncio.run(fill())
    connection = apsw.Connection(str(folder.ledger_db))  # the last five as the hot path leaves them, not yet indexed
    for table in ("by_team", "by_time", "by_value", "by_expiry"):
        connection.execute(f"DELETE FROM {table} WHERE seq > 40")
    connection.execute("UPDATE indexed SET seq = 40")
    connection.execute("UPDATE writers SET seq = 40 WHERE writer = 0")
    connection.close()
    assert verified(folder, witness=witness).problems == []
    return Good(folder, older, witness)


@pytest.fixture
def folder(good: Good, tmp_path: Path) -> DataFolder:
    """Give a copy to be harmed; :func:`_fresh` makes it good again before each example."""
    shutil.copytree(good.folder.root, tmp_path / "data")
    return DataFolder(tmp_path / "data")


def _fresh(good: Good, folder: DataFolder) -> None:
    for path in folder.root.glob("ledger.db*"):
        path.unlink()
    shutil.copyfile(good.folder.ledger_db, folder.ledger_db)


def _say(path: Path) -> dict[str, str]:
    """A digest of everything each table says; a record counts by its canonical bytes."""
    connection = apsw.Connection(str(path))
    try:
        unpack = Unpacker().unpack
        said: dict[str, str] = {}
        for table in (*TABLES, "by_expiry", "writers"):
            rows = list(connection.execute(f"SELECT * FROM {table}"))
            if table == "generations":
                rows = [(*row[:-1], unpack(row[-1])) for row in rows]
            elif table == "checkpoints":
                rows = sorted(row[1:] for row in rows)  # their numbers only order them, each writer's by themselves
            said[table] = sha256(repr(rows).encode()).hexdigest()
        return said
    finally:
        connection.close()


def _found(good: Good, folder: DataFolder) -> bool:
    """Whether the verification objects. A database that cannot even be opened has been found out too."""
    try:
        return not verified(folder, witness=good.witness).holds
    except apsw.Error:
        return True


def _assert_found(good: Good, folder: DataFolder, what: str) -> None:
    if not _found(good, folder):
        said = _say(folder.ledger_db)
        changed = [table for table in said if said[table] != good.said[table]]
        assert not changed, f"not found: {what}"


def _sql(folder: DataFolder) -> apsw.Connection:
    return apsw.Connection(str(folder.ledger_db))


def _changed(value: Any, random: Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bytes):
        at = random.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << random.randrange(8)]) + value[at + 1 :]
    if isinstance(value, str):
        return random.choice([value + "x", value[:-1], "", value.swapcase() + "1"])
    if isinstance(value, int):
        return random.choice([value + 1, value - 1, value ^ 1 << random.randrange(20), -value - 1])
    return random.choice([1, "x"])


@_many
@given(seed=st.integers(0, 2**64))
def test_any_edit(good: Good, folder: DataFolder, seed: int) -> None:
    """One value changed in any column of any row of any table is found."""
    _fresh(good, folder)
    random = Random(seed)
    connection = _sql(folder)
    table = random.choice(TABLES + ("generations",) * 6 + ("bodies", "checkpoints") * 2)
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    rows = list(connection.execute(f"SELECT * FROM {table}"))
    row, at = random.choice(rows), random.randrange(len(columns))
    keys = " AND ".join(f"{name} IS ?" for name in columns)
    try:
        connection.execute(f"UPDATE {table} SET {columns[at]} = ? WHERE {keys}", (_changed(row[at], random), *row))
    except (apsw.ConstraintError, apsw.MismatchError):
        return  # the database itself does not take it
    finally:
        connection.close()
    _assert_found(good, folder, f"{table}.{columns[at]}")


@_many
@given(seed=st.integers(0, 2**64))
def test_any_deletion(good: Good, folder: DataFolder, seed: int) -> None:
    """One row deleted from any table is found."""
    _fresh(good, folder)
    random = Random(seed)
    connection = _sql(folder)
    table = random.choice((*TABLES, "writers"))
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    row = random.choice(list(connection.execute(f"SELECT * FROM {table}")))
    connection.execute(f"DELETE FROM {table} WHERE " + " AND ".join(f"{name} IS ?" for name in columns), row)
    connection.close()
    _assert_found(good, folder, table)


@_many
@given(seed=st.integers(0, 2**64))
def test_any_deletion_everywhere(good: Good, folder: DataFolder, seed: int) -> None:
    """One record deleted with everything that belongs to it is found, also when its followers are renumbered."""
    _fresh(good, folder)
    random = Random(seed)
    connection = _sql(folder)
    seq = random.randrange(1, 46)
    writer, sequence = connection.execute("SELECT writer, sequence FROM generations WHERE seq = ?", (seq,)).get
    for table in ("generations", "bodies", "erasures", "by_team", "by_time", "by_value", "by_expiry"):
        connection.execute(f"DELETE FROM {table} WHERE seq = ?", (seq,))
    if random.random() < 0.5:
        connection.execute(
            "UPDATE generations SET sequence = sequence - 1 WHERE writer = ? AND sequence > ?", (writer, sequence)
        )
    connection.close()
    assert _found(good, folder)


@_many
@given(seed=st.integers(0, 2**64))
def test_any_reordering(good: Good, folder: DataFolder, seed: int) -> None:
    """Two records of one writer that changed places are found, with their place in the chain or without."""
    _fresh(good, folder)
    random = Random(seed)
    connection = _sql(folder)
    writer = random.randrange(2)
    seqs = [row[0] for row in connection.execute("SELECT seq FROM generations WHERE writer = ?", (writer,))]
    one, other = random.sample(seqs, 2)
    if random.random() < 0.5:
        for table in ("generations", "bodies", "erasures", "by_team", "by_time", "by_value", "by_expiry"):
            for old, new in ((one, -1), (other, one), (-1, other)):
                connection.execute(f"UPDATE {table} SET seq = ? WHERE seq = ?", (new, old))
    else:
        columns = ["sequence", "digest", "record"] if random.random() < 0.5 else ["record"]
        swapped = [
            connection.execute(f"SELECT {', '.join(columns)} FROM generations WHERE seq = ?", (s,)).get
            for s in (one, other)
        ]
        for seq, values in zip((other, one), swapped, strict=True):
            bound = values if isinstance(values, tuple) else (values,)
            connection.execute(
                f"UPDATE generations SET {', '.join(c + ' = ?' for c in columns)} WHERE seq = ?", (*bound, seq)
            )
    connection.close()
    _assert_found(good, folder, f"{one} and {other}")


@pytest.mark.parametrize("cut", range(1, 46))
def test_any_truncation(good: Good, folder: DataFolder, cut: int) -> None:
    """A ledger whose newest records were cut off, with all that points at them, is found by its checkpoints."""
    _fresh(good, folder)
    connection = _sql(folder)
    for table in ("generations", "bodies", "erasures", "by_team", "by_time", "by_value", "by_expiry"):
        connection.execute(f"DELETE FROM {table} WHERE seq > ?", (45 - cut,))
    connection.execute("UPDATE indexed SET seq = ?", (45 - cut,))
    connection.execute("DELETE FROM writers")
    connection.execute("INSERT INTO writers SELECT writer, max(seq) FROM generations GROUP BY writer")
    connection.close()
    assert _found(good, folder)
    connection = _sql(folder)  # and the checkpoints that speak of them
    connection.execute("DELETE FROM checkpoints WHERE last_seq > ?", (45 - cut,))
    connection.close()
    report = verified(folder, witness=good.witness)
    assert {"truncated", "witness"} & {problem.kind for problem in report.problems}


def test_a_roll_back(good: Good, folder: DataFolder) -> None:
    """An older copy of the whole ledger is perfect in itself; the second place remembers more."""
    for older in good.older:
        folder.ledger_db.write_bytes(older)
        assert verified(folder).holds
        report = verified(folder, witness=good.witness)
        assert "truncated" in {problem.kind for problem in report.problems}


def test_another_ledger(good: Good, folder: DataFolder, tmp_path: Path) -> None:
    """A ledger made anew, with other keys, does not pass for this one."""
    other = DataFolder.create(tmp_path / "other")

    async def fill() -> None:
        async with opened(other) as ledger:
            await settle_all(ledger, [settlement(n, team=f"team-{n % 2}") for n in range(1, 46)])

    asyncio.run(fill())
    shutil.copyfile(other.ledger_db, folder.ledger_db)
    kinds = {problem.kind for problem in verified(folder, witness=good.witness).problems}
    assert {"checkpoint", "witness", "key"} <= kinds


def test_the_first_bad_record_is_named(folder: DataFolder) -> None:
    """The report begins with the first record that is not what it was."""
    connection = _sql(folder)
    for seq in (20, 11, 35):
        connection.execute(
            "UPDATE generations SET record = (SELECT record FROM generations WHERE seq = 1) WHERE seq = ?", (seq,)
        )
    connection.close()
    first = verified(folder).problems[0]
    assert (first.kind, first.writer, first.sequence) == ("digest", "w0", 8)


@_many
@given(seed=st.integers(0, 2**64), count=st.sampled_from([1, 1, 1, 2, 50]))
def test_any_flipped_bit(good: Good, folder: DataFolder, seed: int, count: int) -> None:
    """Bits flipped anywhere in the database file are found, or changed nothing that the ledger says."""
    _fresh(good, folder)
    random = Random(seed)
    data = bytearray(folder.ledger_db.read_bytes())
    for _ in range(count):
        at = random.randrange(len(data) * 8)
        data[at // 8] ^= 1 << at % 8
    folder.ledger_db.write_bytes(data)
    _assert_found(good, folder, "a bit")


@_many
@given(seed=st.integers(0, 2**64))
def test_any_torn_file(good: Good, folder: DataFolder, seed: int) -> None:
    """A file cut short, with a page of zeros or with two pages exchanged, is found or says what it said."""
    _fresh(good, folder)
    random = Random(seed)
    data = bytearray(folder.ledger_db.read_bytes())
    pages = len(data) // 4096
    one, other = random.randrange(pages), random.randrange(pages)
    harm: list[Callable[[], None]] = [
        lambda: data.__delitem__(slice(random.randrange(1, len(data)), None)),
        lambda: data.__setitem__(slice(one * 4096, one * 4096 + 4096), bytes(4096)),
        lambda: data.__setitem__(slice(one * 4096, one * 4096 + 4096), data[other * 4096 : other * 4096 + 4096]),
    ]
    random.choice(harm)()
    folder.ledger_db.write_bytes(data)
    _assert_found(good, folder, "a page")


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_ten_thousand_tamperings(good: Good, folder: DataFolder) -> None:
    """Edits, deletions, reorderings, truncations, roll-backs, flipped bits and torn files, at random: all are found."""
    seed = Random().randrange(1 << 32)
    print(f"seed {seed}")
    random = Random(seed)
    kinds = {
        "edit": lambda: test_any_edit.hypothesis.inner_test(good, folder, random.randrange(1 << 64)),
        "deletion": lambda: test_any_deletion.hypothesis.inner_test(good, folder, random.randrange(1 << 64)),
        "removal": lambda: test_any_deletion_everywhere.hypothesis.inner_test(good, folder, random.randrange(1 << 64)),
        "reordering": lambda: test_any_reordering.hypothesis.inner_test(good, folder, random.randrange(1 << 64)),
        "truncation": lambda: test_any_truncation(good, folder, random.randrange(1, 46)),
        "roll-back": lambda: _assert_rolled_back(good, folder, random),
        "bits": lambda: test_any_flipped_bit.hypothesis.inner_test(good, folder, random.randrange(1 << 64), 1),
        "file": lambda: test_any_torn_file.hypothesis.inner_test(good, folder, random.randrange(1 << 64)),
    }
    counts: Counter[str] = Counter()
    while counts.total() < TAMPERINGS:
        kind = random.choice(list(kinds))
        kinds[kind]()
        counts[kind] += 1
    print(f"{counts.total()} tamperings, all found: {dict(counts)}")


def _assert_rolled_back(good: Good, folder: DataFolder, random: Random) -> None:
    """An older state of the whole ledger, which holds in itself: the second place knows."""
    _fresh(good, folder)
    folder.ledger_db.write_bytes(random.choice(good.older))
    assert "truncated" in {problem.kind for problem in verified(folder, witness=good.witness).problems}
