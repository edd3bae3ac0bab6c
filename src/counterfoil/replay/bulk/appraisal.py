"""One answer held against another: how alike they are, and what the checks say. Pure; run in a child process.

``python -m counterfoil.replay.bulk.appraisal`` reads tasks from its standard input and writes appraisals to its
standard output, each a length (4 bytes, big endian) and MessagePack. A word diff is quadratic and a regular expression
may never end, so this must not share an interpreter with the process that relays calls; ``appraiser`` starts it, and
ends it when one task takes too long.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, BinaryIO, Final

import msgspec
from msgspec import Struct

from counterfoil.record import codec
from counterfoil.replay import diff
from counterfoil.replay.bulk import schemas
from counterfoil.replay.bulk.asked import Check, Exact, Pattern
from counterfoil.replay.bulk.outcome import Agreement, Side, Verdict, side
from counterfoil.replay.text import Said, read

LENGTH_BYTES: Final = 4
NICENESS: Final = 10
"""Appraising waits for whoever serves calls."""


class Body(Struct, frozen=True):
    """A captured response."""

    data: bytes
    media_type: str


class Task(Struct, frozen=True):
    """Two records (canonical bytes), their answers where they are there, and the checks for b."""

    a: bytes
    b: bytes
    body_a: Body | None
    body_b: Body | None
    checks: tuple[Check, ...] = ()


class Appraisal(Struct, frozen=True):
    """The figures of both sides, their agreement, and a verdict for each check, in order."""

    a: Side
    b: Side
    agreement: Agreement
    verdicts: tuple[Verdict, ...] = ()


def appraise(task: Task) -> Appraisal:
    """Compare, and check."""
    a, b = codec.decode(task.a), codec.decode(task.b)
    said_a, said_b = _said(task.body_a), _said(task.body_b)
    found = diff.compare(a, b, said_a, said_b)
    agreement = Agreement(reason="no_content")
    if found.content and not b.success:
        agreement = Agreement(reason="failed")
    elif found.content and not a.success:
        agreement = Agreement(reason="original_failed")
    elif found.content:
        agreement = Agreement(
            equal=found.equal,
            similarity=found.text.similarity if found.text is not None else None,
            text_equal=found.text.equal if found.text is not None else None,
            tool_calls_equal=found.tool_calls_equal,
            finish_equal=found.finish_reason.equal,
        )
    verdicts = tuple(_verdict(check, said_a, said_b, succeeded=b.success) for check in task.checks)
    return Appraisal(side(a, _refused(said_a)), side(b, _refused(said_b)), agreement, verdicts)


def _said(body: Body | None) -> Said | None:
    return None if body is None else read(body.data, body.media_type)


def _refused(told: Said | None) -> bool | None:
    return None if told is None else bool(told.refusal)


def _verdict(check: Check, a: Said | None, b: Said | None, *, succeeded: bool) -> Verdict:
    if b is None:
        return Verdict(check.name, None, reason="no_content")
    if not succeeded:
        return Verdict(check.name, passed=False, reason="failed")
    if isinstance(check, Exact):
        if a is None:
            return Verdict(check.name, None, reason="no_content")
        return Verdict(check.name, passed=_exactly(a, check) == _exactly(b, check))
    if isinstance(check, Pattern):
        return Verdict(check.name, passed=(re.search(check.pattern, b.text) is None) == check.absent)
    try:
        value: Any = msgspec.json.decode(b.text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return Verdict(check.name, passed=False, reason="no JSON")
    try:
        problem = schemas.problem(value, check.schema)
    except (TypeError, ValueError, RecursionError):  # a keyword whose own value makes no sense, such as minLength: "x"
        return Verdict(check.name, None, reason="bad_schema")
    return Verdict(check.name, passed=problem is None, reason=problem[:200] if problem else None)


def _exactly(told: Said, check: Exact) -> tuple[Any, ...]:
    text = " ".join(told.text.split()) if check.ignore_space else told.text
    return text, told.tool_calls, told.refusal, told.digest


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Appraise until the input ends."""
    decode = msgspec.msgpack.Decoder(Task).decode
    encode = msgspec.msgpack.Encoder().encode
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        answer = encode(appraise(decode(source.read(int.from_bytes(head, "big")))))
        sink.write(len(answer).to_bytes(LENGTH_BYTES, "big") + answer)
        sink.flush()


if __name__ == "__main__":
    os.nice(NICENESS)
    serve(sys.stdin.buffer, sys.stdout.buffer)
