"""Undoing a content coding that nobody asked for, within bounds."""

from __future__ import annotations

import gzip
import zlib

import pytest

from counterfoil.errors import UpstreamFault
from counterfoil.gateway.inflate import Inflater

TEXT = b'{"answer": "' + b"word " * 4000 + b'"}'


@pytest.mark.parametrize(("coding", "data"), [(b"gzip", gzip.compress(TEXT)), (b"deflate", zlib.compress(TEXT))])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_pieces_decode_to_the_whole(coding: bytes, data: bytes, size: int) -> None:
    """Cut anywhere, the decoded pieces are the body."""
    inflater = Inflater(coding)
    assert b"".join(inflater.feed(data[at : at + size]) for at in range(0, len(data), size)) == TEXT
    assert inflater.whole


def test_a_bomb_is_refused_before_it_expands() -> None:
    """A thousandfold expansion stops at the bound, not in memory."""
    bomb = gzip.compress(bytes(64 << 20))
    inflater = Inflater(b"gzip")
    with pytest.raises(UpstreamFault) as caught:
        inflater.feed(bomb)
    assert caught.value.code == "upstream:invalid_response"


@pytest.mark.parametrize("data", [b"not gzip at all", gzip.compress(TEXT)[:-8] + bytes(8)], ids=["foreign", "torn"])
def test_damage_is_the_providers_fault(data: bytes) -> None:
    """Bytes that do not decode are an invalid answer."""
    with pytest.raises(UpstreamFault):
        Inflater(b"gzip").feed(data)


def test_an_unknown_coding_is_refused_at_once() -> None:
    """We asked for identity; a coding we cannot read would pass unmetered."""
    with pytest.raises(UpstreamFault):
        Inflater(b"zstd")
