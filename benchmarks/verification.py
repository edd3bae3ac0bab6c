"""P12: records a second and core that ``ledger verify`` and ``ledger reprice`` get through, part by part.

    python -m benchmarks.verification [--records 200000] [--bodies] [--rounds 3] [--workers 2]

The ledger holds chat completions of four models and twenty teams, priced by the bundled catalogue, about 2.4 KB each.
No two have the same usage, a few were answered at the second try, and each is what the gateway writes for such a call.
`chain` is `ledger verify --chain-only`; `everything` adds columns, sums, bodies, tables, and computes every record's
lines again from its book; `reprice` computes lines and sums differences up, by model, team and meter. Each is CPU
time of this one process, so the figure is per core whatever else the machine does; but `everything with workers`,
which is by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import uvloop
from msgspec import UNSET

from benchmarks.targets import SCRATCH
from counterfoil.capture.body import Capture
from counterfoil.folder import DataFolder
from counterfoil.ledger import books
from counterfoil.ledger.filters import Filter
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.ledger.verify import Verifier
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.reprice import Comparison, decode, reprice
from counterfoil.process.pauses import tame_collector
from counterfoil.record.ids import IdSource
from counterfoil.record.record import Attempt, CapturePolicy, Record
from counterfoil.record.usage import Usage, UsageSource

MODELS = (
    ("openai", "gpt-4o-mini"),
    ("openai", "gpt-4o"),
    ("anthropic", "claude-sonnet-4-5"),
    ("google", "gemini-2.5-flash"),
)
IN_FLIGHT = 256
FIRST_MS = 1_790_000_000_000
RETRIED = 0.02
"""Share of the calls that were answered at the second try."""
CREATED_AT = "2026-09-21T14:13:20.{:03d}Z"


def usage_of(random: Random) -> Usage:
    """A call's counts as they scatter in real traffic, where two calls hardly ever agree in all of them."""
    prompt, completion = int(random.lognormvariate(6.7, 1.3)) + 1, int(random.lognormvariate(5, 1.1)) + 1
    cached = random.randrange(prompt) // 128 * 128 if random.random() < 0.4 else 0
    reasoning = random.randrange(completion) if random.random() < 0.2 else 0
    return Usage(
        prompt,
        completion,
        prompt + completion,
        {"cached_tokens": cached, "audio_tokens": 0},
        {"reasoning_tokens": reasoning, "audio_tokens": 0},
        source=UsageSource.REPORTED,
    )


def failed(random: Random, provider: str, model: str) -> Attempt:
    """A try that was refused; nothing is charged for it."""
    return Attempt(
        number=1,
        provider=provider,
        model=model,
        key_source="operator",
        status_code=429,
        error_code="upstream:rate_limited",
        error_message="Rate limit reached.",
        latency_ms=round(random.lognormvariate(4, 0.5), 3),
        generation_ms=0.0,
    )


def record(book: PriceBook, request_id: str, number: int) -> tuple[Record, int]:
    """Record `number`, as the gateway would have written it, and when it was admitted."""
    random = Random(number)
    provider, model = random.choice(MODELS)
    at_ms = FIRST_MS + number % 1000
    attempts = (failed(random, provider, model),) if random.random() < RETRIED else ()
    usage = usage_of(random)
    charge = book.price(provider, model, usage, at_ms, service_tier="default", team_id="team", native_model=model)
    latency_ms, generation_ms = round(random.lognormvariate(6, 0.6), 3), round(random.lognormvariate(7.5, 0.8), 3)
    native_id = f"chatcmpl-{random.getrandbits(80):020x}"
    attempt = Attempt(
        number=len(attempts) + 1,
        provider=provider,
        model=model,
        key_source="operator",
        status_code=200,
        error_code=None,
        latency_ms=latency_ms,
        generation_ms=generation_ms,
        native_response_id=native_id,
        usage=usage,
        pricing_lines=charge.lines if attempts else UNSET,
        cost_nanos=charge.nanos,
    )
    made = Record(
        created_at=CREATED_AT.format(at_ms % 1000),
        request_id=request_id,
        team_id=f"team-{random.randrange(20)}",
        app_id="web",
        key_id="k7TQ2m9xWcFh",
        endpoint="/v1/chat/completions",
        model_id=f"{provider}/{model}",
        provider=provider,
        native_response_id=native_id,
        stream=random.random() < 0.5,
        byok=False,
        status_code=200,
        success=True,
        error_code=None,
        error_message=None,
        latency_ms=latency_ms,
        generation_ms=generation_ms,
        throughput=round(usage.completion_tokens / generation_ms * 1000, 3),
        usage=usage,
        cost_nanos=charge.nanos,
        pricing_lines=charge.lines,
        cost_state=charge.state,
        attempts=(*attempts, attempt),
        finish_reason="stop",
        gateway_ms=round(random.lognormvariate(-1, 0.4), 3),
        requested_model=f"{provider}/{model}",
        native_model=model,
        service_tier="default",
        session_id=f"{random.getrandbits(64):016x}" if random.random() < 0.3 else None,
        end_user=f"traveller-{random.randrange(5000)}",
        book=book.digest,
    )
    return made, at_ms


async def fill(folder: DataFolder, book: PriceBook, count: int, *, bodies: bool) -> None:
    """Append `count` records."""
    ledger = Ledger.open(folder, durability="write", loop=asyncio.get_running_loop(), retention_days=36_500)
    source = IdSource(lambda: FIRST_MS, os.urandom)
    numbers = iter(range(count))
    policy = CapturePolicy.FULL if bodies else CapturePolicy.METADATA

    async def append() -> None:
        for number in numbers:
            made, at_ms = record(book, source.next(), number)
            capture = None
            if bodies:
                capture = Capture(
                    os.urandom(200).hex().encode(),
                    "application/json",
                    None,
                    os.urandom(550).hex().encode(),
                    "application/json",
                    200,
                )
            await ledger.settle(Settlement(NO_SLOT, made, policy, capture, at_ms))

    await asyncio.gather(*(append() for _ in range(IN_FLIGHT)))
    await ledger.close()


def rate(count: int, rounds: int, work: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """The median of records a second of ``clock``, mostly CPU time."""
    found: list[float] = []
    for _ in range(rounds):
        began = clock()
        work()
        found.append(count / (clock() - began))
    return statistics.median(found)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure ledger verify and reprice.")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="also with so many processes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bodies", action="store_true", help="seal 1.5 KB of bodies with each record")
    given = parser.parse_args()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="verification-", dir=SCRATCH))
    try:
        folder = DataFolder.create(root / "data")
        book = PriceBook.build(books.bundled_catalog())
        books.store(folder.books, book)
        tame_collector()
        uvloop.run(fill(folder, book, given.records, bodies=given.bodies))
        sys.stderr.write(f"{given.records:,} records written\n")

        def verify(*, deep: bool, workers: int = 1) -> None:
            report = Verifier(folder, now_ms=FIRST_MS, deep=deep, workers=workers).run()
            if report.problems or report.records != given.records:
                raise AssertionError(report)

        def compare() -> None:
            reader, comparison = LedgerReader(folder), Comparison()
            try:
                for data in reader.canonical(Filter()):
                    each = decode(data)
                    comparison.add(each, reprice(book, each))
            finally:
                reader.close()
            if comparison.all.records != given.records or comparison.all.difference_nanos:
                raise AssertionError(comparison.all)

        shown = {
            "chain": rate(given.records, given.rounds, lambda: verify(deep=False)),
            "everything": rate(given.records, given.rounds, lambda: verify(deep=True)),
            "reprice": rate(given.records, given.rounds, compare),
        }
        if given.workers > 1:
            shown["everything with workers"] = rate(
                given.records, given.rounds, lambda: verify(deep=True, workers=given.workers), time.perf_counter
            )
        rounded = json.dumps({name: round(value) for name, value in shown.items()}, indent=1)
        print(rounded)
        if given.json:
            given.json.write_text(rounded)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
