"""Processes that run beside this one: started with a log file, waited for until they answer, stopped by their own id.

A process that dies while we wait, or does not answer in time, raises :class:`ProcessFailed` with the end of its log, so
that whoever reads the message sees the reason and not only that there was one.
"""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY_SECONDS_MAX: Final = 60.0
"""A cold start reads 93 MB of weights from a slow disk; it takes under two seconds on a warm one."""
STOP_SECONDS_MAX: Final = 30.0
"""Past the time in which calls in flight may end; then the process is killed."""
_POLL_SECONDS: Final = 0.03
_LOG_TAIL_LINES: Final = 25
_HTTP_OK: Final = 200


class ProcessFailed(Exception):
    """A process ended or stayed silent. The text holds its name, its exit status and the end of its log."""


class Process:
    """One process and its log. Use it as a context manager: it is stopped when the block ends, however it ends."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            # In a session of its own: Ctrl-C reaches us alone, and we stop it in order.
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environment is None else {**os.environ, **environment},
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_until_ready(self, host: str, port: int, path: str, seconds_max: float = READY_SECONDS_MAX) -> float:
        """Return as soon as ``GET path`` answers 200; give the seconds it took. Raises :class:`ProcessFailed`."""
        start = time.monotonic()
        while not answers(host, port, path):
            if self._popen.poll() is not None:
                raise ProcessFailed(f"{self.name} ended with status {self._popen.returncode}.\n{self.log_tail()}")
            if time.monotonic() - start > seconds_max:
                raise ProcessFailed(f"{self.name} did not answer within {seconds_max:.0f} s.\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - start

    def alive(self) -> bool:
        """Whether it is still running."""
        return self._popen.poll() is None

    def kill(self) -> None:
        """End it at once, without a chance to tidy up, and wait for it."""
        self._popen.kill()
        self._popen.wait()

    def stop(self, seconds_max: float = STOP_SECONDS_MAX) -> int:
        """Ask it to end, and kill it when it does not; give its exit status. A second call changes nothing."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(seconds_max)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._popen.returncode

    def log_tail(self, lines: int = _LOG_TAIL_LINES) -> str:
        """The last lines it wrote."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


def answers(host: str, port: int, path: str) -> bool:
    """Whether ``GET path`` is answered with 200 just now."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == _HTTP_OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port(host: str) -> int:
    """A port that nobody listens on now. Another process may take it before you do; starting then fails visibly."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
