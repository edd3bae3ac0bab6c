"""A team's recordings by match key: an index beside the ledger that is made only where playback is used.

``playback.db`` is derived from the ledger and may be deleted at any time. Nothing is written to it when a call is
recorded: the first playback of a team reads its recordings once, each later one what came since. So calls cost nothing
more, whoever never plays has no index, and whoever does pays for each recording once (docs/decisions/0030).

What is left out of the match is part of the key, so each set of ignored fields is a *profile* with keys of its own.

A key is a keyed hash (BLAKE2b under a key of this purpose, derived from the folder's secret): the index outlives the
bodies, and must not let anybody confirm a guess at one. A recording whose bodies are gone is forgotten when it is
found so, and never played.
"""

from __future__ import annotations

import threading
import zlib
from array import array
from collections.abc import Callable, Iterator
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import Any, Final

import apsw

from counterfoil.capture.body import Capture
from counterfoil.capture.recording import Asked, Near, Recording, kind_of, match_text, nearest, playable
from counterfoil.capture.seal import derive
from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database, sql
from counterfoil.ledger.query import LedgerReader, Recorded
from counterfoil.record import codec, ids
from counterfoil.record.record import CaptureState
from counterfoil.wire.pointer import joined

IMPORTED: Final = "cassette"
"""The provider of records that were imported from a cassette: played answers that may be played again."""

NOBODY: Final = "none"
"""The provider of records whose answer came from no provider."""

PROFILES_MAX: Final = 16
"""Sets of ignored fields that are kept for one team; each is an index of its own."""

BATCH_ROWS: Final = 256
"""Recordings that are indexed in one transaction."""

NEAR_ROWS_MAX: Final = 32
"""Recordings that a miss is compared with, the newest of its kind."""

CURSOR_MS_MAX: Final = 86_400_000
"""How long a sequence that nobody continues is remembered."""

_VERSION = 1
_PURPOSE = b"counterfoil/playback-match/1"
_QUERIES: Final = sql.parse(resources.files("counterfoil.ledger").joinpath("recordings.sql").read_text("utf-8"))


class Recordings:
    """The recordings in the ledger of ``folder``. Safe from any thread; every method blocks on the disk.

    Methods raise :class:`GatewayFault` ``ledger_unavailable`` when a database cannot be read.
    """

    def __init__(self, folder: DataFolder, reader: LedgerReader, now_ms: Callable[[], int]) -> None:
        self._path = folder.playback_db
        self._reader = reader
        self._now_ms = now_ms
        self._secret = derive(folder.secret("kek"), _PURPOSE)
        self._lock = threading.Lock()
        self._opened: apsw.Connection | None = None

    def find(self, asked: Asked) -> Recording | None:
        """The recording whose turn it is, None when there is none."""
        key = self._key(asked)
        with self._lock:
            try:
                profile = self._profile(asked)
                return self._whose_turn(profile, key, asked)
            except apsw.Error as error:
                raise GatewayFault("ledger_unavailable", "The index of recordings cannot be read.") from error

    def near(self, asked: Asked) -> Near | None:
        """The recording nearest to a request that has none, None when the team has none of its kind."""
        with self._lock:
            try:
                profile = self._profile(asked)
                values = (profile, _kind(asked.endpoint), NEAR_ROWS_MAX)
                places = [seq for (seq,) in self._connection().execute(_QUERIES["newest_of_kind"], values)]
            except apsw.Error as error:
                raise GatewayFault("ledger_unavailable", "The index of recordings cannot be read.") from error
        return nearest(asked, self._candidates(asked.team_id, places))

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    # A turn.

    def _whose_turn(self, profile: int, key: bytes, asked: Asked) -> Recording | None:
        execute = self._connection().execute
        wanted = (profile, key, int(asked.successes_only))
        while count := execute(_QUERIES["count"], wanted).get:
            turn = self._played(asked, key) % count if count > 1 else 0
            identity, created_at_ms = execute(_QUERIES["nth"], (*wanted, turn)).get
            recording = self._recording(asked.team_id, identity)
            if recording is not None:
                return recording
            execute(_QUERIES["forget"], (profile, key, created_at_ms, identity))
        return None

    def _played(self, asked: Asked, key: bytes) -> int:
        """How often this sequence was played before; counted over all workers."""
        now = self._now_ms()
        execute = self._connection().execute
        played = execute(_QUERIES["next_play"], (asked.key_id, asked.session_id or "", key, now)).get
        if played == 0:
            execute(_QUERIES["delete_old_cursors"], (now - CURSOR_MS_MAX,))
        return played

    def _recording(self, team_id: str, identity: bytes) -> Recording | None:
        stored = self._reader.find(team_id, ids.text(int.from_bytes(identity, "big")))
        if stored is None or stored.capture_state is not CaptureState.STORED:
            return None
        capture = self._reader.capture(stored)
        if capture is None:
            return None
        record = codec.decode(stored.data)
        return Recording(stored.id, record.model_id, capture, record.generation_ms, record.success)

    def _candidates(self, team_id: str, places: list[int]) -> Iterator[tuple[str, str, Capture]]:
        for place in places:
            found = self._reader.recorded(team_id, place)
            if found is not None:
                yield ids.text(int.from_bytes(found.identity, "big")), found.endpoint, found.capture

    # The index.

    def _key(self, asked: Asked) -> bytes:
        return blake2b(match_text(asked), digest_size=16, key=self._secret).digest()

    def _profile(self, asked: Asked) -> int:
        """The profile of ``asked``, brought up to date with the ledger."""
        execute = self._connection().execute
        named = (asked.team_id, ",".join(map(joined, asked.ignored)))
        found = execute(_QUERIES["profile"], named).get
        if found is None:
            execute(_QUERIES["add_profile"], (*named, self._now_ms()))
            found = execute(_QUERIES["profile"], named).get
            for (old,) in list(execute(_QUERIES["old_profiles"], (asked.team_id, PROFILES_MAX))):
                self._together([("delete_recordings", (old,)), ("delete_profile", (old,))])
        profile, position, identity = found
        if position and self._reader.id_at(position) != identity:  # the ledger was exchanged for another
            self._together([("delete_recordings", (profile,)), ("rewind", (profile,))])
            position = 0
        last, places = self._reader.places_after(asked.team_id, position)
        if last > position:
            self._index(profile, asked, places, last)
            execute(_QUERIES["use_profile"], (self._now_ms(), profile))
        return profile

    def _index(self, profile: int, asked: Asked, places: array[int], last: int) -> None:
        for at in range(0, len(places), BATCH_ROWS):
            batch = places[at : at + BATCH_ROWS]
            rows: list[tuple[str, tuple[Any, ...]]] = []
            for place in batch:
                found = self._reader.recorded(asked.team_id, place)
                if found is not None and _plays(found):
                    rows.append(("add_recording", self._row(profile, asked, place, found)))
            self._together([*rows, ("advance", (batch[-1], self._reader.id_at(batch[-1]), profile))])
        self._together([("advance", (last, self._reader.id_at(last), profile))])

    def _row(self, profile: int, asked: Asked, place: int, found: Recorded) -> tuple[Any, ...]:
        bodies = found.capture
        like = Asked(asked.team_id, "", None, found.endpoint, bodies.request_type, bodies.request, asked.ignored)
        success = found.error_code is None
        return profile, self._key(like), found.created_at_ms, found.identity, place, _kind(found.endpoint), success

    def _together(self, statements: list[tuple[str, tuple[Any, ...]]]) -> None:
        """Run ``statements`` as one change."""
        connection = self._connection()
        with connection:
            for name, values in statements:
                connection.execute(_QUERIES[name], values)

    def _connection(self) -> apsw.Connection:
        if self._opened is None:
            try:
                self._opened = _open(self._path)
            except (apsw.CorruptError, apsw.NotADBError):
                _delete(self._path)
                self._opened = _open(self._path)
        return self._opened


def _plays(found: Recorded) -> bool:
    """Whether a record is a recording: its answer came whole, and from a provider (or an imported cassette).

    What was played, or repeated for an idempotency key, came from another record.
    """
    return found.provider != NOBODY and playable(found.capture, found.error_code)


def _kind(endpoint: str) -> int:
    return zlib.crc32(kind_of(endpoint).encode(errors="surrogateescape"))


def _open(path: Path) -> apsw.Connection:
    """A connection to the index, made anew when it is missing or of another version."""
    if not path.exists():
        path.touch(mode=0o600)
    connection = apsw.Connection(str(path))
    try:
        database.wait_briefly(connection)
        database.keep_a_log(connection)
        connection.transaction_mode = "IMMEDIATE"  # two may make it at once: the second waits, and sees what is there
        connection.execute("PRAGMA synchronous = NORMAL")  # derived: what a loss of power takes is derived again
        with connection:
            if connection.pragma("user_version") != _VERSION:
                for (name,) in list(connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")):
                    connection.execute(f'DROP TABLE "{name}"')
                connection.execute(_QUERIES["schema"])
                connection.execute(f"PRAGMA user_version = {_VERSION}")
    except BaseException:
        connection.close()
        raise
    return connection


def _delete(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)
