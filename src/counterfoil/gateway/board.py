"""The board on which a worker chalks up its figures, a few times a second, for whoever asks any worker."""

from __future__ import annotations

import asyncio
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

    def start(self) -> None:
        """Publish from now on."""
        self._publish()
        self._timer = self._loop.call_later(PERIOD_S, self.start)

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
