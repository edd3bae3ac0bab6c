"""The control plane alone: a data folder with records in it, served over loopback without a gateway."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import uvicorn

from counterfoil.api.app import build
from counterfoil.api.parts import ControlParts, Health
from counterfoil.capture.body import Capture
from counterfoil.folder import DataFolder
from counterfoil.ledger import books
from counterfoil.ledger.evidence import Evidence
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.settlement import NO_SLOT, Settlement
from counterfoil.pricing.book import PriceBook
from counterfoil.record import ids
from counterfoil.record.charge import CostState, Line, LineState
from counterfoil.record.record import CapturePolicy, CaptureState, Record
from counterfoil.record.times import timestamp
from counterfoil.record.usage import Usage, UsageSource
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from emulators.waiting import PATIENCE_S

START_MS = 1_790_000_000_000
REQUEST = b'{ "model":"openai/gpt-4o-mini",\n "messages":[{"role":"user","content":"h\xc3\xa9"}], "temperature":1.50 }'


def settlement(
    number: int,
    *,
    team: str = "acme",
    request: bytes | None = REQUEST,
    response: bytes | tuple[bytes, ...] = b'{"id":"chatcmpl-1"}',
    policy: CapturePolicy = CapturePolicy.FULL,
    state: CaptureState = CaptureState.NOT_CAPTURED,
    replayable: bytes | None = None,
    **fields: Any,
) -> Settlement:
    """A call that ended, number ``number`` of its ledger: admitted so many seconds after the start."""
    created_at_ms = START_MS + number * 1000
    failed = fields.get("error_code") is not None
    given = {
        "created_at": timestamp(created_at_ms),
        "request_id": request_id(number),
        "team_id": team,
        "app_id": "web",
        "key_id": "k1",
        "endpoint": "/v1/chat/completions",
        "model_id": "openai/gpt-4o-mini",
        "provider": "openai",
        "native_response_id": f"chatcmpl-{number}",
        "stream": False,
        "byok": False,
        "status_code": 502 if failed else 200,
        "success": not failed,
        "error_code": None,
        "error_message": None,
        "latency_ms": 12.5,
        "generation_ms": 100.0,
        "throughput": None if failed else 50.0,
        "usage": Usage(10, 5, 15, source=UsageSource.REPORTED),
        "cost_nanos": 1000,
        "cost_state": CostState.EXACT,
    } | fields
    if "pricing_lines" not in fields:
        given["pricing_lines"] = _lines(given["cost_nanos"], given["cost_state"])
    capture = None
    if request is not None:
        capture = Capture(request, "application/json", replayable, response, "application/json", 200)
    return Settlement(NO_SLOT, Record(**given), policy, capture, created_at_ms, state)


def _lines(cost_nanos: int, state: CostState) -> tuple[Line, ...]:
    """Lines that explain a cost: so many tokens at a nano each, and one of unknown price unless it is exact."""
    line = Line(
        meter="input_tokens",
        quantity=cost_nanos,
        unit_size=1,
        unit_price_nanos=1,
        amount_nanos=cost_nanos,
        rule_id="test",
        book="0" * 64,
        state=LineState.PRICED,
    )
    unpriced = msgspec.structs.replace(
        line,
        meter="output_tokens",
        quantity=5,
        unit_price_nanos=0,
        amount_nanos=0,
        rule_id="",
        state=LineState.UNPRICED,
    )
    return (line,) * (cost_nanos > 0) + (unpriced,) * (state is not CostState.EXACT)


def request_id(number: int) -> str:
    """The id of record ``number``."""
    return ids.text(START_MS + number * 1000 << 80 | number)


def write(folder: DataFolder, settlements: Iterable[Settlement]) -> None:
    """Make ``settlements`` durable, as a gateway does, and leave."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        ledger = Ledger.open(folder, durability="write", loop=loop, retention_days=36_500, patience_s=PATIENCE_S)
        await asyncio.gather(*[ledger.settle(one) for one in settlements])
        await ledger.close()

    asyncio.run(run())


class Answer(msgspec.Struct):
    """A complete answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)


@dataclass
class ControlPlane:
    """A control plane that serves, and the tenancy behind it."""

    port: int
    folder: DataFolder
    admin: Admin
    reader: LedgerReader

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, target: str, key: str | None = None, *, method: str = "GET", **options: Any) -> Answer:
        """The answer to one request with ``key`` as a bearer, or with ``headers``."""
        headers: Mapping[str, str] = options.get("headers", {} if key is None else {"Authorization": f"Bearer {key}"})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, target, options.get("body"), dict(headers))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders() if name.lower() != "date"}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def serving(folder: DataFolder, health: Callable[[], Health] = Health) -> Iterator[ControlPlane]:
    """Serve the control plane over ``folder`` until the block ends."""
    admin, directory, reader = Admin(folder), Directory(folder), LedgerReader(folder)
    book = PriceBook.build(books.bundled_catalog())
    loop = asyncio.new_event_loop()
    ledger = Ledger.open(folder, durability="write", loop=loop, retention_days=36_500)
    parts = ControlParts(
        reader=reader,
        directory=directory,
        admin=admin,
        book=lambda: book,
        erase=ledger.erase,
        models=lambda _: [{"id": "openai/gpt-4o-mini", "object": "model", "created": 0, "owned_by": "openai"}],
        evidence=Evidence(folder),
        health=health,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build(parts), log_level="critical", lifespan="off", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield ControlPlane(listener.getsockname()[1], folder, admin, reader)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        loop.run_until_complete(ledger.close())
        loop.close()
        reader.close()
        directory.close()
        admin.close()
