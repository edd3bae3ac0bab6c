"""Bodies go, commitments stay: sweeping what has expired and erasing what must be erased.

A record commits to its bodies, and the chain to the record. Deleting the bodies touches neither, so a swept or erased
ledger verifies like any other. Bodies of later calls that were packed against them are packed anew first. An erasure
before its time is signed: otherwise a deleted body could pass for an erased one. What was deleted is overwritten with
zeros in the database file (``secure_delete``). The write-ahead log may hold a sealed copy until its place in the log is
used again, which is soon in a busy gateway; when the gateway stops the log is emptied.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from counterfoil.capture.seal import KeyRing, Opener, Sealer
from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.bodies import Parting
from counterfoil.ledger.rows import UNFIT
from counterfoil.ledger.signing import Signer
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import StoredKeys
from counterfoil.record.ids import parse

SWEEP_PERIOD_S: Final = 600.0
SWEEP_ROWS: Final = 500
"""Bodies deleted in one transaction, so that no commit waits long for the write lock."""

_log = logging.getLogger(__name__)


class Eraser:
    """Deletes bodies, on a connection made for the purpose. Safe from any thread."""

    def __init__(
        self,
        path: Path,
        signer: Signer,
        now_ms: Callable[[], int],
        secret: bytes,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """``secret`` is the folder's ``sealing``."""
        self._path = path
        self._signer = signer
        self._now_ms = now_ms
        self._secret = secret
        self._entropy = entropy

    @classmethod
    def of(cls, folder: DataFolder, now_ms: Callable[[], int]) -> Eraser:
        """One for a folder, whether or not a gateway runs on it."""
        signer = Signer(folder.secret("signing"), now_ms)
        return cls(folder.ledger_db, signer, now_ms, folder.sealing())

    def erase_id(self, team_id: str, request_id: str, reason: str) -> bool:
        """:meth:`erase` by an id in text. Raises :class:`GatewayFault` when it cannot be done now."""
        value = parse(request_id)
        try:
            return value is not None and self.erase(team_id, value.to_bytes(16, "big"), reason)
        except apsw.Error as error:
            raise GatewayFault("ledger_unavailable", "The bodies cannot be erased now.") from error

    def erase(self, team_id: str, identity: bytes, reason: str) -> bool:
        """Destroy the bodies of the record ``identity`` of ``team_id``. False when it has none (any more)."""
        connection = self._open()
        try:
            found = connection.execute(QUERIES["find_by_id"], (identity, team_id)).get
            seq = found[0] if found is not None else None
            parting = self._parting(connection)
            parting.ahead(() if seq is None else {seq})
            connection.execute("BEGIN IMMEDIATE")
            if seq is None or connection.execute(QUERIES["body_exists"], (seq,)).get is None:
                connection.execute("ROLLBACK")
                return False
            now = self._now_ms()
            self._delete(connection, parting, {seq})
            connection.execute(QUERIES["add_erasure"], (seq, now, reason, self._signer.erasure(identity, now, reason)))
            connection.execute("COMMIT")
            with contextlib.suppress(apsw.BusyError):  # somebody else is copying the log; it is done all the same
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            return True
        finally:
            connection.close()

    def sweep(self) -> int:
        """Delete every expired body; give how many."""
        connection = self._open()
        parting = self._parting(connection)
        total = 0
        try:
            while True:
                rows = list(connection.execute(QUERIES["expired"], (self._now_ms(), SWEEP_ROWS)))
                going = {seq for _, seq in rows}
                parting.ahead(going)
                connection.execute("BEGIN IMMEDIATE")
                self._delete(connection, parting, going)
                for hour, seq in rows:
                    connection.execute(QUERIES["delete_expiry"], (hour, seq))
                connection.execute("COMMIT")
                total += len(rows)
                if len(rows) < SWEEP_ROWS:
                    return total
        finally:
            connection.close()

    def _parting(self, connection: apsw.Connection) -> Parting:
        ring = KeyRing(self._secret, StoredKeys(connection), self._entropy)
        return Parting(connection, Opener(ring), Sealer(ring, self._entropy))

    def _delete(self, connection: apsw.Connection, parting: Parting, going: set[int]) -> None:
        parting.rest(going)
        for seq in going:
            connection.execute(QUERIES["delete_body"], (seq,))
            connection.execute(QUERIES["delete_shared"], (seq,))

    def _open(self) -> apsw.Connection:
        connection = database.open_writer(self._path, "fsync")
        connection.execute("PRAGMA secure_delete = ON")
        return connection


class Sweeper:
    """Sweeps now and then, in one worker of a folder (``active``)."""

    def __init__(self, eraser: Eraser, *, active: bool) -> None:
        self._eraser = eraser
        self._active = active
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="counterfoil-sweeper", daemon=True)

    def start(self) -> None:
        """Start sweeping."""
        if self._active:
            self._thread.start()

    def close(self) -> None:
        """Stop; a sweep under way ends with its transaction."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.wait(SWEEP_PERIOD_S):
            try:
                swept = self._eraser.sweep()
            except (apsw.Error, OSError, *UNFIT) as error:  # also for a body that cannot be packed anew
                _log.warning("ledger_sweep_failed", extra={"reason": type(error).__name__})
            else:
                if swept:
                    _log.info("ledger_swept", extra={"bodies": swept})
