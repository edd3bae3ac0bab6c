"""Connections to ledger.db: how they are opened, and how an old database becomes a current one.

One database, write-ahead log. Writers commit with ``synchronous=FULL`` (each commit waits for ``fdatasync`` of the log)
or, when the operator chose ``durability: write``, with ``NORMAL`` (a commit survives the process, not the power).
Automatic checkpoints are off: copying the log back is ``keeper.py``'s work, in another thread.

Pages have 4 KiB. A commit writes whole pages to the log, and what a small batch costs is mostly their bytes (measured:
3.7 µs of CPU a KiB, in the kernel and the block device); packed records stand six to a page.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final, Literal

import apsw
import msgspec

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.ledger import sql

Durability = Literal["fsync", "write"]

PAGE_BYTES: Final = 4096
APPLICATION_ID: Final = 0x43_46_4C_31  # "CFL1"

BUSY_WAIT_S: Final = 5.0
"""How long a statement waits for another process's lock: a holder needs a millisecond, a stopped one may hold on."""

WAL_BYTES: Final = 16 * 1024 * 1024
"""The log is made this long at once and then reused from the start: writing inside a file is cheaper to sync than
growing it (measured on ext4: 120 µs against 220 µs)."""

_BUSY_STEP_S = 0.0001
_MMAP_BYTES = 1 << 30
_WRITER_STATEMENTS = 64
"""Those of a batch (``store``, fifteen a table) and all others: preparing one costs more than running it."""

_WRITER_FLAGS = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_NOMUTEX
"""No two threads use one of these connections at once, so SQLite need not lock it for each of a batch's values."""

_WRITER_CACHE_KIB = 4 * 1024  # the right edges and what a pass reads; half of it makes a pass an eighth dearer
_READER_CACHE_KIB = 2 * 1024


def open_writer(path: Path, durability: Durability, vfs: str | None = None) -> apsw.Connection:
    """A connection that commits; the database is made or migrated when needed.

    Raises :class:`ConfigError` for a database that is newer than this version, and :class:`apsw.Error`.
    """
    if not path.exists():  # never open an existing one by other means: closing it would drop SQLite's locks on it
        path.touch(mode=0o600)
    connection = apsw.Connection(str(path), flags=_WRITER_FLAGS, vfs=vfs, statementcachesize=_WRITER_STATEMENTS)
    try:
        wait_briefly(connection)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        keep_a_log(connection)
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'fsync' else 'NORMAL'}")
        connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads, while a gateway runs or none does. Raises :class:`apsw.Error`."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    wait_briefly(connection)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
    return connection


@contextlib.contextmanager
def readable() -> Generator[None]:
    """Whatever is wrong with the database, or with what was read from it, as :class:`GatewayFault`."""
    try:
        yield
    except (apsw.Error, msgspec.MsgspecError, ValueError) as error:
        raise GatewayFault("ledger_unavailable", "The ledger cannot be read.") from error


def wait_briefly(connection: apsw.Connection) -> None:
    """Wait for other processes' locks in steps of a tenth of a millisecond, for :data:`BUSY_WAIT_S` in all.

    SQLite's own back-off sleeps 1, 2, 5 … 100 ms, far longer than a commit takes.
    """
    deadline = 0.0

    def wait(tries: int) -> bool:
        nonlocal deadline
        if tries == 0:
            deadline = time.monotonic() + BUSY_WAIT_S
        time.sleep(_BUSY_STEP_S)
        return time.monotonic() < deadline

    connection.set_busy_handler(wait)


def keep_a_log(connection: apsw.Connection) -> None:
    """Put the database into write-ahead mode, also when several processes make it at the same time.

    For this one change SQLite does not ask the busy handler: who finds another at it is told :class:`apsw.BusyError` at
    once, and has only to look again. Raises that after :data:`BUSY_WAIT_S`.
    """
    deadline = time.monotonic() + BUSY_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_STEP_S)
        else:
            return


def migrate(connection: apsw.Connection) -> None:
    """Bring the schema to the newest version. Several processes may do so at once; one does.

    Raises :class:`ConfigError` for a database that is newer than this version.
    """
    steps = sql.migrations()
    newest = steps[-1][0]
    if connection.pragma("user_version") == newest:
        return
    with transaction(connection):
        found = int(connection.pragma("user_version"))
        if found > newest:
            raise ConfigError(
                f"The ledger was written by a newer Counterfoil (schema {found}, this one knows {newest}). "
                "Run that version, or restore a backup made with this one."
            )
        for number, text in steps:
            if number > found:
                connection.execute(text)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {newest}")


@contextlib.contextmanager
def transaction(connection: apsw.Connection) -> Generator[None]:
    """All of a block or nothing, with the write lock from its beginning. Raises :class:`apsw.Error`."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def copy_back(connection: apsw.Connection) -> None:
    """Copy every commit of the log into the database file and sync it, so that no commit rests on the log any more.

    After a crash SQLite takes up whatever whole commits it finds in the log, also one whose sync had failed, which may
    never have reached the disk. What is copied back is written anew, and rests on a sync of its own.

    Raises :class:`apsw.BusyError` when a reader of an older state keeps it from copying all.
    """
    pages, copied = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    if copied != pages:
        raise apsw.BusyError("A reader keeps the log from being copied back.")


def has_this_schema(connection: apsw.Connection) -> bool:
    """Whether the tables are exactly those of the newest schema."""
    fresh = apsw.Connection(":memory:")
    try:
        fresh.execute(sql.schema())
        wanted = list(fresh.execute(_TABLES))
    finally:
        fresh.close()
    return wanted == list(connection.execute(_TABLES))


_TABLES = "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY type, name"


def extend_log(connection: apsw.Connection, path: Path) -> None:
    """Fill the write-ahead log with zeros up to :data:`WAL_BYTES`, so that commits write inside it.

    The log's valid part is told by checksums, never by the file's length, so zeros behind it mean nothing. The write
    lock is held meanwhile: nobody appends where the zeros go. On a full disk the log stays as it is, and grows.
    """
    log = path.with_name(path.name + "-wal")
    connection.execute("BEGIN IMMEDIATE")
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = size = os.fstat(descriptor).st_size
        try:
            while size < WAL_BYTES:
                size += os.pwrite(descriptor, bytes(min(1 << 20, WAL_BYTES - size)), size)
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, found)
        finally:
            os.close(descriptor)
    finally:
        connection.execute("ROLLBACK")
