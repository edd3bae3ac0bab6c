"""A disk that fails: nothing is acknowledged that is not kept, nothing is lost that can still be written.

Faults are injected under SQLite, at each write and each sync of the ledger's files.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.intents import count_open
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from emulators.control import request_id, settlement
from emulators.faulty_disk import Disk, Event, failure
from emulators.ledgers import all_ids, intent, opened, verified
from emulators.waiting import PATIENCE_S, until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

_names = (f"disk-{number}" for number in itertools.count())


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give an empty data folder."""
    return DataFolder.create(tmp_path / "data")


@pytest.fixture
def disk() -> Iterator[Disk]:
    """Give a disk that fails on command."""
    made = Disk(next(_names))
    yield made
    made.unregister()


async def _settle(ledger: Ledger, number: int, **fields: Any) -> None:
    slot = ledger.admit(intent(number))
    await ledger.settle(msgspec.structs.replace(settlement(number, **fields), slot=slot))


async def _healthy(ledger: Ledger) -> None:
    await until(lambda: ledger.healthy)  # it heals on the writer's schedule


def _once(disk: Disk, kind: str, nth: int, suffix: str = "") -> list[Event]:
    """Fail the ``nth`` operation of ``kind`` on files that end in ``suffix``, once; give what failed."""
    counter = itertools.count(1)
    failed: list[Event] = []
    real = "write" if kind == "full" else kind

    def judge(event: Event) -> None:
        if event.kind == real and event.path.endswith(suffix) and next(counter) == nth:
            failed.append(event)
            raise failure(kind)

    disk.judge = judge
    return failed


@pytest.mark.parametrize("kind", ["sync", "write", "full"])
@pytest.mark.parametrize("nth", range(1, 9))
async def test_one_failure_anywhere(folder: DataFolder, disk: Disk, kind: str, nth: int) -> None:
    """One failed write or sync costs time, not records: every call is acknowledged in the end, once, in one chain."""
    async with opened(folder, vfs=disk.name, durability="fsync") as ledger:
        await _settle(ledger, 1)
        failed = _once(disk, kind, nth)
        for number in range(2, 12):
            await _healthy(ledger)
            await _settle(ledger, number)
        assert failed
        await _healthy(ledger)
    assert all_ids(folder) == [request_id(number) for number in range(1, 12)]
    assert verified(folder).holds
    assert count_open(folder.journal) == 0


async def test_a_failed_sync_is_not_believed(folder: DataFolder, disk: Disk) -> None:
    """After a failed sync all that it was responsible for is written again before a sync is believed."""
    async with opened(folder, vfs=disk.name, durability="fsync") as ledger:
        await _settle(ledger, 1)
        disk.events.clear()
        at: list[int] = []

        def judge(event: Event) -> None:
            if event.kind == "sync" and event.path.endswith("-wal") and not at:
                at.append(len(disk.events))
                raise failure("sync")

        disk.judge = judge
        await _settle(ledger, 2)
        events = [(e.kind, e.path.rpartition("-")[2] == "wal", len(e.data)) for e in disk.events]
    before, after = events[: at[0]], events[at[0] :]
    assert _bytes_in_log(before)
    assert _bytes_in_log(after) >= _bytes_in_log(before)
    assert [kind for kind, in_log, _ in after if in_log][-1] == "sync"
    assert ("sync", False, 0) in after  # the database file, which older commits rest on from then on


def _bytes_in_log(events: list[tuple[str, bool, int]]) -> int:
    return sum(size for kind, in_log, size in events if kind == "write" and in_log)


@pytest.mark.parametrize("kind", ["sync", "write"])
async def test_while_it_fails_nobody_is_told_otherwise(
    folder: DataFolder, disk: Disk, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the disk fails no call is admitted and none acknowledged; when it is back the waiting are, as they were."""
    monkeypatch.setattr("counterfoil.ledger.writer.SYNC_FAILURES_MAX", 10_000)
    async with opened(folder, vfs=disk.name, durability="fsync", patience_s=60) as ledger:
        await _settle(ledger, 1)
        _always(disk, kind)
        slot = ledger.admit(intent(2))
        waiting = ledger.settle(msgspec.structs.replace(settlement(2), slot=slot))
        await until(lambda: not ledger.healthy)
        assert not waiting.done()
        with pytest.raises(GatewayFault) as caught:
            ledger.admit(intent(3))
        assert caught.value.code == "gateway:ledger_unavailable"
        reader = LedgerReader(folder)
        assert [reader.find("acme", request_id(n)) is not None for n in (1, 2)] == [True, False]
        disk.judge = lambda _: None
        await asyncio.wait_for(waiting, PATIENCE_S)
        await _healthy(ledger)
        found = reader.find("acme", request_id(2))
        assert found is not None
        assert msgspec.json.decode(found.data)["status_code"] == 200
        reader.close()
    assert verified(folder).holds


def _always(disk: Disk, kind: str) -> None:
    def judge(event: Event) -> None:
        if event.kind == kind:
            raise failure(kind)

    disk.judge = judge


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_after_patience_the_caller_is_told(
    folder: DataFolder, disk: Disk, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that waited too long is told, and its record, written when the disk is back, says what its client got."""
    monkeypatch.setattr("counterfoil.ledger.writer.SYNC_FAILURES_MAX", 10_000)
    async with opened(folder, vfs=disk.name, durability="fsync", patience_s=0.3) as ledger:
        await _settle(ledger, 1)
        slots = [ledger.admit(intent(number)) for number in (2, 3)]
        _always(disk, "write")
        waiting = [
            ledger.settle(msgspec.structs.replace(settlement(n, stream=stream), slot=slot))
            for n, slot in zip((2, 3), slots, strict=True)
        ]
        told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE_S)
        assert [getattr(each, "code", None) for each in told] == ["gateway:ledger_unavailable"] * 2
        disk.judge = lambda _: None
        await _healthy(ledger)
        assert count_open(folder.journal) == 0
    reader = LedgerReader(folder)
    records = [msgspec.json.decode(stored.data) for stored in reader.all()][1:]
    reader.close()
    assert [(each["status_code"], each["error_code"]) for each in records] == [
        (200 if stream else 503, "gateway:ledger_unavailable")
    ] * 2
    assert verified(folder).holds


async def test_a_refused_call_is_told_and_dropped(
    folder: DataFolder, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records of calls that reached no provider do not pile up while the disk fails: memory is bounded by the slots."""
    monkeypatch.setattr("counterfoil.ledger.writer.SYNC_FAILURES_MAX", 10_000)
    async with opened(folder, vfs=disk.name, durability="fsync", patience_s=0.2) as ledger:
        await _settle(ledger, 1)
        _always(disk, "write")
        for number in range(2, 20):
            with pytest.raises(GatewayFault):
                await asyncio.wait_for(ledger.settle(settlement(number)), PATIENCE_S)
        assert ledger.depth <= 1
        disk.judge = lambda _: None
        await _healthy(ledger)
    assert all_ids(folder) == [request_id(1)]


async def test_a_disk_that_never_syncs_poisons(folder: DataFolder, disk: Disk) -> None:
    """Sync after sync fails: no more calls are taken, the writer ends, and the next start settles what is open."""
    ledger = Ledger.open(folder, vfs=disk.name, durability="fsync", loop=asyncio.get_running_loop(), retention_days=30)
    await _settle(ledger, 1)
    slots = [ledger.admit(intent(number)) for number in (2, 3)]
    _always(disk, "sync")
    waiting = [
        ledger.settle(msgspec.structs.replace(settlement(n), slot=slot)) for n, slot in zip((2, 3), slots, strict=True)
    ]
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE_S)
    assert [getattr(each, "code", None) for each in told] == ["gateway:ledger_unavailable"] * 2
    assert not ledger.healthy
    assert ledger.poisoned
    with pytest.raises(GatewayFault):
        await ledger.settle(settlement(4))
    await ledger.close()
    disk.judge = lambda _: None
    async with opened(folder):
        pass
    reader = LedgerReader(folder)
    codes = {stored.id: msgspec.json.decode(stored.data)["error_code"] for stored in reader.all()}
    reader.close()
    # A commit whose sync failed may be found whole after the restart, or not; either way its calls have one record.
    assert sorted(codes) == [request_id(number) for number in (1, 2, 3)]
    assert set(codes.values()) <= {None, "gateway:interrupted"}
    assert verified(folder).holds


async def test_a_failing_checkpoint_keeps_the_log(
    folder: DataFolder, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the database file cannot be written the log keeps everything, commits go on, and nothing is lost."""
    monkeypatch.setattr("counterfoil.ledger.keeper.LOG_PAGES", 20)
    async with opened(folder, vfs=disk.name, durability="fsync") as ledger:
        await _settle(ledger, 1)

        def judge(event: Event) -> None:
            if event.path.endswith("ledger.db"):
                raise failure(event.kind)

        disk.judge = judge
        for number in range(2, 60):
            await _healthy(ledger)
            await _settle(ledger, number)
        disk.judge = lambda _: None
        await _healthy(ledger)
    assert sorted(all_ids(folder)) == [request_id(number) for number in range(1, 60)]
    assert verified(folder).holds
