"""Verifications that are asked for over HTTP: one at a time on a data folder, in a process of its own, off the loop.

What runs is ``counterfoil ledger verify --json``, the very command of an operator, at the lowest priority, so that it
takes only what calls leave. Its lock (``verification.lock``) is held by the worker that started it and by the process
itself, so no second one starts beside it, in whichever worker it is asked for. What it found stands in
``verification.json``, which any worker reads; one that says *running* while nobody holds the lock was interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

import counterfoil
from counterfoil.errors import CallerFault, GatewayFault
from counterfoil.folder import DataFolder, replace_whole

SECONDS_MAX: Final = 6 * 3600.0
"""Half a billion records, all of them with their bodies; what takes longer is better done on a copy."""

_NICE: Final = 19
_PRIVATE: Final = 0o600
_SOURCE: Final = str(Path(counterfoil.__file__).parents[1])
_FOUND: Final = (0, 1)
"""How the command ends when it has a report: everything holds, or something does not."""


class State(StrEnum):
    """``failed``: there is no report, ``reason`` says why. ``interrupted``: the gateway stopped meanwhile."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Verification(Struct, frozen=True, kw_only=True):
    """One verification. ``report`` is what ``ledger verify --json`` prints, null until it is finished."""

    state: State
    chain_only: bool
    started_ms: int
    finished_ms: int | None = None
    reason: str | None = None
    report: dict[str, Any] | None = None


class Verifications:
    """Starts verifications of ``folder`` on a worker's loop, and tells of the last one.

    ``witness`` is the checkpoints' second place when it is a folder here: the ledger is held to it too.
    """

    def __init__(
        self,
        folder: DataFolder,
        now_ms: Callable[[], int],
        witness: Path | None = None,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._folder = folder
        self._now_ms = now_ms
        self._witness = witness
        self._seconds_max = seconds_max
        self._task: asyncio.Task[None] | None = None

    def last(self) -> Verification | None:
        """The last verification that was asked for, None before the first."""
        try:
            found = msgspec.json.decode(self._kept.read_bytes(), type=Verification)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise GatewayFault("ledger_unavailable", "What the last verification found cannot be read.") from error
        if found.state is not State.RUNNING:
            return found
        lock = self._lock()
        if lock is None:
            return found
        os.close(lock)
        return msgspec.structs.replace(found, state=State.INTERRUPTED)

    def begin(self, *, chain_only: bool) -> Verification:
        """Begin one. Raises :class:`CallerFault` ``conflict`` while one is under way. On the loop."""
        lock = self._lock()
        if lock is None:
            raise CallerFault("conflict", "A verification is under way.")
        began = Verification(state=State.RUNNING, chain_only=chain_only, started_ms=self._now_ms())
        try:
            self._keep(began)
        except OSError as error:
            os.close(lock)
            raise GatewayFault("ledger_unavailable", "There is no room for what a verification finds.") from error
        self._task = asyncio.get_running_loop().create_task(self._carried_out(began, lock))
        return began

    async def close(self) -> None:
        """End what is under way."""
        await asyncio.sleep(0)  # a task that is cancelled before its first step never lets go of the lock
        if self._task is not None and not self._task.done():
            self._task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Wait for the one that this process began."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _carried_out(self, began: Verification, lock: int) -> None:
        """Run the command to its end and keep what it says; then let go of the lock."""
        ended = msgspec.structs.replace(began, state=State.FAILED, reason="internal")
        try:
            ended = await self._ended(began, lock)
        except asyncio.CancelledError:
            ended = msgspec.structs.replace(began, state=State.INTERRUPTED)
            raise
        except OSError:
            ended = msgspec.structs.replace(began, state=State.FAILED, reason="no_process")
        finally:
            with contextlib.suppress(OSError):  # without room the last word is "running", and no lock: interrupted
                self._keep(msgspec.structs.replace(ended, finished_ms=self._now_ms()))
            os.close(lock)

    async def _ended(self, began: Verification, lock: int) -> Verification:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._command(began),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(lock,),
            env={"PYTHONPATH": os.pathsep.join((_SOURCE, *sys.path[1:]))},  # and not the operator's provider keys
        )
        try:
            with contextlib.suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, child.pid, _NICE)
            said, _ = await asyncio.wait_for(child.communicate(), self._seconds_max)
        except TimeoutError:
            return msgspec.structs.replace(began, state=State.FAILED, reason="timeout")
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.send_signal(signal.SIGKILL)
                await child.wait()
        return _read(began, child.returncode or 0, said)

    def _command(self, began: Verification) -> list[str]:
        options = ["--chain-only"] if began.chain_only else []
        if self._witness is not None and self._witness.exists():
            options += ["--checkpoints", str(self._witness)]
        return ["-m", "counterfoil", "ledger", "verify", "--json", "--data", str(self._folder.root.resolve()), *options]

    @property
    def _kept(self) -> Path:
        return self._folder.root / "verification.json"

    def _lock(self) -> int | None:
        """The lock's descriptor, None when somebody has it. Closing it lets go."""
        path = self._folder.root / "verification.lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
        except OSError as error:
            raise GatewayFault("ledger_unavailable", "The data folder cannot be written.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def _keep(self, one: Verification) -> None:
        replace_whole(self._kept, msgspec.json.encode(one))


def _read(began: Verification, status: int, said: bytes) -> Verification:
    try:
        report = msgspec.json.decode(said, type=dict[str, Any])
    except msgspec.MsgspecError:
        report = None
    if report is None or status not in _FOUND:
        return msgspec.structs.replace(began, state=State.FAILED, reason="unreadable")
    return msgspec.structs.replace(began, state=State.FINISHED, report=report)
