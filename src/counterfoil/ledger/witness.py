"""The second place: where signed checkpoints are kept a second time, out of reach of whoever can change the ledger.

A place is a folder (on another disk, or of another host) or an address that takes a POST. Each has a thread of its
own, so that one which is slow or away holds up neither the writer nor the other place. Checkpoints are handed over in
the order in which they were signed, tried again for as long as the gateway runs, and given up only when
:data:`WAITING_MAX` newer ones wait: the ledger has every one, and the newest alone reveals a ledger that was cut.
At its start a worker sends the newest checkpoint of its chain again, should the last process not have managed to.

What is handed over is one line, JSON, of :class:`Witnessed`. To an address it goes as the body of a POST with
``Content-Type: application/json``; whatever 2xx says that it was taken, and taking one twice must do no harm.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

WAITING_MAX: Final = 4096
"""Checkpoints that wait for a place that is away: nearly three days of them. They are half a kilobyte each."""

RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 60.0
POST_SECONDS_MAX: Final = 10.0
CLOSE_S: Final = 3.0
"""How long the end of the gateway waits for the last ones to be taken."""

_log = logging.getLogger(__name__)


class Witnessed(Struct, frozen=True):
    """One line of the second place: the statement's canonical JSON as text, and the signature in hex."""

    statement: str
    signature: str
    public_key: str


class Refused(OSError):
    """An address did not take a checkpoint."""


class Second(Protocol):
    """A place that keeps lines. ``writer`` is whose they are (``w0``); ``name`` is what people call the place."""

    @property
    def name(self) -> str: ...

    def keep(self, writer: str, line: bytes) -> None:
        """Return when ``line`` is kept for good. Raises :class:`OSError` when it is not."""
        ...


class FolderPlace:
    """A folder: each writer's lines are appended to a file of its own there, synced; the last one is not repeated."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.name = f"the folder {folder}"

    def keep(self, writer: str, line: bytes) -> None:
        path = self._folder / f"{writer}.jsonl"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            end = os.pread(descriptor, len(line) + 1, max(0, size - len(line) - 1))
            if end != line + b"\n":
                torn = b"\n" if end and not end.endswith(b"\n") else b""
                data = torn + line + b"\n"
                if os.write(descriptor, data) != len(data):  # it is torn now: the next try begins a new line
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class AddressPlace:
    """An address that takes each line in a POST. ``token`` is sent as a bearer; redirects are not followed."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port
        self._target = parts.path or "/"
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._headers = {"Content-Type": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    def keep(self, writer: str, line: bytes) -> None:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=POST_SECONDS_MAX)
        try:
            connection.request("POST", self._target, line, {**self._headers, "X-Counterfoil-Writer": writer})
            status = connection.getresponse().status
        except http.client.HTTPException as error:
            raise Refused(f"no answer ({type(error).__name__})") from error
        finally:
            connection.close()
        if not 200 <= status < 300:
            raise Refused(f"status {status}")


class Witness:
    """Hands lines over to one place, in its own thread."""

    def __init__(self, place: Second) -> None:
        self._place = place
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=WAITING_MAX)
        self._changed = threading.Condition()
        self._closing = False
        self._failing = False
        self._thread = threading.Thread(target=self._run, name="counterfoil-witness", daemon=True)
        self._thread.start()

    def hand(self, writer: str, line: bytes) -> None:
        """Have ``line`` kept; returns at once."""
        with self._changed:
            self._waiting.append((writer, line))
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """Checkpoints that were not taken yet."""
        return len(self._waiting)

    def close(self) -> None:
        """Try the last ones for :data:`CLOSE_S`, and end."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(CLOSE_S)
        if self._waiting:
            _log.warning("ledger_witness_left", extra={"checkpoints": len(self._waiting)})

    def _run(self) -> None:
        pause_s = RETRY_FIRST_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return
                writer, line = self._waiting[0]
            if self._kept(writer, line):
                pause_s = RETRY_FIRST_S
                with self._changed:
                    if self._waiting and self._waiting[0][1] is line:  # it may have made room for newer ones
                        self._waiting.popleft()
                continue
            with self._changed:
                if self._closing:
                    return
                self._changed.wait_for(lambda: self._closing, pause_s)
            pause_s = min(pause_s * 2, RETRY_MAX_S)

    def _kept(self, writer: str, line: bytes) -> bool:
        try:
            self._place.keep(writer, line)
        except OSError as error:
            if not self._failing:
                _log.error("ledger_witness_failed", extra={"reason": error.strerror or str(error)})
            self._failing = True
            return False
        if self._failing:
            _log.warning("ledger_witness_recovered")
        self._failing = False
        return True


def line_of(statement: bytes, signature: bytes, public_key: bytes) -> bytes:
    """A signed statement as a line of the second place."""
    return msgspec.json.encode(Witnessed(statement.decode(), signature.hex(), public_key.hex()))


def places(folder: Path | None, url: str | None, token: str | None) -> Sequence[Second]:
    """The second places that are configured."""
    found: list[Second] = []
    if folder is not None:
        found.append(FolderPlace(folder))
    if url is not None:
        found.append(AddressPlace(url, token))
    return found
