"""Lookups in ledgers of ten thousand to ten million records: by our id, by the provider's id, a team's last 50 (P8).

The ledgers are filled through the writer's own store, so pages, indexes and chain are what a gateway would have left;
only bodies are left out, which lie in a table of their own that none of these questions reads. Ids to look for are
drawn evenly over the whole history, each once. Every question is asked twice: of a database that memory holds (it is
read through before), and of one of which memory holds nothing. The largest takes minutes to fill and six gigabytes: it
is kept in the scratch folder for later runs, until the tables change, and made by `python -m benchmarks fill` or when
`COUNTERFOIL_BENCH_RECORDS` asks for so many.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import apsw

import counterfoil.ledger
from benchmarks.statistics import quantile
from benchmarks.targets import SCRATCH
from counterfoil.capture.seal import KeyRing, Sealer
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.query import Filter, LedgerReader
from counterfoil.ledger.rows import Row, RowMaker
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.ledger.signing import RECORDS_MAX as SIGNED_MAX
from counterfoil.ledger.signing import Signer
from counterfoil.ledger.store import INDEX_ROWS, Store, StoredKeys
from counterfoil.record.charge import CostState, Line, LineState
from counterfoil.record.ids import IdSource
from counterfoil.record.record import CapturePolicy, Record
from counterfoil.record.usage import Usage, UsageSource

LARGEST: Final = 10_000_000
RECORDS_MAX: Final = int(os.environ.get("COUNTERFOIL_BENCH_RECORDS", "1000000"))
SIZES: Final = (10_000, 100_000, 1_000_000, LARGEST)
TEAMS: Final = 20
TRIALS: Final = 3000
BATCH_ROWS: Final = 256
LOG_PAGES: Final = 16_384
_BOOK = "9f" * 32
_FIRST_MS = 1_790_000_000_000
_LINES = tuple(
    Line(
        meter=meter,
        quantity=quantity,
        unit_size=1_000_000,
        unit_price_nanos=price,
        amount_nanos=quantity * price // 1_000_000,
        rule_id="gpt-4o-mini",
        book=_BOOK,
        state=LineState.PRICED,
    )
    for meter, quantity, price in (("input_tokens", 97, 150_000_000), ("output_tokens", 220, 600_000_000))
)
_USAGE = Usage(97, 220, 317, {"cached_tokens": 0}, {"reasoning_tokens": 0}, source=UsageSource.REPORTED)


def measure() -> list[dict[str, Any]]:
    """A row for each size that is wanted or there: p50 and p99 in µs, and bytes a record."""
    wanted = [size for size in SIZES if size <= RECORDS_MAX or _place(size).exists()]
    return [{"records": size} | _ask(*prepared(size)) for size in wanted]


def fill(size: int) -> int:
    """Make the ledgers up to ``size`` for later runs; 0."""
    for one in SIZES:
        if one <= size:
            prepared(one)
    return 0


def prepared(size: int) -> tuple[DataFolder, dict[int, str]]:
    """The ledger with ``size`` records, and some of their numbers with their ids; made when it is not there."""
    place = _place(size)
    if not place.exists():
        began = time.monotonic()
        for old in place.parent.parent.glob("*"):
            if old != place.parent:
                shutil.rmtree(old)
        making = place.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.parent.mkdir(parents=True, exist_ok=True)
        chosen = _fill(DataFolder.create(making), size)
        (making / "chosen.json").write_text(json.dumps(chosen))
        making.rename(place)
        sys.stderr.write(f"  {size:,} records, filled in {time.monotonic() - began:.0f} s\n")
    chosen = json.loads((place / "chosen.json").read_text())
    return DataFolder.existing(place), {int(number): request_id for number, request_id in chosen.items()}


def _place(size: int) -> Path:
    """Where the ledger of a size lies; another place when the tables or the packing of records are others."""
    room = Path(counterfoil.ledger.__file__ or "").parent
    deciding = [(room / name).read_bytes() for name in ("schema.sql", "packing.py")]
    digest = hashlib.sha256(b"".join(deciding)).hexdigest()[:12]
    return SCRATCH / "ledgers" / digest / str(size)


def _fill(folder: DataFolder, size: int) -> dict[int, str]:
    """Append ``size`` records as the writer does; the ids of those that will be looked for."""
    connection = database.open_writer(folder.ledger_db, "write")
    ring = KeyRing(folder.secret("kek"), StoredKeys(connection), os.urandom)
    store, maker = Store(connection, 0), RowMaker(Sealer(ring, os.urandom), 30)
    signer = Signer(folder.secret("signing"), lambda: _FIRST_MS)
    chosen = dict.fromkeys(random.Random(5).sample(range(size), min(TRIALS, size)), "")
    rows = _rows(maker, size, chosen)
    log = 0

    def note(_: apsw.Connection, __: str, pages: int) -> int:
        nonlocal log
        log = pages
        return apsw.SQLITE_OK

    connection.set_wal_hook(note)
    while batch := list(islice(rows, BATCH_ROWS)):
        store.append(batch)
        if store.unindexed >= INDEX_ROWS:
            store.index(INDEX_ROWS)
        if len(store.unsigned) >= SIGNED_MAX:
            store.sign(signer)
        if log > LOG_PAGES:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    store.index(1)
    if store.unsigned:
        store.sign(signer)
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    connection.close()
    return chosen


def _rows(maker: RowMaker, size: int, chosen: dict[int, str]) -> Iterator[Row]:
    """The rows of records 0 … size-1; the ids of the chosen ones are put in."""
    clock = iter(range(_FIRST_MS, _FIRST_MS + size * 10, 10))
    ids = IdSource(lambda: next(clock), os.urandom)
    for number in range(size):
        request_id = ids.next()
        if number in chosen:
            chosen[number] = request_id
        at_ms = _FIRST_MS + number * 10
        record = _record(request_id, number)
        yield maker.row(Settlement(NO_SLOT, record, CapturePolicy.METADATA, None, at_ms), None)


def _ask(folder: DataFolder, ids: dict[int, str]) -> dict[str, Any]:
    chosen = list(ids)
    questions: dict[str, tuple[list[int], Callable[[LedgerReader, int], object]]] = {
        "by_id": (chosen, lambda reader, number: reader.find(_team(number), ids[number])),
        "by_native_id": (chosen, lambda reader, number: reader.find(_team(number), _native(number))),
        "last_50": (chosen[:500], lambda reader, number: reader.page(Filter(team_id=_team(number)))),
    }
    row: dict[str, Any] = {}
    for prepare, state in ((_read_through, ""), (_forget, "_cold")):
        for name, (numbers, ask) in questions.items():
            prepare(folder.ledger_db)
            reader = LedgerReader(folder)
            try:
                if not row:
                    stats = reader.stats()
                    row["bytes_per_record"] = round(stats["bytes"] / stats["records"])
                row |= _time(f"{name}{state}", numbers, partial(ask, reader))
            finally:
                reader.close()
    return row


def _read_through(path: Path) -> None:
    """Have the system hold a file in memory, as far as it can."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def _forget(path: Path) -> None:
    """Have the system hold nothing of a file in memory; what was not written yet is written first."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _time(name: str, chosen: list[int], ask: Callable[[int], object]) -> dict[str, float]:
    """Latency, and the CPU it took: on a machine that does other work the first is mostly theirs."""
    samples: list[float] = []
    cpu: list[float] = []
    for number in chosen:
        began, cpu_began = time.perf_counter_ns(), time.thread_time_ns()
        found = ask(number)
        cpu.append((time.thread_time_ns() - cpu_began) / 1000)
        samples.append((time.perf_counter_ns() - began) / 1000)
        if found is None:
            raise AssertionError(f"{name}: record {number} was not found")
    return {
        f"{name}_p50_us": round(quantile(samples, 0.5), 1),
        f"{name}_p99_us": round(quantile(samples, 0.99), 1),
        f"{name}_cpu_p99_us": round(quantile(cpu, 0.99), 1),
    }


def _team(number: int) -> str:
    return f"team-{number % TEAMS}"


def _native(number: int) -> str:
    # Spread like a provider's random ids, yet known again.
    return f"chatcmpl-{number * 0x9E3779B97F4A7C15 % (1 << 64):016x}"


def _record(request_id: str, number: int) -> Record:
    return Record(
        created_at="2026-09-21T14:13:20.000Z",
        request_id=request_id,
        team_id=_team(number),
        app_id="web",
        key_id="bench",
        endpoint="/v1/chat/completions",
        model_id="openai/gpt-4o-mini",
        provider="openai",
        native_response_id=_native(number),
        stream=False,
        byok=False,
        status_code=200,
        success=True,
        error_code=None,
        error_message=None,
        latency_ms=412.3,
        generation_ms=1322.1,
        throughput=166.4,
        usage=_USAGE,
        cost_nanos=sum(line.amount_nanos for line in _LINES),
        pricing_lines=_LINES,
        cost_state=CostState.EXACT,
        finish_reason="stop",
        book=_BOOK,
    )
