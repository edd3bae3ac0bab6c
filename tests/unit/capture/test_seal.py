"""A sealed body opens where it belongs, and nowhere else."""

from __future__ import annotations

import hashlib
import os
import random
from itertools import count

import pytest
import zstandard

from counterfoil.capture.dictionary import DICTIONARY_1, DICTIONARY_2
from counterfoil.capture.seal import (
    PLAIN,
    ZSTD,
    ZSTD_BASE,
    ZSTD_DICTIONARY_1,
    ZSTD_DICTIONARY_2,
    BodyUnreadable,
    DataKey,
    KeyRing,
    Opener,
    Sealer,
    derive,
    key_id_of,
)
from counterfoil.capture.sharing import Stretch

RECORD = bytes(range(16))
SECRET = b"s" * 32
TEXT = b'{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant"}}]}'


class Keys:
    """Data keys in memory."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[str, bytes]] = {}

    def newest(self, team_id: str) -> DataKey | None:
        found = [DataKey(key_id, wrapped) for key_id, (team, wrapped) in self.rows.items() if team == team_id]
        return found[-1] if found else None

    def get(self, key_id: int) -> DataKey | None:
        return DataKey(key_id, self.rows[key_id][1]) if key_id in self.rows else None

    def add(self, team_id: str, wrapped: bytes) -> int:
        self.rows[len(self.rows) + 1] = (team_id, wrapped)
        return len(self.rows)


@pytest.fixture
def keys() -> Keys:
    """Give an empty store of keys."""
    return Keys()


def _parts(keys: Keys, secret: bytes = SECRET) -> tuple[Sealer, Opener]:
    ring = KeyRing(secret, keys, os.urandom)
    return Sealer(ring, os.urandom), Opener(ring)


@pytest.mark.parametrize(
    ("body", "codec"),
    [
        (b"", PLAIN),
        (b"short", PLAIN),
        (TEXT, ZSTD_DICTIONARY_2),
        (TEXT * 150, ZSTD_DICTIONARY_2),
        (TEXT * 300, ZSTD),
        (TEXT * 1000, ZSTD),
        (random.Random(1).randbytes(200_000), PLAIN),
    ],
    ids=["empty", "tiny", "small", "16 KB", "30 KB", "100 KB", "incompressible"],
)
def test_round_trip(keys: Keys, body: bytes, codec: int) -> None:
    """A body of any size opens to itself; its first byte says how it was packed."""
    sealer, opener = _parts(keys)
    sealed = sealer.seal("acme", RECORD, body)
    assert (sealed[0], opener.open("acme", RECORD, sealed)) == (codec, body)


def test_a_body_opens_with_its_base_alone(keys: Keys) -> None:
    """Against another base, however like it, or against none, it is an error and never another body."""
    sealer, opener = _parts(keys)
    base = b"".join(b'{"n":%d,"said":"%x"}' % (n, n * 7919) for n in range(4_000))
    body = b"head" + base[:-100] + b"and what is new"
    sealed = sealer.seal("acme", RECORD, body, Stretch(base, 0, len(base) - 100, 4))
    assert (sealed[0], opener.open("acme", RECORD, sealed, base)) == (ZSTD_BASE, body)
    assert len(sealed) < 150
    for other in (base + b"x", base[:-1], b"y" + base[1:], base[:-101] + b"z" + base[-100:], b"", None):
        with pytest.raises(BodyUnreadable):
            opener.open("acme", RECORD, sealed, other)
    for at in range(len(sealed)):
        with pytest.raises(BodyUnreadable):
            opener.open("acme", RECORD, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], base)
        with pytest.raises(BodyUnreadable):
            opener.open("acme", RECORD, sealed[:at], base)


def test_small_bodies_compress() -> None:
    """The dictionary makes a short chat body smaller than half, header, nonce and tag included."""
    sealer, _ = _parts(Keys())
    assert len(sealer.seal("acme", RECORD, TEXT)) < len(TEXT) * 0.7
    assert len(sealer.seal("acme", RECORD, TEXT * 4)) < len(TEXT)


def test_one_key_a_team(keys: Keys) -> None:
    """A team's bodies share one key, kept wrapped; another team has another."""
    sealer, _ = _parts(keys)
    ids = [key_id_of(sealer.seal(team, RECORD, TEXT)) for team in ("acme", "acme", "other")]
    again, _ = _parts(keys)
    assert [*ids, key_id_of(again.seal("acme", RECORD, TEXT))] == [1, 1, 2, 1]


def test_elsewhere_it_does_not_open(keys: Keys) -> None:
    """A blob moved to another record, another team, or under another secret is refused."""
    sealer, opener = _parts(keys)
    sealed = sealer.seal("acme", RECORD, TEXT)
    sealer.seal("other", RECORD, TEXT)
    _, foreign = _parts(keys, b"t" * 32)
    for attempt in (
        lambda: opener.open("acme", bytes(16), sealed),
        lambda: opener.open("other", RECORD, sealed),
        lambda: foreign.open("acme", RECORD, sealed),
    ):
        with pytest.raises(BodyUnreadable):
            attempt()


def test_every_flipped_bit_shows(keys: Keys) -> None:
    """No bit of a sealed blob can change unnoticed, its codec and key number included."""
    sealer, opener = _parts(keys)
    sealed = sealer.seal("acme", RECORD, TEXT)
    for bit in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BodyUnreadable):
            opener.open("acme", RECORD, bytes(changed))


@pytest.mark.parametrize("length", [0, 4, 16, 17, 32])
def test_a_cut_blob_does_not_open(keys: Keys, length: int) -> None:
    """A blob cut short is unreadable, not an error of another kind."""
    sealer, opener = _parts(keys)
    with pytest.raises(BodyUnreadable):
        opener.open("acme", RECORD, sealer.seal("acme", RECORD, TEXT)[:length])


def test_a_destroyed_key_destroys_its_bodies(keys: Keys) -> None:
    """Without its data key a body is gone, whatever copies of the blob there are."""
    sealer, _ = _parts(keys)
    sealed = sealer.seal("acme", RECORD, TEXT)
    keys.rows.clear()
    _, opener = _parts(keys)
    with pytest.raises(BodyUnreadable, match="does not exist"):
        opener.open("acme", RECORD, sealed)


def test_nonces_never_repeat(keys: Keys) -> None:
    """A sealer counts its nonces, and draws a new prefix when the counter is at its end."""
    prefixes = count(1)
    ring = KeyRing(SECRET, keys, os.urandom)
    sealer = Sealer(ring, lambda size: next(prefixes).to_bytes(size, "big"))
    sealer._counter = (1 << 32) - 2
    nonces = [sealer.seal("acme", RECORD, TEXT)[5:17] for _ in range(4)]
    assert len(set(nonces)) == 4
    assert [nonce[:8] for nonce in nonces] == [(1).to_bytes(8, "big")] * 2 + [(2).to_bytes(8, "big")] * 2


def test_purposes_are_separate() -> None:
    """Keys derived for two purposes have nothing in common."""
    assert derive(SECRET, b"one") != derive(SECRET, b"two")


@pytest.mark.parametrize(
    ("dictionary", "digest"),
    [
        (DICTIONARY_1, "484008184ec5bf577dc74386faad706be8406c5fcecb8a3c702864d85cd09938"),
        (DICTIONARY_2, "95551a8aa3a116af7a28287d7e6868344c52649c23105d2f77d51aae3b6d7e11"),
    ],
    ids=["1", "2"],
)
def test_the_dictionaries_are_part_of_the_format(dictionary: bytes, digest: str) -> None:
    """They never change: bodies on disk need the very one they were packed with."""
    assert hashlib.sha256(dictionary).hexdigest() == digest


def test_dictionary_1_still_opens(keys: Keys) -> None:
    """A body that was packed with the first dictionary opens to itself."""
    sealer, opener = _parts(keys)
    key_id = sealer.seal("acme", RECORD, TEXT)[1:5]
    dictionary = zstandard.ZstdCompressionDict(DICTIONARY_1, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    packed = zstandard.ZstdCompressor(level=-1, dict_data=dictionary, write_dict_id=False).compress(TEXT)
    head, nonce = bytes([ZSTD_DICTIONARY_1]) + key_id, bytes(12)
    _, key = KeyRing(SECRET, keys, os.urandom).newest("acme")
    blob = head + nonce + key.encrypt(nonce, packed, head + RECORD + b"counterfoil/body/1\0acme")
    assert opener.open("acme", RECORD, blob) == TEXT
