"""What a call's headers say about who it is for, and which of them go on to the provider.

Only an allow-list of headers travels: a credential, a cookie or an internal address in any other header stays here.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from counterfoil.record.ids import parse
from counterfoil.record.links import judging

FORWARDED = frozenset(
    {
        b"accept",
        b"anthropic-beta",
        b"anthropic-version",
        b"openai-beta",
        b"user-agent",
        b"x-client-request-id",
        b"x-goog-api-client",
        b"traceparent",
        b"tracestate",
    }
)
"""Client headers that providers understand and that hold no secret."""

KEPT = (b"anthropic-beta", b"anthropic-version", b"openai-beta")
"""Headers that change what a body means: kept with it, so that a rerun asks for the same thing. None holds a secret."""

JUDGE_OF = b"x-counterfoil-judge-of"

_SLUG = re.compile(r"[\W_]+")
APP_ID_LENGTH_MAX = 128
SESSION_ID_LENGTH_MAX = 256


def app_of(headers: dict[bytes, bytes]) -> str | None:
    """The application: ``X-App-Id``, else ``HTTP-Referer``/``Referer``, else ``X-Title``. A key's own goes before.

    What says nothing (an empty value, a referer without a host) does not stand in the way of the next.
    """
    value = headers.get(b"x-app-id")
    app = _text(value)[:APP_ID_LENGTH_MAX] if value else None
    if not app:
        value = headers.get(b"http-referer") or headers.get(b"referer")
        app = _site(_text(value)) if value else None
    if not app:
        value = headers.get(b"x-title")
        app = _SLUG.sub("-", _text(value).lower()).strip("-")[:APP_ID_LENGTH_MAX] if value else None
    return app or None


def session_of(headers: dict[bytes, bytes]) -> str | None:
    """The session the client named as ``x-session-id``. One named in the body goes before."""
    value = headers.get(b"x-session-id")
    return _text(value)[:SESSION_ID_LENGTH_MAX] if value else None


def link_of(headers: dict[bytes, bytes]) -> str | None:
    """The link to the generation that this call says it reruns (``x-counterfoil-replay-of``), when it is an id of ours.

    Else to the one that it says it judges (``x-counterfoil-judge-of``).
    """
    rerun = _id(headers.get(b"x-counterfoil-replay-of"))
    if rerun is not None:
        return rerun
    judged = _id(headers.get(JUDGE_OF))
    return None if judged is None else judging(judged)


def _id(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    return text if parse(text) is not None else None


def kept_of(headers: dict[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that are captured with the body; empty for most calls, at the price of three look-ups."""
    if b"anthropic-version" in headers or b"anthropic-beta" in headers or b"openai-beta" in headers:
        return tuple((name, headers[name]) for name in KEPT if name in headers)
    return ()


def _text(value: bytes) -> str:
    """A header value as text: UTF-8 where it is, and no character that would need escaping in a log."""
    text = value.decode("utf-8", "replace")
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _site(referer: str) -> str | None:
    """Host and path of a referer, with or without its scheme, without query, fragment or credentials."""
    try:
        parts = urlsplit(referer if "://" in referer else f"//{referer}")
        host, _ = parts.hostname, parts.port  # a port that is none raises: about:blank has no host
    except ValueError:
        return None
    if not host:
        return None
    return f"{host}{parts.path.rstrip('/')}"[:APP_ID_LENGTH_MAX]
