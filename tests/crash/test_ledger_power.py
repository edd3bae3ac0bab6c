"""Power loss, modelled: after it a file holds what was synced, and any part of what was not.

Every write and sync that SQLite makes is noted. A crash is a moment in that sequence: of each file everything before
its last sync is there, and of the writes since then each sector of 512 bytes is there or is not, as chance has it.
From such a state the ledger must come back with every record that had been acknowledged by then, in a chain that
verifies. ``COUNTERFOIL_TEST_POWER_LOSSES`` sets how many states are tried.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from pathlib import Path

import pytest

from counterfoil.folder import DataFolder
from emulators.control import request_id, settlement
from emulators.faulty_disk import Disk, Event
from emulators.ledgers import all_ids, opened, verified

LOSSES = int(os.environ.get("COUNTERFOIL_TEST_POWER_LOSSES", "60"))
SECTOR = 512


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


@pytest.mark.timeout(60 + LOSSES)
def test_power_loss_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the disk kept of what was not synced, nothing acknowledged is lost and nothing is invented."""
    monkeypatch.setattr("counterfoil.ledger.keeper.LOG_PAGES", 60)  # often, so that losses fall into checkpoints too
    monkeypatch.setattr("counterfoil.ledger.writer.INDEX_ROWS", 40)
    monkeypatch.setattr("counterfoil.ledger.writer.RECORDS_MAX", 50)
    folder = DataFolder.create(tmp_path / "data")
    disk = Disk("power")
    acknowledged: list[tuple[int, int]] = []
    base: dict[str, bytes] = {}

    async def run() -> None:
        async with opened(folder, vfs=disk.name, durability="fsync") as ledger:
            await ledger.settle(settlement(1))
            disk.events.clear()
            base.update({path.name: path.read_bytes() for path in folder.root.glob("ledger.db*")})
            numbers = iter(range(2, 400))

            async def caller() -> None:
                for number in numbers:
                    await ledger.settle(settlement(number, team=f"team-{number // 100}"))
                    acknowledged.append((len(disk.events), number))

            await asyncio.gather(*[caller() for _ in range(8)])

    asyncio.run(run())
    disk.unregister()
    seed = random.randrange(1 << 32)
    print(f"seed {seed}, {len(disk.events)} operations")
    chance = random.Random(seed)
    for loss in range(LOSSES):
        moment = chance.randrange(len(disk.events) + 1)
        kept = chance.choice([0.0, 0.05, 0.5, 0.95, 1.0])
        lost = DataFolder(tmp_path / f"lost-{loss}")
        shutil.copytree(folder.root, lost.root, ignore=shutil.ignore_patterns("ledger.db*"))
        for name in ("ledger.db", "ledger.db-wal"):
            events = [event for event in disk.events[:moment] if Path(event.path).name == name]
            (lost.root / name).write_bytes(_image(base[name], events, chance, kept))
        _check(lost, {request_id(number) for at, number in acknowledged if at <= moment} | {request_id(1)})
        shutil.rmtree(lost.root)


def _check(lost: DataFolder, acknowledged: set[str]) -> None:
    async def recover() -> None:
        async with opened(lost):
            pass

    asyncio.run(recover())
    found = all_ids(lost)
    assert len(found) == len(set(found))
    assert acknowledged <= set(found)
    assert set(found) <= {request_id(number) for number in range(1, 400)}
    assert verified(lost).problems == []
