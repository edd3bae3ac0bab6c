"""The reading end: one record by any id, pages by filter, sums, figures. Never writes, never blocks the writer.

Each thread reads through a connection of its own, so a reader sees every commit that returned before it asked. Lists
and values are indexed in passes behind the newest records (``store.py``); each question here covers both, the derived
tables and the short tail behind them, in one statement, so a pass between them is never seen half.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import apsw
import msgspec
from msgspec import Struct

from counterfoil.capture import body
from counterfoil.capture.body import Capture
from counterfoil.capture.seal import BodyUnreadable, KeyRing, Opener
from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import bodies, database
from counterfoil.ledger.bodies import Plains
from counterfoil.ledger.database import readable
from counterfoil.ledger.filters import (
    SEGMENT_BITS,
    Cursor,
    Filter,
    identities,
    listing,
    narrows,
    scan,
    storable,
    sums,
)
from counterfoil.ledger.intents import count_open
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.rows import value_key
from counterfoil.ledger.signing import Statement, writer_name
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import StoredKeys
from counterfoil.ledger.tally import records_lost
from counterfoil.record import ids
from counterfoil.record.charge import INCOMPLETE, CostState
from counterfoil.record.coverage import ByokSums, Coverage, ReportedSums
from counterfoil.record.record import CaptureState, Chain

PAGE_ROWS_MAX: Final = 1000
"""Records of one page."""

TAIL_ROWS: Final = 4096
"""Records of all teams that are looked through for one team's; where there are more, the derived table is asked."""

SEGMENTS_AT_ONCE: Final = 32
"""Segments of values that one statement looks into, behind the newest: two million records."""

PLAINS_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bodies kept unpacked for whoever asks for the next turn of a conversation: some twenty of them."""

GROUPS_MAX: Final = 10_000
"""Groups of one answer of sums, some 6 MB of JSON."""

SCAN_ROWS: Final = 4096
"""Records read in one statement where the whole ledger is: no snapshot is held for long, so the log can start anew."""


Group = tuple[str | None, ...]
"""What the records of one group have in common: a value for each name they are told apart by."""


class StoredRecord(Struct, frozen=True):
    """A record as it lies in the ledger. ``capture_state`` is as of now; ``data`` are the canonical bytes."""

    id: str
    team_id: str
    data: bytes
    chain: Chain
    capture_state: CaptureState
    seq: int


class Recorded(Struct, frozen=True):
    """A record's bodies, and the facts that tell whether they can be played. ``identity`` is the id's 16 bytes."""

    identity: bytes
    created_at_ms: int
    endpoint: str
    provider: str
    error_code: str | None
    capture: Capture


class Page(Struct, frozen=True):
    """Some records, newest first, and where the next page begins (None at the end)."""

    records: list[StoredRecord]
    next: Cursor | None


class Identity(Struct, frozen=True):
    """Which record, as its 128-bit id, and the state of its bodies as of now."""

    value: int
    capture_state: CaptureState


class Summary(Struct, frozen=True):
    """Sums over records. ``by_cost_state`` counts them, so that a sum can say what it does not know.

    The tokens of played answers are not among the sums: nothing was consumed. ``coverage`` says which meters have no
    price; ``byok`` is the part that teams paid with keys of their own, ``reported`` the part for which providers gave a
    figure too.
    """

    records: int
    successes: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int
    by_cost_state: dict[str, int]
    coverage: Coverage
    byok: ByokSums
    reported: ReportedSums

    @property
    def unpriced(self) -> int:
        """Records whose cost is not known, or not all of it."""
        return sum(self.by_cost_state.get(state, 0) for state in INCOMPLETE)


def _summarised(rows: Iterable[tuple[Any, ...]]) -> Summary:
    """What the rows of :func:`~counterfoil.ledger.filters.sums` add up to, their groups left out."""
    coverage, byok, reported, states = Coverage(), ByokSums(), ReportedSums(), Counter[str]()
    successes = prompt_tokens = completion_tokens = nanos = 0
    for state, missing, fee_state, records, succeeded, read, written, cost_nanos, paid, fee_nanos, said_nanos in rows:
        states[state] += records
        coverage.add(state, missing, records)
        if paid is not None:
            byok.add(state, records, paid, fee_nanos, fee_state)
        if said_nanos is not None:
            reported.add(state, records, cost_nanos, said_nanos)
        successes += succeeded
        nanos += cost_nanos
        if state != CostState.PLAYBACK:
            prompt_tokens += read
            completion_tokens += written
    return Summary(
        records=coverage.records,
        successes=successes,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        cost_nanos=nanos,
        by_cost_state=dict(states),
        coverage=coverage,
        byok=byok,
        reported=reported,
    )


class LedgerReader:
    """Reads the ledger of ``folder``. Safe from any thread.

    Every method raises :class:`GatewayFault` ``ledger_unavailable`` when the database cannot be read.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._local = threading.local()
        self._plains = Plains(PLAINS_BYTES_MAX)
        self._open: list[apsw.Connection] = []
        self._lock = threading.Lock()

    def find(self, team_id: str | None, any_id: str) -> StoredRecord | None:
        """The record with this id: ours, or a provider's (then the newest). Only of ``team_id``, unless it is None."""
        value = ids.parse(any_id)
        with readable():
            connection = self._connection()
            if value is not None:
                row = connection.execute(QUERIES["find_by_id"], (value.to_bytes(16, "big"), team_id)).get
            else:
                row = self._native(connection, team_id, any_id)
            return None if row is None else self._stored(connection, row)

    def capture(self, stored: StoredRecord) -> Capture | None:
        """The bodies of a record, None when there are none (any more) or they cannot be opened."""
        with readable():
            sealed = self._connection().execute(QUERIES["body"], (stored.seq,)).get
            value = ids.parse(stored.id) or 0
            return self._opened(stored.team_id, value.to_bytes(16, "big"), stored.seq, sealed) if sealed else None

    def places_after(self, team_id: str, seq: int) -> tuple[int, array[int]]:
        """The newest place in the ledger, and the places behind ``seq`` of one team's records up to it, ascending."""
        with readable():
            connection = self._connection()
            last = connection.execute(QUERIES["last_seq"]).get
            name = "seqs_of_team_tail" if last - seq <= TAIL_ROWS else "seqs_of_team_after"
            rows = connection.execute(QUERIES[name], (team_id, seq)) if last > seq else ()
            return last, array("q", sorted(place for (place,) in rows if place <= last))

    def id_at(self, seq: int) -> bytes | None:
        """The 16 bytes of the id of the record at a place."""
        with readable():
            return self._connection().execute(QUERIES["id_at"], (seq,)).get

    def recorded(self, team_id: str, seq: int) -> Recorded | None:
        """What a record of ``team_id`` has of a recording; None when its bodies are not there or cannot be opened."""
        with readable():
            row = self._connection().execute(QUERIES["recorded"], (seq,)).get
            if row is None:
                return None
            identity, created_at_ms, endpoint, provider, error_code, sealed = row
            capture = self._opened(team_id, identity, seq, sealed)
        return Recorded(identity, created_at_ms, endpoint, provider, error_code, capture) if capture else None

    def page(self, wanted: Filter, cursor: Cursor | None = None, limit: int = 50) -> Page:
        """Records of ``wanted``, newest first, from ``cursor`` on; at most :data:`PAGE_ROWS_MAX`."""
        limit = max(1, min(limit, PAGE_ROWS_MAX))
        if not storable(wanted):
            return Page([], None)
        with readable():
            connection = self._connection()
            rows = list(connection.execute(*listing(wanted, cursor, limit + 1)))
            records = [self._stored(connection, row[1:]) for row in rows[:limit]]
            more = Cursor(rows[limit - 1][0], rows[limit - 1][1]) if len(rows) > limit else None
            return Page(records, more)

    def each(self, wanted: Filter) -> Iterator[StoredRecord]:
        """Every record of ``wanted``, newest first, page by page; records that come meanwhile are not among them."""
        cursor: Cursor | None = None
        while True:
            page = self.page(wanted, cursor, PAGE_ROWS_MAX)
            yield from page.records
            cursor = page.next
            if cursor is None:
                return

    def canonical(self, wanted: Filter) -> Iterator[bytes]:
        """The canonical bytes alone of every record of ``wanted``, in no order, a few thousand at a time."""
        if narrows(wanted):
            yield from (stored.data for stored in self.each(wanted))
            return
        if not storable(wanted):
            return
        unpack, after = Unpacker().unpack, 0
        while True:
            with readable():
                rows = list(self._connection().execute(*scan(wanted, after, SCAN_ROWS)))
                for _, packed in rows:
                    yield unpack(packed)
            if len(rows) < SCAN_ROWS:
                return
            after = rows[-1][0]

    def identities(self, wanted: Filter, limit: int) -> list[Identity]:
        """The ids of at most ``limit`` records of ``wanted``, by time of the id; no record is unpacked for it."""
        if not storable(wanted):
            return []
        with readable():
            rows = list(self._connection().execute(*identities(wanted, limit)))
        found = [Identity(int.from_bytes(row[0], "big"), CaptureState(row[1])) for row in rows]
        return sorted(found, key=lambda one: one.value)

    def all(self) -> Iterator[StoredRecord]:
        """Every record in the order of commit; those that come meanwhile may be among them."""
        last = 0
        while True:
            with readable():
                connection = self._connection()
                rows = list(connection.execute(QUERIES["records_after"], (last, PAGE_ROWS_MAX)))
                for row in rows:
                    yield self._stored(connection, row)
            if not rows:
                return
            last = rows[-1][0]

    def summary(self, wanted: Filter) -> Summary:
        """Sums over the records of ``wanted``."""
        return _summarised(self._sums(wanted))

    def summaries(
        self, wanted: Filter, by: Sequence[str], limit: int = GROUPS_MAX
    ) -> tuple[Summary, dict[Group, Summary]] | None:
        """The same, and for each group of records that are alike in ``by``, which names :data:`~.filters.GROUPS`.

        All are of one moment and every record is in one group, so the groups add up to the whole. None where there
        are more than ``limit`` groups: some of them would be no answer.
        """
        found: dict[Group, list[tuple[Any, ...]]] = {}
        for row in self._sums(wanted, by):
            found.setdefault(row[: len(by)], []).append(row[len(by) :])
            if len(found) > limit:
                return None
        whole = _summarised(row for rows in found.values() for row in rows)
        return whole, {group: _summarised(rows) for group, rows in found.items()}

    def _sums(self, wanted: Filter, by: Sequence[str] = ()) -> Iterator[tuple[Any, ...]]:
        if not storable(wanted):
            return
        with readable():
            yield from self._connection().execute(*sums(wanted, by))

    def records(self) -> int:
        """How many records the ledger holds, without counting them: their numbers have no gap."""
        with readable():
            return self._connection().execute(QUERIES["last_seq"]).get

    def last_checkpoint_ms(self) -> int | None:
        """When the newest checkpoint was signed, Unix milliseconds; None in a ledger without any."""
        with readable():
            statement = self._connection().execute(QUERIES["newest_checkpoint"]).get
            return None if statement is None else msgspec.json.decode(statement, type=Statement).signed_at_ms

    def stats(self) -> dict[str, int]:
        """Figures of the whole ledger: records, open_intents, bodies, erasures, checkpoints, unindexed, bytes.

        ``bytes`` is the database's size; its log, a fixed file beside it, is not counted.
        """
        with readable():
            connection = self._connection()
            records, stored, erasures, checkpoints, unindexed = connection.execute(QUERIES["stats"]).get
            size = connection.pragma("page_count") * connection.pragma("page_size")
        return {
            "records": records,
            "open_intents": count_open(self._folder.journal),
            "bodies": stored,
            "erasures": erasures,
            "checkpoints": checkpoints,
            "unindexed": unindexed,
            "bytes": size,
        }

    def close(self) -> None:
        """Close the connections of every thread. Nothing may be under way."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
            self._local = threading.local()

    @staticmethod
    def prepare(folder: DataFolder) -> None:
        """Give a folder whose gateway never ran its empty ledger, which is no error.

        Raises :class:`apsw.Error`, and :class:`GatewayFault` where there was a ledger: an empty one in its place would
        be found intact, and taken for a good start.
        """
        if not folder.ledger_db.exists():
            if records_lost(folder):
                raise GatewayFault("ledger_unavailable", "The ledger is missing. Restore it from a backup.")
            database.open_writer(folder.ledger_db, "fsync").close()

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            self.prepare(self._folder)
            connection = database.open_reader(self._folder.ledger_db)
            self._local.connection = connection
            with self._lock:
                self._open.append(connection)
        return connection

    def _opened(self, team_id: str, identity: bytes, seq: int, sealed: bytes) -> Capture | None:
        """The bodies that lie sealed at ``seq``, None when they cannot be opened."""
        try:
            connection = self._connection()
            return body.decode(bodies.opened(connection, self._opener(), self._plains, team_id, identity, seq, sealed))
        except (BodyUnreadable, ValueError):
            return None

    def _opener(self) -> Opener:
        opener: Opener | None = getattr(self._local, "opener", None)
        if opener is None:
            ring = KeyRing(self._folder.sealing(), StoredKeys(self._connection()), os.urandom)
            opener = self._local.opener = Opener(ring)
        return opener

    def _unpacker(self) -> Unpacker:
        unpacker: Unpacker | None = getattr(self._local, "unpacker", None)
        if unpacker is None:
            unpacker = self._local.unpacker = Unpacker()
        return unpacker

    def _native(self, connection: apsw.Connection, team_id: str | None, native_id: str) -> Any:
        """The newest record with a provider's id: in the tail, then from the newest segments to the oldest."""
        try:
            key = value_key(native_id)
        except UnicodeEncodeError:
            return None
        indexed = connection.execute(QUERIES["indexed_seq"]).get
        row = connection.execute(QUERIES["find_native_tail"], (indexed, key, native_id, team_id)).get
        segment = indexed >> SEGMENT_BITS
        count = 1  # a call that is asked for ended a moment ago, mostly
        while row is None and segment >= 0:
            row = connection.execute(QUERIES["find_native_segments"], (segment, key, native_id, team_id, count)).get
            segment -= count
            count = SEGMENTS_AT_ONCE
        return row

    def _stored(self, connection: apsw.Connection, row: Any) -> StoredRecord:
        seq, identity, team_id, state, writer, sequence, digest, packed = row
        now = CaptureState(state)
        if now is CaptureState.STORED and connection.execute(QUERIES["body_exists"], (seq,)).get is None:
            erased = connection.execute(QUERIES["erasure"], (seq,)).get is not None
            now = CaptureState.ERASED if erased else CaptureState.EXPIRED
        chain = Chain(writer_name(writer), sequence, digest.hex())
        data = self._unpacker().unpack(packed)
        return StoredRecord(ids.text(int.from_bytes(identity, "big")), team_id, data, chain, now, seq)
