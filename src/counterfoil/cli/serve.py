"""``counterfoil serve``: the gateway, as this process or in several workers.

No module of the gateway is loaded here. With one worker this process becomes it, with several it watches over them:
what reads the command line does not stay beside what serves, nor what serves beside what only watches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter

from counterfoil import config
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.process import alone
from counterfoil.process.listening import announce, listen
from counterfoil.process.logs import configure
from counterfoil.process.supervisor import Supervisor, check


def serve(
    *,
    config_file: Annotated[Path | None, Parameter(name="--config")] = None,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> int:
    """Start the gateway.

    Parameters
    ----------
    config_file
        The configuration file. Default: ./counterfoil.yaml when it is there.
    data
        The data folder; made on first start.
    host
        The address to listen on.
    port
        The port to listen on; 0 lets the system choose.
    workers
        How many processes serve.
    """
    overrides = {"data": data, "host": host, "port": port, "workers": workers}
    settings = config.load(config_file, os.environ, overrides)
    configure(settings.log)
    folder = DataFolder.create(settings.data)
    _end_exchanges(folder)
    lock = folder.lock()
    listener = listen(settings)
    encoded = config.encode(settings)
    if settings.workers == 1 and alone.fits(encoded):
        alone.become(encoded, listener, lock, sys.argv[1:])
    check(encoded)
    os.set_inheritable(lock, True)
    supervisor = Supervisor(settings.workers, encoded, listener, lock, settings.server.shutdown_seconds)
    return uvloop.run(supervisor.run(lambda: announce(settings, listener)))


def _end_exchanges(folder: DataFolder) -> None:
    """End exchanges of secrets that were interrupted, in a process of their own: this one keeps nothing of it.

    Raises :class:`ConfigError` when one cannot be ended; the other process has said why.
    """
    for name in folder.interrupted():
        command = [sys.executable, "-m", "counterfoil", "secrets", "rotate", name, "--data", str(folder.root)]
        done = subprocess.run(command, stdout=sys.stderr, check=False)  # noqa: S603  # nothing from outside
        if done.returncode:
            raise ConfigError(f"The interrupted exchange of {name} cannot be ended.")
