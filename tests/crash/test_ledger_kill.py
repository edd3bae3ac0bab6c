"""``kill -9`` at any instant: whoever was told has a record, every call has exactly one, and the chain holds.

A child process admits and settles calls as fast as it can and says, through a pipe, which it admitted and which were
acknowledged. It is killed at a random instant, and the folder is opened again. ``COUNTERFOIL_TEST_KILLS`` says how
often.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger.intents import count_open
from counterfoil.ledger.query import LedgerReader
from counterfoil.record import ids
from emulators.ledgers import opened, verified

KILLS = int(os.environ.get("COUNTERFOIL_TEST_KILLS", "20"))
RECOVERY_CPU_S_MAX = 2.0
"""What a machine that does nothing else waits for. How long it takes by the clock is for ``make faults`` to say."""

CHILD = """
import asyncio, os, sys
from pathlib import Path
import msgspec
from counterfoil.folder import DataFolder
from counterfoil.ledger import writer
from counterfoil.ledger.ledger import Ledger
from emulators.control import request_id, settlement
from emulators.ledgers import NOW_MS, intent

writer.INDEX_ROWS = 50  # often, so that kills fall into these too
writer.RECORDS_MAX = 80

async def main(folder, first, callers):
    ledger = Ledger.open(folder, durability="fsync", loop=asyncio.get_running_loop(), retention_days=30,
                         now_ms=lambda: NOW_MS)
    os.write(1, b"ready\\n")
    numbers = iter(range(first, first + 100_000))

    async def caller():
        for number in numbers:
            os.write(1, b"try %d\\n" % number)
            slot = ledger.admit(intent(number))
            os.write(1, b"in %d\\n" % number)
            await asyncio.sleep(0)
            await ledger.settle(msgspec.structs.replace(settlement(number), slot=slot))
            os.write(1, b"ok %d\\n" % number)

    await asyncio.gather(*[caller() for _ in range(callers)])

asyncio.run(main(DataFolder(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])))
"""


class Told:
    """What the children said before they died: calls tried, admitted, acknowledged."""

    def __init__(self) -> None:
        self.tried: set[int] = set()
        self.admitted: set[int] = set()
        self.acknowledged: set[int] = set()

    def hear(self, said: bytes) -> None:
        kinds = {b"try": self.tried, b"in": self.admitted, b"ok": self.acknowledged}
        for line in said.splitlines():
            kind, _, number = line.partition(b" ")
            if number:
                kinds[kind].add(int(number))


def _child(folder: DataFolder, first: int, callers: int) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    arguments = [sys.executable, "-c", CHILD, str(folder.root), str(first), str(callers)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment)


def _kill_after(child: subprocess.Popen[bytes], seconds: float, told: Told) -> None:
    """Kill the child so many seconds after it was ready, and hear all it said."""
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    deadline = time.monotonic() + seconds
    os.set_blocking(child.stdout.fileno(), False)
    said = b""
    while time.monotonic() < deadline:
        said += child.stdout.read() or b""
    child.send_signal(signal.SIGKILL)
    child.wait()
    os.set_blocking(child.stdout.fileno(), True)
    told.hear(said + child.stdout.read())


def _recover_and_check(folder: DataFolder, told: Told) -> None:
    async def recover() -> float:
        began = time.process_time()
        async with opened(folder):
            return time.process_time() - began

    assert asyncio.run(recover()) < RECOVERY_CPU_S_MAX
    reader = LedgerReader(folder)
    found = [_number(stored.id) for stored in reader.all()]
    reader.close()
    assert len(found) == len(set(found)), "a call has two records"
    assert told.acknowledged <= set(found), "an acknowledged call has no record"
    assert told.admitted <= set(found), "an admitted call has no record"
    assert set(found) <= told.tried, "a record was invented"
    report = verified(folder)
    assert report.problems == []
    assert count_open(folder.journal) == 0


def _number(request_id: str) -> int:
    return (ids.parse(request_id) or 0) & 0xFFFFFFFF


@pytest.mark.timeout(300 + KILLS * 10)
def test_kill_at_any_instant(tmp_path: Path) -> None:
    """Killed again and again on one folder, alone and beside another writer, the ledger keeps its promises."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for kill in range(KILLS):
        if kill % 5 == 0:
            folder = DataFolder.create(tmp_path / f"data-{kill}")
            told = Told()
            first = 1
        children = [_child(folder, first + 100_000 * each, chance.choice([1, 4, 40])) for each in range(1 + kill % 2)]
        try:
            for child in children:
                _kill_after(child, chance.choice([chance.random() * 0.02, chance.random() * 0.4]), told)
        finally:
            for child in children:
                child.kill()
                child.communicate()
        first += 200_000
        _recover_and_check(folder, told)
    assert told.acknowledged
    sizes = {path.name: path.stat().st_size for path in folder.root.glob("ledger.db*")}
    assert sizes.get("ledger.db-wal", 0) <= 64 * 1024 * 1024
