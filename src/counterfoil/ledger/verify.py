"""Checking that nothing was altered, lost or put in: every promise a ledger makes about itself, recomputed.

What is checked, for each writer's chain in the order of commit:

- *sequence*: 1, 2, 3 … without a gap or a repeat;
- *digest*: SHA-256 over the digest before it and the record's canonical bytes, so any edit, swap or insertion shows;
- *record*: the bytes decode, the columns that lists and sums use say what the bytes say, and ``cost_nanos`` is the sum
  of the lines, each of which is its quantity times its rate;
- *bodies*: a stored body is the one the record commits to; a missing one expired, or was erased with a signature;
- *checkpoints*: signed by this folder's key, without gaps, and in agreement with the chain. A checkpoint beyond the
  end of the chain (here, or in the second place) is a ledger that was cut or rolled back.

Whoever holds the signing key can rewrite everything, checkpoints included; the second place is what they cannot reach.
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

from counterfoil.folder import DataFolder
from counterfoil.ledger import database
from counterfoil.ledger.rows import GENERATION_COLUMNS, MS_PER_DAY, columns_of
from counterfoil.ledger.signing import (
    Signer,
    Statement,
    Witnessed,
    checkpoint_message,
    erasure_message,
    root,
    writer_name,
)
from counterfoil.ledger.sql import QUERIES
from counterfoil.record import codec, ids
from counterfoil.record.charge import LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.record import CaptureInfo, CaptureState, Record

PROBLEMS_MAX: Final = 100
"""Problems listed; after so many the ledger is known to be bad and the rest adds nothing."""

_CAPTURE: Final = b',"capture":'
_decode_capture = msgspec.json.Decoder(CaptureInfo).decode
_decode_statement = msgspec.json.Decoder(Statement).decode


class Problem(Struct, frozen=True):
    """Something that does not hold. ``request_id`` is empty where no record can be named."""

    kind: str
    writer: str
    sequence: int
    request_id: str
    message: str


class Report(Struct, frozen=True):
    """What a verification found. ``problems`` is in the order of commit: the first is the first bad record."""

    records: int
    checkpoints: int
    bodies: int
    problems: list[Problem]

    @property
    def holds(self) -> bool:
        """Whether everything holds."""
        return not self.problems


class _Chain:
    """One writer's chain while it is walked."""

    __slots__ = ("digest", "marks", "sequence", "stretch", "stretch_first")

    def __init__(self) -> None:
        self.sequence = 0
        self.digest = codec.GENESIS
        self.marks: dict[int, bytes] = {}  # digests at the sequences checkpoints speak of
        self.stretch: list[bytes] = []
        self.stretch_first = 1


class Verifier:
    """Verifies the ledger of ``folder``. ``deep`` also checks records, columns and bodies, not the chain alone.

    ``progress(n)`` is called now and then with the records done. Raises :class:`apsw.Error` for a database that
    cannot be read at all; damage inside it becomes a problem.
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
        self._public = Ed25519PublicKey.from_public_bytes(Signer(folder.secret("signing"), lambda: 0).public_key)
        self._now_ms = now_ms
        self._deep = deep
        self._witness = witness
        self._progress = progress
        self._problems: list[Problem] = []
        self._chains: dict[int, _Chain] = {}

    def run(self) -> Report:
        """Walk the whole ledger in one snapshot; give what was found."""
        connection = self._connection
        records = bodies = checkpoints = 0
        try:
            connection.execute("BEGIN")
            marks = self._read_checkpoints()
            checkpoints = sum(len(statements) for statements in marks.values())
            records = self._walk(marks)
            if self._deep:
                bodies = self._check_rows()
            self._check_marks(marks)
            self._check_witness()
        except apsw.CorruptError as error:
            self._add("damaged", 0, 0, "", f"the database file is damaged ({error})")
        finally:
            connection.close()
        return Report(records, checkpoints, bodies, self._problems)

    # The chain.

    def _walk(self, marks: dict[int, list[Statement]]) -> int:
        wanted = {writer: _boundaries(statements) for writer, statements in marks.items()}
        done = 0
        sha256 = hashlib.sha256
        for seq, writer, sequence, digest, data in self._connection.execute(QUERIES["chain_records"], (0,)):
            chain = self._chains.get(writer)
            if chain is None:
                chain = self._chains[writer] = _Chain()
            if data is None:
                self._add("missing", writer, sequence, "", f"the bytes of record {seq} are gone")
                data = b""
            expected = sha256(chain.digest + data).digest()
            if sequence != chain.sequence + 1:
                self._add("sequence", writer, sequence, _id_in(data), f"expected number {chain.sequence + 1}")
            elif expected != digest:
                self._add("digest", writer, sequence, _id_in(data), "the record or one before it was altered")
            chain.sequence = sequence
            chain.digest = digest  # go on from what is stored, so that one bad record is one problem
            boundary = wanted.get(writer)
            if boundary is not None:
                chain.stretch.append(digest)
                if sequence in boundary:
                    chain.marks[sequence] = digest
                    self._check_stretch(writer, chain, boundary[sequence])
                    chain.stretch = []
            done += 1
            if not done & 0x3FFF and self._progress is not None:
                self._progress(done)
            if len(self._problems) >= PROBLEMS_MAX:
                break
        return done

    def _check_stretch(self, writer: int, chain: _Chain, statement: Statement) -> None:
        if statement.first_sequence > statement.last_sequence:
            return
        size = statement.last_sequence - statement.first_sequence + 1
        if root(chain.stretch[-size:]).hex() != statement.root:
            self._add("checkpoint", writer, statement.last_sequence, "", "the records it signed were altered")

    # Checkpoints.

    def _read_checkpoints(self) -> dict[int, list[Statement]]:
        found: dict[int, list[Statement]] = {}
        for _, writer, first, last, data, signature in self._connection.execute(QUERIES["checkpoints"]):
            statement = self._signed(writer, last, data, signature)
            if statement is None:
                continue
            if (statement.writer, statement.first_sequence, statement.last_sequence) != (
                writer_name(writer),
                first,
                last,
            ):
                self._add("checkpoint", writer, last, "", "its columns do not say what it says")
            found.setdefault(writer, []).append(statement)
        return found

    def _signed(self, writer: int, last: int, data: bytes, signature: bytes) -> Statement | None:
        try:
            self._public.verify(signature, checkpoint_message(data))
            return _decode_statement(data)
        except InvalidSignature:
            self._add("checkpoint", writer, last, "", "its signature is not this folder's")
        except msgspec.MsgspecError:
            self._add("checkpoint", writer, last, "", "it cannot be read")
        return None

    def _check_marks(self, marks: dict[int, list[Statement]]) -> None:
        if len(self._problems) >= PROBLEMS_MAX:
            return
        for writer, statements in marks.items():
            chain = self._chains.get(writer, _Chain())
            expected = 1
            for statement in statements:
                if statement.first_sequence != expected:
                    self._add("checkpoint", writer, statement.last_sequence, "", "one before it is missing")
                expected = statement.last_sequence + 1
                self._check_end(writer, chain, statement, "")

    def _check_end(self, writer: int, chain: _Chain, statement: Statement, where: str) -> None:
        if statement.last_sequence > chain.sequence:
            self._add("truncated", writer, statement.last_sequence, "", f"the chain ends at {chain.sequence}{where}")
            return
        stored = self._digest_at(writer, chain, statement.last_sequence)
        if stored is not None and stored.hex() != statement.digest:
            self._add("checkpoint", writer, statement.last_sequence, "", f"the chain is another one{where}")

    def _digest_at(self, writer: int, chain: _Chain, sequence: int) -> bytes | None:
        if sequence == 0:
            return codec.GENESIS
        found = chain.marks.get(sequence)
        if found is not None:
            return found
        return self._connection.execute(
            "SELECT digest FROM generations WHERE writer = ? AND sequence = ?", (writer, sequence)
        ).get

    def _check_witness(self) -> None:
        """The second place: every statement it remembers must still be true."""
        if self._witness is None:
            return
        for path in sorted(self._witness.glob("w*.jsonl")):
            writer = int(path.stem[1:])
            chain = self._chains.get(writer, _Chain())
            for line in path.read_bytes().splitlines():
                witnessed = msgspec.json.decode(line, type=Witnessed)
                data = witnessed.statement.encode()
                statement = self._signed(writer, 0, data, bytes.fromhex(witnessed.signature))
                if statement is not None:
                    self._check_end(writer, chain, statement, ", says the second place")

    # Records, columns, bodies.

    def _check_rows(self) -> int:
        bodies = 0
        statement = f"""
            SELECT g.seq, g.writer, g.sequence, r.data, b.sealed, b.seq IS NOT NULL, e.erased_at_ms, e.reason, e.signature,
                   {", ".join("g." + name for name in _COMPARED)}
            FROM generations g JOIN records r ON r.seq = g.seq LEFT JOIN bodies b ON b.seq = g.seq
            LEFT JOIN erasures e ON e.seq = g.seq ORDER BY g.seq
        """  # noqa: S608  # names of ours only
        for row in self._connection.execute(statement):
            _, writer, sequence, data, sealed, has_body, erased_at, reason, signature, *columns = row
            if len(self._problems) >= PROBLEMS_MAX:
                break
            try:
                record = codec.decode(data)
                info = _decode_capture(data[data.rindex(_CAPTURE) + len(_CAPTURE) : -1])
                made = columns_of(record, info.state, columns[0], columns[1], columns[_EXPIRES])
            except (msgspec.MsgspecError, ValueError) as error:
                self._add("record", writer, sequence, "", f"it cannot be read ({error})")
                continue
            for problem in _record_problems(record, columns, made):
                self._add("record", writer, sequence, record.request_id, problem)
            erasure = (erased_at, reason, signature) if erased_at is not None else None
            problem = self._body_problem(info, sealed if has_body else None, columns, erasure)
            if problem:
                self._add("body", writer, sequence, record.request_id, problem)
            bodies += has_body
        return bodies

    def _body_problem(
        self, info: CaptureInfo, sealed: bytes | None, columns: list[Any], erasure: tuple[int, str, bytes] | None
    ) -> str | None:
        if info.state is not CaptureState.STORED:
            return "it has bodies the record knows nothing of" if sealed is not None else None
        if sealed is not None:
            return None if hashlib.sha256(sealed).hexdigest() == info.digest else "the sealed bodies were altered"
        identity, created_at_ms = columns[0], columns[1]
        if erasure is not None:
            try:
                self._public.verify(erasure[2], erasure_message(identity, erasure[0], erasure[1]))
            except InvalidSignature:
                return "its erasure is not signed by this folder"
            return None
        expires = created_at_ms + (info.retention_days or 0) * MS_PER_DAY
        return "its bodies are missing before their time" if self._now_ms < expires else None

    def _add(self, kind: str, writer: int, sequence: int, request_id: str, message: str) -> None:
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(Problem(kind, writer_name(writer), sequence, request_id, message))


_COMPARED: Final = [name.strip() for name in GENERATION_COLUMNS.split(",")][4:]
_EXPIRES: Final = _COMPARED.index("expires_at_ms")


def _record_problems(record: Record, columns: list[Any], made: tuple[Any, ...]) -> Iterator[str]:
    """What a record says against itself, and against the columns that lists and sums read."""
    identity = ids.parse(record.request_id)
    if identity is None or identity.to_bytes(16, "big") != columns[0]:
        yield "it stands under another id"
    for name, stored, value in zip(_COMPARED, columns, made, strict=True):
        if stored != value:
            yield f"the column {name} does not say what the record says"
    if record.cost_nanos != sum(line.amount_nanos for line in record.pricing_lines):
        yield "its cost is not the sum of its lines"
    for line in record.pricing_lines:
        if line.state in _RECOMPUTABLE and line.amount_nanos != amount_nanos(
            line.quantity, line.unit_size, line.unit_price_nanos
        ):
            yield f"the line {line.meter} is not its quantity times its rate"


_RECOMPUTABLE: Final = (LineState.PRICED, LineState.FALLBACK, LineState.UNPRICED)


def _boundaries(statements: list[Statement]) -> dict[int, Statement]:
    return {s.last_sequence: s for s in statements if s.first_sequence <= s.last_sequence}


def _id_in(data: bytes) -> str:
    """The request id in canonical bytes that may be damaged, or an empty text."""
    at = data.find(b'"request_id":"')
    found = data[at + 14 : at + 44].decode("ascii", "replace") if at >= 0 else ""
    return found if ids.parse(found) is not None else ""
