"""The wall clock, as every room that may read one reads it."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """The time now, in Unix milliseconds."""
    return time.time_ns() // 1_000_000
