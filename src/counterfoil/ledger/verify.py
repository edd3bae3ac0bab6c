"""Checking that nothing was altered, lost or put in: every promise a ledger makes about itself, recomputed.

The chain, at more than 100,000 records a second and core:

- *sequence*: each writer's records count 1, 2, 3 … in the order of commit, without a gap or a repeat;
- *digest*: SHA-256 over the digest before it and the record's canonical bytes, so any edit, swap or insertion shows;
- *checkpoints*: signed by this folder's key, or one that handed over to it, without gaps, in agreement with the chain.
  A checkpoint beyond the end of the chain (here, or in the second place) is a ledger that was cut or rolled back.

And, unless only the chain is asked for:

- *record*: the columns that lists and sums use say what the canonical bytes say, and ``cost_nanos`` is the sum of the
  lines, each of which is its quantity times its rate;
- *price*: the lines follow, bit for bit, from the usage and the stored book that the record names;
- *bodies*: a stored body is the one the record commits to, and its key unwraps; a missing one expired, or was erased
  with a signature; an erased one is gone;
- *tables*: nothing stands in another table without its record, the derived tables follow from the records, the schema
  is this version's, and SQLite's own integrity check passes.

Limits. Whoever holds the signing key can rewrite everything, checkpoints included; the second place is what they cannot
reach. Records after the newest checkpoint can be cut off without a trace; a checkpoint is a minute away at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from counterfoil.capture.seal import BodyUnreadable, KeyRing
from counterfoil.errors import GatewayFault
from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.bodies import Commitments
from counterfoil.ledger.crew import DAMAGE, PART_RECORDS_MIN, Crew
from counterfoil.ledger.handover import PublicKeys
from counterfoil.ledger.inspection import PROBLEMS_MAX, Inspector, Problem
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.query import LedgerReader
from counterfoil.ledger.signing import Statement, root, writer_name
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import StoredKeys
from counterfoil.ledger.witness import Witnessed
from counterfoil.record import codec, ids

_LAST: Final = (1 << 63) - 1  # the place of no record
_decode_statement = msgspec.json.Decoder(Statement).decode
_decode_witnessed = msgspec.json.Decoder(Witnessed).decode


class Report(Struct, frozen=True):
    """What a verification found. ``problems`` begins with the chain's, in the order of commit."""

    records: int
    checkpoints: int
    bodies: int
    problems: list[Problem]

    @property
    def holds(self) -> bool:
        """Whether everything holds."""
        return not self.problems


class _TooMany(Exception):
    """The list of problems is full."""


class _Chain:
    """One writer's chain while it is walked: where it is, and the digests of the stretch under way."""

    __slots__ = ("digest", "sequence", "stretch")

    def __init__(self) -> None:
        self.sequence = 0
        self.digest = codec.GENESIS
        self.stretch: list[bytes] = []


class Verifier:
    """Verifies the ledger of ``folder``. ``deep`` also checks records, columns, bodies and tables, not the chain alone.

    ``witness`` is the checkpoints' second place, a folder or one file of lines. ``progress(n)`` is called now and then
    with the records done. With more than one of ``workers`` a large ledger's records are inspected by so many further
    processes while this one walks the chains. Raises :class:`apsw.Error` for a database that cannot be read at all, and
    :class:`GatewayFault` when one of those processes is killed or the ledger is missing; damage inside the database is
    a problem.
    """

    def __init__(
        self,
        folder: DataFolder,
        *,
        now_ms: int,
        deep: bool = True,
        workers: int = 1,
        witness: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        LedgerReader.prepare(folder)
        self._connection = database.open_reader(folder.ledger_db)
        self._public = PublicKeys.of(folder)
        self._ring = KeyRing(folder.sealing(), StoredKeys(self._connection), bytes)
        commitments = Commitments(self._connection, folder.sealing())
        self._unpack = Unpacker().unpack
        self._inspector = Inspector(
            folder.books, self._public, now_ms, commitments
        )  # also lists what is wrong with tables
        self._deep = deep
        self._crew: Crew | None = None
        last_seq: int = self._connection.execute(QUERIES["last_seq"]).get
        if deep and min(workers, last_seq // PART_RECORDS_MIN) > 1:
            self._crew = Crew(folder, now_ms, last_seq, workers)
        self._witness = witness
        self._progress = progress
        self._problems: list[Problem] = []
        self._chains: dict[int, _Chain] = {}
        self._statements: dict[int, list[Statement]] = {}
        self._records = 0
        self._checkpoints = 0

    def run(self) -> Report:
        """Walk the whole ledger in one snapshot; give what was found."""
        chain = (
            self._read_checkpoints,
            self._walk,
            self._check_statements,
            self._check_handovers,
            self._check_witness,
        )
        deep = (self._check_tables, self._join_crew, self._check_keys)
        try:
            self._connection.execute("BEGIN")
            for check in (*chain, *deep) if self._deep else chain:
                self._guarded(check)
        except _TooMany:
            pass  # the report is full; that the ledger does not hold is known
        finally:
            self._connection.close()
            if self._crew is not None:
                self._crew.close()
        inspector = self._inspector
        problems = (self._problems + inspector.problems)[:PROBLEMS_MAX]
        return Report(self._records, self._checkpoints, inspector.bodies, problems)

    def _guarded(self, check: Callable[[], None]) -> None:
        """Make a problem of a damaged file."""
        try:
            check()
        except DAMAGE as error:
            self._add("damaged", None, 0, "", f"the database file is damaged ({error})")

    # The chain.

    def _walk(self) -> None:
        """Every record in the order of commit: its place in its chain and, unless the chain is all, what it says."""
        chains, unpack, sha256 = self._chains, self._unpack, hashlib.sha256
        deep, inspect = self._deep and self._crew is None, self._inspector.row
        boundaries = {
            writer: {each.last_sequence: each for each in statements if each.first_sequence <= each.last_sequence}
            for writer, statements in self._statements.items()
        }
        for row in self._connection.execute(QUERIES["deep_records" if deep else "chain_records"], (0, _LAST)):
            _, writer, sequence, digest, packed = row[:5]
            chain = chains.get(writer)
            if chain is None:
                chain = chains[writer] = _Chain()
            try:
                data = unpack(packed)
            except ValueError:
                self._add("digest", writer, sequence, "", "the record cannot be unpacked")
                data = b""
            else:
                if sequence != chain.sequence + 1:
                    self._add("sequence", writer, sequence, _id_in(data), f"expected number {chain.sequence + 1}")
                elif sha256(chain.digest + data).digest() != digest:
                    self._add("digest", writer, sequence, _id_in(data), "the record or one before it was altered")
            chain.sequence = sequence
            chain.digest = digest  # go on from what is stored, so that one bad record is one problem
            boundary = boundaries.get(writer)
            if boundary is not None:
                chain.stretch.append(digest)
                if sequence in boundary:
                    self._check_stretch(writer, chain, boundary[sequence])
            if deep:
                inspect(row, data)
            self._records += 1
            if not self._records & 0x3FFF and self._progress is not None:
                self._progress(self._records)

    def _check_stretch(self, writer: int, chain: _Chain, statement: Statement) -> None:
        if root(chain.stretch).hex() != statement.root or chain.digest.hex() != statement.digest:
            self._add("checkpoint", writer, statement.last_sequence, "", "the records it signed were altered")
        chain.stretch = []

    # Checkpoints.

    def _read_checkpoints(self) -> None:
        for writer, first, last, last_seq, data, signature in self._connection.execute(QUERIES["checkpoints"]):
            self._checkpoints += 1
            said = self._signed(writer, last, data, signature)
            if said is None:
                continue
            columns = (writer_name(writer), first, last, last_seq)
            if columns != (said.writer, said.first_sequence, said.last_sequence, said.last_seq):
                self._add("checkpoint", writer, last, "", "its columns do not say what it says")
            self._statements.setdefault(writer, []).append(said)

    def _signed(self, writer: int, last: int, data: bytes, signature: bytes) -> Statement | None:
        try:
            self._public.checkpoint(writer_name(writer), last, data, signature)
            return _decode_statement(data)
        except InvalidSignature:
            self._add("checkpoint", writer, last, "", "its signature is not this folder's")
        except msgspec.MsgspecError:
            self._add("checkpoint", writer, last, "", "it cannot be read")
        return None

    def _check_statements(self) -> None:
        for writer, statements in self._statements.items():
            expected = 1
            for statement in statements:
                if statement.first_sequence != expected:
                    self._add("checkpoint", writer, statement.last_sequence, "", "one before it is missing")
                expected = statement.last_sequence + 1
                self._check_end(writer, statement, "")

    def _check_handovers(self) -> None:
        """Where each signing key handed over, the chains are as both keys signed: what came before is pinned."""
        if self._public.problem is not None:
            self._add("handover", None, 0, "", self._public.problem)
        for said in self._public.handed_over:
            for name, end in said.chains.items():
                writer = int(name[1:])
                digests = {
                    each.digest for each in self._statements.get(writer, ()) if each.last_sequence == end.last_sequence
                }
                if end.last_sequence and digests != {end.digest}:
                    self._add(
                        "handover", writer, end.last_sequence, "", "the chain is not the one that was handed over"
                    )

    def _check_end(self, writer: int, statement: Statement, where: str) -> None:
        """The chain must reach what was signed."""
        chain = self._chains.get(writer, _Chain())
        if statement.last_sequence > chain.sequence:
            self._add("truncated", writer, statement.last_sequence, "", f"the chain ends at {chain.sequence}{where}")

    def _check_witness(self) -> None:
        """The second place: the ledger must still have every checkpoint it remembers."""
        if self._witness is None:
            return
        here = {statement for statements in self._statements.values() for statement in statements}
        for path in [self._witness] if self._witness.is_file() else sorted(self._witness.glob("*.jsonl")):
            for number, line in enumerate(path.read_bytes().splitlines(), 1):
                try:
                    witnessed = _decode_witnessed(line)
                    statement = _decode_statement(witnessed.statement)
                    writer = int(statement.writer[1:])
                    signature = bytes.fromhex(witnessed.signature)
                except (msgspec.MsgspecError, ValueError):
                    self._add("witness", None, 0, "", f"{path.name} line {number} cannot be read")
                    continue
                signed = self._signed(writer, statement.last_sequence, witnessed.statement.encode(), signature)
                if signed is not None and signed not in here:
                    self._check_end(writer, signed, ", says the second place")
                    self._add("witness", writer, signed.last_sequence, "", "the second place has another checkpoint")

    # What belongs to the records.

    def _join_crew(self) -> None:
        """What the other processes found."""
        if self._crew is None:
            return
        try:
            for part in self._crew.results():
                self._inspector.take(part.bodies, part.keys, part.problems)
        except BrokenProcessPool as error:
            raise GatewayFault("internal", "A process that checked records was killed; nothing is known.") from error

    def _check_keys(self) -> None:
        """Every data key unwraps for its team, and every key that seals a body is there."""
        present = set(self._connection.execute(QUERIES["data_keys"]))
        for team_id, key_id in sorted(self._inspector.keys | present):
            try:
                self._ring.key(team_id, key_id)
            except BodyUnreadable as error:
                self._inspector.add("key", None, 0, "", f"bodies of team {team_id!r} cannot be opened: {error}")

    # Tables.

    def _check_tables(self) -> None:
        execute = self._connection.execute
        for table, count in execute(QUERIES["stray_rows"]):
            if count:
                self._inspector.add("table", None, 0, "", f"{table} has {count} rows without a record")
        for table, count in execute(QUERIES["derived_differences"]):
            if count:
                self._inspector.add("table", None, 0, "", f"{table} has {count} rows too few or too many")
        if not database.has_this_schema(self._connection):
            self._inspector.add("table", None, 0, "", "the tables are not as this version makes them")
        for (message,) in execute("PRAGMA integrity_check(10)"):
            if message != "ok":
                self._inspector.add("damaged", None, 0, "", message)

    def _add(self, kind: str, writer: int | None, sequence: int, request_id: str, message: str) -> None:
        name = "" if writer is None else writer_name(writer)
        self._problems.append(Problem(kind, name, sequence, request_id, message))
        if len(self._problems) >= PROBLEMS_MAX:
            raise _TooMany


def _id_in(data: bytes) -> str:
    """The request id in canonical bytes that may be damaged, or an empty text."""
    at = data.find(b'"request_id":"')
    found = data[at + 14 : at + 44].decode("ascii", "replace") if at >= 0 else ""
    return found if ids.parse(found) is not None else ""
