"""Ledgers for tests: opened for a while, with calls in flight, and checked whole afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from msgspec import UNSET

from counterfoil.folder import DataFolder
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.settlement import Intent, Settlement
from counterfoil.ledger.verify import Report, Verifier
from counterfoil.pricing.book import PriceBook
from counterfoil.record.charge import Charge
from counterfoil.record.record import Attempt
from counterfoil.record.usage import Usage, UsageSource
from emulators.control import START_MS, request_id, settlement
from emulators.waiting import PATIENCE_S

NOW_MS = START_MS + 86_400_000
USAGE = Usage(1000, 200, 1200, {"cached_tokens": 100}, source=UsageSource.REPORTED)


@asynccontextmanager
async def opened(folder: DataFolder, **options: Any) -> AsyncIterator[Ledger]:
    """A ledger on ``folder``, closed afterwards."""
    given = {"durability": "write", "retention_days": 30, "now_ms": lambda: NOW_MS, "patience_s": PATIENCE_S} | options
    ledger = Ledger.open(folder, loop=asyncio.get_running_loop(), **given)
    try:
        yield ledger
    finally:
        await ledger.close()


def priced(
    book: PriceBook, number: int, charge: Charge | None = None, *, lines_twice: bool = True, **fields: Any
) -> Settlement:
    """A call of :data:`USAGE` that cost what ``book`` says, or what ``charge`` says.

    ``lines_twice``: its lines stand in the attempt that answered too, as they do in what is written today.
    """
    given = charge or book.price("openai", "gpt-4o-mini", USAGE, START_MS + number * 1000)
    attempt = Attempt(
        number=1,
        provider="openai",
        model="gpt-4o-mini",
        key_source="operator",
        status_code=200,
        error_code=None,
        latency_ms=1.0,
        generation_ms=2.0,
        usage=USAGE,
        pricing_lines=given.lines if lines_twice else UNSET,
        cost_nanos=given.nanos,
    )
    priced = {"cost_nanos": given.nanos, "pricing_lines": given.lines, "cost_state": given.state, "book": book.digest}
    return settlement(number, usage=USAGE, attempts=(attempt,), **priced, **fields)


async def settle_all(ledger: Ledger, settlements: Iterable[Settlement]) -> None:
    """Make ``settlements`` durable in one go."""
    await asyncio.gather(*[ledger.settle(one) for one in settlements])


def intent(number: int, **fields: Any) -> Intent:
    """The intent of call ``number``."""
    given = {
        "request_id": request_id(number),
        "created_at_ms": START_MS + number * 1000,
        "team_id": "acme",
        "app_id": None,
        "key_id": "k1",
        "endpoint": "/v1/chat/completions",
        "model_id": "openai/gpt-4o-mini",
        "requested_model": "gpt",
        "provider": "openai",
        "stream": True,
        "byok": False,
    } | fields
    return Intent(**given)


def verified(folder: DataFolder, **options: Any) -> Report:
    """What a deep verification finds."""
    return Verifier(folder, **({"now_ms": NOW_MS} | options)).run()


def all_ids(folder: DataFolder) -> list[str]:
    """The id of every record, in the order of commit."""
    reader = LedgerReader(folder)
    try:
        return [stored.id for stored in reader.all()]
    finally:
        reader.close()
