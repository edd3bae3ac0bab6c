"""One worker and no supervisor: this process becomes the worker, as a fresh interpreter with the same number.

What has read the command line and the configuration does not stay in memory while the gateway serves. The
configuration, which holds every provider key, goes through a pipe that is the new interpreter's standard input, as it
does for a supervised worker; its other end stays open in the same process, so it never looks as if a parent were gone.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

PIPE_BYTES: Final = 1 << 20
"""What a pipe may be made to hold without privileges; the first part of it is there on every system."""

_STDIN = 0


def fits(config: bytes) -> bool:
    """Whether a pipe holds ``config`` with nobody reading it yet."""
    reading, writing = os.pipe()
    try:
        return len(config) + 8 <= _capacity(writing)
    finally:
        os.close(reading)
        os.close(writing)


def become(config: bytes, listener: socket.socket, lock: int, arguments: Sequence[str]) -> NoReturn:
    """Go on as the worker that ``config`` describes. ``arguments`` are shown beside the process, and not read."""
    reading, writing = os.pipe()
    _capacity(writing)
    os.write(writing, len(config).to_bytes(8, "big") + config)
    os.dup2(reading, _STDIN)
    for descriptor in (writing, listener.fileno(), lock):
        os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-P", "-m", "counterfoil.worker", str(listener.fileno()), "alone", *arguments]
    os.execv(sys.executable, command)  # noqa: S606  # this very interpreter


def _capacity(pipe: int) -> int:
    """What ``pipe`` holds, after making it as large as it may be."""
    if not hasattr(fcntl, "F_SETPIPE_SZ"):
        return 16 * 1024  # macOS
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except OSError:
        return fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
