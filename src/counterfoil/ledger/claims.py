"""Which call an idempotency key stands for: one small table, shared by the workers of a gateway.

A claim says that a key was used, for which request, and which generation answers it. It is durable before the call is
dispatched, as durable as the ledger is. What became of the call is *not* here: the generation's record says that, and
the bodies kept with it are the answer to repeat. So there is nothing to bring in line after a crash but one case: a
claim whose call never got as far as an intent has no record, and nobody is at work on it any more. Such claims are
dropped when the next worker opens the table: its predecessor's, and those of every writer that is not alive.

Who is alive: each worker holds a lock on the byte of ``idempotency.lock`` that has its writer number, and the lock ends
with the process. Keys are kept as digests, in a database of their own, ``idempotency.db``, which is made when the first
key arrives: a folder that never sees one has neither file.

Where several workers died at once, one may open the table before the successor of another has made records of what is
in its journal. So a claim whose call is in a journal still stands, and the byte of a dead writer is held while its
claims are looked at: its successor, which might claim anew, waits for that long.

Everything here blocks, and is called in one thread (:class:`Claims` is not for several).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator
from typing import Final

import apsw
from msgspec import Struct

from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.database import Durability, keep_a_log, transaction, wait_briefly
from counterfoil.ledger.intents import open_ids

SWEPT_ROWS: Final = 64
"""Expired claims that each new one takes away with it, so that the table is as long as a day's keys and no longer."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS claims (
    scope         BLOB NOT NULL PRIMARY KEY,  -- SHA-256 of the team, the API key, the endpoint and the idempotency key
    fingerprint   BLOB NOT NULL,              -- SHA-256 of the request
    request_id    TEXT NOT NULL,              -- the generation that answers it
    writer        INTEGER NOT NULL,           -- the worker it was claimed in
    created_at_ms INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE INDEX IF NOT EXISTS claims_by_age ON claims (created_at_ms);
"""
_FIND: Final = "SELECT fingerprint, request_id FROM claims WHERE scope = ? AND created_at_ms > ?"
_CLAIM: Final = "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)"
_TAKE_OVER: Final = "UPDATE claims SET request_id = ?, writer = ?, created_at_ms = ? WHERE scope = ? AND request_id = ?"
_RELEASE: Final = "DELETE FROM claims WHERE scope = ? AND request_id = ?"
_SWEEP: Final = """
DELETE FROM claims WHERE scope IN (SELECT scope FROM claims WHERE created_at_ms <= ? ORDER BY created_at_ms LIMIT ?)
"""
_WRITERS: Final = "SELECT DISTINCT writer FROM claims"
_OF_WRITER: Final = "SELECT scope, request_id FROM claims WHERE writer = ?"


class Held(Struct, frozen=True):
    """A key that stands for a call already: that call's request, as a digest, and the generation that answers it."""

    fingerprint: bytes
    request_id: str


class Claims:
    """The claims of one folder, for the worker with the number ``writer``. ``keep_ms`` is how long a key is known."""

    def __init__(
        self, folder: DataFolder, writer: int, durability: Durability, keep_ms: int, has_record: Callable[[str], bool]
    ) -> None:
        """Open what is there. This worker has made records of what was in its own journal when this is called.

        Raises :class:`GatewayFault` ``ledger_unavailable``, as every method does when the table cannot be used.
        """
        self._path = folder.root / "idempotency.db"
        self._lock_path = folder.root / "idempotency.lock"
        self._journal = folder.journal
        self._writer = writer
        self._durability = durability
        self._keep_ms = keep_ms
        self._has_record = has_record
        self._lock = -1
        self._connection: apsw.Connection | None = None
        if self._path.exists():
            with _mapped():
                self._open()

    def claim(self, scope: bytes, fingerprint: bytes, request_id: str, now_ms: int) -> Held | None:
        """Let ``scope`` stand for the call ``request_id`` (None), or say which call it stands for already."""
        with _mapped():
            connection = self._connection or self._open()
            expired = now_ms - self._keep_ms
            held = self._find(connection, scope, expired)
            if held is None:
                with transaction(connection):
                    held = self._find(connection, scope, expired)
                    if held is None:
                        connection.execute(_SWEEP, (expired, SWEPT_ROWS))
                        connection.execute(_CLAIM, (scope, fingerprint, request_id, self._writer, now_ms))
        return held

    def take_over(self, scope: bytes, ended: str, request_id: str, now_ms: int) -> bool:
        """Let ``scope`` stand for ``request_id`` instead of the call ``ended``; False when somebody else was first."""
        with _mapped():
            connection = self._connection or self._open()
            with transaction(connection):
                connection.execute(_TAKE_OVER, (request_id, self._writer, now_ms, scope, ended))
                taken = connection.changes() == 1
        return taken

    def release(self, scope: bytes, request_id: str) -> None:
        """Forget that ``scope`` stands for ``request_id``: that call was never sent and has no record."""
        with _mapped():
            (self._connection or self._open()).execute(_RELEASE, (scope, request_id))

    def close(self) -> None:
        """Close the table; its claims stay."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _find(self, connection: apsw.Connection, scope: bytes, expired: int) -> Held | None:
        row = connection.execute(_FIND, (scope, expired)).get
        return None if row is None else Held(*row)

    def _open(self) -> apsw.Connection:
        if not self._path.exists():
            self._path.touch(mode=0o600)
        if self._lock < 0:  # else it was taken by a try that went no further
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, self._writer)
        connection = apsw.Connection(str(self._path))
        try:
            wait_briefly(connection)
            keep_a_log(connection)
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durability == 'fsync' else 'NORMAL'}")
            connection.execute(_SCHEMA)
            self._drop_orphans(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _drop_orphans(self, connection: apsw.Connection) -> None:
        writers = [writer for (writer,) in connection.execute(_WRITERS) if writer != self._writer]
        dead: list[int] = []
        try:
            dead += (writer for writer in writers if self._seize(writer))
            claimed = [row for writer in (self._writer, *dead) for row in connection.execute(_OF_WRITER, (writer,))]
            # Before the records are looked for: a call leaves its journal when its record is there, not before.
            in_flight = set(open_ids(self._journal)) if claimed else set[str]()
            for scope, request_id in claimed:
                if request_id not in in_flight and not self._has_record(request_id):
                    connection.execute(_RELEASE, (scope, request_id))
        finally:
            for writer in dead:
                fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, writer)

    def _seize(self, writer: int) -> bool:
        """Take the byte of another writer; False when it is alive."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, writer)
        except (BlockingIOError, PermissionError):
            return False
        return True


@contextlib.contextmanager
def _mapped() -> Generator[None]:
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise GatewayFault("ledger_unavailable", "The idempotency keys cannot be read or written.") from error
