"""Which records a list, a sum or an export is about, as query parameters; and the place where a page ends.

A cursor names a place in the order (admission time, then order of commit), not an offset, so it stays right while new
records come.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Final

from fastapi import Query

from counterfoil.clock import wall_ms
from counterfoil.errors import CallerFault
from counterfoil.ledger.filters import GROUPS
from counterfoil.ledger.query import Cursor, Filter
from counterfoil.record.links import judging
from counterfoil.record.times import moment_ms

BY_MAX: Final = 4
"""Names by which one answer of sums is told apart."""
_INTEGER_MAX: Final = (1 << 63) - 1
_CURSOR = re.compile(rb"(-?[0-9]{1,18})\.([0-9]{1,18})\Z")
_AGE = re.compile(r"([0-9]{1,6})([smhdw])\Z")
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

Text = Annotated[str | None, Query(max_length=512)]
Nanos = Annotated[int | None, Query(ge=-_INTEGER_MAX, le=_INTEGER_MAX)]
Time = Annotated[str | None, Query(max_length=64, examples=["24h", "2026-11-02T10:00:00Z"])]


def filters(
    *,
    since: Annotated[Time, Query(description="Admitted in this time until now: 90s, 30m, 24h, 7d, 4w.")] = None,
    from_: Annotated[
        Time, Query(alias="from", description="Admitted at or after this time; UTC unless it says.")
    ] = None,
    to: Annotated[Time, Query(description="Admitted before this time.")] = None,
    status: Annotated[int | None, Query(ge=0, le=999, description="The HTTP status the client got.")] = None,
    success: Annotated[bool | None, Query(description="Only what succeeded, or only what failed.")] = None,
    error_code: Annotated[Text, Query(description="user:…, upstream:… or gateway:…")] = None,
    model: Annotated[Text, Query(description="provider/model, as billed.")] = None,
    provider: Annotated[Text, Query(description="The provider of the final attempt.")] = None,
    endpoint: Annotated[Text, Query(description="The path that was called.")] = None,
    app: Annotated[Text, Query(description="The application.")] = None,
    key: Annotated[Text, Query(description="The public id of the key.")] = None,
    session: Annotated[Text, Query(description="The session the client named.")] = None,
    end_user: Annotated[Text, Query(description="The end user the client named.")] = None,
    stream: Annotated[bool | None, Query(description="Streamed answers, or answers in one piece.")] = None,
    byok: Annotated[bool | None, Query(description="With the team's own provider key, or without.")] = None,
    replay_of: Annotated[Text, Query(description="Reruns of this record.")] = None,
    judge_of: Annotated[Text, Query(description="The calls of judges of this record's answer.")] = None,
    reruns: Annotated[bool | None, Query(description="Only reruns, or all but them.")] = None,
    judges: Annotated[bool | None, Query(description="Only the calls of judges, or all but them.")] = None,
    min_cost_nanos: Annotated[Nanos, Query(description="The cost, as far as it is known, is at least this.")] = None,
    max_cost_nanos: Annotated[Nanos, Query(description="The whole cost is known and at most this.")] = None,
) -> Filter:
    """Everything that is given must hold. Raises :class:`CallerFault` for a time that is none."""
    if since and from_:
        raise CallerFault("invalid_field", "Give since or from, not both.", param="since")
    if replay_of and judge_of:
        raise CallerFault("invalid_field", "Give replay_of or judge_of, not both.", param="judge_of")
    return Filter(
        app_id=app or None,
        key_id=key or None,
        endpoint=endpoint or None,
        model_id=model or None,
        provider=provider or None,
        status_code=status,
        error_code=error_code or None,
        success=success,
        stream=stream,
        byok=byok,
        session_id=session or None,
        replay_of=judging(judge_of) if judge_of else replay_of or None,
        rerun=reruns,
        judge=judges,
        end_user=end_user or None,
        since_ms=_since_ms(since, wall_ms()) if since else _moment_ms(from_, "from"),
        until_ms=_moment_ms(to, "to"),
        min_cost_nanos=min_cost_nanos,
        max_cost_nanos=max_cost_nanos,
    )


def grouping(text: str | None) -> tuple[str, ...]:
    """The names in ``text`` that sums are told apart by, separated by commas. Raises :class:`CallerFault`."""
    names = tuple(part.strip() for part in text.split(",")) if text else ()
    if any(name not in GROUPS for name in names):
        raise CallerFault("invalid_field", f"by is one or several of: {', '.join(GROUPS)}.", param="by")
    if len(set(names)) < len(names) or len(names) > BY_MAX:
        raise CallerFault("invalid_field", f"by has each name once, and at most {BY_MAX}.", param="by")
    return names


def cursor_text(cursor: Cursor | None) -> str | None:
    """A cursor as clients carry it; None at the end of the list."""
    if cursor is None:
        return None
    return urlsafe_b64encode(f"{cursor.created_at_ms}.{cursor.seq}".encode()).decode().rstrip("=")


def parse_cursor(text: str | None) -> Cursor | None:
    """The cursor in ``text``, None for none. Raises :class:`CallerFault` for what is no cursor of ours."""
    if not text:
        return None
    try:
        match = _CURSOR.match(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError:
        match = None
    if match is None:
        raise CallerFault(
            "invalid_field", "This is no cursor of a list; use `next` of the page before.", param="cursor"
        )
    return Cursor(int(match[1]), int(match[2]))


def _since_ms(text: str, now_ms: int) -> int:
    match = _AGE.match(text)
    if match is None:
        raise CallerFault("invalid_field", "since is a number and s, m, h, d or w, such as 24h.", param="since")
    return now_ms - int(match[1]) * _UNITS_MS[match[2]]


def _moment_ms(text: str | None, param: str) -> int | None:
    if not text:
        return None
    try:
        return moment_ms(text)
    except ValueError as error:
        said = f"{param} is a date or a time such as 2026-11-02T10:00:00Z."
        raise CallerFault("invalid_field", said, param=param) from error
