"""Ids that sort by time: ``gen_`` and a ULID (48 bits of milliseconds, 80 of entropy, Crockford base32).

Within one millisecond the entropy is incremented, so ids of one process are strictly increasing even when the clock
stands still or steps back; across processes 80 random bits keep them apart.
Source: https://github.com/ulid/spec (monotonicity), read 2026-11.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PREFIX = "gen_"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_TO_BASE_32 = str.maketrans(_ALPHABET, "0123456789abcdefghijklmnopqrstuv")
_PATTERN = re.compile(rf"gen_([0-7][{_ALPHABET}]{{25}})\Z")
_ENTROPY_BITS = 80
_SHIFTS = tuple(range(120, -1, -10))


class IdSource:
    """Gives ids. ``now_ms`` is the wall clock in Unix milliseconds, ``entropy(n)`` gives n random bytes."""

    __slots__ = ("_entropy", "_last", "_now_ms")

    def __init__(self, now_ms: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._now_ms = now_ms
        self._entropy = entropy
        self._last = 0

    def next(self) -> str:
        """The next id, greater than every id this source gave before."""
        value = self._now_ms() << _ENTROPY_BITS | int.from_bytes(self._entropy(10), "big")
        last = self._last
        if value >> _ENTROPY_BITS <= last >> _ENTROPY_BITS:
            value = last + 1
        self._last = value
        return text(value)


def text(value: int) -> str:
    """The id of a 128-bit value."""
    return PREFIX + "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


def parse(request_id: str) -> int | None:
    """The 128-bit value of an id of ours, or None for any other text. Exact case only: one id has one spelling."""
    match = _PATTERN.match(request_id)
    if match is None:
        return None
    return int(match[1].translate(_TO_BASE_32), 32)
