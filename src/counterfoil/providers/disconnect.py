"""Who goes on billing after a client has left: the default for ``on_disconnect``.

Closing the connection makes some providers stop generating (and charging); others finish and charge in full. For the
first kind cancelling saves money; for the second only reading on tells what was charged, so the record stays true.
The list of the second kind follows OpenRouter's documentation of stream cancellation (read 2026-11); a provider that
is not on it, a server of one's own included, is taken to stop. ``on_disconnect: drain | cancel`` overrides it.
"""

from __future__ import annotations

BILLS_AFTER_CANCEL = frozenset(
    {
        "ai21",
        "alibaba",
        "aws",
        "bedrock",
        "featherless",
        "google",
        "groq",
        "huggingface",
        "minimax",
        "mistral",
        "nebius",
        "perplexity",
        "sambanova",
    }
)


def stops_billing_on_cancel(provider: str, family: str) -> bool:
    """Whether hanging up ends the charge. ``provider`` is its configured name, ``family`` its protocol."""
    return provider not in BILLS_AFTER_CANCEL and family != "google"
