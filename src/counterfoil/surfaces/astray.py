"""What a request that found no surface was meant for, in words for whoever wrote its address.

Most of them come from an SDK whose base URL has a version too many or too few: OpenAI's wants it, Anthropic's and
Google's add it themselves. Others ask for what a provider stores, which is not ours to give.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Final

from counterfoil.errors import CallerFault

_ADDRESSES: Final = {
    "openai": "The base URL of OpenAI's SDK ends in /v1.",
    "anthropic": "The base URL of Anthropic's SDK has no path: the SDK adds /v1 itself.",
    "google": "The base URL of Google's SDK has no path: the SDK adds the version itself.",
}
_NOTHING: Final = "This gateway has no such endpoint"
_STORED: Final = re.compile(
    r"/v1(beta1?)?/(files|uploads|batches|responses/(?!compact|input_tokens)|messages/batches|conversations|containers|"
    r"chat/completions/|vector_stores|assistants|threads|fine_tuning|videos|skills|cachedContents|fileSearchStores)"
)
_VERSION: Final = re.compile(r"(/v1(?:beta1?)?)(?=/)")
_GEMINI: Final = re.compile(r"/(?:models|tunedModels)/.+:(\w+)\Z", re.DOTALL)
_ASKED: Final = ("/models", "/generations")
"""What the control plane has, and people look for where SDKs look."""
_CLOSE: Final = 0.85


def refusal(path: str, fixed: Mapping[str, str], methods: Collection[str]) -> CallerFault:
    """``unsupported_endpoint`` for ``path``, which is repeated only where it is one of ours.

    ``fixed`` has each path that is served and its protocol, ``methods`` the methods of Gemini's models.
    """
    meant = intended(path, fixed, methods)
    if meant is not None:
        protocol = fixed.get(meant) or ("google" if meant.startswith("/v1beta") else "openai")
        said = f"{_NOTHING}; did you mean {meant}? {_ADDRESSES[protocol]}"
    elif _STORED.match(path):
        said = (
            f"{_NOTHING}: what a provider stores (files, batches, stored responses and the like) is not served here. "
            "Ask the provider itself."
        )
    else:
        said = f"{_NOTHING}; GET /docs lists those it has."
    return CallerFault("unsupported_endpoint", said)


def intended(path: str, fixed: Collection[str], methods: Collection[str]) -> str | None:
    """The path of ours that ``path`` ends in, whatever version and base stand before it, or the one it nearly is."""
    versions = list(_VERSION.finditer(path))
    rest = (path[versions[-1].end() :] if versions else path).rstrip("/")
    gemini = _GEMINI.match(rest)
    if gemini is not None and gemini[1] in methods:
        return f"/v1beta/models/{{model}}:{gemini[1]}"
    whole = f"/v1{rest}"
    if whole in fixed or rest in _ASKED:
        return whole if whole != path else None
    near = difflib.get_close_matches(whole, fixed, 1, _CLOSE) if len(whole) < 64 else []
    return near[0] if near else None
