"""API keys as text: making them, telling a damaged one offline, finding them among a request's headers. Pure.

::

    cf_sk_4fTq0ZbKx81M_k3…34 letters…9aQ2bXw
    │  │  │            │                └ 6: CRC-32 of everything before it, base 62
    │  │  │            └ 34 random letters: 34 × log2(62) > 202 bits
    │  │  └ 12: the kid, public; it names the key in records, lists and logs
    │  └ sk for inference, mk for management
    └ the prefix secret scanners look for

A mistyped or cut key fails its checksum here, before a database is asked. CRC-32 is not a defence: whoever guesses must
guess 202 bits either way.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KID_LETTERS: Final = 12
SECRET_LETTERS: Final = 34
CHECK_LETTERS: Final = 6
KEY_LETTERS: Final = len("cf_sk_") + KID_LETTERS + 1 + SECRET_LETTERS + CHECK_LETTERS
_PATTERN = re.compile(rf"cf_(sk|mk)_([0-9A-Za-z]{{{KID_LETTERS}}})_[0-9A-Za-z]{{{SECRET_LETTERS + CHECK_LETTERS}}}\Z")


class KeyKind(StrEnum):
    """What a key is for."""

    INFERENCE = "inference"
    MANAGEMENT = "management"


class KeyReason(StrEnum):
    """Why a key is refused. The first three are told from the text alone."""

    MISSING = "missing_key"
    MALFORMED = "malformed_key"
    BAD_CHECKSUM = "bad_checksum"
    UNKNOWN = "unknown_key"
    REVOKED = "revoked_key"
    DISABLED = "disabled_key"
    EXPIRED = "expired_key"
    APP_DISABLED = "app_disabled"
    TEAM_DISABLED = "team_disabled"


class ParsedKey(NamedTuple):
    """A well-formed key's public parts."""

    kind: KeyKind
    kid: str


_TAGS: Final = {KeyKind.INFERENCE: "sk", KeyKind.MANAGEMENT: "mk"}
_KINDS: Final = {tag: kind for kind, tag in _TAGS.items()}


def compose(kind: KeyKind, kid: str, entropy: Callable[[int], bytes]) -> str:
    """A new key of ``kind`` for ``kid``; ``entropy(n)`` gives n random bytes."""
    body = f"cf_{_TAGS[kind]}_{kid}_{letters(SECRET_LETTERS, entropy)}"
    return body + checksum(body)


def parse(text: str) -> ParsedKey | KeyReason:
    """The public parts of a key, or why ``text`` cannot be one."""
    if not text:
        return KeyReason.MISSING
    match = _PATTERN.match(text)
    if match is None:
        return KeyReason.MALFORMED
    if checksum(text[:-CHECK_LETTERS]) != text[-CHECK_LETTERS:]:
        return KeyReason.BAD_CHECKSUM
    return ParsedKey(_KINDS[match[1]], match[2])


def checksum(text: str) -> str:
    """CRC-32 of ``text`` as six base 62 letters."""
    value = zlib.crc32(text.encode())
    digits: list[str] = []
    for _ in range(CHECK_LETTERS):
        value, digit = divmod(value, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


def letters(count: int, entropy: Callable[[int], bytes]) -> str:
    """``count`` letters drawn evenly: bytes of 248 and above are drawn again, so no letter is likelier."""
    drawn = ""
    while len(drawn) < count:
        drawn += "".join([ALPHABET[byte % 62] for byte in entropy(count) if byte < 248])
    return drawn[:count]


KEY_HEADERS: Final = (b"x-api-key", b"x-goog-api-key", b"api-key")
"""The headers besides ``Authorization`` that may hold a key, in the order they are looked at."""


def from_headers(headers: Mapping[bytes, bytes]) -> str:
    """The key in a request's headers (names in lower case), or an empty text.

    Looked for, in this order: ``Authorization: Bearer`` (OpenAI SDK), ``x-api-key`` (Anthropic SDK), ``x-goog-api-key``
    (Google SDK), ``api-key`` (Azure style).
    """
    value = headers.get(b"authorization")
    if value is not None and value[:7].lower() == b"bearer ":
        return value[7:].strip().decode("latin-1")
    for name in KEY_HEADERS:
        value = headers.get(name)
        if value:
            return value.strip().decode("latin-1")
    return ""
