"""One record on its own: that its columns, lines, price and bodies are what its canonical bytes say.

Its bytes are read into a :class:`~counterfoil.record.record.Record` and, from their end, its ``capture``; from these
follow the columns and, with the stored book, the lines. Whether something differs is one comparison of tuples each, and
only then are there words to find for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.exceptions import InvalidSignature
from msgspec import Struct

from counterfoil.capture.seal import key_id_of
from counterfoil.errors import ConfigError
from counterfoil.ledger import books
from counterfoil.ledger.bodies import Commitments
from counterfoil.ledger.handover import PublicKeys
from counterfoil.ledger.rows import GENERATION_COLUMNS, MS_PER_DAY, columns_of
from counterfoil.ledger.signing import writer_name
from counterfoil.pricing.book import PriceBook
from counterfoil.pricing.reprice import differences, fee_holds, reprice
from counterfoil.record import codec, ids
from counterfoil.record.charge import LineState
from counterfoil.record.money import amount_nanos
from counterfoil.record.record import CaptureInfo, CaptureState, Record
from counterfoil.record.times import recorded_ms

_COMPARED: Final = [name.strip() for name in GENERATION_COLUMNS.split(",")][4:-1]
_RECOMPUTABLE: Final = (LineState.PRICED, LineState.FALLBACK, LineState.UNPRICED)

PROBLEMS_MAX: Final = 100
"""Problems listed; after so many the ledger is known to be bad and the rest adds nothing."""

Erasure = tuple[int, str, bytes]
"""When bodies were erased (Unix ms), why, and the signature over both."""


class Problem(Struct, frozen=True):
    """Something that does not hold. ``request_id`` is empty where no record can be named."""

    kind: str
    writer: str
    sequence: int
    request_id: str
    message: str


class Inspector:
    """Inspects records of one ledger. ``public`` are the folder's signing keys, ``stored`` its folder of books.

    ``problems`` are what it found, the first :data:`PROBLEMS_MAX` of them; ``bodies`` counts the bodies it met, and
    ``keys`` has the team and the number of every data key that seals one.
    """

    def __init__(self, stored: Path, public: PublicKeys, now_ms: int, commitments: Commitments) -> None:
        self._stored = stored
        self._commitments = commitments
        self._public = public
        self._now_ms = now_ms
        self._books: dict[str | None, PriceBook | None] = {None: None}
        self.bodies = 0
        self.keys: set[tuple[str, int]] = set()
        self.problems: list[Problem] = []

    def row(self, row: tuple[Any, ...], data: bytes) -> None:
        """Check a row of ``deep_records`` whose record unpacked to ``data``."""
        sealed, columns = row[5], row[9:]
        self.bodies += sealed is not None
        try:
            record = codec.decode(data)
            capture = codec.capture_of(data)
            at_ms = recorded_ms(record.created_at)
            made = _columns(record, capture, at_ms)
        except (msgspec.MsgspecError, ValueError) as error:
            self.add("record", row[1], row[2], "", f"it cannot be read ({error})")
            return
        if columns != made:
            for problem in _column_problems(columns, made):
                self.add("record", row[1], row[2], record.request_id, problem)
        if not self._priced(record, at_ms):
            for kind, problem in self._price_problems(record):
                self.add(kind, row[1], row[2], record.request_id, problem)
        if sealed is not None or capture.state is CaptureState.STORED or row[6] is not None:
            problem = self._body_problem(record.team_id, capture, sealed, columns, None if row[6] is None else row[6:9])
            if problem is not None:
                self.add("body", row[1], row[2], record.request_id, problem)

    def add(self, kind: str, writer: int | None, sequence: int, request_id: str, message: str) -> None:
        """List a problem, while there is room."""
        if len(self.problems) < PROBLEMS_MAX:
            name = "" if writer is None else writer_name(writer)
            self.problems.append(Problem(kind, name, sequence, request_id, message))

    def take(self, bodies: int, keys: set[tuple[str, int]], problems: list[Problem]) -> None:
        """Add what another inspector found in another part of the ledger."""
        self.bodies += bodies
        self.keys |= keys
        self.problems += problems[: PROBLEMS_MAX - len(self.problems)]

    def _priced(self, record: Record, at_ms: int) -> bool:
        """Whether the lines, their sum and the operator's fee follow from the record's book."""
        book = self._book(record.book)
        if book is None:
            return False
        charge = reprice(book, record, at_ms)
        return charge.lines == record.pricing_lines and charge.nanos == record.cost_nanos and fee_holds(book, record)

    def _price_problems(self, record: Record) -> Iterator[tuple[str, str]]:
        """What does not follow from the record's book; without a book, what does not add up."""
        book = self._book(record.book)
        if book is not None:
            for problem in differences(book, record):
                yield "price", problem
        elif record.book is not None:
            yield "price", f"its book {record.book} is missing or damaged"
        for problem in _line_problems(record):
            yield "record", problem

    def _book(self, digest: str | None) -> PriceBook | None:
        try:
            return self._books[digest]
        except KeyError:
            pass
        try:
            book = books.load(self._stored, digest or "")
        except ConfigError:
            book = None
        self._books[digest] = book
        return book

    def _body_problem(
        self,
        team_id: str,
        capture: CaptureInfo,
        sealed: bytes | None,
        columns: tuple[Any, ...],
        erasure: Erasure | None,
    ) -> str | None:
        identity, created_at_ms = columns[0], columns[1]
        if erasure is not None:
            try:
                self._public.erasure(identity, *erasure)
            except InvalidSignature:
                return "its erasure is not signed by this folder"
            return "it was erased and has bodies" if sealed is not None else None
        if capture.state is not CaptureState.STORED:
            return "it has bodies the record knows nothing of" if sealed is not None else None
        if sealed is not None:
            sealed_as_said = hashlib.sha256(sealed).hexdigest() == capture.digest
            if not sealed_as_said and not self._commitments.hold(team_id, identity, sealed, capture.digest):
                return "the sealed bodies were altered"
            self.keys.add((team_id, key_id_of(sealed)))
            return None
        expires = created_at_ms + (capture.retention_days or 0) * MS_PER_DAY
        return "its bodies are missing before their time" if self._now_ms < expires else None


def _columns(record: Record, capture: CaptureInfo, created_at_ms: int) -> tuple[Any, ...]:
    """What the columns of ``record`` must be. Raises :class:`ValueError` for an id that is not ours."""
    identity = ids.parse(record.request_id)
    if identity is None:
        raise ValueError("its id is not one of ours")
    stored = capture.state is CaptureState.STORED
    expires_at_ms = created_at_ms + (capture.retention_days or 0) * MS_PER_DAY if stored else None
    return columns_of(record, capture.state, identity.to_bytes(16, "big"), created_at_ms, expires_at_ms)


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
