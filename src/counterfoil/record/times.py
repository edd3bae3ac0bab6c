"""Times: Unix milliseconds where we count, RFC 3339 in UTC with milliseconds where a record is written. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, after which there is no timestamp."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def timestamp(unix_ms: int) -> str:
    """``unix_ms`` as records have it: ``2026-01-31T12:00:00.000Z``. Raises :class:`ValueError` out of range."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=16)
def _second(seconds: int) -> str:
    """A second's part of a timestamp; thousands of calls share one."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def recorded_ms(written: str) -> int:
    """What :func:`timestamp` wrote, as Unix milliseconds; in a third of the time that :func:`moment_ms` takes."""
    return _minute(written[:16]) + int(written[17:19]) * 1_000 + int(written[20:23])


@lru_cache(maxsize=4096)
def _minute(text: str) -> int:
    return moment_ms(text)


def moment_ms(text: str) -> int:
    """A date or a time as people write it, in UTC unless it says otherwise, as Unix milliseconds.

    Raises :class:`ValueError` for what is none.
    """
    return to_ms(datetime.fromisoformat(text))


def to_ms(moment: datetime) -> int:
    """``moment`` as Unix milliseconds, less what is below one; without a zone it is UTC."""
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
