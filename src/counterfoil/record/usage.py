"""Usage in one convention for every provider, and where each number came from.

``prompt_tokens`` is *all* input and ``completion_tokens`` *all* output: cached reads, cache writes and a provider's own
tool prompt are inside the first, reasoning and thoughts inside the second, whatever the provider's own convention.
The details split those two totals further and never add to them; ``meters`` holds what is billed beside tokens.

Quantities are whole numbers. Time is measured in milliseconds (meters end in ``_ms``), so a third of a second has an
exact price; everything else is counted in its own unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import UNSET, Struct, UnsetType


class UsageSource(StrEnum):
    """Who says so: the provider in full, an estimate of ours, the provider in part, or nobody."""

    REPORTED = "reported"
    ESTIMATED = "estimated"
    PARTIAL = "partial"
    ABSENT = "absent"


class Usage(Struct, frozen=True, omit_defaults=False, gc=False):
    """What a generation consumed.

    ``prompt_tokens_details`` keys: ``cached_tokens``, ``cache_write_tokens`` (of which ``cache_write_5m_tokens`` and
    ``cache_write_1h_tokens``), ``text_tokens``, ``audio_tokens``, ``image_tokens``, ``video_tokens``, ``tool_tokens``,
    ``cached_text_tokens``, ``cached_audio_tokens``, ``cached_image_tokens``, ``cached_video_tokens``.
    ``completion_tokens_details`` keys: ``reasoning_tokens``, ``text_tokens``, ``audio_tokens``, ``image_tokens``,
    ``video_tokens``, ``accepted_prediction_tokens``, ``rejected_prediction_tokens``.
    ``meters`` keys: ``requests``, ``images``, ``input_images``, ``characters``, ``pages``, ``web_searches``,
    ``file_searches``, ``attachment_searches``, ``refusals``, ``code_executions``, ``search_units``, ``embeddings``,
    ``input_audio_ms``, ``output_audio_ms``, ``input_video_ms``, ``output_video_ms`` and any further meter a provider
    names.
    ``estimated`` names the counts that the provider did not report: totals (``prompt_tokens``, ``completion_tokens``)
    are an estimate of ours, and of a meter at least as many as ``meters`` says were consumed. The others are as
    reported.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: dict[str, int] | UnsetType = UNSET
    completion_tokens_details: dict[str, int] | UnsetType = UNSET
    meters: dict[str, int] | UnsetType = UNSET
    source: UsageSource = UsageSource.ABSENT
    estimated: tuple[str, ...] | UnsetType = UNSET


TOTALS: Final = ("prompt_tokens", "completion_tokens")
"""The counts that :attr:`Usage.estimated` may name beside meters."""

FALLBACK: Final = "fallbacks."
"""Before the name of the model that answered after the one that was asked had refused: the meter of such a call."""

ABSENT = Usage()


def served_instead(meters: Mapping[str, int] | UnsetType | None) -> str | None:
    """The model that served, and whose prices apply, when it was not the one that was asked."""
    for name in meters or ():
        if name.startswith(FALLBACK):
            return name[len(FALLBACK) :]
    return None
