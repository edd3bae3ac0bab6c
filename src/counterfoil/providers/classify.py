"""A provider's HTTP status as a fault of ours: who is to blame, and whether another target may do better.

The client still gets the provider's own status and body; the fault is for the record and for the router.
A refused credential is the operator's problem, never the caller's, so another target may serve the call.
"""

from __future__ import annotations

from counterfoil.errors import CallerFault, Fault, UpstreamFault

_TABLE: dict[int, tuple[type[Fault], str, bool]] = {
    401: (UpstreamFault, "unauthorized", True),
    402: (UpstreamFault, "unauthorized", True),
    403: (UpstreamFault, "unauthorized", True),
    404: (CallerFault, "provider_rejected", True),
    408: (UpstreamFault, "timeout", True),
    429: (UpstreamFault, "rate_limited", True),
    503: (UpstreamFault, "overloaded", True),
    504: (UpstreamFault, "timeout", True),
    529: (UpstreamFault, "overloaded", True),
}


def fault_of(status: int, message: str | None, code: str | None = None) -> Fault | None:
    """The fault a provider's ``status`` stands for, or None for a success. ``message`` is its safe error text.

    ``code`` is what its body says was wrong, which counts where a status 400 hides that a credential was refused.
    """
    if status < 300:
        return None
    if status == 400 and code == "upstream:unauthorized":
        return UpstreamFault("unauthorized", message, status=status, retryable=True)
    branch, code, retryable = _TABLE.get(
        status,
        (CallerFault, "provider_rejected", False) if 400 <= status < 500 else (UpstreamFault, "error", True),
    )
    return branch(code, message, status=status if status >= 400 else 502, retryable=retryable)
