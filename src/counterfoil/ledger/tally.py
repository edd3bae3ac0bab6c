"""What each worker has counted, where the other workers and the command line can read it.

One small file a writer beside its journal, ``writer-<number>.tally``, written by its owner a few times a second and
read by whoever is asked for the figures of all: so a scrape of any worker gives the whole gateway's. The counts go on
from where the last owner of the number left them; they never go back, whatever died.

After every write ``admitted == settled + refused + open``. A process that died leaves calls that it had admitted and
not counted to their end. Its successor settles the account by the ledger: as many as the chain has grown since the last
write were settled, so were those that the journal had kept, and of the others nothing had been sent: refused.

Nothing rests on these files. One that is missing or damaged counts as zeros; a disk without room for one costs the
figures of that worker, seen from elsewhere, and nothing else.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from counterfoil.folder import DataFolder

WAIT_BOUNDS_MS: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 125.0, 250.0, 500.0, 1000.0, 2500.0, 10_000.0)
"""Upper bounds of the commit histogram's buckets; one more takes what is above."""

ALIVE_S: Final = 5.0
"""A worker that has not written for so long is gone: its counts stay, what it has open does not."""

READS_MAX: Final = 3
"""A file may be read while it is written: then its checksum is wrong, and the next look finds it whole."""

_MAGIC = 0x43_46_54_32  # "CFT2"
_NAME = re.compile(r"writer-\d{1,4}\.tally\Z")


class Counts(Struct):
    """What only grows. ``interrupted`` calls are settled ones whose process died before it could record them.

    ``accounted`` is how far the writer's chain goes into ``settled``: what lies behind it when its process died was
    settled, and not counted yet.
    """

    accounted: int = 0
    admitted: int = 0
    settled: int = 0
    refused: int = 0
    interrupted: int = 0
    unrecorded: int = 0
    rejected: int = 0
    crashed: int = 0
    commits: int = 0


class State(Struct):
    """What a worker has at the moment. ``last_checkpoint_ms`` is 0 before the first."""

    open: int = 0
    queue_depth: int = 0
    ready: int = 0
    last_checkpoint_ms: int = 0
    unwitnessed: int = 0


class Waits:
    """How long records took to become durable: a histogram, counted once a batch."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(WAIT_BOUNDS_MS) + 1)
        self.sum_us = 0

    def observe(self, wait_s: float, records: int) -> None:
        """``records`` became durable in one commit that took ``wait_s``."""
        self.counts[bisect_left(WAIT_BOUNDS_MS, wait_s * 1000)] += records
        self.sum_us += int(wait_s * 1e6) * records

    def add(self, other: Waits) -> None:
        """Count ``other`` too."""
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        self.sum_us += other.sum_us

    @property
    def total(self) -> int:
        """Records counted."""
        return sum(self.counts)

    def quantile_ms(self, share: float) -> float | None:
        """The bound that ``share`` of the records did not exceed; None without any, infinite above the last bound."""
        wanted, seen = share * self.total, 0
        for bound, count in zip((*WAIT_BOUNDS_MS, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return None


class Figures(Struct):
    """The counts, waits and state of one worker or the sum over several; ``workers`` are those alive."""

    counts: Counts
    state: State
    waits: Waits
    workers: int = 1


_COUNTS_END = len(Counts.__struct_fields__)
_STATE_END = _COUNTS_END + len(State.__struct_fields__)
_LAYOUT = struct.Struct(f"<qq{_STATE_END}q{len(WAIT_BOUNDS_MS) + 1}qq")  # magic, clock, counts, state, waits, their sum
_CHECKSUM = struct.Struct("<I")


class Tally:
    """One writer's file, for its owner. ``counts`` and ``waits`` are what was counted before this process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        found = _read(path)
        self._before = (Counts(), Waits()) if found is None else (found[0].counts, found[0].waits)

    @classmethod
    def of(cls, journal: Path, number: int) -> Tally:
        """The tally of writer ``number``, whose journal the caller owns."""
        return cls(journal / f"writer-{number:03d}.tally")

    def take_over(self, sequence: int, interrupted: int) -> None:
        """Settle the account of a dead owner.

        Its chain ended at ``sequence``, and then ``interrupted`` of its calls were given their records.
        """
        counts = self._before[0]
        ended = max(0, sequence - counts.accounted) + interrupted
        left = counts.admitted - counts.settled - counts.refused
        counts.interrupted += interrupted
        counts.settled += ended
        counts.refused += max(0, left - ended)
        counts.admitted += max(0, ended - left)
        self.go_on_from(sequence)

    def go_on_from(self, sequence: int) -> None:
        """The writer's chain stands at ``sequence``; :meth:`publish` counts from there."""
        self._before[0].accounted = sequence
        self.publish(Counts(), State(), Waits())

    def publish(self, counts: Counts, state: State, waits: Waits) -> None:
        """Write what this process has counted since it started, added to what was counted before."""
        all_waits = Waits()
        all_waits.add(self._before[1])
        all_waits.add(waits)
        values = (
            *(one + two for one, two in zip(astuple(self._before[0]), astuple(counts), strict=True)),
            *astuple(state),
            *all_waits.counts,
            all_waits.sum_us,
        )
        data = _LAYOUT.pack(_MAGIC, time.monotonic_ns(), *values)
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._descriptor, data + _CHECKSUM.pack(zlib.crc32(data)), 0)
        except OSError:
            return  # a full disk; the ledger says so, and these figures are shown again when there is room

    def close(self) -> None:
        """Give the file up; what it says stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def total(journal: Path) -> Figures:
    """The figures of all workers: everything that was ever counted, and what those alive have open now."""
    counts, state, waits, workers = Counts(), State(), Waits(), 0
    for figures, alive in _all(journal):
        counts = Counts(*(one + two for one, two in zip(astuple(counts), astuple(figures.counts), strict=True)))
        waits.add(figures.waits)
        checkpoint_ms = max(state.last_checkpoint_ms, figures.state.last_checkpoint_ms)
        if alive:
            workers += 1
            state = State(*(one + two for one, two in zip(astuple(state), astuple(figures.state), strict=True)))
        state.last_checkpoint_ms = checkpoint_ms
    return Figures(counts, state, waits, workers)


def records_lost(folder: DataFolder) -> int:
    """How many records at least a ledger had that is missing now; 0 where it is there, or there never was one."""
    if folder.ledger_db.exists() or not folder.journal.exists():
        return 0
    return total(folder.journal).counts.accounted


def _all(journal: Path) -> Iterator[tuple[Figures, bool]]:
    """The figures in every file that can be read, and whether their owner is alive."""
    now = time.monotonic_ns()
    for path in journal.iterdir():
        found = _read(path) if _NAME.match(path.name) else None
        if found is not None:
            figures, written_ns = found
            yield figures, 0 <= now - written_ns <= ALIVE_S * 1e9


def _read(path: Path) -> tuple[Figures, int] | None:
    """What a file says and when it was written, None when it says nothing that can be believed."""
    for _ in range(READS_MAX):
        try:
            data = path.read_bytes()
        except OSError:
            return None
        said, checksum = data[: _LAYOUT.size], data[_LAYOUT.size :]
        if checksum == _CHECKSUM.pack(zlib.crc32(said)) and len(said) == _LAYOUT.size:
            break
    else:
        return None
    magic, written_ns, *values = _LAYOUT.unpack(said)
    if magic != _MAGIC:
        return None
    waits = Waits()
    waits.counts = values[_STATE_END:-1]
    waits.sum_us = values[-1]
    return Figures(Counts(*values[:_COUNTS_END]), State(*values[_COUNTS_END:_STATE_END]), waits), written_ns
