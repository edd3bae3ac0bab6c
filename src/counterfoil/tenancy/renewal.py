"""Gives a key that was used a digest under the newest pepper, in a thread of its own: no call waits for a commit.

No cache hangs on a digest, so the epoch stays as it is and nobody forgets a key over it. A digest that cannot be
written (the disk is full, a change holds the database) is tried again with the key's next look-up in the database.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

import apsw

BUSY_MS_MAX: Final = 5_000
WAITING_MAX: Final = 100_000
"""Keys that wait for the thread: as many as a directory remembers."""
_RENEW: Final = "UPDATE OR IGNORE key_secrets SET digest = ? WHERE key_id = ? AND digest = ?"
_log = logging.getLogger(__name__)


class Renewal:
    """Safe from any thread. Without a key to renew there is no thread, and no connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, bytes], bytes] = {}
        self._thread: threading.Thread | None = None

    def renew(self, key_id: str, old: bytes, new: bytes) -> None:
        """Have the digest ``old`` of a key replaced by ``new``; returns at once."""
        with self._lock:
            if len(self._waiting) < WAITING_MAX:
                self._waiting[key_id, old] = new
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="counterfoil-renewal", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait for what is under way."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join(BUSY_MS_MAX / 1000)

    def _run(self) -> None:
        """Write what waits, until nothing does; the next key begins another thread."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                batch, self._waiting = self._waiting, {}
            try:
                self._write(batch)
            except apsw.Error as error:
                _log.warning("keys_not_renewed", extra={"keys": len(batch), "reason": type(error).__name__})

    def _write(self, batch: dict[tuple[str, bytes], bytes]) -> None:
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            connection.set_busy_timeout(BUSY_MS_MAX)
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                connection.executemany(_RENEW, [(new, key_id, old) for (key_id, old), new in batch.items()])
        finally:
            connection.close()
