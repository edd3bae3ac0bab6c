"""Serves a cassette: a gateway with no data folder, no provider and no key, for tests that run offline and free.

It is the gateway itself, in strict playback, with the rooms below it exchanged: any key opens the door, recordings come
from a file, and records are kept in memory, where ``GET /v1/generations?id=`` finds the newest of them. Each key, and
within a key each session, has its own turn through several recordings of one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from hashlib import blake2b
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from counterfoil.capture.body import Capture
from counterfoil.capture.recording import Asked, Near, Recording, kind_of, match_text, nearest
from counterfoil.clock import wall_ms
from counterfoil.config.model import Limits, ServerConfig
from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.gateway.host import Host
from counterfoil.gateway.playback import Playback
from counterfoil.gateway.run import Gateway, Parts
from counterfoil.ledger.settlement import NO_SLOT, Intent, Settlement, Waiter
from counterfoil.pricing.book import PriceBook
from counterfoil.record import codec
from counterfoil.record.ids import IdSource
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState, PlaybackMode
from counterfoil.replay.cassette import Cassette, Interaction
from counterfoil.replay.redact import Redactor
from counterfoil.routing.plan import Routes
from counterfoil.surfaces import registry
from counterfoil.tenancy.keys import KeyKind
from counterfoil.tenancy.principal import Principal
from counterfoil.tenancy.scopes import TEAM_MEMBER
from counterfoil.tenancy.vault import Wallet

TEAM: Final = "cassette"
RECORDS_MAX: Final = 10_000
"""Records of played calls that are kept; the oldest goes for each new one."""
NEAR_MAX: Final = 256
"""Recordings that a miss is compared with."""
START_SECONDS: Final = 30
STOP_SECONDS: Final = 5

Scope = dict[str, Any]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class CassetteLibrary:
    """The recordings of a cassette by match key, and whose turn each is."""

    def __init__(self, cassette: Cassette) -> None:
        self._redactor = Redactor(cassette.rules)
        self._ignored = cassette.ignored
        self._all = cassette.interactions
        self._by_key: dict[bytes, list[Recording]] = defaultdict(list)
        self._turns: dict[tuple[str, str | None, bytes], int] = defaultdict(int)
        self.played: list[str] = []
        self._indexed: set[tuple[Any, ...]] = set()
        self._index(self._ignored)

    async def find(self, asked: Asked) -> Recording | None:
        """The recording whose turn it is."""
        asked = self._as_recorded(asked)
        self._index(asked.ignored)
        key = _key(asked)
        found = [one for one in self._by_key.get(key, ()) if one.success or not asked.successes_only]
        if not found:
            return None
        turn = (asked.key_id, asked.session_id, key)
        recording = found[self._turns[turn] % len(found)]
        self._turns[turn] += 1
        self.played.append(recording.generation_id)
        return recording

    async def near(self, asked: Asked) -> Near | None:
        """The recording nearest to a request that has none."""
        kind = kind_of(asked.endpoint)
        alike = [one for one in self._all if kind_of(one.endpoint) == kind][:NEAR_MAX]
        return nearest(self._as_recorded(asked), map(_candidate, alike))

    def _as_recorded(self, asked: Asked) -> Asked:
        body = self._redactor.request(asked.body, asked.content_type)
        ignored = tuple(sorted({*self._ignored, *asked.ignored}))
        return msgspec.structs.replace(asked, body=body, ignored=ignored)

    def _index(self, ignored: tuple[Any, ...]) -> None:
        if ignored in self._indexed:
            return
        self._indexed.add(ignored)
        for one in self._all:
            capture = one.recording.capture
            like = Asked(TEAM, "", None, one.endpoint, capture.request_type, capture.request, ignored)
            self._by_key[_key(like)].append(one.recording)


class CassetteServer:
    """A served cassette. ``played`` are the generations that answered, in their order."""

    def __init__(self, cassette: Cassette, speed: float = 0.0) -> None:
        self._library = CassetteLibrary(cassette)
        self._records = Records()
        self._speed = speed

    @property
    def played(self) -> Sequence[str]:
        return tuple(self._library.played)

    def host(self, *, signals: bool) -> Host:
        """What serves it, on the running loop. Without ``signals`` it can run in any thread."""
        gateway = Gateway(
            Parts(
                ledger=self._records,
                directory=AnyKey(),
                routes=Routes({}, {}, lambda: 0.0),
                book=_no_book,
                ids=IdSource(wall_ms, os.urandom),
                limits=Limits(),
                capture_default=CapturePolicy.METADATA,
                capture_bytes_max=0,
                find_surface=registry.find,
                unknown_surface=registry.unknown,
                is_control=lambda path: path == "/v1/generations",
                playback=Playback(self._library, speed=self._speed),
            ),
            asyncio.get_running_loop(),
        )
        kind = Host if signals else _Quiet
        return kind(gateway, self._records, ServerConfig(shutdown_seconds=STOP_SECONDS), _nothing)


class Records:
    """Records of played calls in memory: a ledger for as long as the process lives, and its lookup."""

    def __init__(self) -> None:
        self._records: OrderedDict[str, bytes] = OrderedDict()

    def admit(self, intent: Intent) -> int:
        """Never asked: nothing is sent to a provider."""
        del intent
        return NO_SLOT

    def put(self, settlement: Settlement, waiter: Waiter) -> None:
        """Keep the record."""
        capture = CaptureInfo(policy=CapturePolicy.METADATA, state=CaptureState.NOT_CAPTURED)
        data = codec.encode(settlement.record, capture)
        self._records[settlement.record.request_id] = (
            b'%b,"replay_supported":false,"replay_unavailable_reason":"policy"}' % data[:-1]
        )
        if len(self._records) > RECORDS_MAX:
            self._records.popitem(last=False)
        waiter.set_result(None)

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """An ASGI application: the lookup of a record, and whether the server is there."""
        del receive
        status, body = self._answer(scope["path"], scope["query_string"])
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, path: str, query: bytes) -> tuple[int, bytes]:
        if path.startswith("/health/"):
            return 200, b'{"status":"ready"}'
        if path != "/v1/generations":
            return 404, b'{"error":"not_found","message":"A cassette is served here: model calls, and their records."}'
        wanted = parse_qs(query.decode("latin-1")).get("id", [""])[0]
        found = self._records.get(wanted)
        return (200, found) if found is not None else (404, b'{"error":"not_found"}')


class AnyKey:
    """Lets everybody in, in strict playback; each key is somebody of its own."""

    def authenticate(self, key_text: str) -> Principal:
        """Whoever holds this key, or none."""
        return Principal(
            key_id=blake2b(key_text.encode(errors="replace"), digest_size=8).hexdigest(),
            team_id=TEAM,
            app_id=None,
            kind=KeyKind.INFERENCE,
            scopes=TEAM_MEMBER,
            capture=CapturePolicy.METADATA,
            playback=PlaybackMode.STRICT,
            content_needs_scope=False,
            expires_at_ms=None,
            wallet=Wallet.empty(TEAM),
        )


class Served:
    """A cassette that is being served: where, and what has been played."""

    def __init__(self, url: str, server: CassetteServer) -> None:
        self.url = url
        self._server = server

    @property
    def played(self) -> Sequence[str]:
        """The generations that answered, in their order."""
        return self._server.played


@contextlib.contextmanager
def in_thread(cassette: Cassette, speed: float = 0.0) -> Generator[Served]:
    """Serve a cassette on a free loopback port, in a thread of its own, until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = CassetteServer(cassette, speed)
    ready = threading.Event()
    hosts: list[tuple[asyncio.AbstractEventLoop, Host]] = []

    async def serve() -> None:
        host = server.host(signals=False)
        hosts.append((asyncio.get_running_loop(), host))
        ready.set()
        await host.serve(sockets=[listener])

    thread = threading.Thread(target=_run, args=(serve, ready), name="counterfoil-cassette", daemon=True)
    thread.start()
    try:
        if not ready.wait(START_SECONDS) or not hosts:
            raise ConfigError("The cassette's server did not start.")
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", server)
    finally:
        for loop, host in hosts:
            with contextlib.suppress(RuntimeError):  # its loop has ended already
                loop.call_soon_threadsafe(host.stop)
        thread.join(START_SECONDS)
        listener.close()


class _Quiet(Host):
    """A host in a thread, where signals cannot be caught."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def _run(serve: Callable[[], Any], ready: threading.Event) -> None:
    try:
        asyncio.run(serve())
    finally:
        ready.set()


def _key(asked: Asked) -> bytes:
    return blake2b(match_text(asked), digest_size=16).digest()


def _candidate(one: Interaction) -> tuple[str, str, Capture]:
    return one.recording.generation_id, one.endpoint, one.recording.capture


def _no_book() -> PriceBook:
    raise GatewayFault("internal", "A cassette has no prices.")


async def _nothing() -> None:
    return


def counts(cassette: Cassette) -> Iterator[tuple[str, int]]:
    """How many recordings there are of each endpoint, in the order of the names."""
    found: dict[str, int] = defaultdict(int)
    for one in cassette.interactions:
        found[one.endpoint.partition("?")[0]] += 1
    yield from sorted(found.items())
