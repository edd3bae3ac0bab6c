"""What workers have counted adds up for whoever asks, whatever became of the workers."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path

import msgspec
import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger import tally
from counterfoil.ledger.tally import Counts, State, Tally, Waits
from emulators.control import settlement
from emulators.ledgers import intent, opened


def test_the_figures_of_several_workers_are_added(tmp_path: Path) -> None:
    """Counts, waits and what is open; the newest checkpoint is the one of all."""
    waits = Waits()
    waits.observe(0.0003, 5)
    for number in (0, 3):
        mine = Tally.of(tmp_path, number)
        mine.publish(
            Counts(admitted=10, settled=7, refused=1), State(open=2, ready=1, last_checkpoint_ms=5 + number), waits
        )
        mine.close()
    found = tally.total(tmp_path)
    assert (found.counts.admitted, found.counts.settled, found.counts.refused) == (20, 14, 2)
    assert (found.workers, found.state.open, found.state.ready, found.state.last_checkpoint_ms) == (2, 4, 2, 8)
    assert (found.waits.total, found.waits.sum_us, found.waits.quantile_ms(0.99)) == (10, 3000, 0.5)


def test_a_worker_that_is_gone_has_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it counted stays."""
    gone = Tally.of(tmp_path, 0)
    gone.publish(Counts(admitted=3, settled=2), State(open=1, ready=1), Waits())
    monkeypatch.setattr(tally, "ALIVE_S", -1.0)
    found = tally.total(tmp_path)
    assert (found.counts.admitted, found.workers, found.state.open, found.state.ready) == (3, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class Death:
    """What a worker had written, what its chain and its journal held when it died, and the account afterwards."""

    written: Counts
    chain: int
    interrupted: int
    account: tuple[int, int, int]


@pytest.mark.parametrize(
    "death",
    [
        pytest.param(Death(Counts(accounted=7, admitted=10, settled=7), 7, 3, (10, 10, 0)), id="all were dispatched"),
        pytest.param(Death(Counts(accounted=7, admitted=10, settled=7), 7, 1, (10, 8, 2)), id="two were not sent"),
        pytest.param(Death(Counts(accounted=7, admitted=10, settled=7), 9, 1, (10, 10, 0)), id="two were settled"),
        pytest.param(Death(Counts(accounted=7, admitted=10, settled=7), 20, 4, (24, 24, 0)), id="many came since"),
        pytest.param(Death(Counts(), 5, 0, (5, 5, 0)), id="the file was lost"),
        pytest.param(Death(Counts(accounted=6, admitted=9, settled=6, refused=3), 6, 0, (9, 6, 3)), id="a good end"),
    ],
)
def test_a_death_leaves_no_hole_in_the_account(tmp_path: Path, death: Death) -> None:
    """Admitted is settled and refused, no count goes back, and what has a record counts as settled."""
    dead = Tally.of(tmp_path, 0)
    dead.publish(death.written, State(), Waits())
    dead.close()
    heir = Tally.of(tmp_path, 0)
    heir.take_over(death.chain, death.interrupted)
    counts = tally.total(tmp_path).counts
    assert (counts.admitted, counts.settled, counts.refused) == death.account
    assert counts.interrupted == death.interrupted
    heir.publish(Counts(accounted=1, admitted=2, settled=1), State(open=1), Waits())
    after = tally.total(tmp_path).counts
    assert (after.admitted, after.settled) == (death.account[0] + 2, death.account[1] + 1)


@pytest.mark.parametrize("harm", ["cut", "bit", "other", "gone", "empty"])
def test_a_damaged_file_counts_as_zeros(tmp_path: Path, harm: str) -> None:
    """Nothing rests on it."""
    mine = Tally.of(tmp_path, 0)
    mine.publish(Counts(admitted=3, settled=3), State(), Waits())
    path = tmp_path / "writer-000.tally"
    data = bytearray(path.read_bytes())
    match harm:
        case "cut":
            path.write_bytes(data[:-1])
        case "bit":
            data[40] ^= 1
            path.write_bytes(data)
        case "other":
            path.write_bytes(os.urandom(len(data)))
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(b"")
    assert tally.total(tmp_path).counts == Counts()
    assert Tally.of(tmp_path, 0)


def test_waits_above_the_last_bound_are_counted() -> None:
    """As infinite."""
    waits = Waits()
    assert waits.quantile_ms(0.5) is None
    waits.observe(100.0, 1)
    assert (waits.total, waits.quantile_ms(0.5)) == (1, float("inf"))


@pytest.mark.asyncio
async def test_the_ledger_counts_its_commits_and_its_recoveries(tmp_path: Path) -> None:
    """Every record of a commit is one wait; a call found open at the start is interrupted and settled."""
    folder = DataFolder.create(tmp_path / "data")
    async with opened(folder) as ledger:
        slots = {number: ledger.admit(intent(number)) for number in range(1, 5)}
        settlements = [msgspec.structs.replace(settlement(n), slot=slot) for n, slot in slots.items() if n < 4]
        await asyncio.gather(*[ledger.settle(one) for one in settlements])
        assert (ledger.waits.total, ledger.waits.sum_us > 0) == (3, True)
        ledger.tally.publish(Counts(accounted=3, admitted=4, settled=3), State(open=1), ledger.waits)
    async with opened(folder):
        counts = tally.total(folder.journal).counts
    assert (counts.admitted, counts.settled, counts.refused, counts.interrupted) == (4, 4, 0, 1)
