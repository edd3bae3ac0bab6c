"""Checking that nothing was altered, lost or put in: every promise a ledger makes about itself, recomputed.

The chain, at more than 100,000 records a second and core:

- *sequence*: each writer's records count 1, 2, 3 … in the order of commit, without a gap or a repeat;
- *digest*: SHA-256 over the digest before it and the record's canonical bytes, so any edit, swap or insertion shows;
- *checkpoints*: signed by this folder's key, without gaps, and in agreement with the chain. A checkpoint beyond the
  end of the chain (here, or in the second place) is a ledger that was cut or rolled back.

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Struct

from counterfoil.capture.seal import BodyUnreadable, KeyRing, key_id_of
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.ledger import books, database
from counterfoil.ledger.packing import Unpacker
from counterfoil.ledger.rows import GENERATION_COLUMNS, MS_PER_DAY, columns_of
from counterfoil.ledger.signing import (
    Signer,
    Statement,
    checkpoint_message,
    erasure_message,
    root,
    writer_name,
)
from counterfoil.ledger.sql import QUERIES
from counterfoil.ledger.store import StoredKeys
from counterfoil.ledger.witness import Witnessed
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.reprice import differences, fee_holds, moment, reprice
from counterfoil.record import codec, ids
from counterfoil.record.charge import LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.record import CaptureInfo, CaptureState, Record

PROBLEMS_MAX: Final = 100
"""Problems listed; after so many the ledger is known to be bad and the rest adds nothing."""

_CAPTURE: Final = b',"capture":'
_decode_capture = msgspec.json.Decoder(CaptureInfo).decode
_decode_statement = msgspec.json.Decoder(Statement).decode
_decode_witnessed = msgspec.json.Decoder(Witnessed).decode


class Problem(Struct, frozen=True):
    """Something that does not hold. ``request_id`` is empty where no record can be named."""

    kind: str
    writer: str
    sequence: int
    request_id: str
    message: str


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
    with the records done. Raises :class:`apsw.Error` for a database that cannot be read at all; damage inside it is a
    problem.
    """

    def __init__(
        self,
        folder: DataFolder,
        *,
        now_ms: int,
        deep: bool = True,
        witness: Path | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._connection = database.open_reader(folder.ledger_db)
        self._books = folder.books
        self._known_books: dict[str, PriceBook | None] = {}
        self._public = Ed25519PublicKey.from_public_bytes(Signer(folder.secret("signing"), lambda: 0).public_key)
        self._ring = KeyRing(folder.secret("kek"), StoredKeys(self._connection), bytes)
        self._unpack = Unpacker().unpack
        self._now_ms = now_ms
        self._deep = deep
        self._witness = witness
        self._progress = progress
        self._problems: list[Problem] = []
        self._chains: dict[int, _Chain] = {}
        self._statements: dict[int, list[Statement]] = {}
        self._keys: set[tuple[str, int]] = set()
        self._records = 0
        self._checkpoints = 0
        self._bodies = 0

    def run(self) -> Report:
        """Walk the whole ledger in one snapshot; give what was found."""
        chain = (self._read_checkpoints, self._walk, self._check_statements, self._check_witness)
        deep = (self._check_rows, self._check_keys, self._check_tables)
        try:
            self._connection.execute("BEGIN")
            for check in (*chain, *deep) if self._deep else chain:
                self._guarded(check)
        except _TooMany:
            pass  # the report is full; that the ledger does not hold is known
        finally:
            self._connection.close()
        return Report(self._records, self._checkpoints, self._bodies, self._problems)

    def _guarded(self, check: Callable[[], None]) -> None:
        """Make a problem of a damaged file. The tables are STRICT: a value of a wrong type is damage like any other."""
        try:
            check()
        except (apsw.CorruptError, AttributeError, TypeError, ValueError, OverflowError) as error:
            self._add("damaged", None, 0, "", f"the database file is damaged ({error})")

    # The chain.

    def _walk(self) -> None:
        chains, unpack, sha256 = self._chains, self._unpack, hashlib.sha256
        boundaries = {
            writer: {each.last_sequence: each for each in statements if each.first_sequence <= each.last_sequence}
            for writer, statements in self._statements.items()
        }
        for _, writer, sequence, digest, packed in self._connection.execute(QUERIES["chain_records"], (0,)):
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
            self._public.verify(signature, checkpoint_message(data))
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

    # Records, columns, bodies.

    def _check_rows(self) -> None:
        for row in self._connection.execute(QUERIES["deep_records"]):
            _, writer, sequence, sealed, erased_at_ms, reason, signature = row[:7]
            columns = row[7:-1]
            try:
                data = self._unpack(row[-1])
                record = codec.decode(data)
                info = _decode_capture(data[data.rindex(_CAPTURE) + len(_CAPTURE) : -1])
                made = _columns_made(record, info)
            except (msgspec.MsgspecError, ValueError) as error:
                self._add("record", writer, sequence, "", f"it cannot be read ({error})")
                continue
            if columns != made:
                for problem in _column_problems(columns, made):
                    self._add("record", writer, sequence, record.request_id, problem)
            self._check_price(writer, sequence, record)
            erasure = (erased_at_ms, reason, signature) if erased_at_ms is not None else None
            problem = self._body_problem(record, info, sealed, columns, erasure)
            if problem is not None:
                self._add("body", writer, sequence, record.request_id, problem)
            self._bodies += sealed is not None

    def _check_price(self, writer: int, sequence: int, record: Record) -> None:
        """The lines follow from the record's book and add up; without a book they add up."""
        book = self._book(record.book)
        if book is not None:
            charge = reprice(book, record)
            lines_hold = charge.lines == record.pricing_lines and charge.nanos == record.cost_nanos
            if lines_hold and fee_holds(book, record):
                return
            for problem in differences(book, record):
                self._add("price", writer, sequence, record.request_id, problem)
        elif record.book is not None:
            self._add("price", writer, sequence, record.request_id, f"its book {record.book} is missing or damaged")
        for problem in _line_problems(record):
            self._add("record", writer, sequence, record.request_id, problem)

    def _book(self, digest: str | None) -> PriceBook | None:
        if digest is None:
            return None
        if digest not in self._known_books:
            try:
                self._known_books[digest] = books.load(self._books, digest)
            except ConfigError:
                self._known_books[digest] = None
        return self._known_books[digest]

    def _body_problem(
        self,
        record: Record,
        info: CaptureInfo,
        sealed: bytes | None,
        columns: tuple[Any, ...],
        erasure: tuple[int, str, bytes] | None,
    ) -> str | None:
        identity, created_at_ms = columns[0], columns[1]
        if erasure is not None:
            try:
                self._public.verify(erasure[2], erasure_message(identity, erasure[0], erasure[1]))
            except InvalidSignature:
                return "its erasure is not signed by this folder"
            return "it was erased and has bodies" if sealed is not None else None
        if info.state is not CaptureState.STORED:
            return "it has bodies the record knows nothing of" if sealed is not None else None
        if sealed is not None:
            if hashlib.sha256(sealed).hexdigest() != info.digest:
                return "the sealed bodies were altered"
            self._keys.add((record.team_id, key_id_of(sealed)))
            return None
        expires = created_at_ms + (info.retention_days or 0) * MS_PER_DAY
        return "its bodies are missing before their time" if self._now_ms < expires else None

    def _check_keys(self) -> None:
        """Every data key unwraps for its team, and every key that seals a body is there."""
        present = set(self._connection.execute(QUERIES["data_keys"]))
        for team_id, key_id in sorted(self._keys | present):
            try:
                self._ring.key(team_id, key_id)
            except BodyUnreadable as error:
                self._add("key", None, 0, "", f"bodies of team {team_id!r} cannot be opened: {error}")

    # Tables.

    def _check_tables(self) -> None:
        execute = self._connection.execute
        for table, count in execute(QUERIES["stray_rows"]):
            if count:
                self._add("table", None, 0, "", f"{table} has {count} rows without a record")
        for table, count in execute(QUERIES["derived_differences"]):
            if count:
                self._add("table", None, 0, "", f"{table} has {count} rows too few or too many")
        if not database.has_this_schema(self._connection):
            self._add("table", None, 0, "", "the tables are not as this version makes them")
        for (message,) in execute("PRAGMA integrity_check(10)"):
            if message != "ok":
                self._add("damaged", None, 0, "", message)

    def _add(self, kind: str, writer: int | None, sequence: int, request_id: str, message: str) -> None:
        name = "" if writer is None else writer_name(writer)
        self._problems.append(Problem(kind, name, sequence, request_id, message))
        if len(self._problems) >= PROBLEMS_MAX:
            raise _TooMany


_COMPARED: Final = [name.strip() for name in GENERATION_COLUMNS.split(",")][4:-1]


def _columns_made(record: Record, info: CaptureInfo) -> tuple[Any, ...]:
    """What the columns of ``record`` must be. Raises :class:`ValueError` for an id or a time that is not ours."""
    identity = ids.parse(record.request_id)
    if identity is None:
        raise ValueError("its id is not one of ours")
    created_at_ms = moment(record.created_at)
    stored = info.state is CaptureState.STORED
    expires_at_ms = created_at_ms + (info.retention_days or 0) * MS_PER_DAY if stored else None
    return columns_of(record, info.state, identity.to_bytes(16, "big"), created_at_ms, expires_at_ms)


def _column_problems(columns: tuple[Any, ...], made: tuple[Any, ...]) -> Iterator[str]:
    """Which columns, which lists and sums read, say something else than the record."""
    for name, stored, value in zip(_COMPARED, columns, made, strict=True):
        if stored != value:
            yield f"the column {name} does not say what the record says"


def _line_problems(record: Record) -> Iterator[str]:
    """What a record's cost and lines say against each other."""
    if record.cost_nanos != sum(line.amount_nanos for line in record.pricing_lines):
        yield "its cost is not the sum of its lines"
    for line in record.pricing_lines:
        if line.state in _RECOMPUTABLE and line.amount_nanos != amount_nanos(
            line.quantity, line.unit_size, line.unit_price_nanos
        ):
            yield f"the line {line.meter} is not its quantity times its rate"


_RECOMPUTABLE: Final = (LineState.PRICED, LineState.FALLBACK, LineState.UNPRICED)


def _id_in(data: bytes) -> str:
    """The request id in canonical bytes that may be damaged, or an empty text."""
    at = data.find(b'"request_id":"')
    found = data[at + 14 : at + 44].decode("ascii", "replace") if at >= 0 else ""
    return found if ids.parse(found) is not None else ""
