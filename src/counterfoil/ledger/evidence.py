"""What the ledger shows to others of its own accord: proofs of single records, and its signed checkpoints.

Both are made to be checked elsewhere, by whoever keeps the public key: a proof by a script of a few lines, checkpoints
by ``ledger verify --checkpoints``, which takes the very lines that :meth:`Evidence.checkpoints` gives.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from counterfoil.errors import CallerFault
from counterfoil.folder import DataFolder
from counterfoil.ledger.database import open_reader, readable
from counterfoil.ledger.handover import PublicKeys
from counterfoil.ledger.proof import Uncovered, prove, signer_of
from counterfoil.ledger.query import LedgerReader, StoredRecord
from counterfoil.ledger.signing import Statement
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.witness import Witnessed

CHECKPOINTS_MAX: Final = 1_000


class Shown(Struct, frozen=True):
    """One checkpoint: its place among all of the ledger's, the line that a second place keeps, and what it says."""

    number: int
    line: Witnessed
    said: Statement


class Evidence:
    """Reads one data folder. Safe from any thread; opens the database for each question."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def proof(self, stored: StoredRecord) -> dict[str, Any]:
        """The proof of ``stored``. Raises :class:`CallerFault` ``conflict`` when no checkpoint covers it yet."""
        try:
            with readable():
                return prove(self._folder, stored)
        except Uncovered as error:
            message = "No checkpoint covers this record yet. A running gateway signs one every minute: ask again."
            raise CallerFault("conflict", message) from error

    def checkpoints(self, after: int | None = None, before: int | None = None, limit: int = 50) -> list[Shown]:
        """Checkpoints behind number ``after``, ascending; without it the newest (before ``before``), descending."""
        keys = PublicKeys.of(self._folder)
        with readable():
            LedgerReader.prepare(self._folder)
            connection = open_reader(self._folder.ledger_db)
            try:
                if after is not None:
                    rows = list(connection.execute(QUERIES["checkpoints_after"], (after, limit)))
                else:
                    rows = list(connection.execute(QUERIES["checkpoints_before"], (before, limit)))
            finally:
                connection.close()
            return [_shown(keys, *row) for row in rows]


def _shown(keys: PublicKeys, number: int, statement: bytes, signature: bytes) -> Shown:
    said = msgspec.json.decode(statement, type=Statement)
    public_key = signer_of(keys, said.writer, said.last_sequence, statement, signature)
    return Shown(number, Witnessed(statement.decode(), signature.hex(), public_key), said)
