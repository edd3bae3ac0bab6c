"""The data folder: where everything durable lives, who may read it, and which version wrote it.

::

    counterfoil-data/           0700
    ├── VERSION                 the format's number; a newer one is refused, never guessed at
    ├── lock                    held (flock) by every process of one running gateway, inherited by its workers
    ├── control.db              teams, apps, keys, provider keys
    ├── idempotency.db          which call an idempotency key stands for; from the first key on (and its .lock)
    ├── ledger.db               records, sealed bodies, chain, checkpoints
    ├── playback.db             recordings by match key, where playback is used; derived
    ├── books/                  every price book a record refers to, by content hash
    ├── journal/                calls in flight (intents) and what was counted (tally), a file each a writer
    ├── reserve                 disk kept back for calls in flight when it is full
    ├── verification.json       what the last verification found that was asked for over HTTP (and its .lock)
    ├── replays/                bulk runs: runs.db, and a lock for each run
    └── secrets/                0700; each file 0600, 32 random bytes, made with the folder
        ├── pepper              keys API keys' digests
        ├── kek                 wraps the teams' data keys
        ├── signing             Ed25519 seed for checkpoints
        ├── pepper.1 …          peppers of before, while a key has not been used since the last exchange
        ├── commitment          what bodies are committed to with, once the kek was exchanged
        ├── handovers.jsonl     how each signing key signed the next
        └── *.next              an exchange that was begun and not ended

Reading commands open the same folder while the gateway runs; only ``serve`` takes the lock.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from counterfoil.errors import ConfigError

FORMAT_VERSION: Final = 1
SECRET_BYTES: Final = 32
_PRIVATE_DIR = 0o700
_PRIVATE_FILE = 0o600
_SECRETS: Final = {
    "pepper": "Without it no API key is valid.",
    "kek": "Without it no stored body and no provider key can be opened.",
    "signing": "Without it the ledger's checkpoints cannot be continued.",
}
"""The secrets, and what hangs on each."""


class DataFolder:
    """An opened data folder. Cheap to make; holds no file open except after :meth:`lock`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def create(cls, root: Path) -> DataFolder:
        """Open ``root``, making it and its parts with safe permissions when they are missing.

        Raises :class:`ConfigError` when it cannot be made or written, or was written by a newer version.
        """
        folder = cls(root)
        try:
            for directory in (root, folder.books, folder.journal, folder.secrets):
                directory.mkdir(mode=_PRIVATE_DIR, parents=directory is root, exist_ok=True)
            version = root / "VERSION"
            if not version.exists():
                folder._refuse_leftovers()
                for name in _SECRETS:
                    if not (folder.secrets / name).exists():
                        _write_new(folder.secrets / name, os.urandom(SECRET_BYTES))
                _write_new(version, f"{FORMAT_VERSION}\n".encode())  # last: a folder that has it has its secrets
            if not os.access(root, os.W_OK | os.X_OK):
                raise PermissionError(13, "not writable", str(root))
        except OSError as error:
            raise ConfigError(
                f"The data folder {root} cannot be written ({error.strerror or error}). "
                "Give its owner write permission, or choose another folder with --data."
            ) from error
        folder._check_version()
        return folder

    @classmethod
    def existing(cls, root: Path) -> DataFolder:
        """Open a folder that must be there, for commands that read. Raises :class:`ConfigError` when it is not."""
        if not (root / "VERSION").is_file():
            said = f"There is no Counterfoil data in {root.absolute()}. Name the gateway's data folder with --data."
            raise ConfigError(said)
        folder = cls(root)
        folder._check_version()
        return folder

    @property
    def control_db(self) -> Path:
        return self.root / "control.db"

    @property
    def ledger_db(self) -> Path:
        return self.root / "ledger.db"

    @property
    def playback_db(self) -> Path:
        return self.root / "playback.db"

    @property
    def books(self) -> Path:
        return self.root / "books"

    @property
    def reserve(self) -> Path:
        return self.root / "reserve"

    @property
    def journal(self) -> Path:
        return self.root / "journal"

    @property
    def replays(self) -> Path:
        return self.root / "replays"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets"

    @property
    def handovers(self) -> Path:
        return self.secrets / "handovers.jsonl"

    def secret(self, name: str) -> bytes:
        """The 32 bytes of a named secret, made with the folder; ``counterfoil secrets rotate`` exchanges them.

        Raises :class:`ConfigError` when the file is missing, damaged, readable by others or about to be exchanged. (A
        new one in its place would look like a good start, and every key, body or checkpoint of before would be void.)
        """
        if self.next_secret(name) is not None:
            raise ConfigError(
                f"The exchange of {self.secrets / name} was interrupted. End it: counterfoil secrets rotate {name}"
            )
        return self.own_secret(name)

    def sealing(self) -> bytes:
        """What bodies are sealed with: the kek and, once that was exchanged, the key of the commitments behind it.

        The records in the chain commit to bodies with a key that followed from the first kek. It stays what it was.
        """
        return self.secret("kek") + (self._read_optional("commitment") or b"")

    def peppers(self) -> dict[int, bytes]:
        """The peppers by number; the highest one is the one that counts, the others are those of before."""
        now = self.secret("pepper")
        numbers = self.pepper_numbers()
        kept = {
            number: self.own_secret(f"pepper.{number}") for number in numbers if self._pepper(number).stat().st_size
        }
        return kept | {max(numbers, default=0) + 1: now}

    def pepper_numbers(self) -> list[int]:
        """The numbers of the peppers of before, ascending, of destroyed ones the last (its file is empty)."""
        names = (path.name.partition(".")[2] for path in self.secrets.glob("pepper.*"))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def _pepper(self, number: int) -> Path:
        return self.secrets / f"pepper.{number}"

    def next_secret(self, name: str) -> bytes | None:
        """The secret that is about to take the place of ``name``; None when none is."""
        return self._read_optional(f"{name}.next")

    def interrupted(self) -> list[str]:
        """The secrets whose exchange was begun and not ended."""
        return [name for name in _SECRETS if (self.secrets / f"{name}.next").exists()]

    def begin_exchange(self, name: str) -> bytes:
        """The secret that is to take the place of ``name``; durable on return, the same one until the exchange ends."""
        _write_new(self.secrets / f"{name}.next", os.urandom(SECRET_BYTES))
        return self.own_secret(f"{name}.next")

    def end_exchange(self, name: str) -> None:
        """Put the new secret in the place of the old one, whole or not at all; durable on return."""
        (self.secrets / f"{name}.next").replace(self.secrets / name)
        sync(self.secrets)

    def keep_pepper(self) -> None:
        """Keep the pepper under its number, beside the one that will take its place. Again does no harm."""
        now = self.own_secret("pepper")
        last = max(self.pepper_numbers(), default=0)
        if not last or self._pepper(last).read_bytes() != now:
            _write_new(self._pepper(last + 1), now)

    def keep_commitment(self, key: bytes) -> None:
        """Keep what bodies are committed to with, unless it is kept already."""
        _write_new(self.secrets / "commitment", key)

    def drop_pepper(self, number: int) -> None:
        """Destroy a pepper of before; keys that hang on it are unknown from then on. Its number never comes again."""
        if number == max(self.pepper_numbers(), default=0):
            os.truncate(self._pepper(number), 0)
        else:
            self._pepper(number).unlink(missing_ok=True)
        sync(self.secrets)

    def _read_optional(self, name: str) -> bytes | None:
        return self.own_secret(name) if (self.secrets / name).exists() else None

    def own_secret(self, name: str) -> bytes:
        """The 32 bytes in one file of the secrets, whatever else is there. Raises :class:`ConfigError`."""
        path = self.secrets / name
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = path.read_bytes()
        except FileNotFoundError as error:
            lost = _SECRETS.get(name, "")
            raise ConfigError(
                f"The secret {path} is missing. {lost} It cannot be made again: restore it from a backup."
            ) from error
        except OSError as error:
            raise ConfigError(f"The secret {path} cannot be read ({error.strerror or error}).") from error
        if mode & 0o077:
            raise ConfigError(f"The secret {path} can be read by others (mode {mode:o}). Run: chmod 600 {path}")
        if len(data) != SECRET_BYTES:
            raise ConfigError(f"The secret {path} is damaged: it has {len(data)} bytes, not {SECRET_BYTES}.")
        return data

    def lock(self) -> int:
        """Take the folder for one running gateway; give the descriptor that holds it (inheritable by workers).

        The lock ends when the last process that inherited the descriptor ends, however it ends. Raises
        :class:`ConfigError` when another gateway has it.
        """
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ConfigError(
                f"Another gateway is running on {self.root}. Stop it first, or use another folder with --data."
            ) from error
        return descriptor

    def _refuse_leftovers(self) -> None:
        """A folder without its VERSION that holds a database is a damaged one, not a new one."""
        left = [path.name for path in (self.control_db, self.ledger_db) if path.exists()]
        if left:
            raise ConfigError(
                f"{self.root / 'VERSION'} is missing, but {left[0]} is there. Restore the file (it holds one line: "
                f"{FORMAT_VERSION}), or choose another folder with --data."
            )

    def _check_version(self) -> None:
        try:
            version = int((self.root / "VERSION").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{self.root / 'VERSION'} cannot be read; is {self.root} a Counterfoil folder?"
            ) from error
        if version > FORMAT_VERSION:
            raise ConfigError(
                f"The data folder {self.root} was written by a newer Counterfoil (format {version}, this one "
                f"knows {FORMAT_VERSION}). Run that version, or restore a backup made with this one."
            )


def replace_whole(path: Path, data: bytes) -> None:
    """Put a private file of ``data`` in the place of ``path``, whole or not at all; durable on return.

    Raises :class:`OSError`; then what was there is still there.
    """
    _draft(path, data).replace(path)
    sync(path.parent)  # the name too must outlive the power


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's names, outlive the power. Raises :class:`OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_new(path: Path, data: bytes) -> None:
    """Make ``path`` with ``data``, private, whole or not at all; an existing file wins and is left alone."""
    draft = _draft(path, data)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    sync(path.parent)


def _draft(path: Path, data: bytes) -> Path:
    """A private file of ``data`` beside ``path``, synced."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:  # which writes all of it: a disk that is nearly full takes a part
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft
