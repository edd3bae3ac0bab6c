"""The listening socket, and the line that says where it is."""

from __future__ import annotations

import errno
import socket
import sys

from counterfoil.config.model import BACKLOG, Config
from counterfoil.errors import ConfigError


def listen(settings: Config) -> socket.socket:
    """The listening socket. Raises :class:`ConfigError` that says what to do when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        # Python says again what it tried, behind the system's words.
        said = (error.strerror or str(error)).partition(" (while attempting")[0]
        raise ConfigError(f"Cannot listen on {settings.host}:{settings.port}: {said}. {_advice(error)}") from error


def _advice(error: OSError) -> str:
    if error.errno is None or error.errno < 0 or error.errno == errno.EADDRNOTAVAIL:  # below 0: no such name
        return "Give an address of this machine with --host, such as 127.0.0.1, or 0.0.0.0 for every one."
    if error.errno == errno.EACCES:
        return "Ports below 1024 need a right of their own; choose another with --port."
    return "Stop what uses it, or choose another with --port."


def announce(settings: Config, listener: socket.socket) -> None:
    """One line for a person, once the port is bound: calls wait in its queue until the workers are up."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.server.tls_cert else "http"
    providers = ", ".join(settings.providers) or "none; set OPENAI_API_KEY or the like, or name one in counterfoil.yaml"
    parts = (
        f"Counterfoil listens on {scheme}://{shown}:{port}",
        f"data {settings.data.absolute()}",
        f"providers: {providers}",
    )
    sys.stderr.write("  ·  ".join(parts) + "\n")
    sys.stderr.flush()
