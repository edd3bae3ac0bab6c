"""What the ledger shows to others of its own accord: proofs of single records, and its signed checkpoints.

Both are made to be checked elsewhere, by whoever keeps the public key: a proof by a script of a few lines, checkpoints
by ``ledger verify --checkpoints``, which takes the very lines that :meth:`Evidence.checkpoints` gives.
"""

from __future__ import annotations

from typing import Any, Final

import apsw
import msgspec
from msgspec import Struct

from counterfoil.errors import CallerFault, GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.proof import Uncovered, prove
from counterfoil.ledger.query import LedgerReader, StoredRecord
from counterfoil.ledger.signing import Signer, Statement
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
            return prove(self._folder, stored)
        except Uncovered as error:
            message = "No checkpoint covers this record yet. A running gateway signs one every minute: ask again."
            raise CallerFault("conflict", message) from error
        except apsw.Error as error:
            raise _unreadable() from error

    def checkpoints(self, after: int | None = None, before: int | None = None, limit: int = 50) -> list[Shown]:
        """Checkpoints behind number ``after``, ascending; without it the newest (before ``before``), descending."""
        public_key = Signer(self._folder.secret("signing"), lambda: 0).public_key.hex()
        try:
            LedgerReader.prepare(self._folder)
            connection = database.open_reader(self._folder.ledger_db)
            try:
                if after is not None:
                    rows = list(connection.execute(QUERIES["checkpoints_after"], (after, limit)))
                else:
                    rows = list(connection.execute(QUERIES["checkpoints_before"], (before, limit)))
            finally:
                connection.close()
            return [
                Shown(
                    number,
                    Witnessed(statement.decode(), signature.hex(), public_key),
                    msgspec.json.decode(statement, type=Statement),
                )
                for number, statement, signature in rows
            ]
        except (apsw.Error, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _unreadable() from error


def _unreadable() -> GatewayFault:
    return GatewayFault("ledger_unavailable", "The ledger cannot be read.")
