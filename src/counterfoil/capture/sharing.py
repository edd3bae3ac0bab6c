"""Bodies that repeat an earlier call's: an agent sends its whole conversation again with every turn.

Kept whole, the bodies of a conversation of a hundred turns have fifty times the size of its last transcript. So the
bodies of the last calls stay in memory for a while, and a body that begins as one of them does is packed against it:
the common beginning is taken from there (:class:`Stretch`), the rest compressed against what stands around its end. So
what it repeats costs a few bytes, wherever it stands (tools behind the messages, a cache marker that moves on).

Rules:

1. Only calls of one key share. Sizes of bodies are in their records, for every key of a team to read, and the size of a
   body that shares tells what it shares.
2. A body is a *base* only after it is durable. Whoever stores a body that has a base makes sure, in the same
   transaction, that the base is still there, and stores it whole otherwise (:attr:`Shared.whole`).
3. Reading a body means reading what it was packed against first, and so on. :data:`DEPTH_MAX` and
   :data:`WORK_BYTES_MAX` bound that; a body that would go beyond is whole again.
4. What is kept here is a cache. Without it (after a start, or in another worker) a body is whole, nothing else.

Which base: of the bodies with the same first bytes the one with the longest common beginning, and of equals the one
that takes the least to read. A base that its successor contains is dropped: the conversation goes on from there.

Rejected: cutting bodies into pieces that are stored once each by their digest. The list of a turn's pieces grows with
the conversation as well (a hundred turns: as many bytes as the transcript), and pieces of a kilobyte compress badly
one by one. Measured for a hundred turns with tools, 300 KB in the end: 1.2 times the last transcript, at 0.12 ms a call
instead of the 0.9 ms of compressing it whole, and 6 ms to read the hundredth. Rejected: the base as the compressor's
dictionary, which has to be read into its table each time (0.5 ms), for 4 % more bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

import zstandard
from msgspec import Struct

SHARED_FROM_BYTES: Final = 2048
"""Requests below this are stored whole without a look at others: they gain little, and most calls are this small."""

SHARED_MAX_BYTES: Final = 4 * 1024 * 1024
"""Bodies above this are stored whole, and no base: they would push everything else out."""

KEPT_BYTES_MAX: Final = 24 * 1024 * 1024
"""What a worker keeps in memory of bodies that others may repeat: eighty conversations of 300 KB."""

DEPTH_MAX: Final = 128
"""Bodies that must be read for one: three kilobytes more a turn, and the model's context is full by then."""

WORK_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes that must be unpacked to read one body: about 40 ms."""

LEANING_MAX: Final = 500
"""Bodies that are packed against one: when it goes, each of them is packed anew."""

SHARED_PART: Final = 4
"""A base must have every fourth byte of a request, at its two ends; else a body is as small without."""

_LEAD_BYTES = 256  # bodies with another beginning are not looked at
_PROBES_MAX = 32
_NEAR_BYTES = 128  # two beginnings whose lengths differ by less count as equal; a base may have so much of its own
_NEAR_END_BYTES = 32 * 1024
_LEVEL = 3
_LEVEL_BEYOND = 2  # where a base has much behind what it shares
_LEVEL_BYTES_MAX = 128 * 1024
_FRAMES_BYTES_MAX = 1 << 30

BucketKey = tuple[str, str, bytes]


class Kept:
    """A body that later ones may be packed against; ``request_at`` is where the request begins in ``plain``."""

    __slots__ = ("bucket", "depth", "leaning", "plain", "request_at", "request_bytes", "seq", "work")

    def __init__(self, bucket: BucketKey, plain: bytes, request_at: int, request_bytes: int) -> None:
        self.bucket = bucket
        self.plain = plain
        self.request_at = request_at
        self.request_bytes = request_bytes
        self.seq = 0  # its place in the ledger
        self.leaning = 0  # how many are packed against it
        self.depth = 0  # how many others must be read first
        self.work = len(plain)  # bytes that must be unpacked to have it

    def common(self, request: bytes) -> int:
        """How many first bytes of ``request`` are this body's request's too. Costs what they cost, and no copy."""
        equal, at, view = self.plain.startswith, self.request_at, memoryview(request)
        low, high, end = 0, min(_NEAR_BYTES, self.request_bytes, len(request)), min(self.request_bytes, len(request))
        while low < end and equal(view[low:high], at + low):
            low, high = high, min(3 * high, end)
        while high - low > 1:
            middle = (low + high) // 2
            if equal(view[low:middle], at + low):
                low = middle
            else:
                high = middle
        return low

    def common_end(self, request: bytes, common: int) -> int:
        """How many last bytes are equal, not counting the ``common`` first ones; to within a few."""
        equal, at, size, view = (
            self.plain.startswith,
            self.request_at + self.request_bytes,
            len(request),
            memoryview(request),
        )
        end = min(self.request_bytes, size) - common
        low, high = 0, min(_NEAR_BYTES, end)
        while low < end and equal(view[size - high : size - low], at - high):
            low, high = high, min(3 * high, end)
        while high - low > _NEAR_BYTES:
            middle = (low + high) // 2
            if equal(view[size - middle : size - low], at - middle):
                low = middle
            else:
                high = middle
        return low

    def may_share(self, request: bytes, common: int) -> bool:
        """False when about ``common`` first bytes or fewer are equal. Costs little, and errs seldom."""
        start = max(common - 2 * _NEAR_BYTES, 0)
        at = self.request_at + start
        return self.plain[at : at + _NEAR_BYTES] == request[start : start + _NEAR_BYTES]

    def is_contained(self, request: bytes, common: int) -> bool:
        """Whether ``request`` says all of this body's request, but for a few bytes where they part."""
        end = self.request_at + self.request_bytes
        return request.endswith(self.plain[min(self.request_at + common + _NEAR_BYTES, end) : end])


class Stretch(NamedTuple):
    """What a body takes from another: ``size`` bytes from ``start`` on in ``base``, which stand at ``at`` in itself."""

    base: bytes
    start: int
    size: int
    at: int


class Base(NamedTuple):
    """What to pack against. So many first bytes are ``common``; ``contained``: the new body says all of it."""

    kept: Kept
    common: int
    contained: bool

    def stretch(self, request_at: int) -> Stretch:
        """What a body takes from this one whose request begins at ``request_at``."""
        return Stretch(self.kept.plain, self.kept.request_at, self.common, request_at)


class Shelf:
    """The bodies in memory. For one thread."""

    def __init__(self) -> None:
        self._buckets: dict[BucketKey, dict[Kept, None]] = {}
        self._kept: dict[Kept, None] = {}  # least recently used first
        self._bytes = 0

    def base_for(self, bucket: BucketKey, request: bytes, plain_bytes: int) -> Base | None:
        """The kept body that ``request`` repeats most of, None when there is none worth it."""
        found: Kept | None = None
        best = (0, 0)
        common = 0
        for kept in islice(reversed(self._buckets.get(bucket, {})), _PROBES_MAX):
            readable = kept.depth < DEPTH_MAX and kept.work + plain_bytes <= WORK_BYTES_MAX
            if readable and kept.may_share(request, common):
                shared = kept.common(request)
                score = (shared // _NEAR_BYTES, -kept.depth)
                if found is None or score > best:
                    found, best, common = kept, score, shared
        if found is None or (common + found.common_end(request, common)) * SHARED_PART < len(request):
            return None
        return Base(found, common, found.is_contained(request, common))

    def put(self, kept: Kept) -> None:
        """Keep one more, and drop those used longest ago."""
        if len(kept.plain) > SHARED_MAX_BYTES:
            return
        self._kept[kept] = None
        self._buckets.setdefault(kept.bucket, {})[kept] = None
        self._bytes += len(kept.plain)
        while self._bytes > KEPT_BYTES_MAX:
            self.drop(next(iter(self._kept)))

    def touch(self, kept: Kept) -> None:
        """It was used."""
        if kept in self._kept:
            bucket = self._buckets[kept.bucket]
            del self._kept[kept], bucket[kept]
            self._kept[kept] = bucket[kept] = None

    def drop(self, kept: Kept) -> None:
        """It is not needed any more."""
        if kept in self._kept:
            bucket = self._buckets[kept.bucket]
            del self._kept[kept], bucket[kept]
            self._bytes -= len(kept.plain)
            if not bucket:
                del self._buckets[kept.bucket]


class Shared(Struct):
    """A body that is about to be stored and may be a base later; it is packed against ``base`` unless that is None.

    ``whole()`` seals it without a base, should that be gone. The record's commitment is the same either way.
    """

    shelf: Shelf
    kept: Kept
    base: Base | None
    whole: Callable[[], bytes]

    @property
    def base_seq(self) -> int:
        """The place of the base; 0 without one."""
        return 0 if self.base is None else self.base.kept.seq

    def stored(self, seq: int, *, whole: bool) -> None:
        """It is durable at ``seq``: from now on others may be packed against it."""
        kept, base = self.kept, self.base
        kept.seq = seq
        if base is not None:
            base.kept.leaning += 1
            if whole or base.contained or base.kept.leaning >= LEANING_MAX:
                self.shelf.drop(base.kept)
            else:
                self.shelf.touch(base.kept)
            if not whole:
                kept.depth = base.kept.depth + 1
                kept.work += base.kept.work
        self.shelf.put(kept)


def bucket_of(team_id: str, key_id: str, request: bytes) -> BucketKey:
    """Where bodies that may share with ``request`` are kept."""
    return team_id, key_id, request[:_LEAD_BYTES]


def pack(taken: Stretch, plain: bytes) -> bytes:
    """What is left of ``plain`` without the stretch, compressed against the bytes around the end of that in the base.

    Says neither what was taken nor from which base; whoever keeps it makes sure of both (``seal``).
    """
    near = _near(taken)
    left = b"".join((plain[: taken.at], memoryview(plain)[taken.at + taken.size :]))
    size = len(near) + len(left)
    parameters = zstandard.ZstdCompressionParameters.from_level(  # pyright: ignore[reportUnknownMemberType]
        _LEVEL if size <= _LEVEL_BYTES_MAX else _LEVEL_BEYOND,
        source_size=len(left),
        dict_size=len(near),
        window_log=max(size.bit_length(), zstandard.WINDOWLOG_MIN),
        write_dict_id=False,
    )
    return zstandard.ZstdCompressor(dict_data=_raw(near), compression_params=parameters).compress(left)


def unpack(taken: Stretch, packed: bytes) -> bytes:
    """The body that :func:`pack` packed. Raises :class:`zstandard.ZstdError` when it is damaged."""
    base, start, size, at = taken
    left = zstandard.ZstdDecompressor(dict_data=_raw(_near(taken))).decompress(
        packed, max_output_size=_FRAMES_BYTES_MAX
    )
    return b"".join((left[:at], memoryview(base)[start : start + size], memoryview(left)[at:]))


def _near(taken: Stretch) -> bytes:
    """The last of what is taken, and all behind it: what is new is most like the newest."""
    return taken.base[max(taken.start + taken.size - _NEAR_END_BYTES, 0) :]


def _raw(base: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
