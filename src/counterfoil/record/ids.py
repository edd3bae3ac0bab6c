"""Ids that sort by time: ``gen_`` and a ULID (48 bits of milliseconds, 80 of entropy, Crockford base32).

Within one millisecond the entropy is incremented, so ids of one process are strictly increasing even when the clock
stands still or steps back; across processes 80 random bits keep them apart.
Source: https://github.com/ulid/spec (monotonicity), read 2026-11.
"""

from __future__ import annotations

from collections.abc import Callable

PREFIX = "gen_"
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_BASE_32 = "0123456789abcdefghijklmnopqrstuv"
_LETTERS = 26
_VALUES_END = 1 << 128
# What Python's own base 32 would read and Crockford's does not know becomes a letter that neither knows.
_TO_BASE_32 = bytes(ord(_BASE_32[_ALPHABET.index(chr(c))]) if chr(c) in _ALPHABET else ord("~") for c in range(256))
_ENTROPY_BITS = 80
_SHIFTS = tuple(range(120, -1, -10))
_LOW_MAX = (1 << 20) - 1


class IdSource:
    """Gives ids. ``now_ms`` is the wall clock in Unix milliseconds, ``entropy(n)`` gives n random bytes.

    The text of the upper 110 bits is made once a millisecond; the ids of that millisecond differ from it in the lowest
    20 bits, which count up.
    """

    __slots__ = ("_entropy", "_last", "_last_ms", "_low", "_now_ms", "_upper")

    def __init__(self, now_ms: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._now_ms = now_ms
        self._entropy = entropy
        self._last_ms = -1
        self._low = _LOW_MAX  # of the last id
        self._last = -1  # the last id's value when this millisecond began
        self._upper = ""  # the last id's text without its last four letters

    def next(self) -> str:
        """The next id, greater than every id this source gave before."""
        now_ms = self._now_ms()
        if now_ms <= self._last_ms and self._low < _LOW_MAX:
            self._low = low = self._low + 1
        else:
            low = self._begin(now_ms)
        return self._upper + _PAIRS[low >> 10] + _PAIRS[low & 1023]

    def _begin(self, now_ms: int) -> int:
        """Take up a new millisecond, or the next 2^20 ids of one that goes on; the low bits of the id to give."""
        value = now_ms << _ENTROPY_BITS | int.from_bytes(self._entropy(10), "big")
        if now_ms <= self._last_ms:
            value = (self._last | _LOW_MAX) + 1
        self._last = value
        self._last_ms = value >> _ENTROPY_BITS
        self._low = value & _LOW_MAX
        self._upper = text(value)[:-4]
        return self._low


def text(value: int) -> str:
    """The id of a 128-bit value."""
    return PREFIX + "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])


def parse(request_id: str) -> int | None:
    """The 128-bit value of an id of ours, or None for any other text. Exact case only: one id has one spelling."""
    if len(request_id) != len(PREFIX) + _LETTERS or not request_id.startswith(PREFIX):
        return None
    try:
        value = int(request_id[len(PREFIX) :].encode().translate(_TO_BASE_32), 32)
    except ValueError:
        return None
    return value if value < _VALUES_END else None
