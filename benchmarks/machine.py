"""What the figures were taken on: without it they mean nothing."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import clocks
from benchmarks.statistics import quantile
from benchmarks.targets import REPOSITORY, SCRATCH

FSYNC_TRIALS = 300


def describe() -> dict[str, Any]:
    """Processor, cores, memory, kernel, Python, the latency of fdatasync, load and whether perf can count here."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "fdatasync_us": _fdatasync_us(),
        "load_average": os.getloadavg()[0],
        "instructions_counted": clocks.count_instructions([os.getpid()], 0.05) is not None,
    }


def commit() -> dict[str, Any]:
    """The commit that was measured, and whether the sources differ from it."""
    status = _git("status", "--porcelain", "--untracked-files=no", "--", "src")
    return {"id": _git("rev-parse", "--short=12", "HEAD"), "changed": bool(status)}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _fdatasync_us() -> dict[str, float]:
    """Append 4 KiB and fdatasync, where the ledgers of the rounds lie."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    samples: list[float] = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(FSYNC_TRIALS):
            file.write(os.urandom(4096))
            file.flush()
            began = time.perf_counter_ns()
            os.fdatasync(file.fileno())
            samples.append((time.perf_counter_ns() - began) / 1000)
    return {"p50": round(quantile(samples, 0.5), 1), "p99": round(quantile(samples, 0.99), 1)}


def _git(*arguments: str) -> str:
    ended = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return ended.stdout.strip()
