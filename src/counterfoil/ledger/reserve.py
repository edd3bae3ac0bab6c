"""Disk kept back, so that calls in flight can still be recorded when the disk is full.

A file of :data:`RESERVE_BYTES` is allocated when the ledger opens. When a write finds no space the file is given up
and the write tried again; new calls are refused until the file could be allocated again. The gateway refuses before
that point too, when less than the reserve's size is free beside it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

RESERVE_BYTES: Final = 8 * 1024 * 1024
"""More than what calls in flight leave behind: a thousand records of 2 KiB with bodies of 6 KiB."""

_BLOCK_BYTES: Final = 512  # the unit of st_blocks, whatever the file system's own is


class Reserve:
    """The reserve of one folder, shared by its workers: whoever meets a full disk gives it up for all."""

    def __init__(self, path: Path, size: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Allocate the reserve, or find it allocated. False when there is no space for it and as much again."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, self._size)
            return self.roomy()
        except OSError:
            os.ftruncate(descriptor, 0)
            return False
        finally:
            os.close(descriptor)

    def give_up(self) -> bool:
        """Free the reserve for whoever writes next. False when there was nothing to free."""
        try:
            held = self._path.stat().st_blocks > 0
            os.truncate(self._path, 0)
        except OSError:
            return False
        return held

    def roomy(self) -> bool:
        """Whether, beside the reserve, its size again is free."""
        return free_bytes(self._path.parent) >= self._size


def held_bytes(path: Path) -> int:
    """What the reserve file at ``path`` keeps at the moment; 0 when it was given up, or never stood."""
    try:
        return path.stat().st_blocks * _BLOCK_BYTES
    except OSError:
        return 0


def free_bytes(folder: Path) -> int:
    """What is free beside the reserve on the file system of ``folder``; 0 when it cannot be asked."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return 0
    return state.f_bavail * state.f_frsize
