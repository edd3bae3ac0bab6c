"""A name server that says what a test tells it: one list of addresses for each question after an address (RFC 1035)."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import Self

from emulators.waiting import PATIENCE_S

PORT = 53
_TYPES = {4: 1, 6: 28}  # A and AAAA
_TTL = (0).to_bytes(4, "big")


class NameServer:
    """Listens for UDP on ``host``. ``script`` has the addresses for each resolution in turn, the last one for ever.

    A resolver asks for IPv4 and IPv6 at once; both questions of one resolution get their part of the same list.
    ``asked`` counts resolutions.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.script: Sequence[Sequence[str]] = [[]]
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._socket.bind((self.host, PORT))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread up
        self._socket.close()
        self._thread.join(PATIENCE_S)

    def say(self, *script: Sequence[str]) -> None:
        """Begin a new script."""
        self.script, self.asked = script, 0

    def _serve(self) -> None:
        while True:
            try:
                question, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            if not question:
                return
            self._socket.sendto(self._answer(question), peer)

    def _answer(self, question: bytes) -> bytes:
        at = 12
        while question[at]:
            at += question[at] + 1
        end = at + 5
        wanted = int.from_bytes(question[at + 1 : at + 3], "big")
        if wanted == _TYPES[4]:  # asked first
            self.asked += 1
        addresses = self.script[min(max(self.asked, 1), len(self.script)) - 1]
        found = [ipaddress.ip_address(address) for address in addresses]
        records = [
            b"\xc0\x0c" + wanted.to_bytes(2, "big") + b"\0\1" + _TTL + len(each.packed).to_bytes(2, "big") + each.packed
            for each in found
            if _TYPES[each.version] == wanted
        ]
        counts = b"\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\0"
        return question[:2] + b"\x81\x80" + counts + question[12:end] + b"".join(records)
