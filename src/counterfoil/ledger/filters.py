"""Which records: a filter, and the statements that answer it from the derived tables and the tail behind them.

Lists and values are indexed in passes behind the newest records (``store.py``). Every statement here reads both parts
at once, a derived table up to where it goes and the records behind it, so a pass between them is never seen half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from counterfoil.ledger.rows import value_key
from counterfoil.record.links import JUDGE

SEGMENT_BITS: Final = 16
"""Records of one segment of ``by_value``, as a power of two."""

_COLUMNS: Final = "g.seq, g.id, g.team_id, g.capture_state, g.writer, g.sequence, g.digest, g.record"
_KINDS: Final = {"session_id": 2, "replay_of": 3, "end_user": 4}
_EQUAL: Final = (
    "team_id", "app_id", "key_id", "endpoint", "model_id", "provider", "status_code", "error_code", "stream", "byok",
    *_KINDS,
)  # fmt: skip
_BOUNDS: Final = (
    ("since_ms", "created_at_ms", ">="),
    ("until_ms", "created_at_ms", "<"),
    ("min_cost_nanos", "cost_nanos", ">="),
    ("max_cost_nanos", "cost_nanos", "<="),
)
_SEGMENTS: Final = f"""
    WITH RECURSIVE s (n) AS (
        SELECT max(seq) >> {SEGMENT_BITS} FROM generations UNION ALL SELECT n - 1 FROM s WHERE n > 0
    )
    SELECT n FROM s
"""  # noqa: S608  # nothing from outside
_ALIKE: Final = "g.cost_state, g.unpriced, g.fee_state"
_SUMMED: Final = (
    "g.error_code, g.prompt_tokens, g.completion_tokens, g.cost_nanos, g.paid_nanos, g.fee_nanos, g.provider_cost_nanos"
)
GROUPS: Final = {
    "team": "g.team_id",
    "app": "g.app_id",
    "key": "g.key_id",
    "model": "g.model_id",
    "provider": "g.provider",
    "endpoint": "g.endpoint",
    "end_user": "g.end_user",
    "session": "g.session_id",
    "error_code": "g.error_code",
    "month": "strftime('%Y-%m', g.created_at_ms / 1000, 'unixepoch')",
    "day": "strftime('%Y-%m-%d', g.created_at_ms / 1000, 'unixepoch')",
    "hour": "strftime('%Y-%m-%dT%H:00Z', g.created_at_ms / 1000, 'unixepoch')",
}
"""What sums can be told apart by, named as the filters are; times are UTC."""
_JUDGE: Final = f"g.replay_of IS NOT NULL AND g.replay_of >= '{JUDGE}'"
"""The column holds the link to the other record; ids of ours begin with `gen_`, which comes before `judge:`."""
_RERUN: Final = f"g.replay_of IS NOT NULL AND g.replay_of < '{JUDGE}'"
_STATE_NOW: Final = """
    CASE WHEN g.capture_state <> 'stored' OR EXISTS (SELECT 1 FROM bodies b WHERE b.seq = g.seq) THEN g.capture_state
        WHEN EXISTS (SELECT 1 FROM erasures e WHERE e.seq = g.seq) THEN 'erased' ELSE 'expired' END
"""
_INDEXED: Final = "(SELECT seq FROM indexed WHERE one = 1)"

Statement = tuple[str, dict[str, Any]]


class Filter(Struct, frozen=True, kw_only=True):
    """Which records; everything that is set must hold. Times are Unix milliseconds of admission, ``until_ms`` open.

    ``replay_of`` is a link: to the generation that was run again, or judged (``record.links``). ``rerun`` asks for
    records that rerun another one, or (false) that do not; ``judge`` for judges' calls, or (false) for all others.
    """

    team_id: str | None = None
    app_id: str | None = None
    key_id: str | None = None
    endpoint: str | None = None
    model_id: str | None = None
    provider: str | None = None
    status_code: int | None = None
    error_code: str | None = None
    success: bool | None = None
    stream: bool | None = None
    byok: bool | None = None
    session_id: str | None = None
    replay_of: str | None = None
    end_user: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    min_cost_nanos: int | None = None
    max_cost_nanos: int | None = None
    rerun: bool | None = None
    judge: bool | None = None


class Cursor(Struct, frozen=True):
    """A place in a list, newest first: what follows is older."""

    created_at_ms: int
    seq: int


def listing(wanted: Filter, cursor: Cursor | None, limit: int) -> Statement:
    """The statement of a page: time and seq of each record, newest first, and what a stored record is made of."""
    conditions, values = _conditions(wanted)
    values["limit"] = limit
    older = ""
    if cursor is not None:
        values |= {"at": cursor.created_at_ms, "before": cursor.seq}
        older = "({0}.created_at_ms, {0}.seq) < (:at, :before)"
    source, found, at = _source(wanted)
    statement = f"""
        WITH hit (at, seq) AS (
            SELECT {at}.created_at_ms, {at}.seq FROM {source} WHERE {_all(*found, older.format(at), *conditions)}
            UNION ALL
            SELECT g.created_at_ms, g.seq FROM generations g
            WHERE {_all(f"g.seq > {_INDEXED}", older.format("g"), *conditions)}
            ORDER BY 1 DESC, 2 DESC LIMIT :limit
        )
        SELECT hit.at, {_COLUMNS} FROM hit JOIN generations g ON g.seq = hit.seq
        ORDER BY hit.at DESC, hit.seq DESC
    """  # noqa: S608  # every part is a name of ours; what comes from outside is bound
    return statement, values


def sums(wanted: Filter, by: Sequence[str] = ()) -> Statement:
    """The statement of the sums for records that are alike in what is known of their cost, and in ``by``.

    ``by`` names :data:`GROUPS`. A row begins with their values; then it has the cost state, the meters the records lack
    and the state of the fee; then records, successes, tokens in and out, nanos, those of them that the team's own key
    paid (null: it paid none), the nanos of the fee, and those the providers said (null: none did).
    """
    conditions, values = _conditions(wanted)
    apart = [f"by_{number}" for number in range(len(by))]
    named = [f"{GROUPS[name]} AS {alias}" for name, alias in zip(by, apart, strict=True)]
    columns = ", ".join([*named, _ALIKE, _SUMMED])
    if narrows(wanted):
        source, found, _ = _source(wanted)
        rows = f"""
            SELECT {columns} FROM {source} WHERE {_all(*found, *conditions)}
            UNION ALL
            SELECT {columns} FROM generations g WHERE {_all(f"g.seq > {_INDEXED}", *conditions)}
        """  # noqa: S608  # as above
    else:
        rows = f"SELECT {columns} FROM generations g WHERE {_all(*conditions)}"  # noqa: S608  # as above
    alike = ", ".join([*apart, "cost_state", "unpriced", "fee_state"])
    statement = f"""
        SELECT {alike}, count(*), sum(error_code IS NULL), sum(prompt_tokens),
            sum(completion_tokens), sum(cost_nanos), sum(paid_nanos), sum(fee_nanos), sum(provider_cost_nanos)
        FROM ({rows}) GROUP BY {alike}, paid_nanos IS NULL, provider_cost_nanos IS NULL
    """  # noqa: S608  # as above
    return statement, values


def scan(wanted: Filter, after: int, limit: int) -> Statement:
    """The statement of the next records behind a seq: seq and packed record, looked for in all of them."""
    conditions, values = _conditions(wanted)
    values |= {"after": after, "limit": limit}
    found = _all("g.seq > :after", *conditions)
    return f"SELECT g.seq, g.record FROM generations g WHERE {found} ORDER BY g.seq LIMIT :limit", values  # noqa: S608


def identities(wanted: Filter, limit: int) -> Statement:
    """The statement of ids alone: id, and the state of its bodies as of now."""
    conditions, values = _conditions(wanted)
    values["limit"] = limit
    columns = f"g.id AS id, {_STATE_NOW} AS state"
    source, found, _ = _source(wanted)
    statement = f"""
        SELECT {columns} FROM {source} WHERE {_all(*found, *conditions)}
        UNION ALL
        SELECT {columns} FROM generations g WHERE {_all(f"g.seq > {_INDEXED}", *conditions)}
        LIMIT :limit
    """  # noqa: S608  # as above
    return statement, values


def storable(wanted: Filter) -> bool:
    """Whether every text of ``wanted`` can be in a record at all; one with a lone surrogate never is."""
    try:
        for name in wanted.__struct_fields__:
            value = getattr(wanted, name)
            if isinstance(value, str):
                value.encode()
    except UnicodeEncodeError:
        return False
    return True


def narrows(wanted: Filter) -> bool:
    """Whether a derived table leaves less to look at than the whole of ``generations``."""
    return any(getattr(wanted, name) is not None for name in ("team_id", "since_ms", "until_ms", *_KINDS))


def _all(*conditions: str) -> str:
    return " AND ".join(condition for condition in conditions if condition) or "1"


def _source(wanted: Filter) -> tuple[str, list[str], str]:
    """The derived table that fits, joined to its records; its conditions; and which of the two has the time."""
    named = next((name for name in _KINDS if getattr(wanted, name) is not None), None)
    if named is not None:
        found = [
            f"i.kind = {_KINDS[named]}",
            f"i.segment IN ({_SEGMENTS})",
            "i.key = :value_key",
            f"i.seq <= {_INDEXED}",
        ]
        return "by_value i JOIN generations g ON g.seq = i.seq", found, "g"
    found = [f"i.seq <= {_INDEXED}"]
    if wanted.team_id is not None:
        found.append("i.team_id = :team_id")
    if wanted.since_ms is not None:
        found.append("i.created_at_ms >= :since_ms")
    if wanted.until_ms is not None:
        found.append("i.created_at_ms < :until_ms")
    table = "by_time" if wanted.team_id is None else "by_team"
    return f"{table} i JOIN generations g ON g.seq = i.seq", found, "i"


def _conditions(wanted: Filter) -> tuple[list[str], dict[str, Any]]:
    """What ``wanted`` asks of a row ``g`` of generations, and the values it binds."""
    conditions: list[str] = []
    values: dict[str, Any] = {}
    for name, column, operator in (*((name, name, "=") for name in _EQUAL), *_BOUNDS):
        value = getattr(wanted, name)
        if value is not None:
            conditions.append(f"g.{column} {operator} :{name}")
            values[name] = value
            if name in _KINDS:
                values["value_key"] = value_key(value)
    if wanted.max_cost_nanos is not None:
        conditions.append("g.cost_state NOT IN ('unknown', 'partial')")  # what is known of those is the least they cost
    if wanted.success is not None:
        conditions.append("g.error_code IS NULL" if wanted.success else "g.error_code IS NOT NULL")
    if wanted.rerun is not None:
        conditions.append(_RERUN if wanted.rerun else f"NOT ({_RERUN})")
    if wanted.judge is not None:
        conditions.append(_JUDGE if wanted.judge else f"NOT ({_JUDGE})")
    return conditions, values
