"""Ids that are computed: which record belongs to which try of which item. Pure.

The time in such an id is the run's beginning; the other 80 bits are 16 that tell the run and 64 that tell the call,
both MACs under a secret of the run's own. So nobody can guess them or make another call take one, and whoever knows the
secret (the driver) finds every record of the run in the ledger without any list of them.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from counterfoil.record import ids

SECRET_BYTES: Final = 32
RUN_PREFIX: Final = "run_"
_ENTROPY_BITS: Final = 80
_CALL_BITS: Final = 64
_TAG: Final = b"tag"
_PLACE = struct.Struct(">IIII")


def generation(secret: bytes, created_ms: int, item: int, target: int, attempt: int, judge: int = 0) -> str:
    """The id of one call of a run. ``judge`` is 0 for the rerun itself, and counts the judges from 1."""
    mac = hmac.digest(secret, _PLACE.pack(item, target, attempt, judge), "sha256")
    return ids.text(_head(secret, created_ms) << _CALL_BITS | int.from_bytes(mac[: _CALL_BITS // 8], "big"))


def belongs(secret: bytes, created_ms: int, request_id: str) -> bool:
    """Whether a call belongs to the run; true for one in 65,536 others that began in the run's first millisecond."""
    value = ids.parse(request_id)
    return value is not None and value >> _CALL_BITS == _head(secret, created_ms)


def _head(secret: bytes, created_ms: int) -> int:
    return created_ms << (_ENTROPY_BITS - _CALL_BITS) | int.from_bytes(hmac.digest(secret, _TAG, "sha256")[:2], "big")


def run(created_ms: int, entropy: bytes) -> str:
    """The id of a run; ``entropy`` has 10 bytes."""
    value = created_ms << _ENTROPY_BITS | int.from_bytes(entropy, "big")
    return RUN_PREFIX + ids.text(value)[len(ids.PREFIX) :]


def is_run(text: str) -> bool:
    """Whether ``text`` is shaped like the id of a run."""
    return text.startswith(RUN_PREFIX) and ids.parse(ids.PREFIX + text[len(RUN_PREFIX) :]) is not None
