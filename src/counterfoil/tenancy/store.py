"""``control.db``: opening it, reading it, and changing it so that every process on the folder notices at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any, Final, LiteralString, Protocol, cast

import apsw

from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.tenancy.epoch import Epoch

SCHEMA_VERSION: Final = 1
BUSY_MS_MAX: Final = 5_000
"""How long a change waits for another one. Changes take milliseconds; readers never wait."""
_PRIVATE_FILE: Final = 0o600

_HERE: Final = "counterfoil.tenancy"

Value = str | int | bytes | None
Row = tuple[Any, ...]


class _Database(Protocol):
    """What is used of :class:`apsw.Connection`, whose own annotations need a newer Python's ``Buffer``."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: LiteralString, bindings: Sequence[Value] | None = None) -> _Cursor: ...
    def pragma(self, name: str, value: str | int | None = None) -> object: ...
    def close(self) -> None: ...


class _Cursor(Protocol):
    def fetchall(self) -> list[Row]: ...


class Store:
    """One connection to ``control.db`` and the folder's epoch. May be used from any thread, one at a time."""

    def __init__(self, folder: DataFolder) -> None:
        """Open the database of ``folder``, making it when it is missing.

        Raises :class:`ConfigError` when it cannot be opened or was written by a newer version.
        """
        self.lock = threading.RLock()
        epoch = folder.root / "control.epoch"
        if epoch.exists() and not folder.control_db.exists():
            raise ConfigError(
                f"The tenancy database {folder.control_db} is missing. It held every key: restore it from a backup. "
                f"To begin again without any key, remove {epoch} too."
            )
        try:
            os.close(os.open(folder.control_db, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE))
            connection = apsw.Connection(str(folder.control_db), statementcachesize=64)
            connection.set_busy_timeout(BUSY_MS_MAX)
            self._database = cast("_Database", connection)
            self.epoch = Epoch(epoch)
            self._prepare(folder)
        except (apsw.Error, OSError) as error:
            raise ConfigError(
                f"The tenancy database {folder.control_db} cannot be opened ({error}). "
                "Check the folder's permissions, or restore a backup."
            ) from error

    def rows(self, query: LiteralString, values: Sequence[Value] = ()) -> list[Row]:
        """The rows of ``query``. Raises :class:`GatewayFault` when the database cannot be read."""
        with self.lock:
            try:
                return self._database.execute(query, values).fetchall()
            except apsw.Error as error:
                raise _unavailable() from error

    def row(self, query: LiteralString, values: Sequence[Value] = ()) -> Row | None:
        """The first row of ``query``, None when there is none."""
        found = self.rows(query, values)
        return found[0] if found else None

    @contextmanager
    def change(self) -> Generator[None]:
        """Run the block as one change: all of it or nothing; durable and noticed everywhere when this ends.

        Raises :class:`GatewayFault` when the database cannot be written.
        """
        with self.lock, self._locked():
            self._execute("BEGIN IMMEDIATE")
            try:
                yield
                self._execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._execute("ROLLBACK")

    @contextmanager
    def _locked(self) -> Generator[None]:
        try:
            with self.epoch.changing():
                yield
        except TimeoutError as error:
            raise _unavailable() from error

    def close(self) -> None:
        """Close the database and the epoch."""
        with self.lock:
            self._database.close()
            self.epoch.close()

    def _execute(self, statement: LiteralString) -> None:
        try:
            self._database.execute(statement)
        except apsw.Error as error:
            raise _unavailable() from error

    def _prepare(self, folder: DataFolder) -> None:
        """Set the connection up; make the tables once, under the epoch's lock, for processes may start together."""
        database = self._database
        database.pragma("synchronous", "full")
        database.pragma("foreign_keys", True)
        if self._version() == 0:
            with self.epoch.changing():
                database.pragma("journal_mode", "wal")
                if self._version() == 0:
                    self._make()
        if self._version() > SCHEMA_VERSION:
            raise ConfigError(
                f"{folder.control_db} was written by a newer Counterfoil (format {self._version()}, this one knows "
                f"{SCHEMA_VERSION}). Run that version, or restore a backup made with this one."
            )

    def _make(self) -> None:
        schema = resources.files(_HERE).joinpath("schema.sql").read_text("utf-8")
        self._database.execute("BEGIN IMMEDIATE")
        self._database.execute(cast("LiteralString", schema))
        self._database.pragma("user_version", SCHEMA_VERSION)
        self._database.execute("COMMIT")

    def _version(self) -> int:
        version = self._database.pragma("user_version")
        return version if isinstance(version, int) else 0


def _unavailable() -> GatewayFault:
    return GatewayFault("ledger_unavailable", "The tenancy database cannot be read or written at the moment.")
