"""How much of its call a request wants to be kept.

The operator's default, the team, the key and the request may each name a policy; the strictest wins
(:func:`~counterfoil.record.record.strictest`), so nobody can make the gateway keep more than somebody else allowed.
"""

from __future__ import annotations

from typing import Final

from counterfoil.errors import CallerFault
from counterfoil.record.record import CapturePolicy

HEADER: Final = "x-counterfoil-capture"

_BY_NAME: Final = {policy.value: policy for policy in CapturePolicy}


def from_header(value: str | bytes) -> CapturePolicy:
    """The policy that a request's ``x-counterfoil-capture`` header names.

    Case and surrounding white space do not matter. Raises :class:`CallerFault` ``invalid_field`` for any other value:
    who asks for less to be kept must not be taken for somebody who did not ask.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    policy = _BY_NAME.get(text.strip().lower())
    if policy is None:
        raise CallerFault("invalid_field", f"The header {HEADER} must be full, metadata or off.", param=HEADER)
    return policy
