"""What one writer does to the database: append a batch, index in passes, add a checkpoint.

Everything here runs in one thread on one connection and raises :class:`apsw.Error` as it comes; ``writer.py`` decides
what a failure means. A method either commits all it did or leaves the database, and this object, as they were.

Rows go in by statements of 32, 8, 2 and 1 rows. SQLite gives up the interpreter's lock around every statement, and
beside a busy event loop each time costs a wait to get it back; fewer, larger statements are what keeps a batch short
(measured beside a spinning thread: a batch of 20 rows one by one takes about 20 times as long).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import apsw

from counterfoil.capture.seal import DataKey
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.rows import GENERATION_COLUMNS, Row
from counterfoil.ledger.signing import Checkpoint, Signer
from counterfoil.ledger.sql import QUERIES
from counterfoil.record import codec

INDEX_ROWS: Final = 2048
"""Records behind the derived tables that make a pass worth its pages; readers scan this many at most, and a batch."""

INDEX_ROWS_MAX: Final = 16_384
"""The records one pass takes, so that none holds the write lock for long."""

_CHUNKS = (32, 8, 2, 1)
_COLUMNS = GENERATION_COLUMNS.count(",") + 1
_PASS = ("index_by_team", "index_by_time", "index_by_value", "index_by_expiry", "index_writers")


def _insert(table: str, columns: str, width: int) -> dict[int, str]:
    one = f"({', '.join('?' * width)})"
    start = f"INSERT INTO {table} ({columns}) VALUES "  # noqa: S608  # names of ours only
    return {rows: start + ", ".join([one] * rows) for rows in _CHUNKS}


_INSERT_GENERATIONS = _insert("generations", GENERATION_COLUMNS, _COLUMNS)
_INSERT_BODIES = _insert("bodies", "seq, sealed", 2)


class Store:
    """The writing end of the ledger for one writer: its place in the sequence of commits, and the end of its chain."""

    def __init__(self, connection: apsw.Connection, writer: int) -> None:
        self._connection = connection
        self._execute = connection.execute
        self.writer = writer
        self.indexed_seq: int = self._execute(QUERIES["indexed_seq"]).get
        self.last_seq: int = self._execute(QUERIES["last_seq"]).get
        self.sequence, self.digest = self._chain_end()
        self.unsigned = self._unsigned()  # digests since the last checkpoint

    def append(self, rows: Sequence[Row]) -> None:
        """Append ``rows`` in order, durable on return (as the connection's ``synchronous`` says)."""
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        try:
            first = execute(QUERIES["last_seq"]).get + 1
            sequence, digest = self.sequence, self.digest
            writer, link = self.writer, codec.link
            generations: list[Any] = []  # the values of all rows, one after the other
            bodies: list[Any] = []
            digests: list[bytes] = []
            for seq, row in enumerate(rows, first):
                sequence += 1
                digest = link(digest, row.data)
                digests.append(digest)
                generations += (seq, writer, sequence, digest)
                generations += row.columns
                if row.sealed is not None:
                    bodies += (seq, row.sealed)
            self._insert(_INSERT_GENERATIONS, _COLUMNS, generations)
            self._insert(_INSERT_BODIES, 2, bodies)
            execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.sequence, self.digest = sequence, digest
        self.last_seq = first + len(rows) - 1
        self.unsigned += digests

    def has_record(self, identity: bytes) -> bool:
        return self._execute(QUERIES["has_record"], (identity,)).get is not None

    def data_of(self, identity: bytes) -> bytes | None:
        """The canonical bytes of the record with this id."""
        packed = self._execute(QUERIES["record_data"], (identity,)).get
        return None if packed is None else Unpacker().unpack(packed)

    @property
    def unindexed(self) -> int:
        """Records behind the derived tables, as far as this writer knows."""
        return self.last_seq - self.indexed_seq

    def index(self, rows_min: int) -> None:
        """Bring the derived tables up to date when at least ``rows_min`` records are behind them."""
        execute = self._execute
        execute("BEGIN IMMEDIATE")
        try:
            start = execute(QUERIES["indexed_seq"]).get
            last = execute(QUERIES["last_seq"]).get
            end = min(last, start + INDEX_ROWS_MAX)
            if end - start >= max(rows_min, 1):
                for name in _PASS:
                    execute(QUERIES[name], (start, end))
                execute(QUERIES["set_indexed_seq"], (end,))
                start = end
            execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self.indexed_seq = start
        self.last_seq = last

    def probe(self) -> None:
        """Commit a page that changes nothing, to see whether the disk takes it."""
        self._execute(QUERIES["probe"])

    def sign(self, signer: Signer) -> Checkpoint:
        """Sign the chain from the last checkpoint up to where it is now, and keep the statement."""
        checkpoint = signer.checkpoint(self.writer, self.sequence, self.digest, self.unsigned, self.last_seq)
        said = checkpoint.said
        values = (self.writer, said.first_sequence, said.last_sequence, said.last_seq)
        self._execute(QUERIES["add_checkpoint"], (*values, checkpoint.statement, checkpoint.signature))
        self.unsigned = []
        return checkpoint

    def _insert(self, statements: dict[int, str], width: int, values: list[Any]) -> None:
        """Insert rows of ``width`` values each with as few statements as there are."""
        done, count = 0, len(values) // width
        for size in _CHUNKS:
            while count - done >= size:
                self._execute(statements[size], values[done * width : (done + size) * width])
                done += size

    def _chain_end(self) -> tuple[int, bytes]:
        end = self._execute(QUERIES["chain_end_tail"], (self.indexed_seq, self.writer)).get
        if end is None:
            end = self._execute(QUERIES["chain_end_indexed"], (self.writer,)).get
        return (0, codec.GENESIS) if end is None else end

    def _unsigned(self) -> list[bytes]:
        last_sequence, last_seq = self._execute(QUERIES["last_checkpoint"], (self.writer,)).get or (0, 0)
        if last_sequence >= self.sequence:
            return []
        found = self._execute(QUERIES["digests_after"], (last_seq, self.writer, last_sequence))
        return [digest for (digest,) in found]

    def _roll_back(self) -> None:
        """Undo. A failed COMMIT may have ended the transaction itself."""
        if self._connection.in_transaction:
            self._execute("ROLLBACK")


class StoredKeys:
    """The data keys in the database (:class:`counterfoil.capture.seal.DataKeyStore`)."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def newest(self, team_id: str) -> DataKey | None:
        found = self._connection.execute(QUERIES["newest_data_key"], (team_id,)).get
        return None if found is None else DataKey(*found)

    def get(self, key_id: int) -> DataKey | None:
        found = self._connection.execute(QUERIES["data_key"], (key_id,)).get
        return None if found is None else DataKey(*found)

    def add(self, team_id: str, wrapped: bytes) -> int:
        return self._connection.execute(QUERIES["add_data_key"], (team_id, wrapped)).get
