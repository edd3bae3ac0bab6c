"""A verification that was asked for ends: by itself, after its time, or with the gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from counterfoil.errors import CallerFault, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.verification import State, Verification, Verifications
from emulators.control import settlement, write


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give a folder with a record."""
    made = DataFolder.create(tmp_path / "data")
    write(made, [settlement(1)])
    return made


def last(verifications: Verifications) -> Verification:
    """The last one, which there must be."""
    found = verifications.last()
    assert found is not None
    return found


def test_one_that_takes_too_long_is_ended(folder: DataFolder) -> None:
    """Its process is gone, the reason is said, and the next may begin."""

    async def run() -> Verification:
        verifications = Verifications(folder, lambda: 7, seconds_max=0.001)
        began = verifications.begin(chain_only=False)
        assert (began.state, last(verifications).state) == (State.RUNNING, State.RUNNING)
        with pytest.raises(CallerFault):
            verifications.begin(chain_only=True)
        await verifications.ended()
        found = last(verifications)
        verifications.begin(chain_only=True)
        await verifications.close()
        return found

    found = asyncio.run(run())
    assert (found.state, found.reason, found.report, found.finished_ms) == (State.FAILED, "timeout", None, 7)


def test_one_that_is_under_way_ends_with_the_gateway(folder: DataFolder) -> None:
    """Whoever looks later is told that it was interrupted; nothing runs on and nothing holds the lock."""

    async def run() -> None:
        verifications = Verifications(folder, lambda: 7)
        verifications.begin(chain_only=False)
        await verifications.close()

    asyncio.run(run())
    assert last(Verifications(folder, lambda: 8)).state is State.INTERRUPTED


def test_it_holds_the_ledger_to_the_second_place(folder: DataFolder, tmp_path: Path) -> None:
    """A place with a line that is no checkpoint shows in the report."""
    (tmp_path / "w0.jsonl").write_text("no checkpoint\n")

    async def run() -> Verification:
        verifications = Verifications(folder, lambda: 7, witness=tmp_path / "w0.jsonl")
        verifications.begin(chain_only=True)
        await verifications.ended()
        await verifications.close()
        return last(verifications)

    report = asyncio.run(run()).report
    assert report is not None
    assert [problem["kind"] for problem in report["problems"]] == ["witness"]


def test_a_damaged_word_of_the_last_one_is_said(folder: DataFolder) -> None:
    """Nobody takes a broken file for none."""
    (folder.root / "verification.json").write_text("{")
    with pytest.raises(GatewayFault, match="cannot be read"):
        Verifications(folder, lambda: 7).last()
