"""A provider's usage object, in any known dialect, as one :class:`~counterfoil.record.usage.Usage`.

The dialects are told apart by the body's own shape, not by the provider's name, because one protocol is spoken by
dozens of providers and by the gateways in front of them. The rules, each with where it comes from:

======================  ================================================================================================
OpenAI                  ``cached_tokens`` inside the prompt, ``reasoning_tokens`` inside the completion
xAI                     reasoning *beside* ``completion_tokens``: seen when total = prompt + completion + reasoning
Perplexity              ``reasoning_tokens`` and ``citation_tokens`` at the top level, both beside the completion
Anthropic               ``cache_read_input_tokens`` and ``cache_creation_input_tokens`` beside ``input_tokens``
Bedrock                 the same in camel case
DeepSeek                ``prompt_cache_hit_tokens`` inside the prompt; Moonshot ``cached_tokens``, Mistral
                        ``num_cached_tokens``
Gemini                  tool-use prompt beside ``promptTokenCount``, thoughts beside ``candidatesTokenCount``, cached
                        content inside the prompt
Cohere                  what is billed stands in ``billed_units``
Voyage, Jina            only ``total_tokens``: all of it is input
======================  ================================================================================================

A count that cannot be one (negative, a fraction, text, a boolean) is treated as absent and the usage as ``partial``.
The total is always prompt plus completion in *our* convention; a provider's own total only helps to find what it left
out. Sources: the providers' API references, read 2026-11; https://docs.x.ai/developers/cost-tracking for ticks.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from msgspec import UNSET

from counterfoil.record.money import NANOS_PER_DOLLAR
from counterfoil.record.usage import ABSENT, Usage, UsageSource
from counterfoil.surfaces.foreign import count, decimal, mapping, sequence

TICKS_PER_NANO = 10
_DOLLARS_MAX = 1_000_000
_MODALITIES = {
    "TEXT": "text_tokens",
    "AUDIO": "audio_tokens",
    "IMAGE": "image_tokens",
    "VIDEO": "video_tokens",
    "DOCUMENT": "document_tokens",
}
_INPUT_DETAILS = ("text_tokens", "audio_tokens", "image_tokens", "video_tokens")
_OUTPUT_DETAILS = (*_INPUT_DETAILS, "accepted_prediction_tokens", "rejected_prediction_tokens")


class _Source:
    """One usage object under reading. ``lied`` turns True when a count in it could not be one."""

    __slots__ = ("body", "lied")

    def __init__(self, body: dict[str, Any]) -> None:
        self.body = body
        self.lied = False

    def take(self, *names: str) -> int | None:
        """The first of ``names`` that holds an honest count."""
        return self.take_from(self.body, *names)

    def take_from(self, body: dict[str, Any], *names: str) -> int | None:
        """The same, from an object inside."""
        for name in names:
            value = body.get(name)
            if value is None:
                continue
            number = count(value)
            if number is not None:
                return number
            self.lied = True
        return None

    def inside(self, *names: str) -> dict[str, Any]:
        """The first of ``names`` that holds an object, else an empty one."""
        for name in names:
            value = mapping(self.body.get(name))
            if value:
                return value
        return {}


def usage_of(body: object, meters: dict[str, int] | None = None) -> Usage:
    """The usage in an OpenAI-, Anthropic-, Cohere- or Bedrock-shaped usage object. ``meters`` are added to its own."""
    source = _Source(mapping(body))
    if not source.body:
        return _only_meters(meters)
    units = source.inside("billed_units")
    if units:
        source.body = {**source.body, **units}
    prompt, prompt_details = _input(source)
    completion, completion_details = _output(source, prompt)
    if prompt is None and completion is None:
        prompt = source.take("total_tokens", "totalTokens")
        if prompt is None and not source.lied:
            return _only_meters(_meters(source, meters))
    own = _meters(source, meters)
    return _usage(prompt or 0, completion or 0, prompt_details, completion_details, own, lied=source.lied)


def _usage(
    prompt: int,
    completion: int,
    prompt_details: dict[str, int],
    completion_details: dict[str, int],
    meters: dict[str, int] | None,
    *,
    lied: bool,
) -> Usage:
    return Usage(
        prompt,
        completion,
        prompt + completion,
        prompt_details or UNSET,
        completion_details or UNSET,
        meters or UNSET,
        UsageSource.PARTIAL if lied else UsageSource.REPORTED,
    )


def _only_meters(meters: dict[str, int] | None) -> Usage:
    return Usage(meters=meters, source=UsageSource.REPORTED) if meters else ABSENT


def _input(source: _Source) -> tuple[int | None, dict[str, int]]:
    """All input and its details."""
    details = source.inside("prompt_tokens_details", "input_tokens_details", "input_token_details")
    found: dict[str, int] = {}
    _copy(source, details, _INPUT_DETAILS, found)
    read = source.take_from(details, "cached_tokens", "cache_read_tokens")
    if read is None:
        read = source.take("cached_tokens", "num_cached_tokens", "prompt_cache_hit_tokens")
    beside_read = source.take("cache_read_input_tokens", "cacheReadInputTokens")
    write = source.take_from(details, "cache_write_tokens", "cache_creation_tokens")
    beside_write = source.take("cache_creation_input_tokens", "cacheWriteInputTokens")
    split = _writes(source, found)
    if beside_write is None and write is None and split:
        beside_write = split
    prompt = source.take("prompt_tokens", "input_tokens", "inputTokens")
    if prompt is not None and _beside(source, prompt, (beside_read or 0) + (beside_write or 0)):
        prompt += (beside_read or 0) + (beside_write or 0)
    read = read if read is not None else beside_read
    write = write if write is not None else beside_write
    if read is not None:
        found["cached_tokens"] = read
    if write is not None:
        found["cache_write_tokens"] = write
    return prompt, found


def _beside(source: _Source, prompt: int, cached: int) -> bool:
    """Whether ``cached`` tokens are not inside ``prompt`` yet.

    They are inside wherever the OpenAI spelling of the prompt or its details is used, unless a total says otherwise.
    """
    if not cached:
        return False
    total = source.take("total_tokens", "totalTokens")
    if total is not None:
        output = source.take("completion_tokens", "output_tokens", "outputTokens") or 0
        if total in (prompt + output, prompt + output + cached):
            return total != prompt + output
    return "prompt_tokens" not in source.body and "input_tokens_details" not in source.body


def _writes(source: _Source, found: dict[str, int]) -> int:
    """The cache writes by time to live, put into ``found``; their sum."""
    split = source.inside("cache_creation")
    short = source.take_from(split, "ephemeral_5m_input_tokens")
    long = source.take_from(split, "ephemeral_1h_input_tokens")
    for entry in sequence(source.body.get("cacheDetails")):
        tokens = source.take_from(mapping(entry), "inputTokens") or 0
        if mapping(entry).get("ttl") == "1h":
            long = (long or 0) + tokens
        else:
            short = (short or 0) + tokens
    if short:
        found["cache_write_5m_tokens"] = short
    if long:
        found["cache_write_1h_tokens"] = long
    return (short or 0) + (long or 0)


def _output(source: _Source, prompt: int | None) -> tuple[int | None, dict[str, int]]:
    """All output and its details."""
    details = source.inside("completion_tokens_details", "output_tokens_details", "output_token_details")
    found: dict[str, int] = {}
    _copy(source, details, _OUTPUT_DETAILS, found)
    completion = source.take("completion_tokens", "output_tokens", "outputTokens")
    reasoning = source.take_from(details, "reasoning_tokens", "thinking_tokens")
    citations = source.take("citation_tokens")
    outside = reasoning is None
    if reasoning is None:
        reasoning = source.take("reasoning_tokens")
    total = source.take("total_tokens", "totalTokens")
    if completion is None:
        if total is None or prompt is None or total < prompt:
            return None, found
        completion = total - prompt
    elif reasoning and (
        reasoning > completion or (outside and citations is not None) or total == (prompt or 0) + completion + reasoning
    ):
        completion += reasoning
    if reasoning is not None:
        found["reasoning_tokens"] = reasoning
    if citations:
        found["citation_tokens"] = citations
        completion += citations
    return completion, found


def _copy(source: _Source, details: dict[str, Any], names: tuple[str, ...], found: dict[str, int]) -> None:
    for name in names:
        if name in details:
            value = source.take_from(details, name)
            if value is not None:
                found[name] = value


def _meters(source: _Source, meters: dict[str, int] | None) -> dict[str, int] | None:
    """What is billed beside tokens."""
    found = dict(meters) if meters else {}
    tools = source.inside("server_tool_use", "server_tool_use_details", "server_side_tool_usage_details")
    searches = source.take_from(tools, "web_search_requests", "web_search_calls")
    if searches is None:
        searches = source.take("num_search_queries")
    for name, value in (
        ("web_searches", searches),
        ("search_units", source.take("search_units")),
        ("input_audio_ms", milliseconds(source.body.get("prompt_audio_seconds"))),
    ):
        if value:
            found[name] = value
    return found or None


def milliseconds(seconds: object) -> int | None:
    """Seconds, as a number or text, as whole milliseconds (half-even)."""
    value = decimal(seconds)
    return None if value is None else int((value * 1000).to_integral_value(ROUND_HALF_EVEN))


def cost_nanos_of(body: object) -> int | None:
    """What the provider says this call cost: OpenRouter's ``cost``, Perplexity's ``cost.total_cost``, xAI's ticks."""
    usage = mapping(body)
    ticks = count(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return int((Decimal(ticks) / TICKS_PER_NANO).to_integral_value(ROUND_HALF_EVEN))
    cost = usage.get("cost")
    dollars = decimal(mapping(cost).get("total_cost", cost))
    if dollars is None:
        return None
    if usage.get("is_byok") is True:  # OpenRouter: ``cost`` is then only its fee
        dollars += decimal(mapping(usage.get("cost_details")).get("upstream_inference_cost")) or 0
    if dollars > _DOLLARS_MAX:
        return None
    return int((dollars * NANOS_PER_DOLLAR).to_integral_value(ROUND_HALF_EVEN))


def gemini_usage_of(body: object, meters: dict[str, int] | None = None) -> Usage:
    """The usage in Gemini's ``usageMetadata``. A count left out is zero (proto3); one of the two must be there."""
    source = _Source(mapping(body))
    prompt = source.take("promptTokenCount")
    candidates = source.take("candidatesTokenCount", "responseTokenCount")
    thoughts = source.take("thoughtsTokenCount")
    tools = source.take("toolUsePromptTokenCount")
    if prompt is None and candidates is None and thoughts is None:
        return _only_meters(meters) if not source.lied else Usage(source=UsageSource.PARTIAL)
    prompt_details: dict[str, int] = {}
    for name in ("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails"):
        _modalities(source, name, "", prompt_details)
    _modalities(source, "cacheTokensDetails", "cached_", prompt_details)
    cached = source.take("cachedContentTokenCount")
    if cached is not None:
        prompt_details["cached_tokens"] = cached
    if tools is not None:
        prompt_details["tool_tokens"] = tools
    completion_details: dict[str, int] = {}
    for name in ("candidatesTokensDetails", "responseTokensDetails"):
        _modalities(source, name, "", completion_details)
    if thoughts is not None:
        completion_details["reasoning_tokens"] = thoughts
    return _usage(
        (prompt or 0) + (tools or 0),
        (candidates or 0) + (thoughts or 0),
        prompt_details,
        completion_details,
        meters,
        lied=source.lied,
    )


def _modalities(source: _Source, name: str, prefix: str, found: dict[str, int]) -> None:
    for entry in sequence(source.body.get(name)):
        detail = _MODALITIES.get(str(mapping(entry).get("modality")))
        tokens = source.take_from(mapping(entry), "tokenCount")
        if detail is not None and tokens is not None:
            found[prefix + detail] = found.get(prefix + detail, 0) + tokens


def partial(usage: Usage) -> Usage:
    """The same usage, of an answer that broke off before its final count."""
    if usage.source is not UsageSource.REPORTED:
        return usage
    return Usage(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        usage.prompt_tokens_details,
        usage.completion_tokens_details,
        usage.meters,
        UsageSource.PARTIAL,
    )
