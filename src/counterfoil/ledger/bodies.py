"""Stored bodies opened, and kept readable when what they were packed against goes."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from typing import Final

import apsw

from counterfoil.capture.seal import ZSTD_BASE, BodyUnreadable, KeyRing, Opener, Sealer
from counterfoil.capture.sharing import DEPTH_MAX
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import StoredKeys

PLAINS_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a verification keeps unpacked, so that it unpacks each turn of a conversation once."""


class Plains:
    """Bodies that were unpacked lately: whoever reads the next turn of a conversation then unpacks one and not all.

    Safe from any thread. A body never changes, however it is packed, so what is here is never out of date; whether a
    body may still be read is for its row to say.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._plains: dict[int, bytes] = {}  # oldest first
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, seq: int | None) -> bytes | None:
        """The body of the record at ``seq``, if it is here."""
        return None if seq is None else self._plains.get(seq)

    def put(self, seq: int, plain: bytes) -> None:
        """Keep a body, and drop the oldest."""
        with self._lock:
            if seq not in self._plains:
                self._plains[seq] = plain
                self._bytes += len(plain)
            while self._bytes > self._bytes_max:
                self._bytes -= len(self._plains.pop(next(iter(self._plains))))


def opened(
    connection: apsw.Connection, opener: Opener, plains: Plains, team_id: str, identity: bytes, seq: int, sealed: bytes
) -> bytes:
    """The body ``sealed`` of the record at ``seq``. Raises :class:`BodyUnreadable`."""
    if sealed[:1] != _BASE_CODE:
        return opener.open(team_id, identity, sealed)
    base = plains.get(connection.execute(QUERIES["shared_base"], (seq,)).get)
    one = base is not None
    plain = opener.open(team_id, identity, sealed, base) if one else chained(connection, opener, team_id, seq)
    plains.put(seq, plain)
    return plain


def chained(connection: apsw.Connection, opener: Opener, team_id: str, seq: int) -> bytes:
    """The body at ``seq``, read with what it was packed against, in one snapshot. Raises :class:`BodyUnreadable`."""
    plain: bytes | None = None
    rows = list(connection.execute(QUERIES["body_chain"], (seq, DEPTH_MAX)))
    for _, identity, sealed in rows:
        plain = opener.open(team_id, identity, sealed, plain)
    if plain is None or rows[-1][0] != seq:
        raise BodyUnreadable("The body is not there any more.")
    return plain


class Commitments:
    """Holds bodies that share with others to what their records commit to. ``secret`` is the folder's ``sealing``.

    In the order of commit each is opened with the one before it already unpacked.
    """

    def __init__(self, connection: apsw.Connection, secret: bytes) -> None:
        self._connection = connection
        self._ring = KeyRing(secret, StoredKeys(connection), bytes)
        self._opener = Opener(self._ring)
        self._plains = Plains(PLAINS_BYTES_MAX)

    def hold(self, team_id: str, identity: bytes, sealed: bytes, digest: str | None) -> bool:
        """Whether ``sealed`` holds what ``digest`` commits to."""
        found = self._connection.execute(QUERIES["find_by_id"], (identity, team_id)).get
        try:
            return found is not None and digest == self._ring.commitment(
                identity, self._opened(team_id, identity, found[0], sealed)
            )
        except BodyUnreadable:
            return False

    def _opened(self, team_id: str, identity: bytes, seq: int, sealed: bytes) -> bytes:
        return opened(self._connection, self._opener, self._plains, team_id, identity, seq, sealed)


class Parting:
    """Gives bodies that need others a blob that needs none, before the others go.

    Their records commit to what they hold, not to the blob, so they verify as before. One that cannot be opened stays
    as it is. :meth:`ahead` does nearly all of it in transactions of one body each, so that no commit waits for long;
    :meth:`rest` does what came meanwhile, in the transaction that deletes.
    """

    def __init__(self, connection: apsw.Connection, opener: Opener, sealer: Sealer) -> None:
        self._connection = connection
        self._opener = opener
        self._sealer = sealer

    def ahead(self, going: Collection[int]) -> None:
        """Part from ``going`` what does not go itself. Outside any transaction."""
        execute = self._connection.execute
        for base, seq, sealed in self._parted(going):
            execute("BEGIN IMMEDIATE")
            if execute(QUERIES["shared_base"], (seq,)).get == base:
                self._replace(seq, sealed)
            execute("COMMIT")

    def rest(self, going: Collection[int]) -> None:
        """Part what is left. In the transaction that deletes ``going``."""
        for _, seq, sealed in self._parted(going):
            self._replace(seq, sealed)

    def _parted(self, going: Collection[int]) -> Iterator[tuple[int, int, bytes]]:
        """What it needs, place and new blob of each body that needs one of ``going`` and stays."""
        for base in going:
            for seq, identity, team_id in list(self._connection.execute(QUERIES["packed_against"], (base,))):
                if seq not in going:
                    try:
                        plain = chained(self._connection, self._opener, team_id, seq)
                        yield base, seq, self._sealer.seal(team_id, identity, plain)
                    except BodyUnreadable:
                        continue

    def _replace(self, seq: int, sealed: bytes) -> None:
        self._connection.execute(QUERIES["replace_body"], (sealed, seq))
        self._connection.execute(QUERIES["delete_shared"], (seq,))


_BASE_CODE = bytes([ZSTD_BASE])
