"""The short way through a usage object gives what the long way gives."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from counterfoil.surfaces import metering

COUNTS = st.integers(0, 40) | st.sampled_from([-1, None, True, "3", 1.5, 1 << 60])
INPUT = st.sampled_from(
    ["cached_tokens", "audio_tokens", "text_tokens", "cache_write_tokens", "cache_read_tokens", "x"]
)
OUTPUT = st.sampled_from(["reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "thinking_tokens", "x"])


@st.composite
def usages(draw: st.DrawFn) -> dict[str, Any]:
    """Usage objects of OpenAI's two spellings, honest and not, often with a total that adds up."""
    prompt, completion = draw(COUNTS), draw(COUNTS)
    names = draw(st.sampled_from([("prompt", "completion"), ("input", "output")]))
    usage: dict[str, Any] = {f"{names[0]}_tokens": prompt, f"{names[1]}_tokens": completion}
    if type(prompt) is int and type(completion) is int and draw(st.booleans()):
        usage["total_tokens"] = prompt + completion
    elif draw(st.booleans()):
        usage["total_tokens"] = draw(COUNTS)
    for name, details in zip(names, (INPUT, OUTPUT), strict=True):
        if draw(st.booleans()):
            usage[f"{name}_tokens_details"] = draw(st.none() | st.dictionaries(details, COUNTS, max_size=4))
    if draw(st.booleans()):
        usage[draw(st.sampled_from(["cost", "reasoning_tokens", "cached_tokens", "service_tier"]))] = draw(COUNTS)
    return usage


@given(usages())
def test_the_short_way_agrees_with_the_long_way(usage: dict[str, Any]) -> None:
    """Whatever the short way takes, the long way reads just so."""
    plain = metering.plain_usage_of(usage)
    if plain is not None:
        assert plain == metering.long_usage_of(usage)


def test_the_short_way_takes_what_it_is_for() -> None:
    """The usage object of an ordinary answer does not go the long way."""
    details = {"cached_tokens": 4, "audio_tokens": 0}, {"reasoning_tokens": 2, "audio_tokens": 0}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    assert metering.plain_usage_of(usage) is not None
    long = {**usage, "prompt_tokens_details": details[0], "completion_tokens_details": details[1]}
    assert metering.plain_usage_of(long) is not None
