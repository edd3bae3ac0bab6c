"""The reading end: one record by any id, pages by filter, sums, figures. Never writes, never blocks the writer.

Each thread reads through a connection of its own, so a reader sees every commit that returned before it asked. Lists
and values are indexed in passes behind the newest records (``store.py``); each question here covers both, the derived
tables and the short tail behind them, in one statement, so a pass between them is never seen half.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any, Final

import apsw
from msgspec import Struct

from counterfoil.capture import body
from counterfoil.capture.body import Capture
from counterfoil.capture.seal import BodyUnreadable, KeyRing, Opener
from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.intents import count_open
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.rows import value_key
from counterfoil.ledger.signing import writer_name
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import StoredKeys
from counterfoil.record import ids
from counterfoil.record.charge import CostState
from counterfoil.record.record import CaptureState, Chain

PAGE_ROWS_MAX: Final = 1000
_NATIVE_KIND: Final = 1
_SEGMENT_BITS: Final = 16
_COLUMNS: Final = "g.seq, g.id, g.team_id, g.capture_state, g.writer, g.sequence, g.digest, g.record"
_VALUES: Final = {"session_id": 2, "replay_of": 3, "end_user": 4}
_PLAIN: Final = ("app_id", "key_id", "endpoint", "model_id", "provider", "status_code", "error_code", "stream", "byok")


class Filter(Struct, frozen=True, kw_only=True):
    """Which records; everything that is set must hold. Times are Unix milliseconds of admission, ``until_ms`` open."""

    team_id: str | None = None
    app_id: str | None = None
    key_id: str | None = None
    endpoint: str | None = None
    model_id: str | None = None
    provider: str | None = None
    status_code: int | None = None
    error_code: str | None = None
    success: bool | None = None
    stream: bool | None = None
    byok: bool | None = None
    session_id: str | None = None
    replay_of: str | None = None
    end_user: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    min_cost_nanos: int | None = None
    max_cost_nanos: int | None = None


class StoredRecord(Struct, frozen=True):
    """A record as it lies in the ledger. ``capture_state`` is as of now; ``data`` are the canonical bytes."""

    id: str
    team_id: str
    data: bytes
    chain: Chain
    capture_state: CaptureState
    seq: int


class Cursor(Struct, frozen=True):
    """A place in a list, newest first: what follows is older."""

    created_at_ms: int
    seq: int


class Page(Struct, frozen=True):
    """Some records, newest first, and where the next page begins (None at the end)."""

    records: list[StoredRecord]
    next: Cursor | None


class Summary(Struct, frozen=True):
    """Sums over records. ``by_cost_state`` counts them, so that a sum can say what it does not know."""

    records: int
    successes: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanos: int
    by_cost_state: dict[str, int]

    @property
    def unpriced(self) -> int:
        """Records whose cost is not known, or not all of it."""
        return sum(self.by_cost_state.get(state, 0) for state in (CostState.UNKNOWN, CostState.PARTIAL))


class LedgerReader:
    """Reads the ledger of ``folder``. Safe from any thread.

    Every method raises :class:`GatewayFault` ``ledger_unavailable`` when the database cannot be read.
    """

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder
        self._local = threading.local()
        self._open: list[apsw.Connection] = []
        self._lock = threading.Lock()

    def find(self, team_id: str | None, any_id: str) -> StoredRecord | None:
        """The record with this id: ours, or a provider's (then the newest). Only of ``team_id``, unless it is None."""
        value = ids.parse(any_id)
        try:
            connection = self._connection()
            if value is not None:
                row = connection.execute(QUERIES["find_by_id"], (value.to_bytes(16, "big"), team_id)).get
            else:
                row = self._native(connection, team_id, any_id)
            return None if row is None else self._stored(connection, row)
        except (apsw.Error, ValueError) as error:
            raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error

    def capture(self, stored: StoredRecord) -> Capture | None:
        """The bodies of a record, None when there are none (any more) or they cannot be opened."""
        try:
            sealed = self._connection().execute(QUERIES["body"], (stored.seq,)).get
            if sealed is None:
                return None
            value = ids.parse(stored.id) or 0
            return body.decode(self._opener().open(stored.team_id, value.to_bytes(16, "big"), sealed))
        except (BodyUnreadable, ValueError):
            return None
        except apsw.Error as error:
            raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error

    def page(self, wanted: Filter, cursor: Cursor | None = None, limit: int = 50) -> Page:
        """Records of ``wanted``, newest first, from ``cursor`` on; at most :data:`PAGE_ROWS_MAX`."""
        limit = max(1, min(limit, PAGE_ROWS_MAX))
        try:
            connection = self._connection()
            statement, values = _listing(connection, wanted, cursor)
            values["limit"] = limit + 1
            rows = list(connection.execute(statement, values))
            records = [self._stored(connection, row[1:]) for row in rows[:limit]]
            more = Cursor(rows[limit - 1][0], rows[limit - 1][1]) if len(rows) > limit else None
            return Page(records, more)
        except (apsw.Error, ValueError) as error:
            raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error

    def each(self, wanted: Filter) -> Iterator[StoredRecord]:
        """Every record of ``wanted``, newest first, page by page; records that come meanwhile are not among them."""
        cursor: Cursor | None = None
        while True:
            page = self.page(wanted, cursor, PAGE_ROWS_MAX)
            yield from page.records
            cursor = page.next
            if cursor is None:
                return

    def all(self) -> Iterator[StoredRecord]:
        """Every record in the order of commit; those that come meanwhile may be among them."""
        last = 0
        while True:
            try:
                connection = self._connection()
                rows = list(connection.execute(QUERIES["records_after"], (last, PAGE_ROWS_MAX)))
            except apsw.Error as error:
                raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error
            if not rows:
                return
            for row in rows:
                yield self._stored(connection, row)
            last = rows[-1][0]

    def summary(self, wanted: Filter) -> Summary:
        """Sums over the records of ``wanted``."""
        conditions, values = _conditions(wanted)
        where = " AND ".join(conditions) or "1"
        statement = f"""
            SELECT cost_state, count(*), sum(error_code IS NULL), sum(prompt_tokens), sum(completion_tokens),
                sum(cost_nanos)
            FROM generations g WHERE {where} GROUP BY cost_state
        """  # noqa: S608  # conditions are names of ours; what comes from outside is bound
        try:
            rows = list(self._connection().execute(statement, values))
        except apsw.Error as error:
            raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error
        return Summary(
            records=sum(row[1] for row in rows),
            successes=sum(row[2] for row in rows),
            prompt_tokens=sum(row[3] for row in rows),
            completion_tokens=sum(row[4] for row in rows),
            cost_nanos=sum(row[5] for row in rows),
            by_cost_state={row[0]: row[1] for row in rows},
        )

    def stats(self) -> dict[str, int]:
        """Figures of the whole ledger: records, open_intents, bodies, erasures, checkpoints, unindexed, bytes.

        ``bytes`` is the database's size; its log, a fixed file beside it, is not counted.
        """
        try:
            connection = self._connection()
            records, bodies, erasures, checkpoints, unindexed = connection.execute(QUERIES["stats"]).get
            size = connection.pragma("page_count") * connection.pragma("page_size")
        except apsw.Error as error:
            raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error
        return {
            "records": records,
            "open_intents": count_open(self._folder.journal),
            "bodies": bodies,
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

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            path = self._folder.ledger_db
            if not path.exists():  # a folder whose gateway never ran: an empty ledger, not an error
                database.open_writer(path, "fsync").close()
            connection = database.open_reader(path)
            self._local.connection = connection
            with self._lock:
                self._open.append(connection)
        return connection

    def _opener(self) -> Opener:
        opener: Opener | None = getattr(self._local, "opener", None)
        if opener is None:
            ring = KeyRing(self._folder.secret("kek"), StoredKeys(self._connection()), os.urandom)
            opener = self._local.opener = Opener(ring)
        return opener

    def _unpacker(self) -> Unpacker:
        unpacker: Unpacker | None = getattr(self._local, "unpacker", None)
        if unpacker is None:
            unpacker = self._local.unpacker = Unpacker()
        return unpacker

    def _native(self, connection: apsw.Connection, team_id: str | None, native_id: str) -> Any:
        """The newest record with a provider's id: in the tail, then segment by segment from the newest."""
        try:
            key = value_key(native_id)
        except UnicodeEncodeError:
            return None
        indexed = connection.execute(QUERIES["indexed_seq"]).get
        row = connection.execute(QUERIES["find_native_tail"], (indexed, key, native_id, team_id)).get
        segment = indexed >> _SEGMENT_BITS
        while row is None and segment >= 0:
            row = connection.execute(QUERIES["find_native_segment"], (segment, key, native_id, team_id)).get
            segment -= 1
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


def _conditions(wanted: Filter) -> tuple[list[str], dict[str, Any]]:
    """What ``wanted`` asks of a row ``g`` of generations, and the values it binds."""
    conditions: list[str] = []
    values: dict[str, Any] = {}

    def add(condition: str, name: str, value: object) -> None:
        conditions.append(condition)
        values[name] = value

    for name in ("team_id", *_PLAIN):
        value = getattr(wanted, name)
        if value is not None:
            add(f"g.{name} = :{name}", name, value)
    for name in _VALUES:
        value = getattr(wanted, name)
        if value is not None:
            add(f"g.{name} = :{name}", name, value)
    for name, column, operator in (
        ("since_ms", "created_at_ms", ">="),
        ("until_ms", "created_at_ms", "<"),
        ("min_cost_nanos", "cost_nanos", ">="),
        ("max_cost_nanos", "cost_nanos", "<="),
    ):
        value = getattr(wanted, name)
        if value is not None:
            add(f"g.{column} {operator} :{name}", name, value)
    if wanted.success is not None:
        conditions.append("g.error_code IS NULL" if wanted.success else "g.error_code IS NOT NULL")
    return conditions, values


def _listing(connection: apsw.Connection, wanted: Filter, cursor: Cursor | None) -> tuple[str, dict[str, Any]]:
    """The statement of a page: the derived table that fits, and the tail behind it, merged newest first."""
    conditions, values = _conditions(wanted)
    if cursor is not None:
        values |= {"at": cursor.created_at_ms, "before": cursor.seq}
    where = "".join(f" AND {condition}" for condition in conditions)
    named = next((name for name in _VALUES if getattr(wanted, name) is not None), None)
    if named is not None:
        last = connection.execute(QUERIES["indexed_seq"]).get
        segments = ", ".join(str(segment) for segment in range((last >> _SEGMENT_BITS) + 1))
        values["value_key"] = value_key(getattr(wanted, named))
        source = "by_value i JOIN generations g ON g.seq = i.seq"
        found = f"i.kind = {_VALUES[named]} AND i.key = :value_key AND i.segment IN ({segments})"
        at = "g"
    else:
        table = "by_time" if wanted.team_id is None else "by_team"
        source = f"{table} i JOIN generations g ON g.seq = i.seq"
        found = "1" if wanted.team_id is None else "i.team_id = :team_id"
        at = "i"
        if wanted.since_ms is not None:
            found += " AND i.created_at_ms >= :since_ms"
        if wanted.until_ms is not None:
            found += " AND i.created_at_ms < :until_ms"
    older = f" AND ({at}.created_at_ms, {at}.seq) < (:at, :before)" if cursor is not None else ""
    tail_older = " AND (g.created_at_ms, g.seq) < (:at, :before)" if cursor is not None else ""
    statement = f"""
        WITH hit (at, seq) AS (
            SELECT {at}.created_at_ms, {at}.seq FROM {source} WHERE {found}{older}{where}
            UNION ALL
            SELECT g.created_at_ms, g.seq FROM generations g
            WHERE g.seq > (SELECT seq FROM indexed WHERE one = 1){tail_older}{where}
            ORDER BY 1 DESC, 2 DESC LIMIT :limit
        )
        SELECT hit.at, {_COLUMNS} FROM hit JOIN generations g ON g.seq = hit.seq
        ORDER BY hit.at DESC, hit.seq DESC
    """  # noqa: S608  # every part is a name of ours; what comes from outside is bound
    return statement, values
