"""Undoing a provider's content coding, piece by piece and within a bound.

We ask for ``identity``, so this runs only against a provider that compresses all the same. The client then gets the
decoded body: the terminal frame of a stream cannot be kept back inside a compressed one.
"""

from __future__ import annotations

import zlib

from counterfoil.errors import UpstreamFault

RATIO_MAX = 200
"""Decoded bytes per encoded byte, beyond a first megabyte: prose reaches 10, JSON with repeats 40, bombs 1,000."""

FREE_BYTES = 1 << 20

STEP_BYTES = 1 << 18
"""Decoded at a time: so much is in memory, at most, before a bomb is known for one."""


class Inflater:
    """Decodes one body. ``coding`` is the Content-Encoding; raises ``invalid_response`` for one we do not know."""

    def __init__(self, coding: bytes) -> None:
        if coding not in (b"gzip", b"x-gzip", b"deflate"):
            raise UpstreamFault("invalid_response", "The provider's answer has a content encoding nobody asked for.")
        self._zlib = zlib.decompressobj(wbits=47 if coding != b"deflate" else 15)
        self._in = 0
        self._out = 0

    def feed(self, data: bytes) -> bytes:
        """The decoded bytes of the next piece. Raises ``invalid_response`` for damage and for a bomb."""
        pieces: list[bytes] = []
        decoded = b""
        while data or len(decoded) == STEP_BYTES:  # a full step may have left more inside zlib
            try:
                decoded = self._zlib.decompress(data, STEP_BYTES)
            except zlib.error as error:
                raise UpstreamFault("invalid_response", "The provider's compressed answer is damaged.") from error
            rest = self._zlib.unconsumed_tail
            self._in += len(data) - len(rest)
            self._out += len(decoded)
            if self._zlib.unused_data:  # zlib would gather it without a bound
                raise UpstreamFault("invalid_response", "The provider's compressed answer goes on behind its own end.")
            if self._out > FREE_BYTES + self._in * RATIO_MAX:
                raise UpstreamFault("invalid_response", "The provider's compressed answer expands beyond reason.")
            pieces.append(decoded)
            data = rest
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def whole(self) -> bool:
        """Whether the coded stream has reached its own end."""
        return self._zlib.eof
