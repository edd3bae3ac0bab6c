"""Copies the write-ahead log back into the database, away from the writer.

SQLite appends commits to a log; somebody must copy the pages back (a *checkpoint*), and only after all of it is
copied does the next commit start again at the log's beginning. Copying costs milliseconds, so this thread does nearly
all of it while commits go on (a passive checkpoint never blocks them). What was committed meanwhile is left over; the
writer copies that small rest itself between two batches, when it knows that nothing is being appended, and the log
starts anew.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

import apsw

LOG_PAGES: Final = 2048
"""Pages in the log (8 MiB) that call for a checkpoint."""

LOG_PAGES_MAX: Final = 8 * LOG_PAGES
"""Pages at which readers or other writers have kept the log from starting anew too long: then commits wait for it."""

_log = logging.getLogger(__name__)


class Keeper:
    """The thread and its connection. :meth:`note` is called by the writer after each commit."""

    def __init__(self, connect: Callable[[], apsw.Connection]) -> None:
        self._connect = connect
        self._signal = threading.Event()
        self._closing = False
        self._pages = 0
        self.wants_finish = False
        self._thread = threading.Thread(target=self._run, name="counterfoil-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def note(self, pages: int) -> None:
        """The log has ``pages`` now."""
        self._pages = pages
        if pages >= LOG_PAGES and not self._signal.is_set() and not self.wants_finish:
            self._signal.set()

    def finish(self, connection: apsw.Connection) -> None:
        """The writer's part: copy the rest. Raises :class:`apsw.Error`."""
        self.wants_finish = False
        overdue = self._pages >= LOG_PAGES_MAX
        mode = apsw.SQLITE_CHECKPOINT_RESTART if overdue else apsw.SQLITE_CHECKPOINT_PASSIVE
        with contextlib.suppress(apsw.BusyError):  # another worker copies, or a reader holds the log; it is asked again
            connection.wal_checkpoint(mode=mode)

    def close(self) -> None:
        self._closing = True
        self._signal.set()
        self._thread.join()

    def _connected(self) -> apsw.Connection | None:
        """The connection, open from the start: while it is, SQLite never takes up a commit whose sync had failed."""
        try:
            return self._connect()
        except apsw.Error:
            return None  # it is tried again when there is something to do

    def _run(self) -> None:
        connection = self._connected()
        try:
            while True:
                self._signal.wait()
                if self._closing:
                    return
                try:
                    connection = connection or self._connect()
                    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                except apsw.BusyError:
                    pass  # another worker is copying the same log
                except apsw.Error as error:
                    # The log keeps what was not copied. The writer's own part meets the same fault and says so.
                    _log.warning("ledger_checkpoint_failed", extra={"reason": type(error).__name__})
                self.wants_finish = True
                self._signal.clear()
                if self._closing:  # close() may have set the signal just before it was cleared
                    return
        finally:
            if connection is not None:
                connection.close()
