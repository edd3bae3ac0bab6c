"""Bodies go when they must, nothing else does, and nobody can pretend that they went."""

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
from multiprocessing.synchronize import Event
from pathlib import Path

import apsw
import msgspec
import pytest

from counterfoil.capture.body import Capture
from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import retention
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.retention import Eraser
from counterfoil.ledger.signing import Signer
from counterfoil.record.record import CaptureState
from emulators.control import START_MS, request_id, settlement
from emulators.ledgers import NOW_MS, opened, settle_all, verified
from emulators.waiting import PATIENCE_S

DAY_MS = 86_400_000
CHECKPOINT_LOCK = 121
"""The byte of SQLite's shared memory that whoever copies the log holds."""
CANARY = b"canary-9015-noise:" + bytes(range(256)) * 4


def _fill(folder: DataFolder, numbers: range, days: int) -> None:
    async def fill() -> None:
        async with opened(folder, retention_days=days) as ledger:
            await settle_all(ledger, [settlement(number) for number in numbers])

    asyncio.run(fill())


def _eraser(folder: DataFolder, now_ms: int) -> Eraser:
    signer = Signer(folder.secret("signing"), lambda: now_ms)
    return Eraser(folder.ledger_db, signer, lambda: now_ms, folder.secret("kek"))


def _states(folder: DataFolder) -> list[CaptureState]:
    reader = LedgerReader(folder)
    try:
        return [stored.capture_state for stored in reader.all()]
    finally:
        reader.close()


def test_the_sweep_takes_what_has_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired bodies go, in small transactions; younger ones, and those kept longer, stay. All records stay valid."""
    monkeypatch.setattr(retention, "SWEEP_ROWS", 4)
    folder = DataFolder.create(tmp_path / "data")
    _fill(folder, range(1, 11), 30)
    _fill(folder, range(11, 21), 7)
    _fill(folder, range(21, 31), 90)
    after = START_MS + 31 * DAY_MS
    assert _eraser(folder, START_MS + 6 * DAY_MS).sweep() == 0
    assert _eraser(folder, START_MS + 8 * DAY_MS).sweep() == 10
    assert _eraser(folder, after).sweep() == 10
    assert _eraser(folder, after).sweep() == 0
    assert _states(folder) == [CaptureState.EXPIRED] * 20 + [CaptureState.STORED] * 10
    report = verified(folder, now_ms=after)
    assert (report.records, report.bodies, report.problems) == (30, 10, [])


def test_expiry_is_to_the_millisecond(tmp_path: Path) -> None:
    """A body is swept not a moment before its time."""
    folder = DataFolder.create(tmp_path / "data")
    _fill(folder, range(5, 6), 1)
    due = START_MS + 5000 + DAY_MS
    assert [_eraser(folder, now).sweep() for now in (due - 1, due)] == [0, 1]


def test_bodies_missing_before_their_time_show(tmp_path: Path) -> None:
    """A sweep under a clock that is wrong, or a deletion by hand, is found by the verification."""
    folder = DataFolder.create(tmp_path / "data")
    _fill(folder, range(1, 4), 30)
    _eraser(folder, START_MS + 400 * DAY_MS).sweep()
    assert {problem.message for problem in verified(folder).problems} == {"its bodies are missing before their time"}


def test_space_is_used_again(tmp_path: Path) -> None:
    """What a sweep frees is filled again before the file grows."""
    folder = DataFolder.create(tmp_path / "data")
    _fill(folder, range(1, 400), 1)
    size = folder.ledger_db.stat().st_size
    for start in range(400, 2000, 400):
        _eraser(folder, START_MS + 1_000_000_000).sweep()
        _fill(folder, range(start, start + 400), 1)
    bodies_a_time = 400 * 250
    assert folder.ledger_db.stat().st_size < size * 5 - bodies_a_time * 3


def test_erasing_one(tmp_path: Path) -> None:
    """An erased record keeps its place and its bytes, says that it was erased, and has no bodies anywhere any more."""
    folder = DataFolder.create(tmp_path / "data")

    async def erase() -> None:
        async with opened(folder) as ledger:
            noise = Capture(b"{}", "application/json", None, CANARY, "application/octet-stream", 200)
            await ledger.settle(msgspec.structs.replace(settlement(1), capture=noise))
            await settle_all(ledger, [settlement(2), settlement(3, request=None)])
            sealed = apsw.Connection(str(folder.ledger_db)).execute("SELECT sealed FROM bodies WHERE seq = 1").get
            assert ledger.erase("acme", request_id(1))
            assert not ledger.erase("acme", request_id(1)), "again"
            assert not ledger.erase("other", request_id(2)), "another team's"
            assert not ledger.erase("acme", request_id(3)), "without bodies"
            assert not ledger.erase("acme", request_id(99)), "unknown"
            assert not ledger.erase("acme", "chatcmpl-1"), "not an id of ours"
            await ledger.settle(settlement(4))
        for path in folder.root.glob("ledger.db*"):
            assert sealed[40:300] not in path.read_bytes()

    asyncio.run(erase())
    assert _states(folder) == [
        CaptureState.ERASED,
        CaptureState.STORED,
        CaptureState.NOT_CAPTURED,
        CaptureState.STORED,
    ]
    report = verified(folder)
    assert (report.records, report.bodies, report.problems) == (4, 2, [])
    assert verified(folder, now_ms=NOW_MS + 400 * DAY_MS).holds


def hold_checkpoint_lock(path: Path, held: Event, end: Event) -> None:
    """What another worker does: copy the log back, until told."""
    with path.open("r+b") as shared:
        fcntl.lockf(shared, fcntl.LOCK_EX, 1, CHECKPOINT_LOCK)
        held.set()
        end.wait(PATIENCE_S)


def test_erasing_while_somebody_copies_the_log(tmp_path: Path) -> None:
    """What was erased is said to be erased, whoever is at work on the log."""
    folder = DataFolder.create(tmp_path / "data")
    context = multiprocessing.get_context("spawn")
    held, end = context.Event(), context.Event()
    other = context.Process(target=hold_checkpoint_lock, args=(Path(f"{folder.ledger_db}-shm"), held, end))

    async def erase() -> None:
        async with opened(folder) as ledger:
            await ledger.settle(settlement(1))
            other.start()
            try:
                assert held.wait(PATIENCE_S)
                assert ledger.erase("acme", request_id(1))
            finally:
                end.set()
                other.join()
                other.close()

    asyncio.run(erase())
    assert _states(folder) == [CaptureState.ERASED]


def test_erasing_what_cannot_be_read(tmp_path: Path) -> None:
    """A ledger that cannot be used is said to be unavailable; the caller may ask again."""
    folder = DataFolder.create(tmp_path / "data")

    async def erase() -> None:
        async with opened(folder) as ledger:
            await ledger.settle(settlement(1))
            apsw.Connection(str(folder.ledger_db)).execute("DROP TABLE bodies")
            with pytest.raises(GatewayFault):
                ledger.erase("acme", request_id(1))

    asyncio.run(erase())


def test_an_erasure_cannot_be_made_up(tmp_path: Path) -> None:
    """Deleting a body and noting an erasure without the folder's key is found."""
    folder = DataFolder.create(tmp_path / "data")
    _fill(folder, range(1, 3), 30)
    connection = apsw.Connection(str(folder.ledger_db))
    forged = Signer(b"x" * 32, lambda: 0).erasure(bytes(16), NOW_MS, "requested")
    connection.execute("DELETE FROM bodies WHERE seq = 1")
    connection.execute("INSERT INTO erasures VALUES (1, ?, 'requested', ?)", (NOW_MS, forged))
    connection.close()
    messages = [problem.message for problem in verified(folder).problems]
    assert "its erasure is not signed by this folder" in messages
