"""The index of recordings: kept up by reading what came since, rebuilt when it is lost, shared by workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from counterfoil.capture.body import Capture
from counterfoil.capture.recording import Asked
from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.recordings import PROFILES_MAX, Recordings
from emulators.control import request_id, settlement
from emulators.ledgers import NOW_MS, opened, settle_all

ENDPOINT = "/v1/chat/completions"


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give a data folder."""
    return DataFolder.create(tmp_path / "data")


@pytest.fixture
def reader(folder: DataFolder) -> Iterator[LedgerReader]:
    """Give the reading end of its ledger."""
    reading = LedgerReader(folder)
    yield reading
    reading.close()


def write(folder: DataFolder, *numbers: int, **fields: Any) -> None:
    """Record calls whose request and answer say their number (or ``body``)."""
    body = fields.pop("body", None)

    async def run() -> None:
        async with opened(folder) as ledger:
            await settle_all(ledger, [_call(number, body, fields) for number in numbers])

    asyncio.run(run())


def _call(number: int, body: bytes | None, fields: dict[str, Any]) -> Any:
    made = settlement(number, **fields)
    request = body or b'{"n":%d}' % number
    capture = Capture(request, "application/json", None, b'{"answer":%d}' % number, "application/json", 200)
    return msgspec.structs.replace(made, capture=capture)


def ask(body: bytes, team: str = "acme", **more: Any) -> Asked:
    """A request of ``team``."""
    return Asked(team, "k1", more.pop("session_id", None), ENDPOINT, "application/json", body, **more)


def test_what_comes_later_is_found(folder: DataFolder, reader: LedgerReader) -> None:
    """Each lookup first reads what was recorded since the one before, of its own team only."""
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    write(folder, 1, 2)
    found = recordings.find(ask(b'{"n":1}'))
    assert found is not None
    assert found.generation_id == request_id(1)
    assert recordings.find(ask(b'{"n":3}')) is None

    write(folder, 3)
    write(folder, 4, team_id="other")

    found = recordings.find(ask(b'{"n": 3}'))
    assert found is not None
    assert found.capture.response == b'{"answer":3}'
    assert recordings.find(ask(b'{"n":4}')) is None
    assert recordings.find(ask(b'{"n":3}', "other")) is None
    recordings.close()


def test_a_lost_or_damaged_index_is_made_again(folder: DataFolder, reader: LedgerReader) -> None:
    """The index is derived: deleted, overwritten or of another version, it is made anew from the ledger."""
    write(folder, 1)
    for damage in (b"", b"not a database" * 1000, None):
        recordings = Recordings(folder, reader, lambda: NOW_MS)
        assert recordings.find(ask(b'{"n":1}')) is not None
        recordings.close()
        if damage is None:
            folder.playback_db.unlink()
        else:
            folder.playback_db.write_bytes(damage)
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    assert recordings.find(ask(b'{"n":1}')) is not None
    recordings.close()


def test_an_exchanged_ledger_is_noticed(folder: DataFolder) -> None:
    """An index that was made of another ledger (a restored backup) is not believed."""
    write(folder, 1, 2)
    reader = LedgerReader(folder)
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    assert recordings.find(ask(b'{"n":1}')) is not None
    recordings.close()
    reader.close()

    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (folder.root / name).unlink(missing_ok=True)
    write(folder, 7, 8, 9)
    reader = LedgerReader(folder)
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    assert recordings.find(ask(b'{"n":1}')) is None
    assert recordings.find(ask(b'{"n":7}')) is not None
    recordings.close()
    reader.close()


def test_turns_are_shared_by_workers(folder: DataFolder, reader: LedgerReader) -> None:
    """Two processes on one folder continue one sequence; each key and session has its own."""
    write(folder, 1, 2, 3, body=b'{"same":true}')
    one, two = (Recordings(folder, reader, lambda: NOW_MS) for _ in range(2))
    asked = ask(b'{"same":true}')

    turns = [worker.find(asked) for worker in (one, two, one, two)]

    assert [turn.generation_id for turn in turns if turn] == [request_id(n) for n in (1, 2, 3, 1)]
    first = two.find(ask(b'{"same":true}', session_id="s"))
    assert first is not None
    assert first.generation_id == request_id(1)
    one.close()
    two.close()


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"success": False, "error_code": "user:client_disconnected", "status_code": 499}, id="left"),
        pytest.param({"success": False, "error_code": "upstream:connection_reset", "status_code": 502}, id="reset"),
        pytest.param({"success": False, "error_code": "upstream:truncated", "status_code": 200}, id="truncated"),
        pytest.param({"success": False, "error_code": "gateway:interrupted", "status_code": 502}, id="interrupted"),
        pytest.param({"provider": "none", "attempts": ()}, id="played or repeated"),
    ],
)
def test_what_is_no_whole_answer_of_a_provider_is_no_recording(
    folder: DataFolder, reader: LedgerReader, fields: dict[str, Any]
) -> None:
    """An answer that broke off, and one that was itself played, are not played."""
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    write(folder, 1, **fields)
    assert recordings.find(ask(b'{"n":1}')) is None
    recordings.close()


def test_an_index_for_each_set_of_ignored_fields_and_an_end_to_them(folder: DataFolder, reader: LedgerReader) -> None:
    """What is left out is part of the key; the least recently used sets are forgotten, and still right when used."""
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    write(folder, 1, body=b'{"n":1,"user":"a"}')
    for number in range(PROFILES_MAX + 3):
        ignored = (("user",), (f"other{number}",))
        assert recordings.find(ask(b'{"n":1,"user":"b"}', ignored=ignored)) is not None
    assert recordings.find(ask(b'{"n":1,"user":"b"}', ignored=(("user",), ("other0",)))) is not None
    assert recordings.find(ask(b'{"n":1,"user":"b"}')) is None
    recordings.close()


def test_the_index_holds_no_text(folder: DataFolder, reader: LedgerReader) -> None:
    """Neither a request nor a plain hash of one lies in the index."""
    recordings = Recordings(folder, reader, lambda: NOW_MS)
    write(folder, 1, body=b'{"prompt":"a very particular sentence"}')
    assert recordings.find(ask(b'{"prompt":"a very particular sentence"}')) is not None
    recordings.close()
    held = b"".join(path.read_bytes() for path in folder.root.glob("playback.db*"))
    assert b"particular" not in held
    assert folder.playback_db.stat().st_mode & 0o777 == 0o600
