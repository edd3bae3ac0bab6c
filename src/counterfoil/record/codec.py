"""Canonical bytes of a record, and their digest.

The canonical form is compact JSON in the field order of :class:`~counterfoil.record.record.Record`, with ``capture``
last. It is what the ledger stores, what the chain hashes and what a reader is served, so it is written exactly once.
``capture`` is spliced in because it is known last, in the thread that seals the bodies.
"""

from __future__ import annotations

import hashlib

import msgspec

from counterfoil.record.record import CaptureInfo, Record

GENESIS = bytes(32)
"""The digest before the first record of a chain."""

_encoder = msgspec.json.Encoder(order=None)
_encode_into = _encoder.encode_into
_decoder = msgspec.json.Decoder(Record)
_decode_capture = msgspec.json.Decoder(CaptureInfo).decode
_CAPTURE = b',"capture":'


def encode(record: Record, capture: CaptureInfo) -> bytes:
    """The canonical bytes: deterministic, UTF-8, one JSON object."""
    return Closer().close(record, closing(capture))


def closing(capture: CaptureInfo) -> bytes:
    """The end of the canonical bytes of every record with this ``capture``."""
    return b"%b%b}" % (_CAPTURE, _encoder.encode(capture))


def capture_of(data: bytes) -> CaptureInfo:
    """What the canonical bytes say was captured when they were written; the rest is not read."""
    return _decode_capture(data[data.rindex(_CAPTURE) + len(_CAPTURE) : -1])


def without_capture(data: bytes) -> bytes:
    """The canonical bytes without their end, which :func:`closing` makes."""
    return data[: data.rindex(_CAPTURE)]


class Closer:
    """Makes canonical bytes, in one buffer that it keeps. For one thread."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def close(self, record: Record, end: bytes) -> bytes:
        """The canonical bytes of ``record`` that end with what :func:`closing` gave."""
        buffer = self._buffer
        _encode_into(record, buffer)
        buffer[-1:] = end
        return bytes(buffer)


def decode(data: bytes) -> Record:
    """The record in ``data``; unknown fields (``capture``, later additions) are passed over.

    Raises :class:`msgspec.ValidationError` or :class:`msgspec.DecodeError` when ``data`` is not a record.
    """
    return _decoder.decode(data)


def link(previous: bytes, data: bytes) -> bytes:
    """The digest of the record ``data`` (canonical bytes) chained onto ``previous`` (32 bytes)."""
    return hashlib.sha256(previous + data).digest()
