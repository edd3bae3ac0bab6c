"""Event streams cut into frames, each frame the very bytes it came in.

A frame is everything up to and including a blank line. Lines end in LF, CRLF or CR (WHATWG HTML, "server-sent events",
read 2026-11), and a provider's bytes arrive cut anywhere, so the rules are:

- A blank line is two line ends in a row. CRLF is one line end, never two; where a piece ends between the CR and the LF
  of a blank line the frame waits for the LF. Only in a stream of bare CRs does a CR alone close a frame.
- A frame is given once, when its blank line has come. What has no blank line yet waits, because it may turn out to be
  the frame that must be kept back.
- Waiting is bounded. A frame longer than :data:`PENDING_MAX` (an image in base64, a line without end) is let through
  except for its last :data:`TAIL_KEPT` bytes, which still suffice to keep its end from the client. Its first
  :data:`HEAD_KEPT` bytes are remembered, so that its kind can be told; usage stands at the end of such frames.

Searching is linear: a byte that was looked at is not looked at again when the next piece comes, so a stream that
arrives byte by byte costs no more than its length.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PENDING_MAX = 1 << 20
"""A frame is held whole up to this many bytes: far above any frame of text, far below a harmful one."""

TAIL_KEPT = 64 << 10
"""Of a longer frame, so many bytes at least stay back until it ends."""

HEAD_KEPT = 4 << 10
"""Of a longer frame, so many bytes of its beginning are remembered."""

BOM = b"\xef\xbb\xbf"
_BLANK = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_OVERLAP = 3
"""A blank line is four bytes at most, so so many bytes may belong to one that the next piece completes."""


class Frame(NamedTuple):
    """One frame. ``raw`` is what has not left yet: all of it, or the end of a frame too long to hold.

    ``head`` is empty for a whole frame, which can be parsed, else the beginning of the long one.
    """

    raw: bytes
    head: bytes = b""


class Cutter:
    """Cuts pieces into frames. ``idle`` is True while no frame is under way."""

    __slots__ = ("_carriage", "_head", "_pending", "_searched")

    def __init__(self) -> None:
        self._pending = bytearray()
        self._searched = 0
        self._head = b""
        self._carriage = False  # a CR was seen: line ends need the full rule from here on

    @property
    def idle(self) -> bool:
        """No byte of an unfinished frame was seen."""
        return not self._pending and not self._head

    def alone(self, data: bytes) -> bool:
        """Whether ``data`` is one whole frame and nothing is under way, so that it need not be cut."""
        return (
            not self._pending
            and not self._head
            and not self._carriage
            and data.endswith(b"\n\n")
            and data.find(b"\n\n") == len(data) - 2
            and b"\r" not in data
        )

    def push(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes."""
        if not self._carriage:
            self._carriage = b"\r" in data
        if self._pending:
            self._pending += data
            cut, frames = self._cut(self._pending)
            if cut:
                del self._pending[:cut]
        else:
            cut, frames = self._cut(data)
            if cut < len(data):
                self._pending += data[cut:]
        self._searched = max(0, len(self._pending) - _OVERLAP)
        return frames

    def overflow(self) -> bytes:
        """What must leave now of a frame too long to hold (usually nothing)."""
        size = len(self._pending)
        if size <= PENDING_MAX and not (self._head and size > TAIL_KEPT):
            return b""
        if not self._head:
            self._head = bytes(self._pending[:HEAD_KEPT])
        leaving = bytes(self._pending[:-TAIL_KEPT])
        del self._pending[:-TAIL_KEPT]
        self._searched = max(0, len(self._pending) - _OVERLAP)
        return leaving

    def rest(self) -> Frame | None:
        """The frame that never ended, when the stream is over."""
        if self.idle:
            return None
        frame = Frame(bytes(self._pending), self._head)
        self._pending.clear()
        self._head = b""
        self._searched = 0
        return frame

    def _cut(self, data: bytes | bytearray) -> tuple[int, list[Frame]]:
        frames: list[Frame] = []
        start, at = 0, self._searched
        while True:
            if self._carriage:
                match = _BLANK.search(data, at)
                end = match.end() if match else 0
                if end == len(data) and data.endswith(b"\n\r"):
                    end = 0  # of a CRLF, most likely; its LF belongs to this frame
            else:
                end = data.find(b"\n\n", at) + 2
            if end < 2:
                return start, frames
            frames.append(Frame(bytes(data[start:end]), self._head))
            self._head = b""
            start = at = end


def fields(frame: bytes) -> tuple[bytes, bytes]:
    """The event name and the data of a whole frame, each empty when absent; several data lines are joined by LF.

    A field ``error``, which no standard knows, is how llama.cpp and its kin end a stream that failed: an event of that
    name, with its value as data.
    """
    if frame.startswith(b"data: ") and frame.find(b"\n") == len(frame) - 2 and b"\r" not in frame:
        return b"", frame[6:-2]
    event = b""
    data: list[bytes] = []
    for line in frame.removeprefix(BOM).splitlines():
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):
            event = name if name == b"error" else event
            data.append(value.removeprefix(b" "))
        elif name == b"event":
            event = value.removeprefix(b" ")
    return event, data[0] if len(data) == 1 else b"\n".join(data)
