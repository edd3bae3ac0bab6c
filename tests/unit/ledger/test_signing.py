"""Checkpoints are signed when there is news, when there is none, and in a second place."""

from __future__ import annotations

import asyncio
import itertools
import json
from hashlib import sha256
from pathlib import Path

import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger import writer as writer_module
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.signing import GROUP, Signer, groups, root
from counterfoil.ledger.witness import FolderPlace
from emulators.control import settlement
from emulators.ledgers import NOW_MS, opened, settle_all, verified
from emulators.waiting import until


async def _until_checkpoints(folder: DataFolder, count: int) -> None:
    reader = LedgerReader(folder)
    try:
        await until(lambda: reader.stats()["checkpoints"] >= count)  # the writer signs on its own schedule
    finally:
        reader.close()


def test_signed_with_news_and_when_idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer signs on its schedule when records came, on a longer one when none did, and at its end."""
    monkeypatch.setattr(writer_module, "IDLE_PERIOD_S", 0.3)
    folder = DataFolder.create(tmp_path / "data")
    witness = tmp_path / "second"
    witness.mkdir()

    async def run() -> None:
        clock = itertools.count(NOW_MS).__next__
        async with opened(folder, checkpoint_seconds=0.1, seconds=[FolderPlace(witness)], now_ms=clock) as ledger:
            await ledger.settle(settlement(1))
            await _until_checkpoints(folder, 1)
            await _until_checkpoints(folder, 3)
            assert ledger.last_checkpoint_ms is not None
            await settle_all(ledger, [settlement(2), settlement(3)])

    asyncio.run(run())
    lines = [json.loads(line) for line in (witness / "w0.jsonl").read_bytes().splitlines()]
    statements = [json.loads(line["statement"]) for line in lines]
    stretches = [(each["first_sequence"], each["last_sequence"]) for each in statements]
    assert stretches[:2] == [(1, 1), (2, 1)]
    assert stretches[-1][1] == 3
    report = verified(folder, witness=witness)
    assert (report.checkpoints, report.problems) == (len(lines), [])


def test_signed_after_so_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load a checkpoint never covers more than its bound and a batch."""
    monkeypatch.setattr(writer_module, "RECORDS_MAX", 100)
    folder = DataFolder.create(tmp_path / "data")

    async def run() -> None:
        async with opened(folder) as ledger:
            for start in range(1, 500, 50):
                await settle_all(ledger, [settlement(n, request=None) for n in range(start, start + 50)])
                if start > 100:
                    await _until_checkpoints(folder, start // 200)

    asyncio.run(run())
    report = verified(folder)
    assert report.checkpoints >= 3
    assert report.holds


def test_a_lost_second_place_stops_nobody(tmp_path: Path) -> None:
    """Checkpoints that the second place does not take are kept in the ledger, and calls go on."""
    folder = DataFolder.create(tmp_path / "data")

    async def run() -> None:
        async with opened(folder, checkpoint_seconds=0.05, seconds=[FolderPlace(tmp_path / "missing")]) as ledger:
            await ledger.settle(settlement(1))
            await _until_checkpoints(folder, 1)
            await ledger.settle(settlement(2))
            assert ledger.healthy

    asyncio.run(run())
    assert verified(folder).holds


@pytest.mark.parametrize("count", [0, 1, GROUP, GROUP + 1, 3 * GROUP])
def test_root(count: int) -> None:
    """The root is the hash of the hashes of groups of 64 digests."""
    digests = [sha256(bytes([n % 256, n // 256])).digest() for n in range(count)]
    hashes = [sha256(b"".join(digests[at : at + 64])).digest() for at in range(0, count, 64)]
    assert (groups(digests), root(digests)) == (hashes, sha256(b"".join(hashes)).digest())


def test_one_seed_one_key() -> None:
    """The public key follows from the folder's secret, so a proof can be checked years later."""
    assert Signer(b"s" * 32, lambda: 0).public_key == Signer(b"s" * 32, lambda: 1).public_key
