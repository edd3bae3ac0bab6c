"""What the ledger promises a worker: durable, readable at once, once, in order, and honest when it cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from counterfoil.capture.body import Capture
from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import store as store_module
from counterfoil.ledger import writer as writer_module
from counterfoil.ledger.intents import count_open
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.reserve import Reserve
from counterfoil.ledger.settlement import Settlement
from counterfoil.record.record import CapturePolicy, CaptureState
from counterfoil.record.times import timestamp
from emulators.control import START_MS, request_id, settlement
from emulators.ledgers import all_ids, intent, opened, settle_all, verified
from emulators.waiting import PATIENCE_S, until

pytestmark = pytest.mark.asyncio


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """Give an empty data folder."""
    return DataFolder.create(tmp_path / "data")


@pytest.fixture
def reader(folder: DataFolder) -> Any:
    """Give a reader of it."""
    reading = LedgerReader(folder)
    yield reading
    reading.close()


async def test_settled_is_readable(folder: DataFolder, reader: LedgerReader) -> None:
    """The moment a settlement is acknowledged its record is found, by our id and the provider's, bodies and all."""
    async with opened(folder) as ledger:
        for number in range(1, 40):
            slot = ledger.admit(intent(number))
            settled = msgspec.structs.replace(settlement(number), slot=slot)
            await ledger.settle(settled)
            for any_id in (request_id(number), f"chatcmpl-{number}"):
                found = reader.find("acme", any_id)
                assert found is not None
                assert (found.id, found.chain.sequence) == (request_id(number), number)
                assert reader.capture(found) == settled.capture
        assert (count_open(folder.journal), ledger.depth) == (0, 0)
        assert ledger.healthy


async def test_the_first_canonical_bytes_are_served(folder: DataFolder, reader: LedgerReader) -> None:
    """What is read back is the record that was settled, and says what was captured of it."""
    async with opened(folder) as ledger:
        await ledger.settle(settlement(1))
    found = reader.find("acme", request_id(1))
    assert found is not None
    record = msgspec.json.decode(found.data)
    assert record["request_id"] == request_id(1)
    assert (record["capture"]["state"], record["capture"]["retention_days"]) == ("stored", 30)
    assert list(record)[-1] == "capture"


@pytest.mark.parametrize(
    ("given", "policy", "state"),
    [
        (settlement(1), CapturePolicy.FULL, CaptureState.STORED),
        (settlement(1, policy=CapturePolicy.METADATA), CapturePolicy.METADATA, CaptureState.NOT_CAPTURED),
        (settlement(1, policy=CapturePolicy.OFF), CapturePolicy.OFF, CaptureState.NOT_CAPTURED),
        (settlement(1, request=None), CapturePolicy.FULL, CaptureState.NOT_CAPTURED),
        (settlement(1, request=None, state=CaptureState.TOO_LARGE), CapturePolicy.FULL, CaptureState.TOO_LARGE),
    ],
    ids=["full", "metadata", "off", "nothing", "too large"],
)
async def test_the_policy_is_kept(
    folder: DataFolder, reader: LedgerReader, given: Settlement, policy: CapturePolicy, state: CaptureState
) -> None:
    """Bodies are stored under the policy ``full`` only, even when the gateway hands them over under another."""
    async with opened(folder) as ledger:
        await ledger.settle(given)
    found = reader.find("acme", request_id(1))
    assert found is not None
    capture = msgspec.json.decode(found.data)["capture"]
    assert (capture["policy"], capture["state"], found.capture_state) == (policy, state, state)
    assert (reader.capture(found) is not None) == (state is CaptureState.STORED)
    assert reader.stats()["bodies"] == (state is CaptureState.STORED)


async def test_nothing_is_stored_in_clear(folder: DataFolder) -> None:
    """No byte of a body is found in any file of the folder."""
    canary = b"canary-4417-prompt"
    async with opened(folder) as ledger:
        capture = Capture(b'{"messages":"%b"}' % canary, "application/json", None, canary * 3, "text/plain", 200)
        await ledger.settle(msgspec.structs.replace(settlement(1), capture=capture))
        await ledger.settle(msgspec.structs.replace(settlement(2), capture=Capture(b"x", "", None, canary, "", 200)))
    for path in folder.root.rglob("*"):
        assert not path.is_file() or canary not in path.read_bytes(), path


async def test_many_at_once(folder: DataFolder) -> None:
    """A thousand settlements of all kinds in one go are all there, in one chain, in few commits."""
    async with opened(folder) as ledger:
        await settle_all(ledger, [settlement(number, team=f"team-{number % 7}") for number in range(1, 1001)])
        assert ledger.commits < 100
    assert sorted(all_ids(folder)) == [request_id(number) for number in range(1, 1001)]
    report = verified(folder)
    assert (report.records, report.bodies, report.problems) == (1000, 1000, [])


async def test_the_chain_goes_on_over_restarts(folder: DataFolder, reader: LedgerReader) -> None:
    """A writer that opens again continues its own chain; another one beside it has another."""
    for number in range(1, 4):
        async with opened(folder) as ledger:
            await ledger.settle(settlement(number))
    async with opened(folder) as first, opened(folder) as second:
        await first.settle(settlement(4))
        await second.settle(settlement(5))
        await first.settle(settlement(6))
    places = [(stored.chain.writer, stored.chain.sequence) for stored in reader.all()]
    assert places == [("w0", 1), ("w0", 2), ("w0", 3), ("w0", 4), ("w1", 1), ("w0", 5)]
    assert verified(folder).holds


async def test_the_chain_goes_on_without_a_farewell(folder: DataFolder) -> None:
    """The end of the chain is found behind the derived tables too, where a crash leaves it."""
    async with opened(folder) as ledger:
        await settle_all(ledger, [settlement(number) for number in range(1, 6)])
        async with opened(folder) as other:
            await other.settle(settlement(6))
        ledger._writer._farewell = lambda: None  # as a crash would have it: neither indexed nor signed
        await ledger.settle(settlement(7))
    async with opened(folder) as ledger:
        await ledger.settle(settlement(8))
    report = verified(folder)
    assert (report.records, report.problems) == (8, [])


async def test_an_id_has_one_record(folder: DataFolder) -> None:
    """Settling the same call again changes nothing; another call under its id is refused, and its batch is not."""
    async with opened(folder) as ledger:
        await ledger.settle(settlement(1, request=None))
        await ledger.settle(settlement(1, request=None))
        results = await asyncio.gather(
            ledger.settle(settlement(2)),
            ledger.settle(settlement(1, request=None, cost_nanos=5)),
            ledger.settle(settlement(3)),
            return_exceptions=True,
        )
        assert [getattr(each, "code", None) for each in results] == [None, "gateway:internal", None]
    assert all_ids(folder) == [request_id(1), request_id(2), request_id(3)]
    assert verified(folder).holds


async def test_one_id_twice_in_a_batch(folder: DataFolder) -> None:
    """Two calls of one id that come together leave one record, and the others of their batch."""
    async with opened(folder) as ledger:
        given = [settlement(1), settlement(2), settlement(2, cost_nanos=7), settlement(3)]
        results = await asyncio.gather(*[ledger.settle(each) for each in given], return_exceptions=True)
        assert [isinstance(each, GatewayFault) for each in results] == [False, False, True, False]
    assert verified(folder).records == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"error_message": "lone \ud800 surrogate", "error_code": "upstream:error"},
        {"end_user": "nul \0 inside"},
        {"session_id": "\udfff"},
        {"tags": {"a": "\ud800"}},
        {"tags": {"a": float("nan")}},
        {"tags": {"a": {1, 2}, "b": object()}},
        {"cost_nanos": 1 << 70},
        {"provider_cost_nanos": 1 << 64},
        {"latency_ms": float("inf")},
    ],
    ids=["surrogate", "nul", "key surrogate", "tag", "nan", "no JSON", "huge cost", "huge number", "infinite"],
)
async def test_a_poisonous_record(folder: DataFolder, fields: dict[str, Any]) -> None:
    """A record that cannot be stored as it is neither stops its neighbours nor vanishes: its call has a record."""
    async with opened(folder) as ledger:
        await asyncio.gather(
            ledger.settle(settlement(1)),
            ledger.settle(settlement(2, **({"pricing_lines": ()} | fields))),
            ledger.settle(settlement(3)),
        )
    assert sorted(all_ids(folder)) == [request_id(1), request_id(2), request_id(3)]
    report = verified(folder)
    assert [problem for problem in report.problems if "sum of its lines" not in problem.message] == []


async def test_an_id_that_is_not_ours(folder: DataFolder) -> None:
    """A settlement without an id of ours is an internal fault, its slot is freed, and its neighbours are written."""
    async with opened(folder) as ledger:
        slot = ledger.admit(intent(1))
        broken = msgspec.structs.replace(settlement(1, request_id="chatcmpl-1"), slot=slot)
        results = await asyncio.gather(ledger.settle(broken), ledger.settle(settlement(2)), return_exceptions=True)
        assert [getattr(each, "code", None) for each in results] == ["gateway:internal", None]
        assert count_open(folder.journal) == 0


async def test_interrupted_calls_get_records(folder: DataFolder, reader: LedgerReader) -> None:
    """At the next start every call that was admitted and never settled has a record that says what is known of it."""
    ledger = Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=30)
    for number in range(1, 4):
        ledger.admit(intent(number, app_id="web"))
    await ledger.settle(msgspec.structs.replace(settlement(2), slot=1))
    await ledger.close()
    assert count_open(folder.journal) == 2
    async with opened(folder):
        assert count_open(folder.journal) == 0
        found = reader.find("acme", request_id(3))
        assert found is not None
        record = msgspec.json.decode(found.data)
        assert record["created_at"] == "2026-09-21T14:13:23.000Z"
        wanted = {
            "app_id": "web",
            "status_code": 502,
            "success": False,
            "error_code": "gateway:interrupted",
            "cost_state": "unknown",
            "cost_nanos": 0,
            "latency_ms": 0.0,
            "requested_model": "gpt",
            "stream": True,
        }
        assert {name: record[name] for name in wanted} == wanted
        assert (record["usage"]["source"], found.capture_state) == ("absent", CaptureState.INTERRUPTED)
    assert sorted(all_ids(folder)) == [request_id(1), request_id(2), request_id(3)]
    assert verified(folder).holds


async def test_a_crash_between_commit_and_slot(folder: DataFolder) -> None:
    """An intent whose record exists already makes no second one."""
    ledger = Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=30)
    ledger.admit(intent(1))
    await ledger.settle(settlement(1))  # committed, and its slot never closed
    await ledger.close()
    async with opened(folder):
        pass
    assert (all_ids(folder), count_open(folder.journal)) == ([request_id(1)], 0)


async def test_other_writers_calls_are_recovered(folder: DataFolder) -> None:
    """A worker that starts settles the calls of every writer that is gone, and leaves those of the living alone."""
    async with opened(folder) as living:
        slot = living.admit(intent(1))
        dead = Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=30)
        dead.admit(intent(2))
        await dead.close()
        async with opened(folder) as third:
            assert all_ids(folder) == [request_id(2)]
            assert third._log.number == 1
        await living.settle(msgspec.structs.replace(settlement(1), slot=slot))
    assert sorted(all_ids(folder)) == [request_id(1), request_id(2)]


async def test_damaged_intents_stop_nobody(folder: DataFolder) -> None:
    """A journal full of rubbish is recovered from: what can be read is recorded, the rest is freed."""
    ledger = Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=30)
    ledger.admit(intent(1))
    await ledger.close()
    path = folder.journal / "writer-000.intents"
    rubbish = bytearray(path.read_bytes())
    rubbish[512:] = b"\x01\xff\xff" * ((len(rubbish) - 512) // 3) + bytes((len(rubbish) - 512) % 3)
    path.write_bytes(rubbish)
    async with opened(folder):
        assert count_open(folder.journal) == 0
    assert all_ids(folder) == [request_id(1)]


async def test_a_disk_without_room_refuses_calls(folder: DataFolder) -> None:
    """While the disk lacks the reserve no call is admitted, what is settled is written, and room heals it."""
    async with opened(folder) as ledger:
        slot = ledger.admit(intent(1))
        plenty = ledger._writer._reserve
        ledger._writer._reserve = Reserve(folder.root / "reserve", size=1 << 60)
        await until(lambda: not ledger.healthy)
        with pytest.raises(GatewayFault) as caught:
            ledger.admit(intent(2))
        assert caught.value.code == "gateway:ledger_unavailable"
        await ledger.settle(msgspec.structs.replace(settlement(1), slot=slot))
        ledger._writer._reserve = plenty
        await until(lambda: ledger.healthy)
        ledger.admit(intent(3))


async def test_a_settlement_after_the_end(folder: DataFolder) -> None:
    """A ledger that was closed says that it cannot write; nothing hangs."""
    async with opened(folder) as ledger:
        pass
    with pytest.raises(GatewayFault) as caught:
        await ledger.settle(settlement(1))
    assert caught.value.code == "gateway:ledger_unavailable"
    with pytest.raises(GatewayFault):
        ledger.admit(intent(1))


async def test_closing_writes_what_is_queued(folder: DataFolder) -> None:
    """Closing waits for every settlement that was handed over before it."""
    ledger = Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=30)
    futures = [ledger.settle(settlement(number)) for number in range(1, 301)]
    await ledger.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert (folder.root / "ledger.db-wal").stat().st_size == 0  # the folder is complete without its log
    assert len(all_ids(folder)) == 300
    assert verified(folder).holds


async def test_a_cancelled_waiter_loses_nothing(folder: DataFolder) -> None:
    """A caller that stops waiting does not take its record along."""
    async with opened(folder) as ledger:
        future = ledger.settle(settlement(1))
        future.cancel()
        await ledger.settle(settlement(2))
    assert len(all_ids(folder)) == 2


async def test_batches_are_bounded(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit takes more rows, or more bytes, than its bound."""
    sizes: list[int] = []
    append = store_module.Store.append

    def watched(self: store_module.Store, rows: Any) -> None:
        sizes.append(len(rows))
        append(self, rows)

    monkeypatch.setattr(store_module.Store, "append", watched)
    monkeypatch.setattr(writer_module, "BATCH_ROWS_MAX", 10)
    monkeypatch.setattr(writer_module, "BATCH_BYTES_MAX", 2500)
    async with opened(folder) as ledger:
        await settle_all(ledger, [settlement(number, request=None) for number in range(1, 101)])
        assert max(sizes) <= 10
        sizes.clear()
        await settle_all(ledger, [settlement(number, request=b"x" * 1000) for number in range(101, 121)])
        assert max(sizes) <= 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_writer_that_breaks_tells_whoever_waits(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that nobody thought of ends the thread: callers are told at once, and the process should end."""

    def broken(*_: Any) -> None:
        raise RuntimeError

    async with opened(folder) as ledger:
        monkeypatch.setattr(store_module.Store, "append", broken)
        for number in (1, 2):
            with pytest.raises(GatewayFault):
                await asyncio.wait_for(ledger.settle(settlement(number)), PATIENCE_S)
        assert ledger.poisoned
        assert not ledger.healthy


async def test_a_disk_that_cannot_be_asked_is_full(tmp_path: Path) -> None:
    """Who looks at it is the writer's thread, which must not end for it."""
    assert not Reserve(tmp_path / "gone" / "reserve").roomy()


async def test_derived_tables_follow(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes over the newest records leave the derived tables as the records are, whoever wrote them."""
    monkeypatch.setattr(writer_module, "INDEX_ROWS", 30)
    async with opened(folder) as first, opened(folder) as second:
        for start in range(1, 200, 20):
            numbers = range(start, start + 20)
            await asyncio.gather(
                settle_all(first, [settlement(n, end_user=f"u{n % 3}") for n in numbers if n % 2]),
                settle_all(second, [settlement(n, session_id="s") for n in numbers if not n % 2]),
            )
        await until(lambda: first._writer._connected.store.indexed_seq > 150)
        assert verified(folder).problems == []
    assert verified(folder).problems == []


async def test_a_newer_ledger_is_not_opened(folder: DataFolder) -> None:
    """A folder whose ledger is of a later version is refused before anything is written."""
    async with opened(folder) as ledger:
        await ledger.settle(settlement(1))
    connection = apsw.Connection(str(folder.ledger_db))
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(ConfigError, match="newer"):
        Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=30)


async def test_clock_steps_do_not_matter(folder: DataFolder, reader: LedgerReader) -> None:
    """Records admitted under a clock that jumped both ways keep their order of commit and their own times."""
    times = [START_MS, START_MS - 3_600_000, START_MS + 86_400_000, 0, START_MS + 1]
    async with opened(folder) as ledger:
        for number, at in enumerate(times, 1):
            given = settlement(number, created_at=timestamp(at))
            await ledger.settle(msgspec.structs.replace(given, created_at_ms=at))
    assert [stored.chain.sequence for stored in reader.all()] == [1, 2, 3, 4, 5]
    assert verified(folder).holds
