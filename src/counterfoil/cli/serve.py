"""``counterfoil serve``: the gateway, in this process or in several workers."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import uvloop
from cyclopts import Parameter

from counterfoil import compose, config
from counterfoil.config.model import Config
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.gateway.host import BACKLOG
from counterfoil.process.logs import configure
from counterfoil.process.pauses import tame_collector
from counterfoil.process.supervisor import Supervisor


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
    lock = folder.lock()
    listener = listen(settings)
    if settings.workers == 1:
        return uvloop.run(_serve_here(settings, folder, listener))
    compose.check(settings, folder)
    return uvloop.run(_supervise(settings, listener, lock))


def listen(settings: Config) -> socket.socket:
    """The listening socket. Raises :class:`ConfigError` that says what to do when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        raise ConfigError(
            f"Cannot listen on {place}: {error.strerror or error}. Stop what uses it, or choose another with --port."
        ) from error


async def _serve_here(settings: Config, folder: DataFolder, listener: socket.socket) -> int:
    host = await compose.serve(settings, folder)
    tame_collector()
    _announce(settings, listener)
    await host.serve(sockets=[listener])
    return int(host.failed)


async def _supervise(settings: Config, listener: socket.socket, lock: int) -> int:
    os.set_inheritable(lock, True)
    encoded = config.encode(settings)
    supervisor = Supervisor(settings.workers, encoded, listener, lock, settings.server.shutdown_seconds)
    return await supervisor.run(lambda: _announce(settings, listener))


def _announce(settings: Config, listener: socket.socket) -> None:
    """One line for a person, once the port is bound: calls wait in its queue until the workers are up."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.server.tls_cert else "http"
    providers = ", ".join(settings.providers) or "none; set OPENAI_API_KEY or the like, or name one in counterfoil.yaml"
    sys.stderr.write(
        f"Counterfoil listens on {scheme}://{shown}:{port}  ·  data {settings.data}  ·  providers: {providers}\n"
    )
    sys.stderr.flush()
