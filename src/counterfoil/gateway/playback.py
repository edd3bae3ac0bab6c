"""Playback: a recording answers in a provider's place.

A played call takes the way of every call, with one end exchanged: where an attempt would send its request over a
connection, a :class:`Player` hands the recorded pieces to the same relay. So the usage frame is again withheld from a
client that did not ask for it, the terminal frame waits for the record, and the record is metered, settled and chained
like any other. It says which generation was played, and that nothing was spent.

A played call has no intent in the journal: an intent is a promise about a provider, and none is called. A gateway that
dies while it plays leaves no record of that call, and no unknown cost either.

Request headers, each optional:

=================================  =====================================================================================
``x-counterfoil-playback``         ``strict``: a recording answers or nothing does; ``prefer``: a recorded success, else
                                   the provider; ``off``. Default: the key's.
``x-counterfoil-playback-speed``   ``none`` (at once), ``original``, or a factor such as 2. Default: configured.
``x-counterfoil-playback-ignore``  JSON pointers, comma-separated, that do not count in the match, beside the
                                   configuration's.
=================================  =====================================================================================
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Final, Protocol

from counterfoil.capture.recording import Asked, Near, Recording
from counterfoil.config.model import Timeouts
from counterfoil.errors import CallerFault, Fault
from counterfoil.gateway.relay import PLAYBACK_OF
from counterfoil.gateway.upstream.connection import Receiver
from counterfoil.ledger.recordings import Recordings
from counterfoil.providers.provider import Origin, Provider
from counterfoil.record.record import PlaybackMode
from counterfoil.surfaces.base import Call
from counterfoil.tenancy.principal import Principal
from counterfoil.wire import canonical
from counterfoil.wire.canonical import Pointer

HEADER: Final = b"x-counterfoil-playback"
SPEED: Final = b"x-counterfoil-playback-speed"
IGNORE: Final = b"x-counterfoil-playback-ignore"

SPEED_MAX: Final = 10_000.0
PIECES_AT_ONCE: Final = 16
"""Pieces that are handed over before other calls have their turn."""
PIECE_BYTES: Final = 64 << 10
"""A whole body is handed over in pieces of this size, so that a slow client can slow it down."""
THREADS: Final = 2
"""Threads that read recordings: one that waits for the disk, one that opens what it found."""

_FOREVER = 1e9
PLAYER: Final = Provider(
    name="none",
    family="openai",
    origin=Origin("http", "", 0),
    base_path="",
    request_line=b"",
    host_line=b"",
    credential=b"",
    fields=(),
    surfaces=frozenset(),
    prices="",
    drains=False,
    drain_seconds=0,
    timeouts=Timeouts(first_byte_seconds=_FOREVER, idle_seconds=3600, total_seconds=_FOREVER),
    connections_max=1,
)
"""Stands where a relay has its provider: it is never late and never drained; a client that takes nothing for an hour is
given up."""


class Library(Protocol):
    """Where recordings are found."""

    async def find(self, asked: Asked) -> Recording | None:
        """The recording whose turn it is."""
        ...

    async def near(self, asked: Asked) -> Near | None:
        """The recording nearest to a request that has none."""
        ...


class LedgerLibrary:
    """The recordings of a ledger, read in threads of its own."""

    def __init__(self, recordings: Recordings) -> None:
        self._recordings = recordings
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="counterfoil-playback")

    async def find(self, asked: Asked) -> Recording | None:
        """The recording whose turn it is."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._recordings.find, asked)

    async def near(self, asked: Asked) -> Near | None:
        """The recording nearest to a request that has none."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._recordings.near, asked)

    def close(self) -> None:
        """End the threads and close the index."""
        self._threads.shutdown(cancel_futures=True)
        self._recordings.close()


class Playback:
    """What the gateway knows of playing: where recordings are found, and the configuration's defaults."""

    def __init__(self, library: Library, ignored: tuple[Pointer, ...] = (), speed: float = 0.0) -> None:
        self._library = library
        self._ignored = ignored
        self._speed = speed

    async def find(
        self, principal: Principal, session_id: str | None, headers: dict[bytes, bytes], call: Call, mode: PlaybackMode
    ) -> Recording | None:
        """The recording that answers ``call``; None when the provider shall answer.

        Raises :class:`CallerFault` ``no_recording`` when there is none and the mode is strict.
        """
        said = headers.get(IGNORE)
        strict = mode is PlaybackMode.STRICT
        asked = Asked(
            team_id=principal.team_id,
            key_id=principal.key_id,
            session_id=session_id,
            endpoint=call.endpoint,
            content_type=call.content_type,
            body=call.body,
            ignored=self._ignored if said is None else tuple(sorted({*self._ignored, *_ignored(said)})),
            successes_only=not strict,
        )
        found = await self._library.find(asked)
        if found is None and strict:
            raise missed(await self._library.near(asked))
        return found

    def player(self, recording: Recording, headers: dict[bytes, bytes]) -> Player:
        """What plays ``recording`` at the pace that was asked for. Raises :class:`CallerFault` for one that is none."""
        said = headers.get(SPEED)
        return Player(recording, self._speed if said is None else speed_of(said))


class Player:
    """Hands a recording to a relay, piece by piece, as a connection would an answer (``relay.Sender``)."""

    def __init__(self, recording: Recording, speed: float) -> None:
        capture = recording.capture
        response = capture.response
        self._speed = speed
        self._fields = [
            (b"content-type", capture.response_type.encode("latin-1", "replace")),
            (PLAYBACK_OF, recording.generation_id.encode("latin-1", "replace")),
        ]
        self._status = capture.response_status
        if isinstance(response, bytes):
            self._fields.append((b"content-length", b"%d" % len(response)))
            self._pieces = tuple(response[at : at + PIECE_BYTES] for at in range(0, len(response), PIECE_BYTES))
            self._offsets_us = (int(recording.generation_ms * 1000),)
        else:
            self._pieces = response
            self._offsets_us = capture.offsets_us
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._at = 0
        self._paused = False
        self._receiver: Receiver | None = None
        self._next: asyncio.Handle | None = None

    def send(self, receiver: Receiver, head: bytes, body: bytes) -> None:
        """Begin to play. There is nobody to send the request to."""
        del head, body
        self._receiver = receiver
        self._began = self._loop.time()
        self._go_on()

    def pause(self) -> None:
        """The client is slow: wait."""
        self._paused = True

    def resume(self) -> None:
        """The client takes more."""
        if self._paused:
            self._paused = False
            self._go_on()

    def detach(self) -> None:
        """Nobody listens any more."""
        self._receiver = None
        if self._next is not None:
            self._next.cancel()

    def _go_on(self) -> None:
        wait = self._due() - self._loop.time() if self._speed else 0.0
        self._next = self._loop.call_later(wait, self._play) if wait > 0 else self._loop.call_soon(self._play)

    def _due(self) -> float:
        """When the next piece is due, in loop time; what has no time of its own follows at once."""
        if self._at >= len(self._offsets_us):
            return 0.0
        return self._began + self._offsets_us[self._at] / 1e6 / self._speed

    def _play(self) -> None:
        for _ in range(PIECES_AT_ONCE):
            receiver = self._receiver
            if receiver is None or self._paused:
                return
            if self._at == 0:
                receiver.on_head(self._status, self._fields)
            if self._at == len(self._pieces):
                self._receiver = None
                receiver.on_end()
                return
            piece = self._pieces[self._at]
            self._at += 1
            receiver.on_body(piece)
            if self._speed and self._due() > self._loop.time():
                break
        if not self._paused:
            self._go_on()


def mode_of(principal: Principal | None, headers: dict[bytes, bytes]) -> PlaybackMode | None:
    """Whether a recording may answer: what the request says, else the key's default; None for a provider's answer.

    Raises :class:`CallerFault` ``invalid_field`` for a header that names no mode.
    """
    said = headers.get(HEADER)
    if said is None:
        mode = principal.playback if principal is not None else None
    else:
        mode = _MODES.get(said.strip().lower())
        if mode is None:
            raise _unclear(HEADER, "must be strict, prefer or off")
    return None if mode is PlaybackMode.OFF else mode


def speed_of(said: bytes) -> float:
    """The pace that a header or an option names: 0 at once, 1 as recorded, more for faster."""
    text = said.strip().lower()
    if text in (b"none", b"original"):
        return 0.0 if text == b"none" else 1.0
    try:
        speed = float(text)
    except ValueError:
        speed = -1.0
    if not 0 < speed <= SPEED_MAX:
        raise _unclear(SPEED, f"must be none, original or a factor above 0 and up to {SPEED_MAX:.0f}")
    return speed


def missed(near: Near | None) -> Fault:
    """The fault of a strict request that nothing answers: it names the nearest recording, and what differs."""
    if near is None:
        told = "This team has none at this endpoint."
    elif near.fields:
        told = f"The nearest, {near.generation_id}, differs in: {', '.join(near.fields)}."
    else:
        told = f"See {near.generation_id}."
    return CallerFault("no_recording", f"{CallerFault.kinds['no_recording'].message} {told}")


_MODES: Final = {mode.value.encode(): mode for mode in PlaybackMode}


@lru_cache(maxsize=256)
def _ignored(said: bytes) -> tuple[Pointer, ...]:
    try:
        return canonical.pointers(said.decode("utf-8", "replace"))
    except ValueError as error:
        raise _unclear(IGNORE, f"must be JSON pointers, comma-separated. {error}") from error


def _unclear(header: bytes, rule: str) -> CallerFault:
    name = header.decode()
    return CallerFault("invalid_field", f"The header {name} {rule}.", param=name)
