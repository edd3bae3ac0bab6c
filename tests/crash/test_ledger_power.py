"""Power loss, modelled: after it a file holds what was synced, and any part of what was not.

Every write and sync that SQLite makes is noted. A crash is a moment in that sequence: of each file everything before
its last sync is there, and of the writes since then each sector of 512 bytes is there or is not, as chance has it: that
is every order in which a disk may write them. Of the journal, which is mapped and never synced, each page is as it was
at some moment before. From such a state the ledger must come back with every record that had been acknowledged by
then, in a chain that verifies; also when the power goes again while it comes back. ``COUNTERFOIL_TEST_POWER_LOSSES``
says how many states are tried.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import shutil
from pathlib import Path

import msgspec
import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger.intents import SLOT_BYTES, SLOTS, count_open
from emulators.control import request_id, settlement
from emulators.faulty_disk import Disk, Event
from emulators.ledgers import all_ids, intent, opened, verified

LOSSES = int(os.environ.get("COUNTERFOIL_TEST_POWER_LOSSES", "40"))
LOSSES_MANY = int(os.environ.get("COUNTERFOIL_TEST_POWER_LOSSES", "1000"))
RECORDS = 400
SECTOR = 512
PAGE = 4096
JOURNAL_USED = 64 * SLOT_BYTES
"""More of the journal than a handful of calls in flight ever touches."""
KEPT = (0.0, 0.05, 0.5, 0.95, 1.0)
NAMES = ("ledger.db", "ledger.db-wal")
_disks = (f"power-{number}" for number in itertools.count())


class Tape:
    """What happened to the files of a ledger until it was closed: the base of each, every write, and the journal."""

    def __init__(self, folder: DataFolder) -> None:
        self.disk = Disk(next(_disks))
        self.base = {name: _bytes(folder.root / name) for name in NAMES}
        self.journals = [(0, _journal(folder))]
        self.folder = folder

    def note_journal(self) -> None:
        """The journal as it is now."""
        self.journals.append((len(self.disk.events), _journal(self.folder)))

    def lose(self, into: DataFolder, moment: int, chance: random.Random) -> None:
        """Make of ``into`` what a loss of power at ``moment`` may leave."""
        kept = chance.choice(KEPT)
        for name in NAMES:
            events = [event for event in self.disk.events[:moment] if Path(event.path).name == name]
            (into.root / name).write_bytes(_image(self.base[name], events, chance, kept))
        (into.root / "ledger.db-shm").unlink(missing_ok=True)
        past = [journal for at, journal in self.journals if at <= moment]
        pages = [chance.choice(past)[at : at + PAGE] for at in range(0, JOURNAL_USED, PAGE)]
        journal = b"".join(pages) + bytes(SLOTS * SLOT_BYTES - JOURNAL_USED)
        (into.journal / "writer-000.intents").write_bytes(journal)


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def _journal(folder: DataFolder) -> bytes:
    with (folder.journal / "writer-000.intents").open("rb") as file:
        return file.read(JOURNAL_USED)


def _image(base: bytes, events: list[Event], chance: random.Random, kept: float) -> bytes:
    """A legal content of one file after the power went: ``kept`` of the unsynced sectors made it."""
    synced = max((index for index, event in enumerate(events) if event.kind == "sync"), default=-1)
    image = bytearray(base)

    def put(offset: int, data: bytes) -> None:
        if len(image) < offset + len(data):
            image.extend(bytes(offset + len(data) - len(image)))
        image[offset : offset + len(data)] = data

    for index, event in enumerate(events):
        if event.kind == "truncate" and (index < synced or chance.random() < kept):
            del image[event.offset :]
        elif event.kind == "write" and index < synced:
            put(event.offset, event.data)
        elif event.kind == "write":
            for at in range(0, len(event.data), SECTOR):
                if chance.random() < kept:
                    put(event.offset + at, event.data[at : at + SECTOR])
    return bytes(image)


def _record(folder: DataFolder) -> tuple[Tape, list[tuple[int, int]]]:
    """Write to the ledger; give the tape, and when each record was acknowledged."""
    acknowledged: list[tuple[int, int]] = []

    async def run() -> Tape:
        async with opened(folder, durability="fsync") as ledger:
            await ledger.settle(settlement(1))
        tape = Tape(folder)
        async with opened(folder, vfs=tape.disk.name, durability="fsync") as ledger:
            numbers = iter(range(2, RECORDS))

            async def caller() -> None:
                for number in numbers:
                    team = f"team-{number // 100}"
                    slot = ledger.admit(intent(number, team_id=team))
                    tape.note_journal()
                    await ledger.settle(msgspec.structs.replace(settlement(number, team=team), slot=slot))
                    acknowledged.append((len(tape.disk.events), number))

            await asyncio.gather(*[caller() for _ in range(8)])
        return tape

    return asyncio.run(run()), acknowledged


def lose_power(root: Path, losses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the power ``losses`` times, every other time twice, and check what came back."""
    monkeypatch.setattr("counterfoil.ledger.keeper.LOG_PAGES", 60)  # often, so that losses fall into checkpoints too
    monkeypatch.setattr("counterfoil.ledger.writer.INDEX_ROWS", 40)
    monkeypatch.setattr("counterfoil.ledger.writer.RECORDS_MAX", 50)
    folder = DataFolder.create(root / "data")
    tape, acknowledged = _record(folder)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {len(tape.disk.events)} operations, {losses} losses")
    chance = random.Random(seed)
    for number in range(losses):
        moment = chance.randrange(len(tape.disk.events) + 1)
        lost = DataFolder(root / f"lost-{number}")
        shutil.copytree(folder.root, lost.root, ignore=shutil.ignore_patterns("ledger.db*", "*.tally"))
        tape.lose(lost, moment, chance)
        if number % 2:
            _lose_again(lost, chance)
        _check(lost, {request_id(number) for at, number in acknowledged if at <= moment} | {request_id(1)})
        shutil.rmtree(lost.root)
    tape.disk.unregister()


def _lose_again(lost: DataFolder, chance: random.Random) -> None:
    """The power goes once more, while the ledger comes back from the first loss."""
    tape = Tape(lost)
    _come_back(lost, vfs=tape.disk.name)
    tape.note_journal()
    tape.lose(lost, chance.randrange(len(tape.disk.events) + 1), chance)
    tape.disk.unregister()


def _come_back(lost: DataFolder, **options: str) -> None:
    async def recover() -> None:
        async with opened(lost, durability="fsync", **options):
            pass

    asyncio.run(recover())


def _check(lost: DataFolder, acknowledged: set[str]) -> None:
    _come_back(lost)
    found = all_ids(lost)
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    assert set(found) <= {request_id(number) for number in range(1, RECORDS)}
    assert count_open(lost.journal) == 0
    assert verified(lost).problems == []


@pytest.mark.timeout(300 + LOSSES)
def test_power_loss_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk kept of what was not synced, nothing acknowledged is lost and nothing is invented."""
    lose_power(tmp_path, LOSSES, monkeypatch)


@pytest.mark.faults
@pytest.mark.timeout(300 + 10 * LOSSES_MANY)
def test_power_loss_at_any_moment_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The long form."""
    lose_power(tmp_path, LOSSES_MANY, monkeypatch)
