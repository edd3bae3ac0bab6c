"""One worker process: ``python -m counterfoil.worker SOCKET_FD INDEX``, started by the supervisor or ``serve`` only.

With ``check`` alone it only finds out whether a worker could start.

Standard input is the lifeline: the configuration first, then silence, then its end when the parent is gone. A worker
that is the only one has ``alone`` for an index and no parent (``process.alone``).
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import uvloop

from counterfoil import compose
from counterfoil.config import Config, decode
from counterfoil.errors import ConfigError, Fault
from counterfoil.folder import DataFolder
from counterfoil.process.listening import announce
from counterfoil.process.logs import configure
from counterfoil.process.pauses import tame_collector
from counterfoil.process.supervisor import read_config

_STDIN = 0


async def run(config: Config, listener: socket.socket) -> int:
    """Serve until told to stop, by signal or by the end of the lifeline; give the exit status."""
    host = await compose.serve(config, DataFolder.existing(config.data))
    asyncio.get_running_loop().add_reader(_STDIN, _on_lifeline, host)
    tame_collector()
    if sys.argv[2] == "alone":
        announce(config, listener)
    await host.serve(sockets=[listener])
    return int(host.failed)


def _on_lifeline(host: compose.Host) -> None:
    if not os.read(_STDIN, 1):
        asyncio.get_running_loop().remove_reader(_STDIN)
        host.stop()


def main() -> int:
    """Run a worker; give its exit status."""
    config = decode(read_config(_STDIN))
    configure(config.log)
    try:
        if sys.argv[1] == "check":
            compose.check(config, DataFolder.existing(config.data))
            return 0
        listener = socket.socket(fileno=int(sys.argv[1]))
        return uvloop.run(run(config, listener))
    except (ConfigError, Fault) as error:
        sys.stderr.write(f"counterfoil: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
