"""``replays/runs.db``: runs, their items, and the figures of what came of them; and the lock that makes one driver.

Apart from the ledger, whose every table is part of what is verified, and from the tenancy, whose every change makes all
workers forget their keys. What was asked is sealed under the folder's own key: overrides and judges hold prompts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any, Final, LiteralString

import apsw
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from counterfoil.capture.seal import derive
from counterfoil.errors import ConfigError, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.database import keep_a_log, transaction
from counterfoil.record import ids
from counterfoil.replay.bulk.asked import Asked
from counterfoil.replay.bulk.outcome import Result, Verdict

SCHEMA_VERSION: Final = 1
DATABASE: Final = "runs.db"
BUSY_MS_MAX: Final = 5_000
LISTED_MAX: Final = 200
_PURPOSE: Final = b"counterfoil/replay-run/1"
_NONCE_BYTES: Final = 12
_COLUMNS: Final = (
    "run_id, team_id, key_id, created_ms, state, reason, finished_ms, items, budget_nanos, excluded, sealed"
)


class RunState(StrEnum):
    """``running``: driven, or taken up by the next worker that starts. ``stopped``: ``reason`` says why."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    STOPPED = "stopped"


class Run(Struct, frozen=True, kw_only=True):
    """One bulk run. ``secret`` is what its ids are computed with; it never leaves the gateway."""

    run_id: str
    team_id: str
    key_id: str
    created_ms: int
    state: RunState
    reason: str | None
    finished_ms: int | None
    items: int
    budget_nanos: int | None
    excluded: dict[str, int]
    secret: bytes
    asked: Asked


class Progress(Struct, frozen=True, kw_only=True):
    """How far a run is. ``total`` counts items times targets; ``calls`` every call made, judges' included."""

    total: int
    done: int
    failed: int
    skipped: int
    calls: int
    interrupted: int
    spent_nanos: int
    held_nanos: int


class _Sealed(Struct, frozen=True):
    secret: bytes
    asked: Asked


class RunStore:
    """Safe from any thread. Every method raises :class:`GatewayFault` when the database cannot be used."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder.replays
        self._lock = threading.RLock()
        self._cipher = AESGCM(derive(folder.secret("kek"), _PURPOSE))
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            path = self._folder / DATABASE
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._database = apsw.Connection(str(path))
            self._database.set_busy_timeout(BUSY_MS_MAX)
            self._prepare()
        except (apsw.Error, OSError) as error:
            raise ConfigError(f"The bulk runs in {self._folder} cannot be opened ({error}).") from error

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def claim(self, run_id: str) -> int | None:
        """The descriptor that makes its holder the driver of a run; None when another process is. Close it to let go.

        The lock ends with the process, however it ends.
        """
        with _mapped():
            descriptor = os.open(self._folder / f"{run_id}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    # Runs.

    def add(self, run: Run, generations: Sequence[int]) -> None:
        """Keep a new run and its items; durable on return."""
        plain = msgspec.json.encode(_Sealed(run.secret, run.asked))
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher.encrypt(nonce, plain, _bound_to(run.run_id, run.team_id))
        excluded = msgspec.json.encode(run.excluded).decode()
        values = (run.run_id, run.team_id, run.key_id, run.created_ms, run.state, run.reason, run.finished_ms)
        with self._transaction():
            self._execute(
                f"INSERT INTO runs ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (*values, run.items, run.budget_nanos, excluded, sealed),
            )
            for number, value in enumerate(generations):
                self._execute("INSERT INTO items VALUES (?, ?, ?)", (run.run_id, number, value.to_bytes(16, "big")))

    def find(self, team_id: str | None, run_id: str) -> Run | None:
        """The run of this id in ``team_id`` (None: in any)."""
        found = self._rows(
            f"SELECT {_COLUMNS} FROM runs WHERE run_id = ?1 AND (?2 IS NULL OR team_id = ?2)",  # noqa: S608
            (run_id, team_id),
        )
        return self._run(found[0]) if found else None

    def listed(self, team_id: str | None) -> list[Run]:
        """The newest runs of a team (None: of all), newest first."""
        found = self._rows(
            f"SELECT {_COLUMNS} FROM runs WHERE ?1 IS NULL OR team_id = ?1 ORDER BY created_ms DESC, run_id LIMIT ?2",  # noqa: S608
            (team_id, LISTED_MAX),
        )
        return [self._run(row) for row in found]

    def unfinished(self) -> list[Run]:
        """The runs that say they are running, of every team, the oldest first."""
        found = self._rows(f"SELECT {_COLUMNS} FROM runs WHERE state = 'running' ORDER BY created_ms", ())  # noqa: S608
        return [self._run(row) for row in found]

    def state(self, run_id: str) -> RunState | None:
        """The state of a run as of now, None when it was deleted."""
        found = self._rows("SELECT state FROM runs WHERE run_id = ?", (run_id,))
        return RunState(found[0][0]) if found else None

    def ended_before(self, ms: int) -> list[str]:
        """The runs that are over and ended before this time (Unix milliseconds); one without an end when it began."""
        wanted = "SELECT run_id FROM runs WHERE state != 'running' AND coalesce(finished_ms, created_ms) < ?"
        return [run_id for (run_id,) in self._rows(wanted, (ms,))]

    def delete(self, run_id: str) -> None:
        """Forget a run that its caller has claimed, with everything about it, and its lock."""
        with self._transaction():
            self._execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            self._execute("DELETE FROM items WHERE run_id = ?", (run_id,))
            self._execute("DELETE FROM results WHERE run_id = ?", (run_id,))
            self._execute("DELETE FROM verdicts WHERE run_id = ?", (run_id,))
        (self._folder / f"{run_id}.lock").unlink(missing_ok=True)

    def end(self, run_id: str, state: RunState, reason: str | None, now_ms: int) -> bool:
        """A running run is over; False when it was not running (any more)."""
        with self._transaction():
            self._execute(
                "UPDATE runs SET state = ?, reason = ?, finished_ms = ? WHERE run_id = ? AND state = 'running'",
                (state, reason, now_ms, run_id),
            )
            return self._database.changes() > 0

    def begin_again(self, run_id: str, key_id: str, budget_nanos: int | None) -> None:
        """A run goes on, as this key."""
        with self._transaction():
            self._execute(
                "UPDATE runs SET state = 'running', reason = NULL, finished_ms = NULL, key_id = ?, budget_nanos = ? "
                "WHERE run_id = ?",
                (key_id, budget_nanos, run_id),
            )

    # Items and results.

    def item(self, run_id: str, number: int) -> str:
        """The id of the generation that is item ``number``."""
        [(value,)] = self._rows("SELECT generation FROM items WHERE run_id = ? AND number = ?", (run_id, number))
        return ids.text(int.from_bytes(value, "big"))

    def finished(self, run_id: str) -> set[tuple[int, int]]:
        """The items and targets that have a result."""
        return {(row[0], row[1]) for row in self._rows("SELECT item, target FROM results WHERE run_id = ?", (run_id,))}

    def keep(self, run_id: str, result: Result) -> None:
        """Keep a result; one that is there already stays."""
        values = (run_id, result.item, result.target, result.state, result.spent_nanos, result.held_nanos)
        interrupted = sum(one.interrupted for one in result.calls)
        data = msgspec.json.encode(result).decode()
        with self._transaction():
            self._execute(
                "INSERT OR IGNORE INTO results "
                "(run_id, item, target, state, spent_nanos, held_nanos, interrupted, calls, data) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*values, interrupted, len(result.calls), data),
            )

    def results(self, run_id: str, after: int = 0, limit: int = -1) -> list[tuple[int, Result]]:
        """Results with their places (ascending, in the order they came), those behind ``after``."""
        found = self._rows(
            "SELECT place, data FROM results WHERE run_id = ? AND place > ? ORDER BY place LIMIT ?",
            (run_id, after, limit),
        )
        posted: dict[tuple[int, int], list[Verdict]] = {}
        for item, target, data in self._rows("SELECT item, target, data FROM verdicts WHERE run_id = ?", (run_id,)):
            posted.setdefault((item, target), []).append(msgspec.json.decode(data, type=Verdict))
        results = [(place, msgspec.json.decode(data, type=Result)) for place, data in found]
        return [(place, _judged(result, posted.get((result.item, result.target)))) for place, result in results]

    def post(self, run_id: str, verdicts: Iterable[tuple[int, int, Verdict]]) -> None:
        """Keep verdicts from outside; a later one of the same judge replaces the earlier."""
        with self._transaction():
            for item, target, verdict in verdicts:
                self._execute(
                    "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
                    (run_id, item, target, verdict.judge, msgspec.json.encode(verdict).decode()),
                )

    def progress(self, run: Run) -> Progress:
        """How far ``run`` is."""
        found = self._rows(
            "SELECT state, count(*), sum(calls), sum(interrupted), sum(spent_nanos), sum(held_nanos) FROM results "
            "WHERE run_id = ? GROUP BY state",
            (run.run_id,),
        )
        counts: dict[str, int] = {row[0]: row[1] for row in found}
        calls, interrupted, spent, held = (sum(row[column] for row in found) for column in (2, 3, 4, 5))
        return Progress(
            total=run.items * len(run.asked.targets),
            done=counts.get("done", 0),
            failed=counts.get("failed", 0),
            skipped=counts.get("skipped", 0),
            calls=calls,
            interrupted=interrupted,
            spent_nanos=spent,
            held_nanos=held,
        )

    # Inside.

    def _prepare(self) -> None:
        database = self._database
        keep_a_log(database)
        database.execute("PRAGMA synchronous = NORMAL")  # what a power loss takes is in the ledger still
        version = database.pragma("user_version")
        if version > SCHEMA_VERSION:
            raise ConfigError(f"The bulk runs in {self._folder} were written by a newer Counterfoil.")
        if version == 0:
            with transaction(database):
                if database.pragma("user_version") == 0:
                    database.execute(
                        resources.files("counterfoil.replay.bulk").joinpath("schema.sql").read_text("utf-8")
                    )
                    database.pragma("user_version", SCHEMA_VERSION)

    @contextlib.contextmanager
    def _transaction(self) -> Generator[None]:
        with self._lock, _mapped(), transaction(self._database):
            yield

    def _execute(self, statement: LiteralString, values: Sequence[Any]) -> None:
        self._database.execute(statement, values)

    def _rows(self, statement: LiteralString, values: Sequence[Any]) -> list[Any]:
        with self._lock, _mapped():
            return list(self._database.execute(statement, values))

    def _run(self, row: Any) -> Run:
        run_id, team_id, key_id, created_ms, state, reason, finished_ms, items, budget, excluded, sealed = row
        try:
            plain = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _bound_to(run_id, team_id))
        except InvalidTag as error:
            raise GatewayFault("ledger_unavailable", "A bulk run does not open with this folder's secret.") from error
        told = msgspec.json.decode(plain, type=_Sealed)
        return Run(
            run_id=run_id,
            team_id=team_id,
            key_id=key_id,
            created_ms=created_ms,
            state=RunState(state),
            reason=reason,
            finished_ms=finished_ms,
            items=items,
            budget_nanos=budget,
            excluded=msgspec.json.decode(excluded),
            secret=told.secret,
            asked=told.asked,
        )


def exchange(folder: DataFolder, reseal: Callable[[bytes, bytes, bytes], bytes | None]) -> None:
    """Seal what was asked of every run anew, all or none; as :func:`counterfoil.tenancy.vault.exchange`."""
    path = folder.replays / DATABASE
    if not path.exists():
        return
    connection = apsw.Connection(str(path))
    try:
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            for run_id, team_id, sealed in list(connection.execute("SELECT run_id, team_id, sealed FROM runs")):
                fresh = reseal(_PURPOSE, _bound_to(run_id, team_id), sealed)
                if fresh is not None:
                    connection.execute("UPDATE runs SET sealed = ? WHERE run_id = ?", (fresh, run_id))
    finally:
        connection.close()


def stop_copied(database: Path) -> None:
    """Stop the running runs of a copied database, so that starting the copy does not spend money. Raises apsw.Error.

    The copy does not know what the original paid since; whoever resumes a run there decides that it may pay again.
    """
    connection = apsw.Connection(str(database))
    try:
        connection.execute("UPDATE runs SET state = 'stopped', reason = 'copied' WHERE state = 'running'")
    finally:
        connection.close()


def _judged(result: Result, posted: list[Verdict] | None) -> Result:
    if not posted:
        return result
    names = {verdict.judge for verdict in posted}
    kept = tuple(verdict for verdict in result.verdicts if verdict.judge not in names)
    return msgspec.structs.replace(result, verdicts=(*kept, *posted))


def _bound_to(run_id: str, team_id: str) -> bytes:
    return f"{run_id}\0{team_id}".encode()


@contextlib.contextmanager
def _mapped() -> Generator[None]:
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise GatewayFault("ledger_unavailable", "The bulk runs cannot be read or written at the moment.") from error
