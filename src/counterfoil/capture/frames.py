"""A stream's bytes, what its frames say apart from what they all repeat, so that both compress better.

Between two words of a streamed answer stand some two hundred bytes that are the same every time. zstd repeats them for
three or four bytes a frame, and the words, which the next turn of the conversation has in one piece, are scattered. So
what stands behind a *marker* (``"content":"`` and the like) up to the end of that string is taken out into a run of
its own, and the rest, the *skeleton*, repeats itself exactly.

::

    size  field
    1     number of markers taken out; then for each of them, in the order in which they were taken out:
    1       which marker
    4       number of pieces
    4       bytes of all pieces together
            lengths of the pieces (``planes``), the pieces
          the skeleton

Nothing here knows a protocol: whatever the bytes are, putting back what was taken out gives them again, and
:func:`apart` makes sure of that before it gives anything.
"""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from typing import Final, cast

MARKERS: Final[tuple[bytes, ...]] = tuple(
    f'"{name}":{space}"'.encode()
    for name in ("content", "text", "delta", "arguments", "partial_json", "thinking", "reasoning_content", "reasoning")
    for space in ("", " ")
)
"""In the order of their numbers in stored bodies: add at the end only."""

BYTES_MIN: Final = 4096
"""Shorter streams are left alone: a dictionary knows their frames."""

_PIECES_MIN = 8
_LOOK_BYTES = 16 * 1024  # a marker that does not come up in the first frames is none
_QUOTE = b'"'
_BACKSLASH = 0x5C
_HEAD = struct.Struct("<BII")


def apart(body: bytes) -> bytes | None:
    """``body`` taken apart; None when there is nothing to take out."""
    looked = body[:_LOOK_BYTES]
    taken: list[bytes] = []
    skeleton = body
    for number, marker in enumerate(MARKERS):
        if looked.count(marker) >= _PIECES_MIN:
            skeleton, pieces = _take_out(skeleton, marker)
            said = b"".join(pieces)
            taken += [_HEAD.pack(number, len(pieces), len(said)), planes([len(piece) for piece in pieces]), said]
    if not taken:
        return None
    made = b"".join((bytes([len(taken) // 3]), *taken, skeleton))
    return made if together(made) == body else None


def together(made: bytes) -> bytes:
    """The bytes of which :func:`apart` made ``made``. Raises :class:`ValueError` when it did not."""
    try:
        at = 1
        taken: list[tuple[bytes, list[bytes]]] = []
        for _ in range(made[0]):
            number, count, size = cast("tuple[int, int, int]", _HEAD.unpack_from(made, at))
            at += _HEAD.size
            lengths = numbers(made[at : at + 4 * count])
            at += 4 * count
            if len(lengths) != count or sum(lengths) != size or at + size > len(made):
                raise ValueError("The stream is damaged.")
            taken.append((MARKERS[number], [made[a:b] for a, b in pairwise(accumulate(lengths, initial=at))]))
            at += size
        body = made[at:]
        for marker, pieces in reversed(taken):
            body = _put_back(body, marker, pieces)
    except (IndexError, struct.error) as error:
        raise ValueError("The stream is damaged.") from error
    return body


def planes(values: list[int]) -> bytes:
    """32-bit numbers by the significance of their bytes: those of one significance are like each other."""
    packed = struct.pack(f"<{len(values)}I", *values)
    return b"".join(packed[place::4] for place in range(4))


def numbers(made: bytes) -> tuple[int, ...]:
    """What :func:`planes` was given."""
    count = len(made) // 4
    packed = bytearray(4 * count)
    for place in range(4):
        packed[place::4] = made[place * count : (place + 1) * count]
    return struct.unpack(f"<{count}I", packed)


def _take_out(body: bytes, marker: bytes) -> tuple[bytes, list[bytes]]:
    first, *rest = body.split(marker)
    pieces = [part[: _end_of(part)] for part in rest]
    return marker.join([first, *[part[len(piece) :] for part, piece in zip(rest, pieces, strict=True)]]), pieces


def _end_of(part: bytes) -> int:
    """Where a JSON string ends whose beginning ``part`` is; somewhere, when it is none."""
    end = part.find(_QUOTE)
    while end > 0 and part[end - 1] == _BACKSLASH:
        end = part.find(_QUOTE, end + 1)
    return max(end, 0)


def _put_back(skeleton: bytes, marker: bytes, pieces: list[bytes]) -> bytes:
    first, *rest = skeleton.split(marker)
    if len(rest) != len(pieces):
        raise ValueError("The stream is damaged.")
    return marker.join([first, *[piece + part for piece, part in zip(pieces, rest, strict=True)]])
