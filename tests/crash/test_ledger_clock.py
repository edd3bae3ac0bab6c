"""A wall clock that steps, without a library to fake it: the ledger's order and its durations are not the clock's."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import msgspec

from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader
from counterfoil.record.ids import IdSource
from emulators.control import START_MS, request_id, settlement
from emulators.ledgers import all_ids, intent, opened, verified


def test_records_stand_in_the_order_of_commit(tmp_path: Path) -> None:
    """Admitted and signed by clocks that jump hours either way: the sequence is the commits', and all verifies."""
    folder = DataFolder.create(tmp_path / "data")
    order = random.Random(7).sample(range(1, 5000, 7), 60)
    clock = iter(START_MS + number * 3_600_000 for number in random.Random(8).sample(range(-500, 500), 200))

    async def run() -> None:
        async with opened(folder, now_ms=lambda: next(clock), checkpoint_seconds=0.01) as ledger:
            for number in order:
                await ledger.settle(settlement(number))

    asyncio.run(run())
    assert all_ids(folder) == [request_id(number) for number in order]
    reader = LedgerReader(folder)
    assert [stored.chain.sequence for stored in reader.all()] == list(range(1, len(order) + 1))
    reader.close()
    report = verified(folder)
    assert (report.problems, report.checkpoints >= 1) == ([], True)


def test_a_call_that_began_in_the_future_is_settled(tmp_path: Path) -> None:
    """The clock was set back while the gateway was down: its record says 0 ms, and nothing is negative."""
    folder = DataFolder.create(tmp_path / "data")

    async def run() -> None:
        async with opened(folder) as ledger:
            ledger.admit(intent(9))
        async with opened(folder, now_ms=lambda: START_MS - 86_400_000):
            pass

    asyncio.run(run())
    reader = LedgerReader(folder)
    [stored] = reader.all()
    reader.close()
    record = msgspec.json.decode(stored.data)
    assert "made 0 ms after it began" in record["error_message"]
    assert record["latency_ms"] == record["generation_ms"] == 0
    assert verified(folder).holds


def test_ids_never_repeat_nor_go_back() -> None:
    """Whatever the clock does between two of them."""
    clock = random.Random(9)
    source = IdSource(lambda: START_MS + clock.randrange(-10_000_000, 10_000_000), random.Random(10).randbytes)
    made = [source.next() for _ in range(5000)]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
