"""Inspecting a ledger's records by several processes, each a part of the ledger.

A chain is one thing after another, a record is checked on its own: so whoever walks the chains can leave the records to
others. Each process reads with a connection of its own, and so at another moment than the chain is read. That changes
nothing: records are only ever added, each part ends at a place that was there at the beginning, and a record's bodies
come, go and are signed away together with what says so.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final

import apsw
from msgspec import Struct

from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.bodies import Commitments
from counterfoil.ledger.handover import PublicKeys
from counterfoil.ledger.inspection import Inspector, Problem
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.sql import QUERIES

PART_RECORDS_MIN: Final = 50_000
"""Records that make another process worth its start of half a second."""

DAMAGE: Final = (apsw.CorruptError, AttributeError, TypeError, ValueError, OverflowError)
"""What reading a damaged file raises. The tables are STRICT: a value of a wrong type is damage like any other."""


class Inspected(Struct, frozen=True):
    """What one part came to."""

    bodies: int
    keys: set[tuple[str, int]]
    problems: list[Problem]


class Crew:
    """So many processes as are worth their while for ``records`` records, each with a part of them under way."""

    def __init__(self, folder: DataFolder, now_ms: int, records: int, workers: int) -> None:
        """``workers`` is how many processes at most."""
        parts = list(_parts(records, min(workers, records // PART_RECORDS_MIN)))
        self._pool = ProcessPoolExecutor(len(parts), get_context("spawn"))  # a connection does not survive a fork
        self._parts: list[Future[Inspected]] = [
            self._pool.submit(_inspected, folder, now_ms, first, last) for first, last in parts
        ]

    def results(self) -> Iterable[Inspected]:
        """Each part's result, in the order of the ledger, once it is there."""
        return (part.result() for part in self._parts)

    def close(self) -> None:
        """Let go of the processes; what has not begun is not begun any more."""
        self._pool.shutdown(cancel_futures=True)


def _parts(records: int, count: int) -> Iterable[tuple[int, int]]:
    """``count`` stretches of equal length: the places behind which each begins, and with which it ends."""
    edges = [records * number // count for number in range(count + 1)]
    return itertools.pairwise(edges)


def _inspected(folder: DataFolder, now_ms: int, first: int, last: int) -> Inspected:
    gc.disable()  # inspecting makes no cycles, and this process ends with it
    connection = database.open_reader(folder.ledger_db)
    commitments = Commitments(connection, folder.sealing())
    inspector = Inspector(folder.books, PublicKeys.of(folder), now_ms, commitments)
    unpack = Unpacker().unpack
    try:
        for row in connection.execute(QUERIES["deep_records"], (first, last)):
            try:
                data = unpack(row[4])
            except ValueError:
                data = b""  # the chain says so
            inspector.row(row, data)
    except DAMAGE as error:
        inspector.add("damaged", None, 0, "", f"the database file is damaged ({error})")
    finally:
        connection.close()
    return Inspected(inspector.bodies, inspector.keys, inspector.problems)
