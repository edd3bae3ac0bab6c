"""The second place gets every checkpoint, in order, whatever it does, and nobody waits for it."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from counterfoil.folder import DataFolder
from counterfoil.ledger import witness as witness_module
from counterfoil.ledger.witness import AddressPlace, FolderPlace, Refused, Witness, places
from emulators import sink
from emulators.control import settlement
from emulators.disks import nearly_full
from emulators.ledgers import NOW_MS, opened, settle_all, verified
from emulators.waiting import until, wait_until

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(witness_module, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(witness_module, "RETRY_MAX_S", 0.02)


def test_an_address_gets_each_line_with_its_token() -> None:
    """In order, as JSON, with the writer's name."""
    with sink.running() as taken:
        witness = Witness(AddressPlace(taken.url, "t0ken"))
        for number in range(5):
            witness.hand("w3", b"%d" % number)
        witness.close()
        assert taken.lines == [b"0", b"1", b"2", b"3", b"4"]
        assert taken.headers[0]["authorization"] == "Bearer t0ken"
        assert taken.headers[0]["content-type"] == "application/json"
        assert taken.headers[0]["x-counterfoil-writer"] == "w3"


@pytest.mark.parametrize("status", [301, 307, 400, 401, 404, 429, 500, 503])
def test_what_is_not_taken_is_tried_again(status: int) -> None:
    """Whatever the address answers but 2xx; a redirect is not followed. Nothing is lost and nothing overtaken."""
    with sink.running() as taken:
        taken.status = status
        witness = Witness(AddressPlace(taken.url, None))
        witness.hand("w0", b"first")
        witness.hand("w0", b"second")
        wait_until(lambda: taken.refused > 2)
        assert witness.waiting == 2
        taken.status = 201
        wait_until(lambda: not witness.waiting)
        assert taken.lines == [b"first", b"second"]
        witness.close()


def test_a_line_that_a_folder_took_in_part_is_not_taken(tmp_path: Path) -> None:
    """It is written once more, on a line of its own, when there is room."""
    place = FolderPlace(tmp_path)
    with nearly_full(10), pytest.raises(OSError, match="space"):
        place.keep("w0", b"x" * 20)
    place.keep("w0", b"x" * 20)
    assert (tmp_path / "w0.jsonl").read_bytes() == b"x" * 10 + b"\n" + b"x" * 20 + b"\n"


def test_an_address_that_is_away_is_tried_again() -> None:
    """Nobody listens, and then somebody does."""
    with sink.running() as taken:
        away = AddressPlace("http://127.0.0.1:9", None)
        with pytest.raises(OSError, match="refused"):
            away.keep("w0", b"x")
        place = AddressPlace(taken.url, None)
        place._port = 9
        witness = Witness(place)
        witness.hand("w0", b"line")
        wait_until(lambda: witness._failing)
        place._port = taken.port
        wait_until(lambda: taken.lines == [b"line"])
        witness.close()


def test_only_the_newestwait_until(monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that stays away costs bounded memory, and the end of the gateway does not wait for it for long."""
    monkeypatch.setattr(witness_module, "WAITING_MAX", 10)
    monkeypatch.setattr(witness_module, "CLOSE_S", 0.05)
    with sink.running() as taken:
        taken.status = 500
        witness = Witness(AddressPlace(taken.url, None))
        for number in range(100):
            witness.hand("w0", b"%d" % number)
        wait_until(lambda: taken.refused > 0)
        assert witness.waiting == 10
        witness.close()
        assert witness.waiting == 10


def test_an_answer_that_is_no_http_is_a_refusal() -> None:
    """Like any other failure of the place."""
    with sink.running() as taken:
        place = AddressPlace(taken.url, None)
        taken.status = 20000
        with pytest.raises(Refused):
            place.keep("w0", b"x")


@pytest.mark.parametrize("torn", [b"", b'{"half', b"whole\n"], ids=["new", "torn", "there"])
def test_a_folder_keeps_a_line_once_and_whole(tmp_path: Path, torn: bytes) -> None:
    """After a line that a crash tore the next one begins anew; the last one is not repeated."""
    (tmp_path / "w0.jsonl").write_bytes(torn)
    for line in (b"whole", b"whole", b"next"):
        FolderPlace(tmp_path).keep("w0", line)
    lines = (tmp_path / "w0.jsonl").read_bytes().splitlines()
    assert [line for line in lines if line != b'{"half'] == [b"whole", b"next"]


def test_the_ledger_is_never_held_up(tmp_path: Path) -> None:
    """While the address does not answer at all, records are durable as ever, and checkpoints wait."""
    folder = DataFolder.create(tmp_path / "data")

    async def run(url: str) -> None:
        async with opened(folder, checkpoint_seconds=0.05, seconds=places(None, url, None)) as ledger:
            for number in range(1, 40):
                await ledger.settle(settlement(number))
            assert ledger.healthy
            await until(lambda: ledger.unwitnessed)  # the writer signs on its own schedule
            taken.talking.set()

    with sink.running() as taken:
        taken.talking.clear()
        asyncio.run(run(taken.url))
        assert taken.lines
    assert verified(folder).holds


def test_the_lines_of_an_address_show_a_roll_back(tmp_path: Path) -> None:
    """What the address took, put into a file, is all the verification needs; an old copy of the ledger is found out."""
    folder = DataFolder.create(tmp_path / "data")
    clock = itertools.count(NOW_MS).__next__

    async def fill(url: str, first: int) -> None:
        async with opened(folder, now_ms=clock, seconds=places(None, url, None)) as ledger:
            await settle_all(ledger, [settlement(number) for number in range(first, first + 10)])

    with sink.running() as taken:
        asyncio.run(fill(taken.url, 1))
        older = folder.ledger_db.read_bytes()
        asyncio.run(fill(taken.url, 11))
        lines = taken.lines
    assert [json.loads(json.loads(line)["statement"])["last_sequence"] for line in lines] == [10, 10, 20]
    assert lines[0] == lines[1]  # reminded of at the start: taken twice, the same
    kept = tmp_path / "checkpoints.jsonl"
    kept.write_bytes(b"\n".join(lines) + b"\n")
    assert verified(folder, witness=kept).problems == []
    folder.ledger_db.write_bytes(older)
    assert verified(folder).holds
    assert {problem.kind for problem in verified(folder, witness=kept).problems} == {"truncated", "witness"}
    kept.write_bytes(b"nonsense\n")
    assert [problem.kind for problem in verified(folder, witness=kept).problems] == ["witness"]
