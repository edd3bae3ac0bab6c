"""The names an operator chooses. Pure.

Team and application ids are slugs that stand in records for ever, in URLs, file names and metrics, so they are held to
letters that need no escaping anywhere.
"""

from __future__ import annotations

import re
from typing import Final

from counterfoil.errors import CallerFault

ALL_TEAMS: Final = "*"
"""The team of a management key that may see every team. No slug can be this."""

SLUG_LETTERS_MAX: Final = 64
LABEL_LETTERS_MAX: Final = 200
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def slug(text: str, param: str) -> str:
    """``text`` when it can be an id. Raises :class:`CallerFault` saying what an id looks like."""
    if not _SLUG.match(text):
        raise CallerFault(
            "invalid_field",
            f"{param} {_shown(text)} cannot be used: an id has 1 to {SLUG_LETTERS_MAX} of the characters a-z, 0-9, "
            "`.`, `_` and `-`, and begins with a letter or a digit.",
            param=param,
        )
    return text


def provider(text: str) -> str:
    """``text`` when it can be a provider's name."""
    if not _PROVIDER.match(text):
        raise CallerFault(
            "invalid_field",
            f"The provider {_shown(text)} cannot be used: a provider's name has letters, digits, `.`, `_` and `-`.",
            param="provider",
        )
    return text


def label(text: str | None, param: str = "name") -> str | None:
    """``text`` when it can be shown to people on one line."""
    if text is not None and (len(text) > LABEL_LETTERS_MAX or not text.isprintable()):
        raise CallerFault(
            "invalid_field", f"{param} has at most {LABEL_LETTERS_MAX} printable characters.", param=param
        )
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= SLUG_LETTERS_MAX else text[:SLUG_LETTERS_MAX] + "…")
