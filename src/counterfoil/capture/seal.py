"""Bodies at rest: compressed, then sealed with AES-256-GCM under a key of the team's own.

Keys, from the outside in:

* The folder's secret ``kek``, which can be exchanged, never encrypts anything itself; HKDF-SHA-256 derives one key a
  purpose from it, so a flaw in one use cannot reach another. This module's purpose is wrapping data keys.
* Each team has data keys of 32 random bytes, stored wrapped (AES-256-GCM under the derived key, random 96-bit nonce, a
  handful of wraps in a folder's life). The newest seals; all of them open. Destroying a team's rows destroys every body
  the team ever had, in backups of the database too, once the team's row is gone from them or the secret is.

A sealed blob::

    offset  size  field
    0       1     codec: 0 plain, 1 zstd, 2 zstd with dictionary 1, 3 zstd against another body (``sharing``), 4 zstd
                  with dictionary 2; the version of this format as well
    1       4     data key
    5       12    nonce
    17      12    codec 3 only: start and size of what is taken from the other body, and its place in this one
    17/29         ciphertext and 16 bytes of tag

The header (without the nonce), the record's id and the team are authenticated with every blob: a body moved to another
record or another team, or given another codec, does not open. Of codec 3 the other body is authenticated as well, all
of it: against another than it was packed against, a blob does not open. (At 9 GB/s that costs less than a checksum.)

Nonces. A GCM nonce must never come twice under one key. A sealer draws 64 random bits when it is made and counts in
the other 32; when the counter ends it draws again. Within a sealer nonces cannot repeat. Two sealers share a prefix
under one key with a chance of n²/2⁶⁵ for n sealers ever made on this folder: after a million starts, 3·10⁻⁸. NIST SP
800-38D allows 2⁻³² for randomly drawn nonces after 2³² messages; this construction is at that level after two million
starts, whatever the number of messages. Rejected: 96 random bits a message (a system call each, and a limit of 2³²
messages a key), and the record's id as the nonce (an id is unique only as long as nobody restores a clock and a
random generator's state).

Compression before encryption reveals lengths. An attacker who could choose part of a body and watch the size of the
blob could guess at the rest; whoever can watch the database's blobs already holds the data folder.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from counterfoil.capture import sharing
from counterfoil.capture.dictionary import DICTIONARY_1, DICTIONARY_2
from counterfoil.capture.sharing import Stretch

PLAIN: Final = 0
ZSTD: Final = 1
ZSTD_DICTIONARY_1: Final = 2
ZSTD_BASE: Final = 3
ZSTD_DICTIONARY_2: Final = 4

BODY_BYTES_MAX: Final = 1 << 30
"""What a body may unpack to: SQLite's own limit for one value."""

_DICTIONARY_BYTES_MAX = 16 * 1024  # a larger body has learned its own words by then
# A large body takes milliseconds if one lets it. What it takes are its short matches, each of them a few guesses that
# the processor gets wrong; a table of 16 KB forgets many of those, and stays in the nearest cache (decision 0007).
_LARGE_HASH_LOG = 12
_LARGE_MIN_MATCH = 7
_LARGE_WINDOW_LOG = 19
_PLAIN_BELOW_BYTES = 96
_SMALL_LEVEL = 1
_HEAD_BYTES = 5
_NONCE_BYTES = 12
_PLACE_AT = _HEAD_BYTES + _NONCE_BYTES
_PLACE = struct.Struct("<III")
_KEY_BYTES = 32
_NONCE_PREFIX_BYTES = 8
_COUNTER_END = 1 << 32
WRAP_PURPOSE: Final = b"counterfoil/wrap-data-key/1"
_BODY_PURPOSE = b"counterfoil/body/1\0"
_COMMITMENT_PURPOSE = b"counterfoil/body-commitment/1"


class DataKey(NamedTuple):
    """One wrapped data key as it is stored."""

    key_id: int
    wrapped: bytes


class DataKeyStore(Protocol):
    """Where wrapped data keys live. Durable on return."""

    def newest(self, team_id: str) -> DataKey | None: ...

    def get(self, key_id: int) -> DataKey | None: ...

    def add(self, team_id: str, wrapped: bytes) -> int:
        """Store a new key; give its id (1 … 2³²-1)."""
        ...


class BodyUnreadable(Exception):
    """A sealed body does not open: its key is gone, or the blob is damaged or stands in the wrong place."""


class KeyRing:
    """Wraps and unwraps teams' data keys. ``secret`` is the folder's ``sealing``; ``entropy(n)`` gives random bytes.

    Its first 32 bytes wrap. Those behind them, which are there once the first were exchanged, are what bodies are
    committed to with; until then that follows from the first.
    """

    def __init__(self, secret: bytes, store: DataKeyStore, entropy: Callable[[int], bytes]) -> None:
        self._wrapping = AESGCM(derive(secret[:_KEY_BYTES], WRAP_PURPOSE))
        self._commitment = secret[_KEY_BYTES:] or commitment_key(secret)
        self._store = store
        self._entropy = entropy

    def newest(self, team_id: str) -> tuple[int, AESGCM]:
        """The key that seals for ``team_id``, made when the team has none."""
        stored = self._store.newest(team_id)
        if stored is not None:
            return stored.key_id, self._unwrap(team_id, stored)
        return self.make(team_id)

    def make(self, team_id: str) -> tuple[int, AESGCM]:
        """A new key that seals for ``team_id`` from now on."""
        nonce = self._entropy(_NONCE_BYTES)
        key = self._entropy(32)
        wrapped = nonce + self._wrapping.encrypt(nonce, key, WRAP_PURPOSE + team_id.encode())
        return self._store.add(team_id, wrapped), AESGCM(key)

    def key(self, team_id: str, key_id: int) -> AESGCM:
        """Raises :class:`BodyUnreadable` when the key was destroyed or is not this team's."""
        stored = self._store.get(key_id)
        if stored is None:
            raise BodyUnreadable(f"The data key {key_id} does not exist any more.")
        return self._unwrap(team_id, stored)

    def commitment(self, record_id: bytes, body: bytes) -> str:
        """A commitment to ``body``, however it is packed: HMAC-SHA-256, in hex. Tells nothing without the secret."""
        code = hmac.new(self._commitment, record_id, "sha256")
        code.update(body)
        return code.hexdigest()

    def _unwrap(self, team_id: str, stored: DataKey) -> AESGCM:
        nonce, sealed = stored.wrapped[:_NONCE_BYTES], stored.wrapped[_NONCE_BYTES:]
        try:
            return AESGCM(self._wrapping.decrypt(nonce, sealed, WRAP_PURPOSE + team_id.encode()))
        except (InvalidTag, ValueError) as error:
            raise BodyUnreadable(
                f"The data key {stored.key_id} does not unwrap; is this the folder's secret?"
            ) from error


class Sealer:
    """Compresses and seals bodies. For one thread: its compressors and its nonce counter are not shared."""

    def __init__(self, ring: KeyRing, entropy: Callable[[int], bytes]) -> None:
        self._ring = ring
        self._entropy = entropy
        self._keys: dict[str, tuple[bytes, AESGCM, bytes]] = {}
        self._prefix = entropy(_NONCE_PREFIX_BYTES)
        self._counter = 0
        dictionary = _dictionary_2()
        dictionary.precompute_compress(level=_SMALL_LEVEL)  # pyright: ignore[reportUnknownMemberType]
        self._small = zstandard.ZstdCompressor(level=_SMALL_LEVEL, dict_data=dictionary, write_dict_id=False).compress
        self._large = zstandard.ZstdCompressor(compression_params=_large_parameters()).compress

    def seal(self, team_id: str, record_id: bytes, body: bytes, taken: Stretch | None = None) -> bytes:
        """The sealed blob of ``body``, which only opens with the base it has ``taken`` a stretch from, if any.

        Raises :class:`BodyUnreadable` when the team's key cannot be used.
        """
        key = self._keys.get(team_id)
        if key is None:
            key = self._key(team_id)
        codec, packed = self._pack(body) if taken is None else (_BASE_CODE, sharing.pack(taken, body))
        counter = self._counter
        if counter == _COUNTER_END:
            self._prefix = self._entropy(_NONCE_PREFIX_BYTES)
            counter = 0
        self._counter = counter + 1
        head = codec + key[0]
        nonce = self._prefix + counter.to_bytes(4, "big")
        if taken is None:
            return head + nonce + key[1].encrypt(nonce, packed, head + record_id + key[2])
        place = _PLACE.pack(taken.start, taken.size, taken.at)
        bound_to = b"".join((head, record_id, place, key[2], taken.base))
        return b"".join((head, nonce, place, key[1].encrypt(nonce, packed, bound_to)))

    def commitment(self, record_id: bytes, body: bytes) -> str:
        """See :meth:`KeyRing.commitment`."""
        return self._ring.commitment(record_id, body)

    def _key(self, team_id: str) -> tuple[bytes, AESGCM, bytes]:
        key_id, key = self._ring.newest(team_id)
        entry = (key_id.to_bytes(4, "little"), key, _BODY_PURPOSE + team_id.encode())
        self._keys[team_id] = entry
        return entry

    def _pack(self, body: bytes) -> tuple[bytes, bytes]:
        size = len(body)
        if size < _PLAIN_BELOW_BYTES:
            return _PLAIN_CODE, body
        if size <= _DICTIONARY_BYTES_MAX:
            return _DICTIONARY_2_CODE, self._small(body)
        packed = self._large(body)
        return (_ZSTD_CODE, packed) if len(packed) < size else (_PLAIN_CODE, body)


class Opener:
    """Opens sealed bodies. For one thread."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._keys: dict[tuple[str, int], AESGCM] = {}
        self._zstd = zstandard.ZstdDecompressor()
        self._zstd_dictionary_1 = zstandard.ZstdDecompressor(dict_data=_dictionary_1())
        self._zstd_dictionary_2 = zstandard.ZstdDecompressor(dict_data=_dictionary_2())

    def open(self, team_id: str, record_id: bytes, sealed: bytes, base: bytes | None = None) -> bytes:
        """The body in ``sealed``, with the body it was packed against if any. Raises :class:`BodyUnreadable`."""
        head = sealed[:_HEAD_BYTES]
        key_id = key_id_of(sealed)
        key = self._keys.get((team_id, key_id))
        if key is None:
            key = self._keys[team_id, key_id] = self._ring.key(team_id, key_id)
        nonce, text_at = sealed[_HEAD_BYTES:_PLACE_AT], _PLACE_AT
        bound_to = head + record_id + _BODY_PURPOSE + team_id.encode()
        taken: Stretch | None = None
        try:
            if head[0] == ZSTD_BASE:
                if base is None:
                    raise BodyUnreadable("The body that this one was packed against is not there.")
                text_at += _PLACE.size
                place = sealed[_PLACE_AT:text_at]
                taken = Stretch(base, *_PLACE.unpack(place))
                bound_to = b"".join((head, record_id, place, _BODY_PURPOSE, team_id.encode(), base))
            return self._unpack(head[0], key.decrypt(nonce, sealed[text_at:], bound_to), taken)
        except (InvalidTag, ValueError, struct.error, zstandard.ZstdError) as error:
            raise BodyUnreadable("The sealed body is damaged, or belongs to another record.") from error

    def _unpack(self, codec: int, packed: bytes, taken: Stretch | None) -> bytes:
        if codec == PLAIN:
            return packed
        if codec == ZSTD:
            return self._zstd.decompress(packed, max_output_size=BODY_BYTES_MAX)
        if codec == ZSTD_DICTIONARY_2:
            return self._zstd_dictionary_2.decompress(packed, max_output_size=BODY_BYTES_MAX)
        if codec == ZSTD_DICTIONARY_1:
            return self._zstd_dictionary_1.decompress(packed, max_output_size=BODY_BYTES_MAX)
        if taken is not None:
            return sharing.unpack(taken, packed)
        raise BodyUnreadable(f"The body was sealed with codec {codec}, which this version does not know.")


def commitment_key(kek: bytes) -> bytes:
    """What bodies are committed to with under a folder's first ``kek``."""
    return derive(kek, _COMMITMENT_PURPOSE)


class Resealer:
    """Seals what was sealed under one kek under another; ``done`` and ``unreadable`` count.

    Called with the purpose of the key, what the blob is bound to, and the blob (nonce, ciphertext). Gives the new blob,
    None where there is nothing to do: it is under the new kek already, or opens under neither.
    """

    def __init__(self, old: bytes, new: bytes, entropy: Callable[[int], bytes]) -> None:
        self._old = old
        self._new = new
        self._entropy = entropy
        self.done = 0
        self.unreadable = 0

    def __call__(self, purpose: bytes, bound_to: bytes, sealed: bytes) -> bytes | None:
        new = AESGCM(derive(self._new, purpose))
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        if _opened(new, nonce, text, bound_to) is not None:
            return None
        plain = _opened(AESGCM(derive(self._old, purpose)), nonce, text, bound_to)
        if plain is None:
            self.unreadable += 1
            return None
        self.done += 1
        fresh = self._entropy(_NONCE_BYTES)
        return fresh + new.encrypt(fresh, plain, bound_to)


def _opened(cipher: AESGCM, nonce: bytes, text: bytes, bound_to: bytes) -> bytes | None:
    try:
        return cipher.decrypt(nonce, text, bound_to)
    except (InvalidTag, ValueError):
        return None


def key_id_of(sealed: bytes) -> int:
    """The data key that a sealed blob names."""
    return int.from_bytes(sealed[1:_HEAD_BYTES], "little")


def derive(secret: bytes, purpose: bytes) -> bytes:
    """The 32-byte key for one purpose (RFC 5869, HKDF with SHA-256, no salt: the secret is uniform already)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(secret)


def _large_parameters() -> zstandard.ZstdCompressionParameters:
    return zstandard.ZstdCompressionParameters.from_level(  # pyright: ignore[reportUnknownMemberType]
        1, window_log=_LARGE_WINDOW_LOG, hash_log=_LARGE_HASH_LOG, min_match=_LARGE_MIN_MATCH
    )


def _dictionary_1() -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(DICTIONARY_1, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _dictionary_2() -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(DICTIONARY_2, dict_type=zstandard.DICT_TYPE_FULLDICT)


_PLAIN_CODE: Final = bytes([PLAIN])
_ZSTD_CODE: Final = bytes([ZSTD])
_DICTIONARY_2_CODE: Final = bytes([ZSTD_DICTIONARY_2])
_BASE_CODE: Final = bytes([ZSTD_BASE])
