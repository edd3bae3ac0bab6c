r"""A growing JSON array cut into its elements, each with the bytes around it.

``[{…},\r\n{…}]`` is how Gemini streams without server-sent events. A frame here is one element with whatever stood
before it (the bracket, a comma, line ends); what follows the last element is a frame of its own when the array closes.
The bounds and the names are those of :mod:`counterfoil.wire.sse`, whose place this takes.
"""

from __future__ import annotations

import re

from counterfoil.wire.sse import Cutter, Frame

_MARKS = re.compile(rb'["\\{}\[\]]')
_LEAD = b" \t\r\n,[\xef\xbb\xbf"


class ArrayCutter(Cutter):
    """Cuts pieces of a JSON array of objects (or one bare object) into frames."""

    __slots__ = ("_depth", "_escaped", "_in_string")

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0
        self._in_string = False
        self._escaped = -1  # the offset of a byte that a backslash before it makes harmless

    def push(self, data: bytes) -> list[Frame]:
        """The elements that ``data`` completes."""
        pending = self._pending
        at = len(pending)
        pending += data
        frames: list[Frame] = []
        start = 0
        for found in _MARKS.finditer(bytes(data)):
            offset = at + found.start()
            if self._closes(found[0], offset):
                frames.append(Frame(bytes(pending[start : offset + 1]), self._head))
                self._head = b""
                start = offset + 1
        self._escaped -= start
        del pending[:start]
        return frames

    def _closes(self, mark: bytes, offset: int) -> bool:
        """Follow one structural byte; whether it closes an element (or the array)."""
        if offset == self._escaped:
            return False
        if self._in_string:
            if mark == b"\\":
                self._escaped = offset + 1
            elif mark == b'"':
                self._in_string = False
        elif mark == b'"':
            self._in_string = True
        elif mark == b"{":
            self._depth += 1
        elif mark == b"}":
            self._depth -= 1
            return self._depth == 0
        elif mark == b"]":
            return self._depth == 0
        return False

    def overflow(self) -> bytes:
        """What must leave now of an element too long to hold."""
        before = len(self._pending)
        leaving = super().overflow()
        self._escaped -= before - len(self._pending)
        return leaving

    def alone(self, data: bytes) -> bool:
        """Never known without looking inside."""
        return False

    @staticmethod
    def element(raw: bytes) -> bytes:
        """The element in a frame, without what stood before it; empty for the closing bracket."""
        element = raw.lstrip(_LEAD)
        return element if element.startswith(b"{") else b""
