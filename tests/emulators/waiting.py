"""How long a test waits for what must happen: longer than any machine that works needs, however slow and busy it is.

A wait ends the moment that what it waits for is there, so its bound costs nothing but where a test fails anyway. It is
no statement about the product: how quick that must be is measured (``benchmarks/``, ``make faults``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

PATIENCE_S: Final = 60.0
"""Far less than a test may take (``timeout`` in pyproject.toml), so that it is the wait that fails and says where."""
STORY_S: Final = 250.0
"""The same for a whole story told by other processes: the demonstration, a walk of the documents."""
_LOOK_S: Final = 0.02


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> float:
    """Return the seconds until ``condition()`` held; fail when it does not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it never happened"
        time.sleep(_LOOK_S)
    return time.monotonic() - began


async def until(condition: Callable[[], Any]) -> None:
    """As :func:`wait_until`, on a loop that goes on meanwhile: for what a thread does and tells nobody."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(_LOOK_S / 2)
