"""Times as people write them: ``30d``, ``12h``, ``2026-12-31``, ``never``."""

from __future__ import annotations

import re
from typing import Final

from counterfoil.errors import ConfigError
from counterfoil.record import times

_UNITS_MS: Final = {
    "s": 1_000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
    "y": 365 * 86_400_000,
}
_DURATION = re.compile(r"([0-9]{1,9})([smhdwy])\Z")


def duration_ms(text: str) -> int:
    """``90s``, ``15m``, ``12h``, ``30d``, ``4w`` or ``1y`` in milliseconds. Raises :class:`ConfigError`."""
    match = _DURATION.match(text)
    if match is None:
        raise ConfigError(f"{text!r} is not a duration; write a number and s, m, h, d, w or y, such as 30d.")
    return int(match[1]) * _UNITS_MS[match[2]]


def moment_ms(text: str, now_ms: int) -> int | None:
    """When ``text`` is, in Unix milliseconds: a duration from now, a date or time (UTC by default), or ``never``."""
    if text == "never":
        return None
    if _DURATION.match(text):
        return now_ms + duration_ms(text)
    try:
        return times.moment_ms(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a time; write 30d, 2026-12-31, 2026-12-31T18:00Z or never.") from error
