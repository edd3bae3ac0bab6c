"""What must hold after every fault, checked in one place: nothing lost, nothing doubled, nothing invented.

Each call carries a mark of its own: in the body's ``user``, where the provider sees it, and as ``X-App-Id``, which the
journal keeps; so even the record of a call whose process died names the call it belongs to.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from counterfoil.folder import DataFolder
from counterfoil.ledger import tally
from counterfoil.ledger.database import open_reader
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.verify import Verifier
from emulators.gateway import Gateway
from emulators.raw import RawClient, post
from emulators.scripted import ScriptedUpstream, Seen, Step, Wait, answer, chat_answer, chat_frames, chunked
from emulators.waiting import PATIENCE_S, wait_until

CHAT: Final = "/v1/chat/completions"
MIB: Final = 1 << 20
RECORD_BYTES_MAX: Final = 8 << 10
"""Above what one of these small calls may take in the database, with its bodies and its place in every index."""
BOUNDS: Final[Sequence[tuple[re.Pattern[str], Callable[[int], int]]]] = [
    (re.compile(name), bound)
    for name, bound in (
        (r"ledger\.db", lambda records: MIB + RECORD_BYTES_MAX * records),
        (r"ledger\.db-wal", lambda _: 96 * MIB),  # it starts anew at 64 MiB, after the batch that reached it
        (r"ledger\.db-shm", lambda _: 4 * MIB),
        (r"(control|idempotency|playback|runs)\.db(-wal|-shm)?|[\w-]+\.lock", lambda _: 4 * MIB),
        (r"reserve|writer-\d{3}\.intents", lambda _: 8 * MIB),
        (r"[0-9a-f]{64}\.json\.zst", lambda _: MIB),
        (r"\.?verification\.json", lambda _: 256 << 10),
        (
            r"VERSION|lock|writer-\d{3}\.tally|control\.epoch|pepper(\.\d+)?|kek|commitment|signing|handovers\.jsonl",
            lambda _: 4096,
        ),
    )
]
"""Every file of a data folder, and the size that so many records explain."""


@dataclass
class Sent:
    """What the clients of one test sent and got. ``acknowledged`` has the calls whose last byte arrived."""

    marks: set[str] = field(default_factory=set)
    acknowledged: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Mark → generation id and HTTP status."""
    looked_up: set[str] = field(default_factory=set)
    """Marks whose record a lookup by id has given once; afterwards the export speaks for them."""
    numbers: Any = field(default_factory=itertools.count)

    def call(self, gateway: Gateway, key: str, *, stream: bool = False, client: RawClient | None = None) -> int | None:
        """Send one call and read its answer; give the status, or None when the answer did not come whole."""
        mark = f"call-{next(self.numbers)}"
        self.marks.add(mark)
        with contextlib.ExitStack() as stack:
            try:
                own = client or stack.enter_context(RawClient(gateway.port))
                own.send(post(CHAT, body_of(mark, stream=stream), key, x_app_id=mark))
                reply = own.reply()
            except (OSError, AssertionError, ValueError):
                return None  # the connection broke: nothing was acknowledged
        whole = reply.body.endswith(b"data: [DONE]\n\n") if stream and reply.status == 200 else _is_json(reply.body)
        if not whole:
            return None
        self.acknowledged[mark] = (reply.generation_id, reply.status)
        return reply.status


@contextlib.contextmanager
def in_flight(gateway: Gateway, key: str, mark: str) -> Iterator[RawClient]:
    """Keep one unary call in flight until the block ends, when its client leaves."""
    with RawClient(gateway.port) as client:
        client.send(post(CHAT, body_of(mark, stream=False), key, x_app_id=mark))
        yield client


def body_of(mark: str, *, stream: bool) -> bytes:
    """A small chat call that carries ``mark``."""
    body = {"model": "local/gpt-4o-mini", "user": mark, "messages": [{"role": "user", "content": f"Say {mark}."}]}
    return json.dumps(body | ({"stream": True} if stream else {})).encode()


def mixed(seen: Seen) -> list[Step]:
    """A provider's script: unary answers and streams, each at its own pace."""
    pace = random.Random(seen.body).random() * 0.01
    if not seen.json.get("stream"):
        return [Wait(pace), *answer(chat_answer())]
    head, *frames = chunked(*chat_frames("one", "two", "three"))
    return [Wait(pace), head, *itertools.chain.from_iterable((frame, Wait(pace / 4)) for frame in frames)]


@contextlib.contextmanager
def load(gateway: Gateway, sent: Sent, threads: int = 6) -> Iterator[None]:
    """Keep calls in flight, half of them streams, until the block ends; every thread has ended then."""
    stop = threading.Event()
    key = gateway.key()

    def work(number: int) -> None:
        while not stop.is_set() and sent.call(gateway, key, stream=number % 2 == 1) is not None:
            pass

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join(PATIENCE_S)
        assert not any(worker.is_alive() for worker in workers), "a client hangs"


def records_of(gateway: Gateway) -> list[dict[str, Any]]:
    """Every record, as the running gateway exports them to the team."""
    exported = gateway.request("GET", "/v1/generations/export", key=gateway.key())
    assert exported.status == 200, exported.body
    *records, last = (json.loads(line) for line in exported.body.splitlines())
    assert last["manifest"]["records"] == len(records)
    return records


def check(gateway: Gateway, upstream: ScriptedUpstream, sent: Sent, *, verify: bool = True) -> list[dict[str, Any]]:
    """Hold the running gateway to every invariant; give its records. ``verify`` reads and prices all of it again."""
    records = records_of(gateway)
    check_acknowledged(gateway, sent, {record["request_id"]: record for record in records})
    by_mark = Counter(record["app_id"] for record in records)
    reached = Counter(seen.json["user"] for seen in upstream.seen if seen.body)
    assert all(count == 1 for count in reached.values()), "one call reached the provider twice"
    unrecorded = [mark for mark in reached if by_mark[mark] != 1]
    assert not unrecorded, f"the provider saw calls that have no record, or several: {unrecorded}"
    assert by_mark.keys() <= sent.marks, "an invented record"
    assert all(count == 1 for count in by_mark.values()), "two records of one call"
    for record in records:
        assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"])
        assert record["success"] == (record["error_code"] is None)
        assert 0 <= record["latency_ms"] <= record["generation_ms"]
    check_chains(records)
    check_account(gateway, len(records))
    check_folder(gateway, len(records))
    if verify:
        said = gateway.command("ledger", "verify", "--json", check=False)
        assert said.returncode == 0, said.stdout + said.stderr
    return records


def check_acknowledged(gateway: Gateway, sent: Sent, records: Mapping[str, dict[str, Any]]) -> None:
    """Every answer that came whole has its record: in the export, and the first time it is asked for by its id."""
    for mark, (generation_id, status) in sent.acknowledged.items():
        if mark not in sent.looked_up:
            assert gateway.record(generation_id)["request_id"] == generation_id
            sent.looked_up.add(mark)
        record = records.get(generation_id)
        assert record is not None, "an answer without its record"
        assert (record["app_id"], record["status_code"]) == (mark, status), "an answer with another one's record"


def check_chains(records: list[dict[str, Any]]) -> None:
    """Each writer's records are numbered from 1 without a gap."""
    chains: dict[str, list[int]] = {}
    for record in records:
        chains.setdefault(record["chain"]["writer"], []).append(record["chain"]["sequence"])
    for numbers in chains.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1)), "a gap in a chain"


def check_account(gateway: Gateway, records: int) -> None:
    """What any worker says of all adds up, whatever died; in a moment it agrees with the ledger."""

    def agrees() -> bool:  # other workers' figures are a quarter of a second old
        said = gateway.request("GET", "/health/live").json()
        calls = said["calls"]
        assert calls["admitted"] == calls["settled"] + calls["open"] + calls["refused"], calls
        assert said["ledger"]["records"] == records
        return calls["open"] == 0 and calls["settled"] <= records <= calls["settled"] + calls["refused"]

    wait_until(agrees)


def check_folder(gateway: Gateway, records: int, *, bodies_bytes: int = 0) -> None:
    """No call is open, no file has grown beyond what the records explain, and no file is there that nobody knows."""
    reader = LedgerReader(DataFolder.existing(gateway.data))
    try:
        stats = reader.stats()
    finally:
        reader.close()
    assert stats["open_intents"] == 0, "an intent without an end"
    assert stats["records"] == records, "records of a team that made no call"
    for path in gateway.data.rglob("*"):
        if path.is_file():
            name, size = path.name, path.stat().st_size
            bound = next((bound for known, bound in BOUNDS if known.fullmatch(name)), None)
            assert bound is not None, f"{name} is left in the data folder"
            assert size <= bound(records) + 2 * bodies_bytes, f"{name} has grown to {size} bytes with {records} records"


def check_left(gateway: Gateway) -> None:
    """Hold the folder of a stopped gateway, whatever was done to it, to what holds without knowing what was sent."""
    if not gateway.data.exists():
        return  # it lay on a disk that is gone
    folder = DataFolder.existing(gateway.data)
    counts = tally.total(folder.journal).counts
    assert counts.admitted == counts.settled + counts.refused, counts
    report = Verifier(folder, now_ms=time.time_ns() // 1_000_000).run()
    assert report.problems == []
    connection = open_reader(folder.ledger_db)
    sealed = connection.execute("SELECT coalesce(sum(length(sealed)), 0) FROM bodies").get
    connection.close()
    check_folder(gateway, report.records, bodies_bytes=sealed)


def settled(gateway: Gateway) -> bool:
    """Whether no call is open in any worker's journal."""
    logs = (gateway.data / "journal").glob("*.intents")
    return not any(log.read_bytes()[::512].count(1) for log in logs)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
