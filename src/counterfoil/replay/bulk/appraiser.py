"""The child process that compares and checks, as the driver sees it: one task at a time, each with its time.

Started when the first task comes, ended when the worker stops. A child that takes too long or dies is replaced, and the
task it had gets figures without agreement.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

import counterfoil
from counterfoil.record import codec
from counterfoil.replay.bulk.appraisal import LENGTH_BYTES, Appraisal, Task
from counterfoil.replay.bulk.outcome import Agreement, Verdict, side

TASK_SECONDS: Final = 20.0
"""The largest texts that are compared word by word take a second; more is a pattern that does not end."""
_DONE_MAX: Final = 256 << 20
_COMMAND: Final = ("-m", "counterfoil.replay.bulk.appraisal")
_SOURCE: Final = str(Path(counterfoil.__file__).parents[1])
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Appraisal).decode


class Appraiser:
    """Lives on a worker's loop; its child is its own."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None

    async def appraise(self, task: Task, seconds_max: float = TASK_SECONDS) -> Appraisal:
        """The appraisal of ``task``; without agreement, and with a reason, when it could not be made in time."""
        async with self._turn:
            try:
                return await asyncio.wait_for(self._ask(task), seconds_max)
            except TimeoutError:
                reason = "timeout"
            except (OSError, asyncio.IncompleteReadError, msgspec.DecodeError):
                reason = "unreadable"
            except asyncio.CancelledError:
                await self._end()  # else the next task would be given this one's appraisal
                raise
            await self._end()
        return _without(task, reason)

    async def close(self) -> None:
        """End the child."""
        async with self._turn:
            await self._end()

    async def _ask(self, task: Task) -> Appraisal:
        child = self._child or await self._begin()
        if child.stdin is None or child.stdout is None:
            raise BrokenPipeError
        data = _encode(task)
        child.stdin.write(len(data).to_bytes(LENGTH_BYTES, "big") + data)
        await child.stdin.drain()
        length = int.from_bytes(await child.stdout.readexactly(LENGTH_BYTES), "big")
        return _decode(await child.stdout.readexactly(length))

    async def _begin(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            *_COMMAND,
            stdin=pipe,
            stdout=pipe,
            limit=_DONE_MAX,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PYTHONPATH": os.pathsep.join((_SOURCE, *sys.path[1:]))},  # and not the operator's provider keys
        )
        return self._child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        if child.stdin is not None:
            child.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGKILL)
        await child.wait()


def _without(task: Task, reason: str) -> Appraisal:
    verdicts = tuple(Verdict(check.name, None, reason=reason) for check in task.checks)
    return Appraisal(side(codec.decode(task.a)), side(codec.decode(task.b)), Agreement(reason=reason), verdicts)
