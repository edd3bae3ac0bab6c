"""Signed checkpoints: what a writer's chain was at a moment, in a form that a third party can keep and check.

A chain of digests shows any change to a record behind a digest that somebody remembers. Checkpoints are that memory:
every :data:`PERIOD_S` with news, every :data:`IDLE_PERIOD_S` without, and after :data:`RECORDS_MAX` records in any
case, the writer signs (Ed25519) where its chain stands. Kept in the ledger they reveal edits by whoever has no key;
written to a second place as well they reveal a truncated or rolled-back ledger, for the place remembers a sequence
the ledger no longer has.

A statement also commits to every digest of its stretch of the chain, through ``root``: digests in groups of 64, each
group hashed, the group hashes hashed. So one record can be proven under a checkpoint by at most 63 neighbouring
digests and 64 group hashes, without showing a byte of any other record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from counterfoil.ledger.witness import Witness, line_of

PERIOD_S: Final = 60.0
IDLE_PERIOD_S: Final = 600.0
RECORDS_MAX: Final = 4096
GROUP: Final = 64

_ERASURE_PURPOSE = b"counterfoil/erasure/1\0"
_CHECKPOINT_PURPOSE = b"counterfoil/checkpoint/1\0"


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint says.

    ``first_sequence`` … ``last_sequence`` is the stretch since the one before (empty: first is last plus one);
    ``digest`` is the chain's end and ``root`` the commitment to the stretch's digests, both in hex. ``last_seq`` is the
    newest record of any writer at that moment.
    """

    version: int
    writer: str
    first_sequence: int
    last_sequence: int
    last_seq: int
    digest: str
    root: str
    signed_at_ms: int


class Checkpoint(Struct, frozen=True):
    """A signed statement: what it says, its canonical JSON, and the signature over that."""

    said: Statement
    statement: bytes
    signature: bytes


class Signer:
    """Makes checkpoints. ``seed`` is the folder's ``signing`` secret; ``now_ms`` the wall clock in Unix milliseconds.

    ``witnesses`` hand each checkpoint over to a second place.
    """

    def __init__(self, seed: bytes, now_ms: Callable[[], int], witnesses: Sequence[Witness] = ()) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._now_ms = now_ms
        self._witnesses = witnesses
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def checkpoint(
        self, writer: int, last_sequence: int, digest: bytes, stretch: Sequence[bytes], last_seq: int
    ) -> Checkpoint:
        """The checkpoint of a chain that ends at ``digest``; ``stretch`` has its digests since the last, in order."""
        said = Statement(
            version=1,
            writer=writer_name(writer),
            first_sequence=last_sequence - len(stretch) + 1,
            last_sequence=last_sequence,
            last_seq=last_seq,
            digest=digest.hex(),
            root=root(stretch).hex(),
            signed_at_ms=self._now_ms(),
        )
        statement = msgspec.json.encode(said)
        return Checkpoint(said, statement, self._key.sign(_CHECKPOINT_PURPOSE + statement))

    def erasure(self, identity: bytes, erased_at_ms: int, reason: str) -> bytes:
        """The signature of the statement that the bodies of record ``identity`` were erased on purpose."""
        return self._key.sign(erasure_message(identity, erased_at_ms, reason))

    def witness(self, checkpoint: Checkpoint) -> None:
        """Hand the checkpoint over to the second places there are; returns at once."""
        if self._witnesses:
            self._hand(checkpoint.said.writer, checkpoint.statement, checkpoint.signature)

    def remind(self, writer: int, statement: bytes, signature: bytes) -> None:
        """Hand over a checkpoint of an earlier process again; a place that has it keeps it once."""
        self._hand(writer_name(writer), statement, signature)

    def _hand(self, writer: str, statement: bytes, signature: bytes) -> None:
        line = line_of(statement, signature, self.public_key)
        for witness in self._witnesses:
            witness.hand(writer, line)


def checkpoint_message(statement: bytes) -> bytes:
    """What a checkpoint's signature is over."""
    return _CHECKPOINT_PURPOSE + statement


def erasure_message(identity: bytes, erased_at_ms: int, reason: str) -> bytes:
    """What an erasure's signature is over."""
    return _ERASURE_PURPOSE + identity + erased_at_ms.to_bytes(8, "big") + reason.encode()


def groups(stretch: Sequence[bytes]) -> list[bytes]:
    """The hash of every group of :data:`GROUP` digests, the last one shorter."""
    return [sha256(b"".join(stretch[at : at + GROUP])).digest() for at in range(0, len(stretch), GROUP)]


def root(stretch: Sequence[bytes]) -> bytes:
    """The commitment to ``stretch``."""
    return sha256(b"".join(groups(stretch))).digest()


def writer_name(number: int) -> str:
    """A writer as records and checkpoints name it."""
    return f"w{number}"
