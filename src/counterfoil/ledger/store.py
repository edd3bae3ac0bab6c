"""What one writer does to the database: append a batch, index in passes, add a checkpoint.

Everything here runs in one thread on one connection and raises :class:`apsw.Error` as it comes; ``writer.py`` decides
what a failure means. A method either commits all it did or leaves the database, and this object, as they were.

A batch goes in by few statements: at most two a table for up to 64 rows, and no query for the place of the newest
record, which SQLite finds as it assigns ``seq``. SQLite gives up the interpreter's lock around every statement, and
beside a busy event loop each time costs two switches and a wait to get it back (measured beside a spinning thread: a
batch of 20 rows one by one takes about 20 times as long). A prepared statement keeps 4 KiB a row, so there is not one
of every size: with those of 1 to 7 rows and of whole eights they take 1.4 MB, where 64 sizes took 10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import apsw

from counterfoil.capture.seal import DataKey
from counterfoil.capture.sharing import Shared
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.rows import GENERATION_COLUMNS, Row
from counterfoil.ledger.signing import Checkpoint, Signer
from counterfoil.ledger.sql import QUERIES
from counterfoil.record import codec

INDEX_ROWS: Final = 2048
"""Records behind the derived tables that make a pass worth its pages; readers scan this many at most, and a batch."""

INDEX_ROWS_MAX: Final = 16_384
"""The records one pass takes, so that none holds the write lock for long."""

_STATEMENT_ROWS: Final = 64
_STEP_ROWS: Final = 8
_PASS = ("index_by_team", "index_by_time", "index_by_value", "index_by_expiry", "index_writers")


class _Insert:
    """Inserts any number of rows into one table. Its texts are short, because the cache of statements hashes them."""

    def __init__(self, table: str, columns: str) -> None:
        self._width = columns.count(",") + 1
        start = f"INSERT INTO {table} ({columns}) VALUES "  # noqa: S608  # names of ours only
        one = f"({','.join('?' * self._width)})"
        sizes = (*range(_STEP_ROWS), *range(_STEP_ROWS, _STATEMENT_ROWS + 1, _STEP_ROWS))
        self._statements = {rows: start + ",".join([one] * rows) for rows in sizes}

    def __call__(self, execute: Callable[[str, Any], object], values: list[Any], rows: int) -> None:
        """Insert ``rows`` rows, whose ``values`` stand one after the other, in that order."""
        statements = self._statements
        if rows in statements:
            if rows:
                execute(statements[rows], values)
            return
        at = 0
        while rows:
            part = min(rows, _STATEMENT_ROWS)
            part -= part % _STEP_ROWS if part > _STEP_ROWS else 0
            end = at + part * self._width
            execute(statements[part], values[at:end])
            at, rows = end, rows - part


_insert_generations = _Insert("generations", GENERATION_COLUMNS.removeprefix("seq, "))
_insert_bodies = _Insert("bodies", "seq, sealed")


class Store:
    """The writing end of the ledger for one writer: its place in the sequence of commits, and the end of its chain."""

    def __init__(self, connection: apsw.Connection, writer: int) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._append = connection.cursor().execute  # no cursor made for each statement: half a microsecond less
        self._last_rowid = connection.last_insert_rowid
        self.writer = writer
        self.indexed_seq: int = self._execute(QUERIES["indexed_seq"]).get
        self.last_seq: int = self._execute(QUERIES["last_seq"]).get
        self.sequence, self.digest = self._chain_end()
        self.unsigned = self._unsigned()  # digests since the last checkpoint

    def append(self, rows: Sequence[Row]) -> None:
        """Append ``rows``, one at least, in order, durable on return (as the connection's ``synchronous`` says)."""
        execute = self._append
        writer, sequence, digest, link = self.writer, self.sequence, self.digest, codec.link
        generations: list[Any] = []  # the values of all rows, one after the other
        digests: list[bytes] = []
        for row in rows:
            sequence += 1
            digest = link(digest, row.data)
            digests.append(digest)
            generations += (writer, sequence, digest)
            generations += row.columns
        execute("BEGIN IMMEDIATE")
        try:
            _insert_generations(execute, generations, len(rows))
            last = self._last_rowid()
            bodies: list[Any] = []
            sharing: list[tuple[int, Shared]] = []
            for seq, row in enumerate(rows, last - len(rows) + 1):
                if row.sealed is not None:
                    bodies += (seq, row.sealed)
                    if row.shared is not None:
                        sharing.append((seq, row.shared))
            alone = self._share(sharing, bodies) if sharing else ()
            _insert_bodies(execute, bodies, len(bodies) // 2)
            execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        for seq, shared in sharing:
            shared.stored(seq, whole=seq in alone)
        self.sequence += len(rows)
        self.digest = digests[-1]
        self.last_seq = last
        self.unsigned += digests

    def _share(self, sharing: list[tuple[int, Shared]], bodies: list[Any]) -> set[int]:
        """Note what the bodies are packed against; give the places of those whose base is gone, and make them whole."""
        alone: set[int] = set()
        for seq, shared in sharing:
            base_seq = shared.base_seq
            if base_seq and self._execute(QUERIES["body_exists"], (base_seq,)).get is None:
                bodies[bodies.index(seq) + 1] = shared.whole()
                alone.add(seq)
            elif base_seq:
                self._execute(QUERIES["add_shared"], (seq, base_seq))
        return alone

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

    def close(self) -> None:
        """Close the connection, for whoever made this store alone."""
        self._connection.close()

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
