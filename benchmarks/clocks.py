"""CPU time, memory and waiting time of other processes, read from the kernel; and pinning.

The CPU clock of a process (clock_gettime with a process clock id) counts nanoseconds and includes threads that have
ended; `/proc/PID/stat` counts hundredths of a second, but is the only place that has the time of children already
reaped.  Both are added up over the whole tree of a target.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU and run-queue waiting so far, in nanoseconds, at one monotonic instant."""

    at_ns: int
    cpu_ns: int
    waiting_ns: int

    def since(self, earlier: Reading) -> Spent:
        """What passed between two readings of the same processes."""
        wall = self.at_ns - earlier.at_ns
        return Spent(wall, self.cpu_ns - earlier.cpu_ns, self.waiting_ns - earlier.waiting_ns)


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU used and time spent runnable but not running, over a wall-clock span, in nanoseconds."""

    wall_ns: int
    cpu_ns: int
    waiting_ns: int

    @property
    def cores(self) -> float:
        """Share of one core that was used; above 1 for processes on several."""
        return self.cpu_ns / self.wall_ns if self.wall_ns else 0.0


def process_tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    found = [pid]
    for parent in found:
        for task in _ids(_PROC / str(parent) / "task"):
            try:
                children = (_PROC / str(parent) / "task" / str(task) / "children").read_text()
            except OSError:
                continue
            found.extend(int(child) for child in children.split())
    return found


def read(pids: list[int]) -> Reading:
    """CPU (user and system, dead threads and reaped children included) and run-queue waiting of the processes."""
    cpu = sum(_cpu_ns(pid) for pid in pids)
    waiting = sum(_waiting_ns(pid) for pid in pids)
    return Reading(time.monotonic_ns(), cpu, waiting)


def rss_bytes(pids: list[int]) -> int:
    """Resident memory, shared pages counted once for each process (Pss where the kernel gives it)."""
    return sum(_rolled_up(pid, "Pss:") for pid in pids)


def own_bytes(pids: list[int]) -> int:
    """Memory that is in no file: what a process itself asked for.

    Unlike :func:`rss_bytes` it does not change when another process maps the same libraries, or ends.
    """
    return sum(_rolled_up(pid, "Anonymous:") for pid in pids)


@contextmanager
def pinned(cores: AbstractSet[int]) -> Iterator[None]:
    """Processes started inside inherit these cores; without a second core, or on another system, nothing is pinned."""
    if not hasattr(os, "sched_setaffinity") or not cores <= os.sched_getaffinity(0):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def count_instructions(pids: list[int], seconds: float) -> int | None:
    """User-mode instructions of the processes over a span, by `perf stat`; None where perf or its counter is absent."""
    command = ["perf", "stat", "-x,", "-e", "instructions:u", "-p", ",".join(map(str, pids)), "sleep", str(seconds)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 10)
    except FileNotFoundError:
        return None
    count = ended.stderr.strip().split(",", 1)[0]
    return int(count) if count.isdigit() else None


def _cpu_ns(pid: int) -> int:
    try:
        own = time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED of a process, as in clock_getcpuclockid(3)
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    reaped_ticks = int(fields[13]) + int(fields[14])
    return own + reaped_ticks * TICK_NS


def _waiting_ns(pid: int) -> int:
    total = 0
    for task in _ids(_PROC / str(pid) / "task"):
        try:
            total += int((_PROC / str(pid) / "task" / str(task) / "schedstat").read_text().split()[1])
        except OSError:
            continue
    return total


def _rolled_up(pid: int, line: str) -> int:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(found.split()[1]) * 1024 for found in lines if found.startswith(line)), 0)


def _ids(folder: Path) -> list[int]:
    try:
        return [int(entry.name) for entry in folder.iterdir()]
    except OSError:
        return []
