"""How one signing key hands over to the next, so that what the old one signed stays proven and nothing more can be.

A handover is a statement that names both public keys and says where every writer's chain stood. The old key signs it,
so that whoever noted that one can follow; the new key signs it too, so that whoever knows the new one can go back. It
pins what the old key may have signed: a checkpoint up to the place where its chain was handed over, whose digest there
commits to all before it; an erasure until that time. Somebody who found the old key later can sign nothing with it that
a verification believes, except an erasure that says it was made earlier.

They lie, one JSON line each, oldest first, in ``secrets/handovers.jsonl``; nothing in them is secret.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Struct

from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger.signing import Signer, checkpoint_message, erasure_message

_PURPOSE: Final = b"counterfoil/handover/1\0"


class End(Struct, frozen=True):
    """Where a writer's chain stood: its last record's number, and its digest in hex."""

    last_sequence: int
    digest: str


class Said(Struct, frozen=True, forbid_unknown_fields=True):
    """What a handover says. Keys are in hex; ``chains`` by the writer's name."""

    version: int
    previous: str
    next: str
    handed_over_at_ms: int
    chains: dict[str, End]


class Handover(Struct, frozen=True):
    """One line: the statement's JSON as text, and the signatures over it by both keys, in hex."""

    statement: str
    signature: str
    countersignature: str


def hand_over(old: bytes, new: bytes, now_ms: int, chains: Mapping[str, End]) -> Handover:
    """The handover from the key of seed ``old`` to that of ``new``."""
    keys = [Ed25519PrivateKey.from_private_bytes(seed) for seed in (old, new)]
    previous, following = (key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex() for key in keys)
    said = Said(version=1, previous=previous, next=following, handed_over_at_ms=now_ms, chains=dict(chains))
    statement = msgspec.json.encode(said, order="deterministic")
    signature, countersignature = (key.sign(_PURPOSE + statement).hex() for key in keys)
    return Handover(statement.decode(), signature, countersignature)


def read(folder: DataFolder) -> list[Handover]:
    """The handovers of ``folder``, oldest first. Raises :class:`ConfigError` when they cannot be read."""
    try:
        lines = folder.handovers.read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Handover) for line in lines]
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{folder.handovers} cannot be read. Restore it from a backup.") from error


class _Trusted:
    """A public key, and what of its signatures counts: everything, or what ``said``, its handover, leaves to it."""

    def __init__(self, public: str, said: Said | None) -> None:
        self.public = public
        self.said = said
        self.key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))

    def signed(self, signature: bytes, message: bytes) -> bool:
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class PublicKeys:
    """The keys that may have signed a ledger: the one of now, and those that handed over to it.

    ``problem`` says what is wrong with the handovers; the keys before it are not believed.
    """

    def __init__(self, public: str, handovers: Sequence[Handover]) -> None:
        self.now = public
        self.problem: str | None = None
        self._keys = [_Trusted(public, None)]
        for handover in reversed(handovers):
            said = _checked(handover, self._keys[-1].public)
            if said is None:
                self.problem = "a handover of the signing key was altered, or leads to another key"
                break
            self._keys.append(_Trusted(said.previous, said))

    @classmethod
    def of(cls, folder: DataFolder) -> PublicKeys:
        """Those of ``folder``. Raises :class:`ConfigError`."""
        return cls(Signer(folder.secret("signing"), lambda: 0).public_key.hex(), read(folder))

    @property
    def handed_over(self) -> list[Said]:
        """What was handed over, the newest first."""
        return [key.said for key in self._keys if key.said is not None]

    def checkpoint(self, writer: str, last_sequence: int, statement: bytes, signature: bytes) -> str:
        """The key, in hex, that signed a checkpoint. Raises :class:`InvalidSignature` when none did that may have."""
        message = checkpoint_message(statement)
        for key in self._keys:
            end = None if key.said is None else key.said.chains.get(writer, End(0, ""))
            if (end is None or last_sequence <= end.last_sequence) and key.signed(signature, message):
                return key.public
        raise InvalidSignature

    def erasure(self, identity: bytes, erased_at_ms: int, reason: str, signature: bytes) -> None:
        """Raises :class:`InvalidSignature` unless an erasure is signed by a key that may have."""
        message = erasure_message(identity, erased_at_ms, reason)
        for key in self._keys:
            if (key.said is None or erased_at_ms <= key.said.handed_over_at_ms) and key.signed(signature, message):
                return
        raise InvalidSignature


def since(handovers: Sequence[Handover], public: str) -> list[Handover]:
    """The handovers that lead from the key ``public`` (in hex) to the one of now; none for that one."""
    for number, handover in enumerate(handovers):
        if msgspec.json.decode(handover.statement, type=Said).previous == public:
            return list(handovers[number:])
    return []


def _checked(handover: Handover, following: str) -> Said | None:
    """What a handover to the key ``following`` says, None when it is none."""
    try:
        said = msgspec.json.decode(handover.statement, type=Said)
        message = _PURPOSE + handover.statement.encode()
        if said.next != following:
            return None
        for public, signature in ((said.previous, handover.signature), (said.next, handover.countersignature)):
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError, msgspec.MsgspecError):
        return None
    return said
