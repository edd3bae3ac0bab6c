"""The SQL files: migrations and schema agree, and every statement fits them."""

from __future__ import annotations

import re
from pathlib import Path

import apsw
import pytest

import counterfoil.ledger
from counterfoil.errors import ConfigError
from counterfoil.ledger import database, sql
from counterfoil.ledger.rows import GENERATION_COLUMNS

SOURCES = Path(counterfoil.ledger.__file__).parent


def _shape(connection: apsw.Connection) -> list[tuple[str, ...]]:
    return list(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name"))


def test_migrations_make_the_schema() -> None:
    """A database that went through every migration is the one that ``schema.sql`` describes."""
    migrated, fresh = apsw.Connection(":memory:"), apsw.Connection(":memory:")
    database.migrate(migrated)
    fresh.execute(sql.schema())
    assert _shape(migrated) == _shape(fresh)
    assert database.has_this_schema(migrated)
    assert migrated.pragma("user_version") == sql.migrations()[-1][0]


def test_migrations_are_numbered_from_one() -> None:
    """No number is missing or taken twice."""
    numbers = [number for number, _ in sql.migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("name", sorted(sql.QUERIES))
def test_every_statement_is_valid(name: str) -> None:
    """Each named statement can be prepared against the schema, and the code uses it."""
    connection = apsw.Connection(":memory:")
    database.migrate(connection)
    statement = sql.QUERIES[name]
    numbered = [int(number) for number in re.findall(r"\?(\d)", statement)]
    connection.execute("EXPLAIN " + statement, [0] * (max(numbered) if numbered else statement.count("?")))
    used = "".join(path.read_text() for path in SOURCES.glob("*.py"))
    assert f'"{name}"' in used


def test_a_statement_named_twice_is_refused() -> None:
    """Two statements of one name are an error, not the last one's win."""
    with pytest.raises(ValueError, match="twice"):
        sql.parse("-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n")


def test_the_columns_are_all_there() -> None:
    """The columns the writer fills are exactly those of the table, in an order of its own."""
    connection = apsw.Connection(":memory:")
    database.migrate(connection)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(generations)")]
    assert sorted(GENERATION_COLUMNS.split(", ")) == sorted(columns)


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A database of a later version is never touched."""
    path = tmp_path / "ledger.db"
    database.open_writer(path, "fsync").close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(ConfigError, match="newer"):
        database.open_writer(path, "fsync")


def test_the_settings_that_durability_rests_on(tmp_path: Path) -> None:
    """Commits are synced unless the operator chose otherwise; the log is long and automatic checkpoints are off."""
    path = tmp_path / "ledger.db"
    for durability, synchronous in (("fsync", 2), ("write", 1)):
        connection = database.open_writer(path, durability)
        found = [connection.pragma(name) for name in ("journal_mode", "synchronous", "wal_autocheckpoint", "page_size")]
        assert found == ["wal", synchronous, 0, 4096]
        database.extend_log(connection, path)
        assert (tmp_path / "ledger.db-wal").stat().st_size == database.WAL_BYTES
        connection.close()
    assert path.stat().st_mode & 0o077 == 0
