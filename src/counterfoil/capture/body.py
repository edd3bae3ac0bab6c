"""What was captured of one call, and the bytes it is kept as.

The encoding is versioned and exact: what comes out equals what went in, byte for byte and chunk for chunk, so that a
recording can be played back with the frames and the pace the provider gave it.

::

    offset  size  field
    0       1     version: 1, or 2 with request headers
    1       1     flags: 1 replayable present, 2 the response is chunks, 4 chunk times are 64 bit, 8 the chunks are
                  taken apart (``frames``)
    2       2     response status
    4       1     length of the request's media type
    5       1     length of the response's media type
    6       4     length of the request
    10      4     length of the replayable body
    14      4     number of chunks (0 for a whole body)
    18      4     number of chunk times (0 or the number of chunks)
    22            media types, chunk lengths (4 bytes each), chunk times (differences to the one before, 4 or 8 bytes
                  each), request, replayable body, response

Version 2 has the request's headers before all that: their length (2 bytes) and ``name: value`` lines. Only the few that
change what a protocol means are kept (``gateway.attribution.KEPT``), and most calls carry none of them; those stay in
version 1, to the byte.

A stream of many frames may be taken apart: its lengths and times stand in ``frames.planes``, and in place of the
response stands what ``frames.apart`` made of it. That costs 2.5 µs a frame, gains little by itself, and saves a fifth
of a streamed conversation, whose turns then find in one piece what the answer before them said.

Little endian throughout. Lengths come before bodies so that one pass cuts the buffer, and every length is checked
against the buffer: damaged bytes raise :class:`ValueError`, never a wrong capture.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Final

import msgspec
from msgspec import Struct

from counterfoil.capture import frames

VERSION: Final = 1
VERSION_FIELDS: Final = 2
_FIELDS_MARK = bytes([VERSION_FIELDS])
_FIELDS_HEAD = struct.Struct("<BH")
_FIELDS_BYTES_MAX = 0xFFFF
_HEAD = struct.Struct("<BBHBBIIII")
_HAS_REPLAYABLE = 1
_IS_CHUNKS = 2
_WIDE_TIMES = 4
_IS_APART = 8
_TYPE_BYTES_MAX = 255
_NARROW_MAX = 0xFFFF_FFFF


class Capture(Struct, frozen=True, gc=False):
    """The bodies of one call.

    ``request`` is the body as it arrived. ``replayable`` is the JSON object to resubmit when the request itself is not
    one (multipart). ``response`` is a whole body, or the chunks of a stream as they were received; then ``offsets_us``
    gives, for each chunk, the microseconds since dispatch (non-decreasing, not negative). ``request_fields`` are the
    kept headers, names in lower case.
    """

    request: bytes
    request_type: str
    replayable: bytes | None
    response: bytes | tuple[bytes, ...]
    response_type: str
    response_status: int
    offsets_us: tuple[int, ...] = ()
    request_fields: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def response_body(self) -> bytes:
        """The response as one piece."""
        response = self.response
        return response if isinstance(response, bytes) else b"".join(response)


def encode(capture: Capture, *, apart: bool = False) -> bytes:
    """The bytes of ``capture``; with ``apart`` a long stream is taken apart.

    Raises :class:`ValueError` when its times do not fit its chunks.
    """
    request_type = _type_bytes(capture.request_type)
    response_type = _type_bytes(capture.response_type)
    replayable = capture.replayable
    response = capture.response
    flags = 0 if replayable is None else _HAS_REPLAYABLE
    table = b""
    chunk_count = time_count = 0
    if not isinstance(response, bytes):
        chunk_count = len(response)
        time_count = len(capture.offsets_us)
        wide, differences = _differences(capture.offsets_us, chunk_count)
        flags |= _IS_CHUNKS | wide
        lengths = [len(chunk) for chunk in response]
        response = b"".join(response)
        made = frames.apart(response) if apart and len(response) >= frames.BYTES_MIN and not wide else None
        if made is None:
            times = struct.pack(f"<{time_count}{'Q' if wide else 'I'}", *differences)
            table = struct.pack(f"<{chunk_count}I", *lengths) + times
        else:
            flags |= _IS_APART
            table = frames.planes(lengths) + frames.planes(differences)
            response = made
    head = _HEAD.pack(
        VERSION,
        flags,
        capture.response_status,
        len(request_type),
        len(response_type),
        len(capture.request),
        len(replayable) if replayable is not None else 0,
        chunk_count,
        time_count,
    )
    parts = (head, request_type, response_type, table, capture.request, replayable or b"", response)
    return b"".join((_fields(capture.request_fields), *parts)) if capture.request_fields else b"".join(parts)


def request_at(data: bytes) -> int:
    """Where the request begins in what :func:`encode` gave."""
    start = _FIELDS_HEAD.size + _FIELDS_HEAD.unpack_from(data)[1] if data[:1] == _FIELDS_MARK else 0
    _, flags, _, request_type, response_type, _, _, chunks, times = _HEAD.unpack_from(data, start)
    return start + _HEAD.size + request_type + response_type + 4 * chunks + times * (8 if flags & _WIDE_TIMES else 4)


def decode(data: bytes) -> Capture:
    """The capture in ``data``. Raises :class:`ValueError` when ``data`` is damaged or of an unknown version."""
    try:
        if data[:1] != _FIELDS_MARK:
            return _decode(data)
        end = _FIELDS_HEAD.size + _FIELDS_HEAD.unpack_from(data)[1]
        lines = data[_FIELDS_HEAD.size : end].split(b"\n")[:-1]
        fields = tuple((name, value) for name, _, value in (line.partition(b": ") for line in lines))
        return msgspec.structs.replace(_decode(data[end:]), request_fields=fields)
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError("The captured bodies are damaged.") from error


def _decode(data: bytes) -> Capture:
    version, flags, status, *lengths, chunk_count, time_count = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ValueError(f"The captured bodies have version {version}; this one knows {VERSION}.")
    known = not flags & ~(_HAS_REPLAYABLE | _IS_CHUNKS | _WIDE_TIMES | _IS_APART)
    told = bool(flags & _HAS_REPLAYABLE) >= bool(lengths[3]) and bool(flags & _IS_CHUNKS) >= bool(chunk_count)
    if not known or not told or time_count not in (0, chunk_count):
        raise ValueError("The captured bodies are damaged.")
    request_type_end = _HEAD.size + lengths[0]
    table = request_type_end + lengths[1]
    times_at = table + 4 * chunk_count
    wide = bool(flags & _WIDE_TIMES)
    request_at = times_at + time_count * (8 if wide else 4)
    if flags & _IS_APART:
        chunk_lengths, differences = frames.numbers(data[table:times_at]), frames.numbers(data[times_at:request_at])
    else:
        chunk_lengths = struct.unpack_from(f"<{chunk_count}I", data, table)
        differences = struct.unpack_from(f"<{time_count}{'Q' if wide else 'I'}", data, times_at)
    replayable_at = request_at + lengths[2]
    response_at = replayable_at + lengths[3]
    if response_at > len(data):
        raise ValueError("The captured bodies are damaged.")
    response: bytes | tuple[bytes, ...] = data[response_at:]
    if flags & _IS_CHUNKS:
        body = frames.together(data[response_at:]) if flags & _IS_APART else data[response_at:]
        if len(chunk_lengths) != chunk_count or sum(chunk_lengths) != len(body):
            raise ValueError("The captured bodies are damaged.")
        response = tuple(body[a:b] for a, b in pairwise(accumulate(chunk_lengths, initial=0)))
    return Capture(
        request=data[request_at:replayable_at],
        request_type=data[_HEAD.size : request_type_end].decode(),
        replayable=data[replayable_at:response_at] if flags & _HAS_REPLAYABLE else None,
        response=response,
        response_type=data[request_type_end:table].decode(),
        response_status=status,
        offsets_us=tuple(accumulate(differences)),
    )


def _fields(fields: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The headers and their head. What no header of a few words would be (64 KiB in all) is left out."""
    lines = b"".join(b"%b: %b\n" % field for field in fields)
    return _FIELDS_HEAD.pack(VERSION_FIELDS, len(lines)) + lines if len(lines) <= _FIELDS_BYTES_MAX else b""


@lru_cache(maxsize=64)
def _type_bytes(media_type: str) -> bytes:
    """A media type is short in practice; a longer one (hostile or broken) keeps its first 255 bytes."""
    encoded = media_type.encode(errors="replace")
    return encoded if len(encoded) <= _TYPE_BYTES_MAX else encoded[:_TYPE_BYTES_MAX].decode(errors="ignore").encode()


def _differences(offsets_us: tuple[int, ...], chunk_count: int) -> tuple[int, list[int]]:
    """The flag for the width of chunk times, and the differences between successive ones."""
    if not offsets_us:
        return 0, []
    if len(offsets_us) != chunk_count:
        raise ValueError(f"There are {len(offsets_us)} chunk times for {chunk_count} chunks.")
    differences = [offsets_us[0], *(b - a for a, b in pairwise(offsets_us))]
    if min(differences) < 0:
        raise ValueError("Chunk times must not decrease.")
    return _WIDE_TIMES if max(differences) > _NARROW_MAX else 0, differences
