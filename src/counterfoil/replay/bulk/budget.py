"""Money of a run: reserved before a call, settled after it, so that the limit is never passed by what is in flight."""

from __future__ import annotations

import asyncio


class Exhausted(Exception):
    """The next call does not fit into the budget, and nothing is in flight that could give some of it back."""


class Budget:
    """``limit`` in nanos, None for none. ``spent`` is known cost and the estimates that stand in for unknown cost."""

    def __init__(self, limit: int | None, spent: int) -> None:
        self._limit = limit
        self._spent = spent
        self._reserved = 0
        self._calls = 0
        self._changed = asyncio.Condition()

    @property
    def limited(self) -> bool:
        """Whether there is a limit, so that a call without a known price cannot be made."""
        return self._limit is not None

    async def reserve(self, nanos: int) -> None:
        """Take ``nanos`` aside; waits while calls in flight may still give back. Raises :class:`Exhausted`."""
        async with self._changed:
            while self._limit is not None and self._spent + self._reserved + nanos > self._limit:
                if not self._calls:
                    raise Exhausted
                await self._changed.wait()
            self._reserved += nanos
            self._calls += 1

    async def settle(self, reserved: int, spent: int) -> None:
        """A call has ended: give back what was reserved, count what it cost."""
        async with self._changed:
            self._reserved -= reserved
            self._spent += spent
            self._calls -= 1
            self._changed.notify_all()
