"""A full disk: new calls are refused before dispatch, those in flight are recorded, lookups go on, and room heals it.

The disk is a small tmpfs, which only root may mount; otherwise the tests are skipped, visibly.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.intents import count_open
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from emulators.control import request_id, settlement
from emulators.ledgers import intent, opened, verified
from emulators.waiting import until

DISK_MIB = 128

pytestmark = pytest.mark.asyncio


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Give a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a disk to fill")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a disk to fill cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def _fill(disk: Path) -> Path:
    """Take every free byte."""
    hog = disk / "hog"
    descriptor = os.open(hog, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for size in (1 << 20, 4096):
        with contextlib.suppress(OSError):
            while os.write(descriptor, bytes(size)) == size:
                pass
    os.close(descriptor)
    return hog


async def _until_healthy(ledger: Ledger, wanted: bool) -> None:
    await until(lambda: ledger.healthy is wanted)  # it heals on the writer's schedule


async def test_full_and_healed(disk: Path) -> None:
    """Five hundred calls in flight when the disk fills up are all recorded; the gateway takes calls again after."""
    folder = DataFolder.create(disk / "data")
    body = os.urandom(4000).hex().encode()
    async with opened(folder, durability="fsync") as ledger:
        for number in range(1, 101):
            slot = ledger.admit(intent(number))
            await ledger.settle(msgspec.structs.replace(settlement(number), slot=slot))
        slots = {number: ledger.admit(intent(number)) for number in range(101, 601)}
        hog = _fill(disk)
        await asyncio.gather(
            *[
                ledger.settle(msgspec.structs.replace(settlement(number, request=body), slot=slot))
                for number, slot in slots.items()
            ]
        )
        await _until_healthy(ledger, wanted=False)
        with pytest.raises(GatewayFault) as caught:
            ledger.admit(intent(601))
        assert caught.value.code == "gateway:ledger_unavailable"
        reader = LedgerReader(folder)
        assert reader.find("acme", request_id(600)) is not None
        assert reader.stats()["records"] == 600
        hog.unlink()
        await _until_healthy(ledger, wanted=True)
        slot = ledger.admit(intent(602))
        await ledger.settle(msgspec.structs.replace(settlement(602), slot=slot))
        assert (folder.root / "reserve").stat().st_blocks > 0, "the reserve stands again"
        reader.close()
    assert verified(folder).holds
    assert count_open(folder.journal) == 0


async def test_a_new_team_on_a_full_disk(disk: Path) -> None:
    """A team's first call, whose data key must be stored first, is recorded on a full disk too."""
    folder = DataFolder.create(disk / "data")
    async with opened(folder, durability="fsync") as ledger:
        await ledger.settle(settlement(1))
        slot = ledger.admit(intent(2, team_id="new"))
        hog = _fill(disk)
        await ledger.settle(msgspec.structs.replace(settlement(2, team="new"), slot=slot))
        hog.unlink()
        await _until_healthy(ledger, wanted=True)
    assert verified(folder).holds


async def test_beyond_the_reserve(disk: Path) -> None:
    """When even the reserve is used up callers are told in time, and their records are kept until there is room."""
    folder = DataFolder.create(disk / "data")
    async with opened(folder, durability="fsync", patience_s=0.5) as ledger:
        await ledger.settle(settlement(1))
        slots = {number: ledger.admit(intent(number)) for number in range(2, 402)}
        hog = _fill(disk)
        noise = [os.urandom(90_000) for _ in range(400)]
        told = await asyncio.gather(
            *[
                ledger.settle(msgspec.structs.replace(settlement(n, request=noise[n - 2]), slot=slot))
                for n, slot in slots.items()
            ],
            return_exceptions=True,
        )
        refused = [each for each in told if each is not None]
        assert refused
        assert {each.code for each in refused if isinstance(each, GatewayFault)} == {"gateway:ledger_unavailable"}
        assert not ledger.healthy
        hog.unlink()
        (disk / "hog").unlink(missing_ok=True)
        await _until_healthy(ledger, wanted=True)
    report = verified(folder)
    assert (report.records, report.problems, count_open(folder.journal)) == (401, [], 0)


async def test_starting_on_a_full_disk(disk: Path) -> None:
    """A gateway that cannot even make its files says so; one that can starts, refuses, and heals."""
    folder = DataFolder.create(disk / "data")
    hog = _fill(disk)
    with pytest.raises(ConfigError, match="No space"):
        Ledger.open(folder, durability="fsync", loop=asyncio.get_running_loop(), retention_days=30)
    hog.unlink()
    async with opened(folder) as ledger:
        ledger.admit(intent(1))
    hog = _fill(disk)
    async with opened(folder) as ledger:
        assert not ledger.healthy
        assert LedgerReader(folder).find("acme", request_id(1)) is not None, "the interrupted call has its record"
        hog.unlink()
        await _until_healthy(ledger, wanted=True)
    assert verified(folder).holds
