"""``counterfoil backup``: a whole copy of a data folder, taken while the gateway runs.

Copying the files of a running gateway would give databases without the half of them that is still in their logs. Here
each database is read in one transaction, through SQLite, and the order keeps the copy whole: what a record refers to
(its price book, the secret its bodies are sealed with) is written before the record is, so it is copied after it.

Calls in flight are not in the copy; they have no record yet. The journal stays behind, because their records will be in
the original alone. Bulk runs that are under way are stopped in the copy, so that starting it spends nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final

import apsw
from cyclopts import Parameter
from msgspec import Struct

from counterfoil.cli import output
from counterfoil.cli.where import HERE, AsJson, Place
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder, sync
from counterfoil.ledger.database import wait_briefly
from counterfoil.ledger.query import LedgerReader
from counterfoil.record import words
from counterfoil.replay.bulk import store

_LEFT_OUT: Final = frozenset({"lock", "reserve", "journal", "control.epoch", "playback.db", "verification.json"})
"""What belongs to the running gateway alone, or follows from the rest, and is made anew."""
_LOGS: Final = (".db-wal", ".db-shm", ".db-journal", ".lock")
_PRIVATE_DIR: Final = 0o700


class Copied(Struct, frozen=True):
    """What a backup holds."""

    folder: str
    records: int
    files: int
    bytes: int


def backup(
    to: Annotated[Path, Parameter(help="The folder to make. It must not be there yet, or be empty.")],
    /,
    *,
    as_json: AsJson = False,
    place: Place = HERE,
) -> None:
    """Copy the data folder, whole and consistent, also while the gateway runs. The copy is a data folder itself."""
    folder = DataFolder.existing(place.root)
    try:
        copied = copy(folder, to)
    except (OSError, shutil.Error, apsw.Error) as error:
        raise ConfigError(f"The backup could not be made ({getattr(error, 'strerror', None) or error}).") from error
    if as_json:
        output.json(copied)
        return
    output.lines(
        f"{copied.records:,} records in {copied.files} files, {words.size(copied.bytes)}, are in {to}.",
        f"Check them: counterfoil ledger verify --data {to}",
    )


def copy(folder: DataFolder, to: Path) -> Copied:
    """Copy ``folder`` to ``to``, which appears when it is complete.

    Raises :class:`ConfigError` when something is there already, :class:`OSError` and :class:`apsw.Error`.
    """
    if to.exists() and not (to.is_dir() and not any(to.iterdir())):
        raise ConfigError(f"There is something in {to} already. Name a new folder, so that no older backup is lost.")
    draft = to.with_name(f".{to.name}.{os.getpid()}")
    draft.mkdir(mode=_PRIVATE_DIR, parents=True)
    try:
        for source in _files(folder):
            target = draft / source.relative_to(folder.root)
            target.parent.mkdir(mode=_PRIVATE_DIR, exist_ok=True)
            (_copy_database if source.suffix == ".db" else _copy_file)(source, target)
        runs = draft / folder.replays.name / store.DATABASE
        if runs.exists():
            store.stop_copied(runs)
        (draft / folder.journal.name).mkdir(mode=_PRIVATE_DIR)
        copied = _copied(draft, to)
        draft.replace(to)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync(to.parent)
    return copied


def _copy_database(source: Path, target: Path) -> None:
    """One database as it is at one moment; commits go on meanwhile, into the log."""
    target.touch(mode=0o600)
    old = apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)
    new = apsw.Connection(str(target))
    try:
        wait_briefly(old)
        with new.backup("main", old, "main") as running:
            running.step(-1)
    finally:
        new.close()
        old.close()
    sync(target)


def _files(folder: DataFolder) -> Iterator[Path]:
    """What to copy, the ledger first. Books and secrets do not change once they are written."""
    yield folder.ledger_db
    for path in sorted(folder.root.rglob("*")):
        taken = path.is_file() and path.relative_to(folder.root).parts[0] not in _LEFT_OUT
        if taken and path != folder.ledger_db and not path.name.endswith(_LOGS):
            yield path


def _copy_file(source: Path, target: Path) -> None:
    shutil.copy2(source, target)
    sync(target)


def _copied(draft: Path, to: Path) -> Copied:
    sizes = [path.stat().st_size for path in draft.rglob("*") if path.is_file()]
    reader = LedgerReader(DataFolder(draft))
    try:
        records = reader.stats()["records"]
    finally:
        reader.close()
    return Copied(str(to), records, len(sizes), sum(sizes))
