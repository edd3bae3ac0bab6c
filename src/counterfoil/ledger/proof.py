"""A proof that one record stands in a signed ledger, checkable with this JSON and the public key alone.

The proof walks from the record to a signature without showing another record: the record's canonical bytes and the
digest before it give its digest; that digest with its group's others gives the group's hash; the group hashes give
the root that the checkpoint's statement holds; the statement is signed. ``docs/guarantees.md`` has the steps, and a
script of a few lines that shares no code with this one. Where the signing key was exchanged since, ``handovers`` lead
from the key that signed to the one of now.
"""

from __future__ import annotations

from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature

from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.handover import PublicKeys, read, since
from counterfoil.ledger.query import StoredRecord
from counterfoil.ledger.signing import GROUP, Statement, groups
from counterfoil.ledger.sql import QUERIES
from counterfoil.record import codec

VERSION = 1


class Uncovered(ConfigError):
    """No checkpoint covers the record yet."""


def prove(folder: DataFolder, stored: StoredRecord) -> dict[str, Any]:
    """The proof of ``stored``, all digests in hex.

    Raises :class:`Uncovered` when no checkpoint covers the record yet (within a minute of its making one does;
    ``counterfoil ledger checkpoint`` makes one now).
    """
    connection = database.open_reader(folder.ledger_db)
    try:
        writer = int(stored.chain.writer[1:])
        sequence = stored.chain.sequence
        covering = connection.execute(QUERIES["covering_checkpoint"], (writer, sequence)).get
        if covering is None:
            raise Uncovered("No checkpoint covers this record yet. Make one: counterfoil ledger checkpoint")
        first, last, last_seq, statement, signature = covering
        stretch: list[tuple[int, bytes]] = list(
            connection.execute(QUERIES["stretch"], (last_seq, writer, last - first + 2))
        )
    finally:
        connection.close()
    keys, handovers = PublicKeys.of(folder), read(folder)
    public_key = signer_of(keys, stored.chain.writer, last, statement, signature)
    digests = dict(stretch)
    digests[0] = codec.GENESIS
    if missing := [number for number in range(first - 1, last + 1) if number not in digests]:
        raise ValueError(f"The chain of {stored.chain.writer} lacks number {missing[0]}.")
    stretch_digests = [digests[number] for number in range(first, last + 1)]
    at = sequence - first
    group = at // GROUP
    return {
        "version": VERSION,
        "request_id": stored.id,
        "record": stored.data.decode(),
        "chain": msgspec.to_builtins(stored.chain),
        "previous": digests[sequence - 1].hex(),
        "place": at % GROUP,
        "group": [digest.hex() for digest in stretch_digests[group * GROUP : (group + 1) * GROUP]],
        "group_number": group,
        "groups": [digest.hex() for digest in groups(stretch_digests)],
        "statement": statement.decode(),
        "signature": signature.hex(),
        "public_key": public_key,
        "signed": msgspec.to_builtins(msgspec.json.decode(statement, type=Statement)),
        **({"handovers": msgspec.to_builtins(since(handovers, public_key))} if public_key != keys.now else {}),
    }


def signer_of(keys: PublicKeys, writer: str, last_sequence: int, statement: bytes, signature: bytes) -> str:
    """The key that signed the checkpoint; the one of now when none did, for whoever checks to find out."""
    try:
        return keys.checkpoint(writer, last_sequence, statement, signature)
    except InvalidSignature:
        return keys.now
