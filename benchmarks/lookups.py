"""Lookups against a ledger that grows: by our id, by the provider's id, and a team's last 50 (P8).

The ledger is filled through its own writing end, so pages, indexes and chain are what a gateway would have left.  Only
bodies are left out: they lie in a table of their own, which none of these questions reads.  Ids to look for are drawn
evenly over the whole history, each once, so a row is as likely cold as old.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import uvloop

from benchmarks.statistics import quantile
from benchmarks.targets import SCRATCH
from counterfoil.folder import DataFolder
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import Filter, LedgerReader
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.record.charge import CostState, Line, LineState
from counterfoil.record.ids import IdSource
from counterfoil.record.record import CapturePolicy, Record
from counterfoil.record.usage import Usage, UsageSource

# 10 million records take about a quarter of an hour and ten gigabytes, so they are asked for by name.
RECORDS_MAX: Final = int(os.environ.get("COUNTERFOIL_BENCH_RECORDS", "1000000"))
SIZES: Final = (10_000, 100_000, 1_000_000, 10_000_000)
TEAMS: Final = 20
TRIALS: Final = 3000
IN_FLIGHT: Final = 256
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
    """A row for each size up to `COUNTERFOIL_BENCH_RECORDS`: p50 and p99 in µs, and bytes a record."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="lookups-", dir=SCRATCH))
    rows: list[dict[str, Any]] = []
    ids: list[str] = []
    try:
        folder = DataFolder.create(root / "data")
        for size in SIZES:
            if size <= RECORDS_MAX:
                began = time.monotonic()
                uvloop.run(_fill(folder, ids, size))
                sys.stderr.write(f"  {size:,} records, filled in {time.monotonic() - began:.0f} s\n")
                rows.append({"records": size} | _ask(folder, ids))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return rows


async def _fill(folder: DataFolder, ids: list[str], size: int) -> None:
    """Append records until there are `size`; `ids` grows with them."""
    loop = asyncio.get_running_loop()
    ledger = Ledger.open(folder, durability="write", loop=loop, retention_days=30)
    clock = iter(range(_FIRST_MS + len(ids) * 10, _FIRST_MS + size * 10, 10))
    source = IdSource(lambda: next(clock), os.urandom)
    numbers = iter(range(len(ids), size))

    async def append(numbers: Iterator[int]) -> None:
        for number in numbers:
            ids.append(source.next())
            settlement = Settlement(
                NO_SLOT, _record(ids[-1], number), CapturePolicy.METADATA, None, _FIRST_MS + number * 10
            )
            await ledger.settle(settlement)

    await asyncio.gather(*(append(numbers) for _ in range(IN_FLIGHT)))
    await ledger.close()


def _ask(folder: DataFolder, ids: list[str]) -> dict[str, Any]:
    reader = LedgerReader(folder)
    chosen = random.Random(5).sample(range(len(ids)), TRIALS)
    try:
        row: dict[str, Any] = {"bytes_per_record": round(reader.stats()["bytes"] / len(ids))}
        row |= _time("by_id", chosen, lambda number: reader.find(_team(number), ids[number]))
        row |= _time("by_native_id", chosen, lambda number: reader.find(_team(number), _native(number)))
        row |= _time("last_50", chosen[:500], lambda number: reader.page(Filter(team_id=_team(number))))
        return row
    finally:
        reader.close()


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
