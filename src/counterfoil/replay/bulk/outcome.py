"""What came of one item at one target, in figures only: nothing here was said by a model. Pure.

These values are a cache of what the ledger and the bodies say; they hold no text, so that an erased body does not live
on in them.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from counterfoil.record.coverage import unpriced
from counterfoil.record.record import Record
from counterfoil.record.usage import UsageSource
from counterfoil.replay.diff import known_cost


class State(StrEnum):
    """``done``: answered. ``failed``: an error is the record. ``skipped``: nothing was sent; ``reason`` says why."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Side(Struct, frozen=True):
    """The figures of one record. What is not known is null, never 0; ``unpriced`` names the meters without a price."""

    request_id: str
    model_id: str
    success: bool
    error_code: str | None
    cost_nanos: int | None
    cost_state: str
    latency_ms: float | None
    generation_ms: float | None
    throughput: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: str | None
    refused: bool | None = None
    unpriced: tuple[str, ...] = ()


class Verdict(Struct, frozen=True):
    """What one judge found. Null ``passed`` means that there is none; ``reason`` says why (or where it failed)."""

    judge: str
    passed: bool | None
    score: float | None = None
    reason: str | None = None
    request_id: str | None = None  # the judge's own call


class Agreement(Struct, frozen=True):
    """How alike two answers are. Null where it could not be compared."""

    equal: bool | None = None
    similarity: float | None = None
    text_equal: bool | None = None
    tool_calls_equal: bool | None = None
    finish_equal: bool | None = None
    reason: str | None = None  # why there was nothing to compare


class Try(Struct, frozen=True):
    """One call that was made for an item. ``held_nanos`` stands in for a cost that is not known."""

    request_id: str
    error_code: str | None
    cost_nanos: int | None
    held_nanos: int = 0

    @property
    def interrupted(self) -> bool:
        """Whether it was in flight when a gateway died."""
        return self.error_code == "gateway:interrupted"


class Result(Struct, frozen=True, kw_only=True):
    """One item at one target. ``tries`` are all calls made for it, the last one the result; judges' calls are apart."""

    item: int
    target: int
    state: State
    reason: str | None = None
    a: Side | None = None
    b: Side | None = None
    agreement: Agreement = Agreement()
    tries: tuple[Try, ...] = ()
    judged: tuple[Try, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def calls(self) -> tuple[Try, ...]:
        """Every call, judges' included."""
        return (*self.tries, *self.judged)

    @property
    def spent_nanos(self) -> int:
        """What is known to have been spent."""
        return sum(one.cost_nanos or 0 for one in self.calls)

    @property
    def held_nanos(self) -> int:
        """What may have been spent beside that."""
        return sum(one.held_nanos for one in self.calls)


def side(record: Record, refused: bool | None = None) -> Side:  # noqa: FBT001  # a field, handed through
    """The figures of ``record``."""
    absent = record.usage.source is UsageSource.ABSENT
    interrupted = record.error_code == "gateway:interrupted"
    missing = unpriced(record.cost_state, record.pricing_lines, record.usage.estimated)
    return Side(
        request_id=record.request_id,
        model_id=record.model_id,
        success=record.success,
        error_code=record.error_code,
        cost_nanos=known_cost(record),
        cost_state=record.cost_state,
        latency_ms=None if interrupted else record.latency_ms,
        generation_ms=None if interrupted else record.generation_ms,
        throughput=record.throughput,
        prompt_tokens=None if absent else record.usage.prompt_tokens,
        completion_tokens=None if absent else record.usage.completion_tokens,
        finish_reason=record.finish_reason,
        refused=refused,
        unpriced=tuple(missing.split("\n")) if missing else (),
    )
