"""A provider's error message without what it repeats of the request.

Providers like to quote what they reject (``Invalid value: 'the prompt'``). A record outlives the erasure of its bodies,
and holds none of them where the policy keeps none, so what stands in the request's texts is taken out of the message.

What makes sense of a message stays: keys of the request, and the values of :data:`_PLAIN_KEYS`, which no prompt stands
under. Ordinary words stand in prompts and in messages alike; so a run of plain words goes only from
:data:`RUN_LENGTH_MIN` characters, and what is quoted, or no plain word (a name with a number, another script), much
sooner. A single everyday word that is not quoted cannot be told from the provider's own, and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from counterfoil.surfaces.foreign import mapping, parse, sequence

BODY_BYTES_MAX: Final = 1 << 20
"""In a larger request nothing is looked for: of its message nothing is kept but the provider's own word before it."""

WORK_CHARS_MAX: Final = 32 << 20
"""Text looked through for one message, some ten milliseconds, for the event loop waits: words not reached then go."""

RUN_LENGTH_MIN: Final = 16
_QUOTED_LENGTH_MIN: Final = 8
_TELLING_LENGTH_MIN: Final = 6
_GONE: Final = "[redacted]"
_PLAIN_KEYS: Final = frozenset({"model", "type", "role", "object", "effort", "detail", "tool_choice", "service_tier"})
_WORD: Final = re.compile(r"[^\s\"'`’”“(){}\[\]<>,;:=!?.…|]+")
_QUOTES: Final = "\"'`’”“"


def without_echo(message: str | None, body: bytes) -> str | None:
    """``message`` with every part that stands in the texts of the request ``body`` replaced by ``[redacted]``."""
    if not message:
        return message
    if len(body) > BODY_BYTES_MAX:
        return None
    asked = _asked(body)
    looks = WORK_CHARS_MAX // (len(asked) + 1)
    kept: list[str] = []
    place = 0
    words = list(_WORD.finditer(message))
    at = 0
    while at < len(words):
        upto = at
        while looks and upto < len(words) and message[words[at].start() : words[upto].end()] in asked:
            upto += 1
            looks -= 1
        if not looks:
            return "".join((*kept, message[place : words[at].start()], _GONE))
        looks -= 1
        if upto > at and _tells(message, words[at].start(), words[upto - 1].end()):
            kept += message[place : words[at].start()], _GONE
            place = words[upto - 1].end()
            at = upto
        else:
            at += 1
    return "".join((*kept, message[place:]))


def _tells(message: str, start: int, end: int) -> bool:
    """Whether what stands there says something of the request rather than being everyday language."""
    run = message[start:end]
    if run == _GONE.strip("[]"):
        return False
    if not (run.isascii() and run.replace(" ", "").isalpha() and run[1:].islower()):
        return len(run) >= _TELLING_LENGTH_MIN
    quoted = message[start - 1 : start] in _QUOTES and message[end : end + 1] in _QUOTES if start else False
    return len(run) >= (_QUOTED_LENGTH_MIN if quoted else RUN_LENGTH_MIN)


def _asked(body: bytes) -> str:
    """The texts of a request, blanks as one; of what is no JSON, all of it."""
    parsed = parse(body)
    texts = body.decode("utf-8", "replace") if parsed is None else "\n".join(_texts(parsed))
    return " ".join(texts.split())


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value that a prompt may stand in, without recursion."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            yield found
        else:
            waiting += sequence(found)
            members = mapping(found).items()
            waiting += [inner for key, inner in members if key not in _PLAIN_KEYS or not isinstance(inner, str)]
