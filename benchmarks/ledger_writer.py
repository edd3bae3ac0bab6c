"""What the ledger costs: CPU per record on the loop's side and in the writer's thread, commit waits, records/s.

    python benchmarks/ledger_writer.py [--seconds 2] [--json FILE]

Every record is a chat completion of about 2 KB with three pricing lines; its bodies (0.4 KB in, 1.1 KB out) are
compressed and sealed. ``in flight`` settlements are kept open at a time, so it is about the size of a batch. The loop's
side is admit + settle + the resolved future; a share of the time goes to this script's own loop, measured with a ledger
that does nothing and taken off. Durability is ``fsync``.
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
from pathlib import Path

import uvloop
from msgspec.structs import replace

from counterfoil.capture.body import Capture
from counterfoil.folder import DataFolder
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.settlement import Intent, Settlement
from counterfoil.record.charge import CostState, Line, LineState
from counterfoil.record.ids import IdSource
from counterfoil.record.record import Attempt, CapturePolicy, Record
from counterfoil.record.usage import Usage, UsageSource

REQUEST = json.dumps(
    {
        "model": "openai/gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You answer questions about trains in one paragraph."},
            {"role": "user", "content": "Which trains leave Basel for Milan after four in the afternoon on a Sunday, "},
        ],
        "temperature": 0.2,
        "max_tokens": 300,
        "user": "traveller-8812",
    }
).encode()


def answer(number: int) -> bytes:
    """A completion of 1.1 KB whose text is not the same every time."""
    words = ["train", "leaves", "platform", "crosses", "tunnel", "arrives", "change", "ticket", "evening", "window"]
    text = " ".join(words[(number * 7 + i * i + (number >> 3) * i) % 10] for i in range(95))
    return json.dumps(
        {
            "id": f"chatcmpl-{number:020x}",
            "object": "chat.completion",
            "created": 1795000000 + number,
            "model": "gpt-4o-mini-2024-07-18",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 61, "completion_tokens": 122, "total_tokens": 183},
            "service_tier": "default",
            "system_fingerprint": "fp_51db84afab",
        }
    ).encode()


def line(meter: str, quantity: int, price: int) -> Line:
    return Line(
        meter=meter,
        quantity=quantity,
        unit_size=1_000_000,
        unit_price_nanos=price,
        amount_nanos=quantity * price // 1_000_000,
        rule_id=f"openai/gpt-4o-mini:{meter}",
        book="9f" * 32,
        state=LineState.PRICED,
    )


LINES = (
    line("input_tokens", 37, 150_000_000),
    line("cached_tokens", 24, 75_000_000),
    line("output_tokens", 122, 600_000_000),
)
COST = sum(each.amount_nanos for each in LINES)
USAGE = Usage(61, 122, 183, {"cached_tokens": 24}, source=UsageSource.REPORTED)


def record(request_id: str, number: int) -> Record:
    native = f"chatcmpl-{number * 2654435761 % (1 << 80):020x}"
    return Record(
        created_at="2026-11-23T10:00:00.000Z",
        request_id=request_id,
        team_id=f"team-{number % 20}",
        app_id="web",
        key_id="k7TQ2m9xWcFh",
        endpoint="/v1/chat/completions",
        model_id="openai/gpt-4o-mini",
        provider="openai",
        native_response_id=native,
        stream=False,
        byok=False,
        status_code=200,
        success=True,
        error_code=None,
        error_message=None,
        latency_ms=412.318,
        generation_ms=1322.094,
        throughput=92.278,
        usage=USAGE,
        cost_nanos=COST,
        pricing_lines=LINES,
        cost_state=CostState.EXACT,
        attempts=(
            Attempt(
                number=1,
                provider="openai",
                model="gpt-4o-mini",
                key_source="operator",
                status_code=200,
                error_code=None,
                latency_ms=412.318,
                generation_ms=1322.094,
                native_response_id=native,
                usage=USAGE,
                cost_nanos=COST,
            ),
        ),
        finish_reason="stop",
        gateway_ms=0.412,
        requested_model="openai/gpt-4o-mini",
        native_model="gpt-4o-mini-2024-07-18",
        service_tier="default",
        end_user="traveller-8812",
        book="9f" * 32,
    )


class Nothing:
    """A ledger that does nothing, to measure this script."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def admit(self, intent: Intent) -> int:
        return 0

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        future = self._loop.create_future()
        self._loop.call_soon(future.set_result, None)
        return future


async def drive(ledger: Ledger | Nothing, ids: list[str], in_flight: int, seconds: float, *, captured: bool) -> dict:
    """Keep ``in_flight`` calls going for ``seconds``; what each of them took."""
    waits: list[float] = []
    bodies = [Capture(REQUEST, "application/json", None, answer(n), "application/json", 200) for n in range(997)]
    template = record(ids[0], 1)
    records = iter([replace(template, request_id=each, native_response_id=f"chatcmpl-{each}") for each in ids])
    policy = CapturePolicy.FULL if captured else CapturePolicy.METADATA
    end = time.perf_counter() + seconds
    done = 0
    admitting = 0.0

    async def one() -> None:
        nonlocal done, admitting
        for each in records:
            intent = Intent(
                each.request_id,
                1795000000000,
                each.team_id,
                "web",
                each.key_id,
                each.endpoint,
                each.model_id,
                each.requested_model,
                each.provider,
                False,
                False,
            )
            a = time.perf_counter()
            slot = ledger.admit(intent)
            admitting += time.perf_counter() - a
            capture = bodies[done % 997] if captured else None
            began = time.perf_counter()
            await ledger.settle(Settlement(slot, each, policy, capture, 1795000000000))
            waits.append(time.perf_counter() - began)
            done += 1
            if time.perf_counter() > end:
                return

    cpu, loop_cpu, began = time.process_time(), time.thread_time(), time.perf_counter()
    commits = getattr(ledger, "commits", 0)
    await asyncio.gather(*(one() for _ in range(in_flight)))
    wall = time.perf_counter() - began
    cpu, loop_cpu = time.process_time() - cpu, time.thread_time() - loop_cpu
    waits.sort()
    return {
        "done": done,
        "rate": done / wall,
        "cpu_us": cpu / done * 1e6,
        "loop_us": loop_cpu / done * 1e6,
        "admit_us": admitting / done * 1e6,
        "wait_p50_ms": waits[len(waits) // 2] * 1e3,
        "wait_p99_ms": waits[len(waits) * 99 // 100] * 1e3,
        "batch": done / max(1, getattr(ledger, "commits", 0) - commits),
    }


async def measure(root: Path, in_flight: int, seconds: float, *, captured: bool, durability: str) -> dict:
    loop = asyncio.get_running_loop()
    source = IdSource(lambda: time.time_ns() // 1_000_000, os.urandom)
    ids = [source.next() for _ in range(int(60_000 * seconds) if in_flight > 1 else int(8000 * seconds))]
    floor = await drive(Nothing(loop), ids[: len(ids) // 4], in_flight, seconds / 4, captured=captured)
    folder = DataFolder.create(root)
    ledger = Ledger.open(folder, durability=durability, loop=loop, retention_days=30)
    await drive(
        ledger, [source.next() for _ in range(2000)], in_flight, 0.3, captured=captured
    )  # warm: keys, statements, log
    figures = await drive(ledger, ids, in_flight, seconds, captured=captured)
    await ledger.close()
    reader = LedgerReader(folder)
    stats = reader.stats()
    reader.close()
    figures["bytes_a_record"] = stats["bytes"] / stats["records"]
    figures["cpu_us"] -= floor["cpu_us"]
    figures["loop_us"] -= floor["loop_us"]
    figures["writer_us"] = figures["cpu_us"] - figures["loop_us"]
    figures["in_flight"] = in_flight
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the ledger's writer.")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 4, 8, 20, 64, 256])
    parser.add_argument("--durability", default="fsync")
    parser.add_argument("--metadata", action="store_true", help="keep no bodies")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    columns = (
        "batch",
        "rate",
        "cpu_us",
        "writer_us",
        "loop_us",
        "admit_us",
        "wait_p50_ms",
        "wait_p99_ms",
        "bytes_a_record",
    )
    print("in flight", *(f"{name:>14}" for name in columns))
    table = []
    for in_flight in given.in_flight:
        rounds = []
        for _ in range(given.rounds):
            root = Path(tempfile.mkdtemp(dir=Path.cwd() if os.access(Path.cwd(), os.W_OK) else None, prefix=".ledger-"))
            try:
                rounds.append(
                    uvloop.run(
                        measure(
                            root, in_flight, given.seconds, captured=not given.metadata, durability=given.durability
                        )
                    )
                )
            finally:
                shutil.rmtree(root)
        median = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        table.append(median)
        print(f"{in_flight:9}", *(f"{median[name]:14.2f}" for name in columns), flush=True)
    if given.json:
        given.json.write_text(json.dumps({"python": sys.version, "figures": table}, indent=1))


if __name__ == "__main__":
    main()
