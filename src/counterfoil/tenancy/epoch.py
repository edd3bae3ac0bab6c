"""One number shared by all processes on a data folder: it changes whenever tenancy does.

Every worker caches the keys it has checked; a revoked key must stop working everywhere at once. Asking the database on
each call would cost more than the rest of the check together, so the question is one aligned eight-byte load from a
memory-mapped file, ``control.epoch``.

The number is random, and *even* when it is settled, *odd* while a change is under way::

    lock the file · odd · BEGIN · the change · COMMIT · even · unlock

Under any even number a reader may cache what it reads after it saw that number: a change that it could miss would have
made the number odd before it became visible. Under an odd one readers ask the database each time. A process killed
between *odd* and *even* leaves it odd, which is slow but right; the system dropped its lock, so whoever notices and
gets the lock knows that nobody is changing anything, and settles it.

Rejected: only a new number after the commit (a process killed between the two leaves every cache stale for ever);
only before it (a reader can cache the old row under the new number); ``PRAGMA data_version`` (right, but several
system calls and a lock); a time to live (a revoked key lives on).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

EPOCH_BYTES: Final = 8
UNSETTLED: Final = 1
CHANGE_SECONDS_MAX: Final = 5.0
"""Changes take milliseconds; one that waits this long for another waits for a process that was stopped."""
_RETRY_SECONDS: Final = 0.002
_PRIVATE_FILE: Final = 0o600


class Epoch:
    """The number of one data folder. Cheap to read from any thread; written only under the file's lock."""

    __slots__ = ("_file", "_map", "_view")

    def __init__(self, path: Path) -> None:
        """Open ``path``, making it when it is missing (zero, settled). Raises :class:`OSError`."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE_FILE)
        try:
            if os.fstat(self._file).st_size != EPOCH_BYTES:
                os.ftruncate(self._file, EPOCH_BYTES)
            self._map = mmap.mmap(self._file, EPOCH_BYTES)
        except BaseException:
            os.close(self._file)
            raise
        self._view = memoryview(self._map).cast("Q")

    @property
    def view(self) -> memoryview[int]:
        """The number itself at index 0, for callers that cannot afford a method."""
        return self._view

    @contextmanager
    def changing(self) -> Generator[None]:
        """Hold the lock and keep the number odd while the block commits a change.

        Raises :class:`TimeoutError` when another change holds the lock for longer than changes take.
        """
        deadline = time.monotonic() + CHANGE_SECONDS_MAX
        while not self._try_lock():
            if time.monotonic() > deadline:
                raise TimeoutError("another change of the tenancy does not end")
            time.sleep(_RETRY_SECONDS)
        try:
            self._view[0] = _drawn() | UNSETTLED
            yield
        finally:
            self._settle()

    def settle_after_crash(self) -> None:
        """Settle a number that a killed process left odd; nothing when a change is really under way."""
        if self._try_lock():
            self._settle()

    def close(self) -> None:
        """Let the file go. Nothing may be read afterwards; closing again does nothing."""
        if not self._map.closed:
            self._view.release()
            self._map.close()
            os.close(self._file)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _settle(self) -> None:
        self._view[0] = _drawn() & ~UNSETTLED
        fcntl.flock(self._file, fcntl.LOCK_UN)


def _drawn() -> int:
    return int.from_bytes(os.urandom(EPOCH_BYTES), "little")
