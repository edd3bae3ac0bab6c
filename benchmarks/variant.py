"""The gateway with one thing otherwise, to see what that thing costs: never what is published as the gateway.

    python -m benchmarks.variant '{"log_pages": 256, "ledger": true}' CONFIG DATA PORT

`log_pages` is how long the write-ahead log grows before it is copied back: few pages make that go on all the time, very
many keep it from happening at all. Without `ledger` nothing is written; everything before and after that is the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import uvloop

from counterfoil import compose, config
from counterfoil.config.model import Config
from counterfoil.folder import DataFolder
from counterfoil.ledger import keeper
from counterfoil.ledger.ledger import Ledger
from counterfoil.ledger.settlement import NO_SLOT, Intent, Settlement, Waiter
from counterfoil.process.listening import listen
from counterfoil.process.logs import configure
from counterfoil.process.pauses import tame_collector


class Unwritten(Ledger):
    """A ledger that answers as if it had written."""

    def admit(self, intent: Intent) -> int:
        return NO_SLOT

    def settle(self, settlement: Settlement) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        loop.call_soon(future.set_result, None)
        return future

    def put(self, settlement: Settlement, waiter: Waiter) -> None:
        asyncio.get_running_loop().call_soon(waiter.set_result, None)


async def run(settings: Config, *, written: bool) -> None:
    """Serve until told to stop."""
    folder = DataFolder.create(settings.data)
    lock = folder.lock()
    listener = listen(settings)
    if not written:
        compose.Ledger = Unwritten
    host = await compose.serve(settings, folder)
    tame_collector()
    await host.serve(sockets=[listener])
    os.close(lock)


def main() -> None:
    changed = json.loads(sys.argv[1])
    keeper.LOG_PAGES = changed.get("log_pages", keeper.LOG_PAGES)
    given = {"data": Path(sys.argv[3]), "port": int(sys.argv[4]), "host": "127.0.0.1", "workers": 1}
    settings = config.load(Path(sys.argv[2]), os.environ, given)
    configure(settings.log)
    uvloop.run(run(settings, written=changed.get("ledger", True)))


if __name__ == "__main__":
    main()
