"""The board on which a worker chalks up its figures, a few times a second, for whoever asks any worker.

It also sees to it that a process whose ledger is poisoned ends: it can take no call any more, and a new one looks at
the disk again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from counterfoil.gateway.run import Gateway
from counterfoil.ledger import tally
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.tally import Counts, Figures, State

PERIOD_S: Final = 0.25
"""How old another worker's figures may be. This worker's own are always of now."""


class Board:
    """Publishes the figures of ``gateway`` and ``ledger``, and reads those of all workers of the folder."""

    def __init__(self, gateway: Gateway, ledger: Ledger, journal: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._journal = journal
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._give_up: Callable[[], None] = _nothing

    def start(self, give_up: Callable[[], None]) -> None:
        """Publish from now on; ``give_up`` is called when the ledger is poisoned."""
        self._give_up = give_up
        self._tick()

    def _tick(self) -> None:
        self._publish()
        if self._ledger.poisoned:
            self._give_up()
        self._timer = self._loop.call_later(PERIOD_S, self._tick)

    def stop(self) -> None:
        """Publish what it came to, and no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._publish()

    def figures(self) -> Figures:
        """The figures of all workers."""
        self._publish()
        return tally.total(self._journal)

    def _publish(self) -> None:
        counters, ledger, gateway = self._gateway.counters, self._ledger, self._gateway
        settled = counters.admitted - counters.refused - gateway.in_flight
        counts = Counts(
            accounted=settled,
            admitted=counters.admitted,
            settled=settled,
            refused=counters.refused,
            unrecorded=counters.unrecorded,
            rejected=counters.rejected,
            crashed=counters.crashed,
            commits=ledger.commits,
        )
        state = State(
            open=gateway.in_flight,
            queue_depth=ledger.depth,
            ready=int(ledger.healthy and not gateway.stopping),
            last_checkpoint_ms=ledger.last_checkpoint_ms or 0,
            unwitnessed=ledger.unwitnessed,
        )
        ledger.tally.publish(counts, state, ledger.waits)


def _nothing() -> None:
    """Until the board has started there is nobody to tell."""
