"""The ledger's part when a secret of the folder is exchanged. Nobody else may have the folder meanwhile.

No record, no sealed body and no digest changes: a new kek wraps the same data keys, and one more for each team; a new
signing key begins where the old one has handed over.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

import apsw
import msgspec

from counterfoil.capture.seal import WRAP_PURPOSE, KeyRing
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder, replace_whole
from counterfoil.ledger import database, handover
from counterfoil.ledger.handover import End
from counterfoil.ledger.intents import writer_numbers
from counterfoil.ledger.signing import Signer, writer_name
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import Store, StoredKeys


def rewrap(folder: DataFolder, kek: bytes, reseal: Callable[[bytes, bytes, bytes], bytes | None]) -> None:
    """Wrap every team's data keys anew, all or none, and give each of these teams a new one under the new ``kek``.

    So what is sealed from now on is under a key that the old kek never wrapped. Raises :class:`apsw.Error`.
    """
    if not folder.ledger_db.exists():
        return
    connection = database.open_writer(folder.ledger_db, "fsync")
    ring = KeyRing(kek, StoredKeys(connection), os.urandom)
    try:
        connection.execute("BEGIN IMMEDIATE")
        teams: set[str] = set()
        for key_id, team_id, wrapped in list(connection.execute(QUERIES["wrapped_keys"])):
            fresh = reseal(WRAP_PURPOSE, WRAP_PURPOSE + team_id.encode(), wrapped)
            if fresh is not None:
                connection.execute(QUERIES["rewrap_key"], (fresh, key_id))
                teams.add(team_id)
        for team_id in sorted(teams):
            ring.make(team_id)
        connection.execute("COMMIT")
        with contextlib.suppress(apsw.BusyError):  # a reader is there: then the next start of a gateway does it
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)  # the log keeps nothing of before
    finally:
        connection.close()


def hand_over(folder: DataFolder, old: bytes, new: bytes, now_ms: Callable[[], int]) -> int:
    """Have the signing key of seed ``old`` sign every chain's end and hand over to that of ``new``; give the chains.

    Durable on return. Again, with the same seeds, does no harm. Raises :class:`apsw.Error`, :class:`ConfigError`.
    """
    following = Signer(new, now_ms)
    done = handover.read(folder)
    handed_over = bool(done) and f'"next":"{following.public_key.hex()}"' in done[-1].statement
    stores = list(_stores(folder))
    try:
        if not handed_over:
            chains = {writer_name(store.writer): _signed_end(store, Signer(old, now_ms)) for store in stores}
            _keep(folder, [*done, handover.hand_over(old, new, now_ms(), chains)])
        for store in stores:
            store.sign(following)  # so that the newest checkpoint, which a gateway sends again, is under the newest key
    finally:
        for store in stores:
            store.close()
    return len(stores)


def _stores(folder: DataFolder) -> list[Store]:
    if not folder.ledger_db.exists():
        return []
    first = database.open_writer(folder.ledger_db, "fsync")
    signed = {number for (number,) in first.execute(QUERIES["checkpoint_writers"])}  # a copy of a folder has no journal
    first.close()
    writers = sorted(signed | set(writer_numbers(folder.journal)))
    return [Store(database.open_writer(folder.ledger_db, "fsync"), number) for number in writers]


def _signed_end(store: Store, signer: Signer) -> End:
    said = store.sign(signer).said
    return End(said.last_sequence, said.digest)


def _keep(folder: DataFolder, handovers: list[handover.Handover]) -> None:
    """Write the handovers, whole or not at all. Raises :class:`ConfigError`."""
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in handovers)
    try:
        replace_whole(folder.handovers, lines)
    except OSError as error:
        raise ConfigError(f"{folder.handovers} cannot be written ({error.strerror or error}).") from error
