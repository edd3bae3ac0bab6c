"""Recordings: which captured answers can be played, how a request names one, and what the nearest one differs in.

A request names a recording by its *match key*: the method (always POST), the endpoint with its query in a fixed order,
and the canonical body (``wire.canonical``) less what is ignored. Where the recordings lie, in a ledger or in a cassette
file, is somebody else's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from counterfoil.capture.body import Capture
from counterfoil.wire import canonical
from counterfoil.wire.canonical import Pointer
from counterfoil.wire.pointer import joined

FIELDS_SHOWN_MAX: Final = 8
"""Differing fields that are named; of a request that differs in more, nobody wants them all."""

_BROKEN: Final = frozenset(
    {
        "user:client_disconnected",
        "upstream:connect_failed",
        "upstream:connect_timeout",
        "upstream:tls_failed",
        "upstream:proxy_failed",
        "upstream:connection_reset",
        "upstream:idle_timeout",
        "upstream:truncated",
        "upstream:invalid_response",
        "upstream:response_too_large",
    }
)
"""Errors of calls whose answer never came whole."""

_SPEAKABLE = re.compile(r"[A-Za-z0-9_.$-]{1,64}\Z")


class Asked(Struct, frozen=True):
    """A request that a recording shall answer. ``key_id`` and ``session_id`` say whose sequence it continues."""

    team_id: str
    key_id: str
    session_id: str | None
    endpoint: str
    content_type: str
    body: bytes
    ignored: tuple[Pointer, ...] = ()
    successes_only: bool = False


class Recording(Struct, frozen=True):
    """A captured answer that can be played. ``generation_ms`` is how long a whole body took."""

    generation_id: str
    model_id: str
    capture: Capture
    generation_ms: float
    success: bool


class Near(Struct, frozen=True):
    """The recording nearest to a request that has none, and the JSON pointers of what differs, or ``endpoint``."""

    generation_id: str
    fields: tuple[str, ...]


def playable(capture: Capture, error_code: str | None) -> bool:
    """Whether the answer in ``capture`` came whole: a provider's error may be, a broken connection is not."""
    if not capture.response_status:
        return False
    return error_code is None or not (error_code.startswith("gateway:") or error_code in _BROKEN)


def match_text(asked: Asked) -> bytes:
    """The match key before it is hashed."""
    ignored = ",".join(map(joined, asked.ignored))
    head = f"{ignored}\nPOST {ordered(asked.endpoint)}\n".encode(errors="surrogateescape")
    return head + canonical.canonical(asked.body, asked.content_type, asked.ignored)


def ordered(endpoint: str) -> str:
    """``endpoint`` with the parts of its query in a fixed order."""
    path, mark, query = endpoint.partition("?")
    return f"{path}{mark}{'&'.join(sorted(query.split('&')))}" if mark else path


def kind_of(endpoint: str) -> str:
    """What kind of call an endpoint takes: its path, and of a path that holds a model's name only the method."""
    path = endpoint.partition("?")[0]
    return path.rpartition(":")[2] if ":" in path else path


def nearest(asked: Asked, candidates: Iterable[tuple[str, str, Capture]]) -> Near | None:
    """The candidate (generation id, endpoint, bodies) that differs in the fewest fields; the first of several."""
    mine = _parsed(asked.body, asked.content_type, asked.ignored)
    best: tuple[int, str, list[Pointer]] | None = None
    for generation_id, endpoint, capture in candidates:
        theirs = _parsed(capture.request, capture.request_type, asked.ignored)
        found: list[Pointer] = [] if ordered(endpoint) == ordered(asked.endpoint) else [("endpoint",)]
        found += canonical.differences(mine, theirs)
        if best is None or len(found) < best[0]:
            best = len(found), generation_id, found
    if best is None:
        return None
    count, generation_id, found = best
    shown = [_speak(segments) for segments in found[:FIELDS_SHOWN_MAX]]
    return Near(generation_id, (*shown, *([f"{count - len(shown)} more"] if count > len(shown) else [])))


def _parsed(body: bytes, content_type: str, ignored: tuple[Pointer, ...]) -> Any:
    return canonical.without(canonical.parse(body, content_type), ignored)


def _speak(segments: Pointer) -> str:
    """A pointer for a message: what no field of a protocol is called may be a prompt's, and becomes ``…``."""
    if segments == ("endpoint",):
        return "endpoint"
    return "".join(f"/{segment if _SPEAKABLE.match(segment) else '…'}" for segment in segments) or "the whole body"
