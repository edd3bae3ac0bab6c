"""Records pack small and come back to the byte."""

from __future__ import annotations

import hashlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from counterfoil.ledger import packing
from counterfoil.ledger.packing import DICTIONARY_1, DICTIONARY_2, PLAIN, Packer, Unpacker
from counterfoil.record import codec
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState
from emulators.control import settlement

PACKER, UNPACKER = Packer(), Unpacker()


@given(st.binary(max_size=3000))
def test_round_trip(data: bytes) -> None:
    """Any bytes come back as they were."""
    assert UNPACKER.unpack(PACKER.pack(data)) == data


def test_a_record_packs_to_a_quarter() -> None:
    """A usual record shrinks to less than a quarter of its canonical bytes."""
    info = CaptureInfo(policy=CapturePolicy.FULL, state=CaptureState.STORED, bytes=512, digest="ab" * 32)
    data = codec.encode(settlement(1).record, info)
    packed = PACKER.pack(data)
    assert packed[0] == DICTIONARY_2
    assert len(packed) * 4 < len(data)


def test_what_does_not_pack_is_kept_plain() -> None:
    """Bytes that would grow are stored as they are."""
    data = hashlib.sha512(b"noise").digest()
    assert PACKER.pack(data) == bytes([PLAIN]) + data


@pytest.mark.parametrize("packed", [b"", b"\x01", b"\x01rubbish", b"\x07{}"], ids=["empty", "cut", "rubbish", "codec"])
def test_damage_is_a_value_error(packed: bytes) -> None:
    """Damaged bytes and unknown codecs raise, they never give another record."""
    with pytest.raises(ValueError, match=r"damaged|codec"):
        UNPACKER.unpack(packed)


def test_dictionary_1_still_unpacks() -> None:
    """A record that was packed against the text alone comes back."""
    dictionary = zstandard.ZstdCompressionDict(packing.RECORD_TEXT, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    data = codec.encode(settlement(1).record, CaptureInfo(policy=CapturePolicy.OFF, state=CaptureState.NOT_CAPTURED))
    packed = zstandard.ZstdCompressor(level=-3, dict_data=dictionary, write_dict_id=False).compress(data)
    assert UNPACKER.unpack(bytes([DICTIONARY_1]) + packed) == data


@pytest.mark.parametrize(
    ("dictionary", "digest"),
    [
        (packing.RECORD_TEXT, "d84b3301d2e641913f309770ce435665be9cd9bc00862bc57ad4253615aa06d3"),
        (packing.DICTIONARY_2_TABLES, "fbc3dc61efae82751b44157b1d9f0277d3c64298c8ffda6f77558a19041520f7"),
    ],
    ids=["text", "tables"],
)
def test_the_dictionaries_are_part_of_the_format(dictionary: bytes, digest: str) -> None:
    """They never change: records on disk need the very one they were packed with."""
    assert hashlib.sha256(dictionary).hexdigest() == digest
