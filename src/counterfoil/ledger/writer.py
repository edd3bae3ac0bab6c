"""The writer: one thread a process that makes settlements durable in batches, and what it does when it cannot.

::

    loop      settle() ─ deque ─┐                                        ┌─ waiters told, slots handed out again
    writer          take ─ rows ┴─ append (one commit) ─ free the slots ─┘   then: index · sign · checkpoint · look
    after the disk

Rules:

1. Nothing is given up before its commit returned. What cannot be written now is tried again for as long as the process
   lives; its caller is told ``ledger_unavailable`` after ``patience_s``, and its record then says so.
2. The slot of an intent is freed after the commit and before the caller knows. A crash in between leaves an intent
   whose record exists, and recovery looks for the record first.
3. One wake-up of the event loop a batch, and one of the writer.
4. A failed sync is never papered over. When COMMIT reports an I/O error SQLite has not published the transaction: its
   frames lie behind the log's end, for nobody to read. After a failed ``fdatasync`` the kernel may call the pages of
   those frames clean although they never reached the disk, so syncing again would prove nothing. The writer closes its
   connection, opens a new one, and appends the whole batch again: SQLite starts at the same place in the log, writes
   every one of those frames anew, which dirties every page that the failed sync was responsible for, and only the sync
   of *these* writes is believed. (Should nobody else have had the database open, SQLite may take the failed commit up
   again as it opens; so the log is copied back first, and what is there rests on new writes either way.) Frames
   before that place belong to commits whose own sync succeeded; every commit here is synced, those of derived tables
   too, so there is no unsynced frame for later commits to stand on. A checkpoint whose sync fails does not advance the
   log's back-fill mark, and the next one copies the same pages again. After
   :data:`SYNC_FAILURES_MAX` failures in a row the ledger is poisoned: it takes no more calls and the thread ends. The
   disk is gone, and a supervisor should know. (Rejected: PostgreSQL's way, to stop at the first failure. It must,
   because its dirty pages are shared and unaccounted for; here every page of a failed sync is known and rewritten.)
5. A row that SQLite refuses is found by appending the batch's rows one by one; the others are not held up by it.
6. An exception that nobody thought of here poisons the ledger at once: a thread that is gone must not look like a slow
   one.

Batches. A commit costs about 200 µs of CPU whatever it holds, most of it the kernel's. When settlements come at more
than :data:`GATHER_FROM_PER_S` and more calls are in flight, the writer waits for up to :data:`GATHER_S` so that a
commit holds more of them; a lone call is committed at once.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import apsw
import msgspec

from counterfoil.errors import GatewayFault
from counterfoil.ledger import database
from counterfoil.ledger.keeper import Keeper
from counterfoil.ledger.reserve import Reserve
from counterfoil.ledger.rows import UNFIT, Row, RowMaker, late
from counterfoil.ledger.settlement import NO_SLOT, Settlement, Waiter
from counterfoil.ledger.signing import IDLE_PERIOD_S, PERIOD_S, RECORDS_MAX, Signer
from counterfoil.ledger.store import INDEX_ROWS, Store

BATCH_ROWS_MAX: Final = 256
"""Rows of one commit: enough to spread its cost, few enough that none waits for long."""

BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Captured bytes of one commit, so that a few huge bodies do not hold up the small ones behind them."""

GATHER_S: Final = 0.003
GATHER_ROWS: Final = 48
GATHER_FROM_PER_S: Final = 3000

SYNC_FAILURES_MAX: Final = 5

TICK_S: Final = 0.25
"""How often an idle writer looks after its other duties."""

DISK_PERIOD_S: Final = 1.0

RETRY_S: Final = 0.05

FAREWELL_WAIT_MS: Final = 200

_NEVER = sys.maxsize
_REFUSED = (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError, apsw.RangeError, *UNFIT)
_SYNC_ERRORS = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)
_log = logging.getLogger(__name__)

Entry = tuple[Settlement, "Waiter | None"]
Acknowledge = Callable[[list["Waiter | None"], list[int], float, GatewayFault | None], None]


class Poisoned(Exception):
    """The disk does not keep what is written to it."""


class Connected(msgspec.Struct):
    """A connection and what stands on it; made anew after a failure."""

    connection: apsw.Connection
    store: Store
    maker: RowMaker


class Writer:
    """The thread and its queue. :meth:`put` and :meth:`close` are for others; everything private is the thread's own.

    ``acknowledge(waiters, slots, wait_s, fault)`` is called in the writer's thread.
    """

    def __init__(
        self,
        connect: Callable[[], Connected],
        *,
        close_slot: Callable[[int], None],
        in_flight: Callable[[], int],
        acknowledge: Acknowledge,
        signer: Signer,
        keeper: Keeper,
        reserve: Reserve,
        patience_s: float,
        period_s: float = PERIOD_S,
    ) -> None:
        self._connect = connect
        self._connected: Connected | None = None  # made in the thread that uses it
        self._close_slot = close_slot
        self._in_flight = in_flight
        self._acknowledge = acknowledge
        self._signer = signer
        self._keeper = keeper
        self._reserve = reserve
        self._patience_s = patience_s
        self._period_s = period_s
        self._queue: deque[Entry] = deque()
        self._signal = threading.Lock()
        self._signal.acquire()
        self._wanted = _NEVER  # settlements in the queue at which put() wakes the writer
        self._taken = 0
        self._closing = False
        self._failing_since = 0.0  # monotonic; 0 when all is well
        self._sync_failures = 0
        self._last_batch_at = 0.0
        self._rate_per_s = 0.0
        self._next_duty = 0.0
        self._next_disk = 0.0
        self._signed_at = time.monotonic()
        self.refusal: str | None = None  # the code with which calls are refused now
        self.poisoned = False
        self.ended = False
        self.last_checkpoint_ms: int | None = None
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="counterfoil-ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # For the loop's thread.

    def put(self, settlement: Settlement, waiter: Waiter | None) -> None:
        """Queue ``settlement`` and wake the writer when it waits for this much."""
        queue = self._queue
        queue.append((settlement, waiter))
        if len(queue) >= self._wanted:
            self._wanted = _NEVER
            self._wake()
        elif self.ended:
            self._tell_queue()

    @property
    def depth(self) -> int:
        """Settlements that are not durable yet."""
        return len(self._queue) + self._taken

    def close(self, timeout_s: float) -> bool:
        """Write what is queued, sign, end the thread. False when it could not within ``timeout_s``."""
        self._closing = True
        self._wake()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _wake(self) -> None:
        # Not locked: the writer was woken already and has not run yet. That wake-up serves.
        if self._signal.locked():
            self._signal.release()

    # The writer's thread.

    def _run(self) -> None:
        try:
            while not (self._closing and not self._queue):
                batch = self._take()
                if batch:
                    self._write(batch)
                self._look_after()
            self._farewell()
        except BaseException as error:
            self.poisoned = True
            _log.critical("ledger_poisoned")
            if not isinstance(error, Poisoned):
                raise
        finally:
            self.refusal = "ledger_unavailable"
            self.ended = True  # before the queue is looked at: what comes later is told by put()
            self._tell_queue()
            self._disconnect()

    def _take(self) -> list[Entry]:
        """The next batch: at once when the queue holds one, after a wake-up otherwise; empty after an idle tick."""
        queue = self._queue
        if not queue:
            self._wait(1, TICK_S)
        if queue and self._rate_per_s > GATHER_FROM_PER_S:
            expected = min(self._in_flight(), GATHER_ROWS)
            if len(queue) < expected:
                self._wait(expected, GATHER_S)
        batch: list[Entry] = []
        size = 0
        while queue and len(batch) < BATCH_ROWS_MAX and size < BATCH_BYTES_MAX:
            entry = queue.popleft()
            batch.append(entry)
            size += entry[0].bytes
        self._taken = len(batch)
        return batch

    def _wait(self, wanted: int, timeout_s: float) -> None:
        """Sleep until the queue holds ``wanted`` settlements, or for ``timeout_s``."""
        self._wanted = wanted
        # Looked at after `_wanted` was set: a settlement that comes now either is seen here or sees what is wanted.
        if len(self._queue) < wanted and not self._closing:
            self._signal.acquire(timeout=timeout_s)
        self._wanted = _NEVER

    def _write(self, batch: list[Entry]) -> None:
        """Make every entry of ``batch`` durable, however long it takes."""
        began = time.perf_counter()
        self._rate_per_s = len(batch) / (began - self._last_batch_at)
        self._last_batch_at = began
        rows: list[Row] = []
        try:
            while batch or rows:
                try:
                    connected = self._connected or self._reconnect()
                    self._make_rows(connected, batch, rows)
                    self._append(connected, rows)
                    break
                except apsw.Error as error:
                    self._failed(error)
                    self._hold(batch, rows)
        except BaseException:  # whatever it is, the thread ends, and nobody else would tell them
            self.poisoned = True
            self._tell([row.waiter for row in rows] + [waiter for _, waiter in batch])
            raise
        self._taken = 0
        if rows:
            self._done(rows, time.perf_counter() - began)

    def _make_rows(self, connected: Connected, batch: list[Entry], rows: list[Row]) -> None:
        """Move entries over into ``rows``. On an :class:`apsw.Error` (a new data key's insert) the rest stays."""
        row = connected.maker.row
        done = 0
        try:
            for settlement, waiter in batch:
                done += 1
                try:
                    rows.append(row(settlement, waiter))
                except UNFIT as error:
                    self._refuse(settlement, waiter, error)
                except apsw.Error:
                    done -= 1
                    raise
        finally:
            del batch[:done]

    def _append(self, connected: Connected, rows: list[Row]) -> None:
        """Commit ``rows``; those that SQLite refuses are taken out."""
        if rows:
            try:
                connected.store.append(rows)
            except _REFUSED:
                self._append_singly(connected, rows)
            self.commits += 1
        if self._failing_since:
            self._recovered()

    def _append_singly(self, connected: Connected, rows: list[Row]) -> None:
        for row in rows[:]:
            try:
                connected.store.append([row])
            except _REFUSED as error:
                if not self._stands(connected, row):
                    rows.remove(row)
                    self._refuse(row.settlement, row.waiter, error)

    def _stands(self, connected: Connected, row: Row) -> bool:
        """Whether the call of a refused row has its record: this very one, or now one of the bare facts."""
        store = connected.store
        present = store.data_of(row.columns[0])
        if present is not None:
            # A commit that reported an error may have reached the disk after all; then this very record is there.
            return present == row.data
        try:
            store.append([connected.maker.bare(row.settlement, None)])
        except _REFUSED:
            return False
        return True

    def _done(self, rows: list[Row], wait_s: float) -> None:
        """Rule 2: free the slots, then tell the callers."""
        close_slot = self._close_slot
        slots: list[int] = []
        for row in rows:
            slot = row.settlement.slot
            if slot >= 0:
                close_slot(slot)
                slots.append(slot)
        self._acknowledge([row.waiter for row in rows], slots, wait_s, None)

    def _refuse(self, settlement: Settlement, waiter: Waiter | None, error: Exception) -> None:
        """A settlement that no record can be made of: not an id of ours, or an id that has a record already."""
        _log.error("ledger_settlement_refused", extra={"reason": type(error).__name__})
        slots = [settlement.slot] if settlement.slot != NO_SLOT else []
        for slot in slots:
            self._close_slot(slot)
        self._acknowledge([waiter], slots, 0.0, GatewayFault("internal"))

    # When it cannot be written.

    def _failed(self, error: apsw.Error) -> None:
        """Take no more calls, and do what may help before the next try."""
        now = time.monotonic()
        if not self._failing_since:
            self._failing_since = now
            _log.error("ledger_write_failed", extra={"reason": type(error).__name__, "code": _code_of(error)})
        self.refusal = "ledger_unavailable"
        if _code_of(error) in _SYNC_ERRORS:
            self._sync_failures += 1
            if self._sync_failures >= SYNC_FAILURES_MAX:
                raise Poisoned from error
        if not isinstance(error, apsw.BusyError):
            self._disconnect()
        full = isinstance(error, apsw.FullError) or not self._reserve.roomy()
        if not (full and self._reserve.give_up()):
            self._signal.acquire(timeout=RETRY_S)

    def _hold(self, batch: list[Entry], rows: list[Row]) -> None:
        """After ``patience_s``: tell the callers of all that waits; keep it, with a record that says what happened."""
        if time.monotonic() - self._failing_since < self._patience_s:
            return
        if self._closing:
            raise Poisoned("the ledger could not be written until the gateway stopped")
        batch[:0] = [(row.settlement, row.waiter) for row in rows]
        rows.clear()
        while self._queue:
            batch.append(self._queue.popleft())
        self._taken = len(batch)
        self._tell([waiter for _, waiter in batch])
        batch[:] = [
            (
                settlement if waiter is None else msgspec.structs.replace(settlement, record=late(settlement.record)),
                None,
            )
            for settlement, waiter in batch
            if settlement.slot != NO_SLOT or waiter is None
        ]

    def _tell(self, waiters: list[Waiter | None]) -> None:
        waiting: list[Waiter | None] = [waiter for waiter in waiters if waiter is not None]
        if waiting:
            self._acknowledge(waiting, [], 0.0, GatewayFault("ledger_unavailable"))

    def _tell_queue(self) -> None:
        """Tell whoever is queued that nobody writes any more."""
        waiters: list[Waiter | None] = []
        while self._queue:
            waiters.append(self._queue.popleft()[1])
        self._tell(waiters)

    def _recovered(self) -> None:
        """A commit went through: take calls again once the disk has room."""
        self._failing_since = 0.0
        self._sync_failures = 0
        _log.warning("ledger_write_recovered")
        self._look_at_disk()

    def _look_at_disk(self) -> None:
        """Refuse calls when the disk is about to be full; take them again when the reserve stands."""
        roomy = self._reserve.roomy() if self.refusal is None else self._reserve.take()
        self.refusal = None if roomy else "ledger_unavailable"

    def _reconnect(self) -> Connected:
        connected = self._connect()
        if self._sync_failures:
            try:
                database.copy_back(connected.connection)
            except apsw.Error:
                connected.connection.close()
                raise
        connected.connection.set_wal_hook(self._note_log)
        self._connected = connected
        return connected

    def _note_log(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._keeper.note(pages)
        return apsw.SQLITE_OK

    def _disconnect(self) -> None:
        connected, self._connected = self._connected, None
        if connected is not None:
            connected.connection.close()

    # Other duties.

    def _look_after(self) -> None:
        """Index, sign, checkpoint and look at the disk when their time has come. Costs a comparison otherwise."""
        connected = self._connected
        now = time.monotonic()
        if connected is not None and connected.store.unindexed < INDEX_ROWS and now < self._next_duty:
            return
        self._next_duty = now + TICK_S
        try:
            if connected is None:
                connected = self._reconnect()
            store = connected.store
            if store.unindexed >= INDEX_ROWS:
                store.index(INDEX_ROWS)
            if self._checkpoint_due(store, now):
                self._sign(store, now)
            if self._keeper.wants_finish:
                self._keeper.finish(connected.connection)
            if self._failing_since:
                store.probe()
                self._recovered()
            if now >= self._next_disk:
                self._next_disk = now + DISK_PERIOD_S
                self._look_at_disk()
        except apsw.Error as error:
            self._failed(error)

    def _checkpoint_due(self, store: Store, now: float) -> bool:
        age = now - self._signed_at
        return len(store.unsigned) >= RECORDS_MAX or age >= (self._period_s if store.unsigned else IDLE_PERIOD_S)

    def _sign(self, store: Store, now: float) -> None:
        checkpoint = store.sign(self._signer)
        self._signed_at = now
        self.last_checkpoint_ms = checkpoint.said.signed_at_ms
        self._signer.witness(checkpoint)

    def _farewell(self) -> None:
        """Leave the ledger indexed, signed and in one file."""
        try:
            connected = self._connected or self._reconnect()
            connected.store.index(1)
            if connected.store.unsigned:
                self._sign(connected.store, time.monotonic())
            connected.connection.set_busy_timeout(FAREWELL_WAIT_MS)
            connected.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.BusyError:
            return  # other workers or readers use the log; the last of them empties it
        except apsw.Error as error:
            # Every record is durable already; the next start does what was not done here.
            _log.warning("ledger_farewell_incomplete", extra={"reason": type(error).__name__})


def _code_of(error: apsw.Error) -> int:
    """SQLite's extended result code; apsw's annotations do not know the attribute."""
    return getattr(error, "extendedresult", 0)
