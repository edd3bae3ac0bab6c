"""What a provider says went wrong, reduced to what a record may hold.

Error bodies come in the three protocols' shapes, in several home-made ones, as HTML from whatever stands in front, or
as plain text. A record keeps the provider's own type or code and its message, cut to :data:`MESSAGE_MAX` characters,
control characters and anything that looks like a credential removed. Of HTML nothing is kept: it says nothing about
the call.

A few providers answer a bad key, or an account without money, with status 400, as if the request were at fault (Google,
xAI, Anthropic). Who holds the key must know, and another target may serve the call, so their messages are looked for
(each provider's API reference on errors, read 2026-11).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from counterfoil.surfaces.foreign import mapping, parse, sequence

MESSAGE_MAX = 300
"""Characters of a provider's message that are kept: enough for its sense, too few for a prompt."""

_BODY_MAX = 256 << 10
"""Larger error bodies are not read; no provider's own error is near it."""

_SECRET = re.compile(
    r"(?i)\b(?:sk|pk|rk|gsk|xai|hf|key|nvapi|pplx|csk|fw|r8|cf_[sm]k|tgp_v1|AIza|ya29|eyJ)[-_.]?[A-Za-z0-9*_.\-]{12,}"
    r"|(?i:bearer)\s+\S+"
)
_BLANKS = re.compile(r"\s+")
_LIMITS = ("rate_limit", "resource_exhausted", "too_many_requests", "quota", "throttl")
_REFUSED_KEYS = ("API key not valid", "API key expired", "Incorrect API key provided", "Your credit balance is too low")
"""How the message of a status 400 begins that refuses the credential: Google's twice, xAI's, Anthropic's."""

_OVERLOADS = ("overloaded", "unavailable", "capacity")


class Complaint(NamedTuple):
    """A provider's error: ``word`` is its own type or code, ``message`` safe to show, ``status`` as the body has it."""

    word: str
    message: str
    status: int | None

    def text(self) -> str:
        """Both in one line of at most :data:`MESSAGE_MAX` characters."""
        joined = f"{self.word}: {self.message}" if self.word and self.message else self.word or self.message
        return joined[:MESSAGE_MAX]


def safe(message: object) -> str:
    """``message`` without control characters, credentials, or more than its beginning. Empty for anything but text."""
    if not isinstance(message, str):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in message[: MESSAGE_MAX * 4])
    return _SECRET.sub("[redacted]", _BLANKS.sub(" ", shown).strip())[:MESSAGE_MAX]


def complaint_in(body: Any) -> Complaint | None:
    """The error in a parsed JSON body of any known shape, or None when there is none."""
    outer = mapping(next(iter(sequence(body)), body))
    error = outer.get("error")
    if isinstance(error, str):
        return Complaint(_word(outer, "code", "type"), safe(error) or safe(outer.get("message")), _status(outer))
    inner = mapping(error)
    if inner:
        status = _status(inner)
        return Complaint(_word(inner, "status", "type", "code"), safe(inner.get("message")), status)
    if outer.get("type") == "error" or outer.get("object") == "error":
        return Complaint(_word(outer, "code", "type"), safe(outer.get("message")), _status(outer))
    return None


def _word(error: dict[str, Any], *names: str) -> str:
    """The first telling word among ``names``; "error" itself tells nothing, a number least."""
    words = [error.get(name) for name in names]
    for word in words:
        if isinstance(word, str) and word and word != "error":
            return safe(word)[:64]
    return next((str(word) for word in words if type(word) is int), "")


def _status(error: dict[str, Any]) -> int | None:
    for name in ("code", "status", "status_code"):
        value = error.get(name)
        if type(value) is int and 400 <= value <= 599:
            return value
    return None


def complaint_of(status: int, body: bytes) -> Complaint:
    """The error in the body of an answer with ``status`` ≥ 400."""
    if len(body) <= _BODY_MAX:
        parsed = parse(body.removeprefix(b"data: ").strip())
        found = complaint_in(parsed)
        if found is not None:
            return found
        outer = mapping(parsed)
        for name in ("message", "detail", "Message", "error_message"):
            message = safe(outer.get(name))
            if message:
                return Complaint(_word(outer, "type", "code"), message, None)
        if parsed is None and body and not _is_markup(body) and len(body) <= MESSAGE_MAX:
            return Complaint("", safe(body.decode("utf-8", "replace")), None)
    return Complaint("", f"The provider answered with status {status} and no readable error.", None)


def _is_markup(body: bytes) -> bool:
    return body.lstrip()[:1] == b"<" or b"\x00" in body


def code_of(status: int, found: Complaint) -> str:
    """The code of ours for an answer of ``status`` with the error ``found``."""
    lower = found.word.lower()
    if status == 429 or any(part in lower for part in _LIMITS):
        return "upstream:rate_limited"
    if status in (503, 529) or any(part in lower for part in _OVERLOADS):
        return "upstream:overloaded"
    if status in (401, 402, 403) or (status == 400 and found.message.startswith(_REFUSED_KEYS)):
        return "upstream:unauthorized"
    if status in (408, 504):
        return "upstream:timeout"
    return "upstream:error" if status >= 500 else "user:provider_rejected"


def stream_code_of(found: Complaint) -> str:
    """The code of ours for an error inside an answer that had begun."""
    code = code_of(found.status or 0, found)
    return code if code in ("upstream:rate_limited", "upstream:overloaded") else "upstream:stream_error"
