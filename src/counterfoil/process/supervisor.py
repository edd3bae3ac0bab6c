"""Several workers on one port: started, watched, restarted, stopped together.

The parent binds the socket and holds the folder's lock; each worker is a fresh interpreter that inherits both. The
configuration, which holds every provider key, goes through a pipe, never through arguments or the environment. The
pipe stays open as a lifeline: when the parent dies, however it dies, a worker reads its end and stops in good order,
and the lock is free once the last one is gone.

A worker that dies is replaced at once; its calls in flight become records when the next one opens their journal. One
that dies right after its start waits longer each time, so a fault that repeats does not burn a core.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from counterfoil.errors import ConfigError

_log = logging.getLogger("counterfoil.supervisor")

BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 1.0
"""Calls that a dead worker leaves wait for their records as long; and a start a second burns less than half a core."""
STEADY_SECONDS = 2.0
"""A worker that lived this long had a good start: its replacement does not wait."""


class Supervisor:
    """Keeps ``workers`` processes running until told to stop. ``shutdown_seconds`` bounds the stop."""

    def __init__(
        self, workers: int, config: bytes, listener: socket.socket, lock: int, shutdown_seconds: float
    ) -> None:
        self._workers = workers
        self._config = config
        self._listener = listener
        self._lock = lock
        self._shutdown_seconds = shutdown_seconds
        self._stopping = asyncio.Event()
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, on_started: Callable[[], None]) -> int:
        """Run until SIGTERM or SIGINT; give the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        keepers = [asyncio.create_task(self._keep(index)) for index in range(self._workers)]
        on_started()
        await self._stopping.wait()
        _, late = await asyncio.wait(keepers, timeout=self._shutdown_seconds + 5)
        self._signal(signal.SIGKILL)
        if late:
            await asyncio.wait(late)
        return 0 if not late else 1

    def _stop(self) -> None:
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, index: int) -> None:
        backoff = BACKOFF_FIRST_SECONDS
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            began = loop.time()
            process = await self._start(index)
            status = await process.wait()
            del self._running[index]
            if self._stopping.is_set():
                return
            _log.error("worker_died", extra={"worker": index, "status": status})
            if loop.time() - began >= STEADY_SECONDS:
                backoff = BACKOFF_FIRST_SECONDS
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff)
            backoff = min(backoff * 2, BACKOFF_MAX_SECONDS)

    async def _start(self, index: int) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # what lies in the current folder is no module of ours
            "-m",
            "counterfoil.worker",
            str(self._listener.fileno()),
            str(index),
            stdin=subprocess.PIPE,
            pass_fds=(self._listener.fileno(), self._lock),
            start_new_session=True,  # a Ctrl-C reaches the parent only, which then stops its workers in order
        )
        self._running[index] = process
        if process.stdin is not None:
            process.stdin.write(len(self._config).to_bytes(8, "big") + self._config)
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        return process


def check(config: bytes) -> None:
    """Find what would keep every worker from starting, in a process of its own, before the first is started.

    Raises :class:`ConfigError`.
    """
    command = [sys.executable, "-P", "-m", "counterfoil.worker", "check"]
    given = len(config).to_bytes(8, "big") + config
    done = subprocess.run(command, input=given, capture_output=True, check=False)  # noqa: S603  # our own module
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise ConfigError(said.removeprefix("counterfoil: ") or f"A worker cannot start (status {done.returncode}).")


def read_config(descriptor: int) -> bytes:
    """A worker's side of the lifeline: the configuration the parent sent. Raises :class:`EOFError` when it left."""
    wanted = int.from_bytes(_read(descriptor, 8), "big")
    return _read(descriptor, wanted)


def _read(descriptor: int, wanted: int) -> bytes:
    data = b""
    while len(data) < wanted:
        piece = os.read(descriptor, wanted - len(data))
        if not piece:
            raise EOFError("the supervisor is gone")
        data += piece
    return data
