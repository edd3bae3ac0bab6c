"""Disks that fail on command, and disks that remember: SQLite file systems between the ledger and the real one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import apsw


class Event(NamedTuple):
    """Something done to a file: ``write`` (offset, data), ``truncate`` (size) or ``sync``."""

    kind: str
    path: str
    offset: int
    data: bytes


class Disk(apsw.VFS):
    """A file system that asks ``judge`` before each write, truncation and sync of the ledger's files, and notes it.

    ``judge(event)`` raises what the operation shall fail with. Register under ``name`` and open databases with it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, "")
        self.name = name
        self.events: list[Event] = []
        self.judge: Callable[[Event], None] = lambda _: None
        self.lock = threading.Lock()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  # apsw's name
        return _File(self, name, flags)

    def note(self, kind: str, path: str, offset: int = 0, data: bytes = b"") -> None:
        """Judge and remember an operation that is about to happen."""
        event = Event(kind, path, offset, data)
        self.judge(event)
        with self.lock:
            self.events.append(event)


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._disk.note("write", self._path, offset, bytes(data))
        super().xWrite(data, offset)

    def xTruncate(self, size: int) -> None:  # noqa: N802
        self._disk.note("truncate", self._path, size)
        super().xTruncate(size)

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._disk.note("sync", self._path)
        super().xSync(flags)


def failure(kind: str) -> apsw.Error:
    """What SQLite reports when an operation of ``kind`` fails."""
    if kind == "full":
        return apsw.FullError("no space")
    error = apsw.IOError(f"injected {kind} failure")
    error.extendedresult = {  # type: ignore[attr-defined]
        "sync": apsw.SQLITE_IOERR_FSYNC,
        "write": apsw.SQLITE_IOERR_WRITE,
        "truncate": apsw.SQLITE_IOERR_TRUNCATE,
    }[kind]
    return error
