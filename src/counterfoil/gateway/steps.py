"""How a story runs: step by step, each at the moment its wait is over, without a task.

A task would run every step in a later turn of the loop, and a lone call would go round the loop three times more on its
way. A story needs none of a task's other gifts: nobody cancels it, and what it waits for is mostly a :class:`Signal`,
something that happens once and tells one waiter, at once. Futures may be awaited as well; then the step comes in the
loop's next turn, as for a task. What needs a task of its own (``asyncio.timeout``) is to be awaited in one.

A step runs inside whatever made the signal happen, so that must be ready for anything a story may do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from counterfoil.errors import Fault

_logger = logging.getLogger(__name__)


class Signal:
    """Something that happens once, or fails with a fault. One story may wait for it."""

    __slots__ = ("fault", "happened", "waiter")

    def __init__(self) -> None:
        self.happened = False
        self.fault: Fault | None = None
        self.waiter: Callable[[object], None] | None = None

    def done(self) -> bool:
        """Whether it happened, or failed."""
        return self.happened

    def set_result(self, result: None, /) -> None:
        """It happened: whoever waits goes on now."""
        self.happened = True
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            waiter(result)

    def set_exception(self, exception: Fault, /) -> None:
        """It failed: ``exception`` is raised where it is awaited."""
        self.fault = exception
        self.set_result(None)

    def __await__(self) -> Generator[Any, None, None]:
        if not self.happened:
            yield self
        if self.fault is not None:
            raise self.fault


def follow(story: Coroutine[Any, None, None], over: asyncio.Future[None] | None = None) -> None:
    """Run ``story`` to its first wait now and to its end in time, and say so to ``over``.

    An exception that the story lets out goes to the log.
    """
    _Walk(story.send, over).step(None)


class _Walk:
    """A story under way. Whatever it waits for holds it, and nothing else does: it leaves no circle to collect."""

    __slots__ = ("_over", "_send")

    def __init__(self, send: Callable[[None], Any], over: asyncio.Future[None] | None) -> None:
        self._send = send
        self._over = over

    def step(self, _: object) -> None:
        """Go on until the story waits again, or ends."""
        try:
            awaited = self._send(None)
        except StopIteration:
            pass
        except Exception:
            _logger.exception("story_broke")
        else:
            if type(awaited) is Signal:
                awaited.waiter = self.step
            else:
                awaited.add_done_callback(self.step)
            return
        over = self._over
        if over is not None and not over.done():
            over.set_result(None)
