"""The ledger as a worker uses it: open, admit, settle, close. One a process; its loop's thread calls everything here.

Opening claims the lowest free writer number, so a worker that takes a dead one's place also takes up its journal, and
makes records of the calls that nobody settled, its own and those of every other journal without an owner. They are
durable before :meth:`Ledger.open` returns: no call is taken while an old one has no record.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

import apsw

from counterfoil.capture.seal import KeyRing, Sealer
from counterfoil.clock import wall_ms
from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.database import Durability
from counterfoil.ledger.intents import IntentLog, writer_numbers
from counterfoil.ledger.keeper import Keeper
from counterfoil.ledger.recovery import interrupted
from counterfoil.ledger.reserve import Reserve
from counterfoil.ledger.retention import Eraser, Sweeper
from counterfoil.ledger.rows import RowMaker
from counterfoil.ledger.settlement import Intent, Settlement, Waiter
from counterfoil.ledger.signing import Signer
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import Store, StoredKeys
from counterfoil.ledger.tally import Tally, Waits, records_lost
from counterfoil.ledger.witness import Second, Witness
from counterfoil.ledger.writer import Acknowledge, Connected, Writer
from counterfoil.record.ids import parse

PATIENCE_S: Final = 10.0
"""How long a call's last byte waits for a ledger in trouble before its client is told."""

CLOSE_S: Final = 15.0
"""How long closing waits for the last commits."""

RECOVERY_ROWS: Final = 512


class Ledger:
    """The writing end."""

    def __init__(
        self,
        log: IntentLog,
        tally: Tally,
        make_writer: Callable[[Acknowledge], Writer],
        keeper: Keeper,
        witnesses: Sequence[Witness],
        eraser: Eraser,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._log = log
        self._loop = loop
        self.tally = tally
        self.waits = Waits()
        self._writer = make_writer(self._acknowledge)
        self._keeper = keeper
        self._witnesses = witnesses
        self._sweeper = Sweeper(eraser, active=log.number == 0)
        self._eraser = eraser

    @classmethod
    def open(
        cls,
        folder: DataFolder,
        *,
        durability: Durability,
        loop: asyncio.AbstractEventLoop,
        retention_days: int,
        checkpoint_seconds: float = 60.0,
        seconds: Sequence[Second] = (),
        now_ms: Callable[[], int] = wall_ms,
        entropy: Callable[[int], bytes] = os.urandom,
        patience_s: float = PATIENCE_S,
        vfs: str | None = None,
    ) -> Ledger:
        """Open (or make) the ledger of ``folder``; every interrupted call has its record on return.

        Raises :class:`ConfigError` when the folder cannot be used.
        """
        path = folder.ledger_db
        _refuse_a_lost_ledger(folder)
        secret, seed = folder.sealing(), folder.secret("signing")
        log = IntentLog.claim_lowest(folder.journal)
        tally = Tally.of(folder.journal, log.number)

        def connect() -> Connected:
            connection = database.open_writer(path, durability, vfs)
            ring = KeyRing(secret, StoredKeys(connection), entropy)
            return Connected(connection, Store(connection, log.number), RowMaker(Sealer(ring, entropy), retention_days))

        reserve = Reserve(folder.reserve)
        try:
            roomy = reserve.take()
            first = connect()
            _copy_back(first.connection)
            if log.number == 0:
                database.extend_log(first.connection, path)
            roomy &= _recover_in_room(folder, log, tally, first, now_ms(), reserve)
            newest = first.connection.execute(QUERIES["newest_checkpoint_of"], (log.number,)).get
            first.connection.close()
        except (apsw.Error, OSError) as error:
            log.close()
            raise ConfigError(f"The ledger {path} cannot be opened ({error}).") from error
        witnesses = [Witness(place) for place in seconds]
        signer = Signer(seed, now_ms, witnesses)
        if newest is not None:
            signer.remind(log.number, *newest)
        keeper = Keeper(lambda: database.open_writer(path, durability, vfs))

        def make_writer(acknowledge: Acknowledge) -> Writer:
            return Writer(
                connect,
                close_slot=log.close_slot,
                in_flight=lambda: log.open_count,
                acknowledge=acknowledge,
                signer=signer,
                keeper=keeper,
                reserve=reserve,
                patience_s=patience_s,
                period_s=checkpoint_seconds,
            )

        ledger = cls(log, tally, make_writer, keeper, witnesses, Eraser(path, signer, now_ms, secret, entropy), loop)
        ledger.start(refuse=not roomy)
        return ledger

    def start(self, *, refuse: bool) -> None:
        """Start the threads. With ``refuse`` calls are taken only once the disk has room."""
        if refuse:
            self._writer.refusal = "ledger_unavailable"
        self._keeper.start()
        self._writer.start()
        self._sweeper.start()

    # The hot path.

    def admit(self, intent: Intent) -> int:
        """Keep the intent of a call about to be dispatched; give its slot.

        Raises :class:`GatewayFault` ``ledger_unavailable`` or ``overloaded``: then nothing may be sent.
        """
        refusal = self._writer.refusal
        if refusal is not None:
            raise GatewayFault(refusal)
        return self._log.admit(intent)

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        """Make ``settlement`` durable; the future is done when it is.

        It fails with :class:`GatewayFault` ``ledger_unavailable`` when that could not be done in time. The record is
        then kept in memory and written as soon as the ledger can be, and says that its answer was withheld.
        """
        future: asyncio.Future[None] = self._loop.create_future()
        self._writer.put(settlement, future)
        return future

    def put(self, settlement: Settlement, waiter: Waiter) -> None:
        """As :meth:`settle`, for a waiter of the caller's own; it is told from a callback of the loop."""
        self._writer.put(settlement, waiter)

    # What others ask.

    @property
    def writer_number(self) -> int:
        """Which of the gateway's writers this is; no two that live have the same."""
        return self._log.number

    @property
    def healthy(self) -> bool:
        """Whether calls are taken."""
        return self._writer.refusal is None

    @property
    def poisoned(self) -> bool:
        """Whether the writer has given up for good: this process should end, and a new one look again."""
        return self._writer.poisoned

    @property
    def depth(self) -> int:
        """Records that are not durable yet."""
        return self._writer.depth

    @property
    def commits(self) -> int:
        """Group commits so far."""
        return self._writer.commits

    @property
    def last_checkpoint_ms(self) -> int | None:
        """When the last checkpoint was signed, Unix milliseconds; None before the first."""
        return self._writer.last_checkpoint_ms

    @property
    def unwitnessed(self) -> int:
        """Checkpoints that a second place has not taken yet; of the place with the most."""
        return max((witness.waiting for witness in self._witnesses), default=0)

    def erase(self, team_id: str, request_id: str, reason: str = "requested") -> bool:
        """Destroy the bodies of one generation; from any thread. False when there are none (any more).

        Raises :class:`GatewayFault` ``ledger_unavailable`` when it cannot be done now.
        """
        return self._eraser.erase_id(team_id, request_id, reason)

    async def close(self) -> None:
        """Commit what is queued, sign, and leave. The folder is complete without its log when this returns."""
        self._sweeper.close()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._keeper.close)  # first: the writer copies the whole log back at the end
        await loop.run_in_executor(None, self._writer.close, CLOSE_S)
        for witness in self._witnesses:
            await loop.run_in_executor(None, witness.close)
        await asyncio.sleep(0)  # the last acknowledgements are in the loop's queue
        self.tally.close()
        self._log.close()

    # From the writer's thread.

    def _acknowledge(
        self, waiters: list[Waiter | None], slots: list[int], wait_s: float, fault: GatewayFault | None
    ) -> None:
        """Pass the outcome of a batch on to the loop, in one wake-up."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._acknowledged, waiters, slots, wait_s, fault)

    def _acknowledged(
        self, waiters: list[Waiter | None], slots: list[int], wait_s: float, fault: GatewayFault | None
    ) -> None:
        release = self._log.release
        for slot in slots:
            release(slot)
        if fault is None:  # counted first: whoever is told may look
            self.waits.observe(wait_s, len(waiters))
        for waiter in waiters:
            if waiter is not None and not waiter.done():
                if fault is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(fault)


def _refuse_a_lost_ledger(folder: DataFolder) -> None:
    """An empty ledger in the place of one that had records would look like a good start."""
    if records := records_lost(folder):
        raise ConfigError(
            f"The ledger {folder.ledger_db} is missing; it had {records} records or more. Restore it from a backup, or "
            "choose another folder with --data."
        )


def _copy_back(connection: apsw.Connection) -> None:
    """Let nothing rest on a log that a crash left.

    Others who have the database open may prevent it; then no crash of theirs came before, and the keeper copies the log
    back in time.
    """
    try:
        database.copy_back(connection)
    except apsw.BusyError:
        return


def _recover_in_room(
    folder: DataFolder, own: IntentLog, tally: Tally, connected: Connected, now_ms: int, reserve: Reserve
) -> bool:
    """Recover, out of the reserve when there is no other room; False then."""
    try:
        _recover_all(folder, own, tally, connected, now_ms)
    except apsw.FullError:
        reserve.give_up()
        _recover_all(folder, own, tally, connected, now_ms)
        return False
    return True


def _recover_all(folder: DataFolder, own: IntentLog, tally: Tally, connected: Connected, now_ms: int) -> None:
    """Give every call without an owner its record, then free its slot."""
    tally.take_over(connected.store.sequence, _recover(own, connected, now_ms))
    for number in writer_numbers(folder.journal):
        other = IntentLog.claim(folder.journal, number) if number != own.number else None
        if other is not None:
            others = Tally.of(folder.journal, number)
            try:
                others.take_over(Store(connected.connection, number).sequence, _recover(other, connected, now_ms))
            finally:
                others.close()
                other.close()
    tally.go_on_from(connected.store.sequence)


def _recover(log: IntentLog, connected: Connected, now_ms: int) -> int:
    """Settle the calls that are open in ``log``; give how many had no record."""
    open_intents = [intent for _, intent in log.open_intents() if intent is not None]
    lost = [intent for intent in open_intents if _unrecorded(connected.store, intent)]
    rows = [connected.maker.row(interrupted(intent, now_ms), None) for intent in lost]
    for at in range(0, len(rows), RECOVERY_ROWS):
        connected.store.append(rows[at : at + RECOVERY_ROWS])
    log.clear()
    return len(rows)


def _unrecorded(store: Store, intent: Intent) -> bool:
    value = parse(intent.request_id)
    return value is not None and not store.has_record(value.to_bytes(16, "big"))
