"""A provider's usage object, in any known dialect, as one :class:`~counterfoil.record.usage.Usage`.

The dialects are told apart by the body's own shape, not by the provider's name, because one protocol is spoken by
dozens of providers and by the gateways in front of them. The rules, each with where it comes from:

======================  ================================================================================================
OpenAI                  ``cached_tokens`` inside the prompt, ``reasoning_tokens`` inside the completion
xAI                     reasoning *beside* ``completion_tokens``: seen when total = prompt + completion + reasoning
Perplexity              ``reasoning_tokens`` and ``citation_tokens`` at the top level, both beside the completion
Gemini, OpenAI's way    thoughts in the total alone: what it has beyond prompt and completion is reasoning
Vercel                  Gemini's thoughts in neither the completion nor the total; seen where they exceed the completion
Anthropic               ``cache_read_input_tokens`` and ``cache_creation_input_tokens`` beside ``input_tokens``;
                        ``iterations`` beside all of them, save those of type ``message``, which are inside; where a
                        ``fallback_message`` served instead, only that is inside
Bedrock                 the same in camel case
DeepSeek                ``prompt_cache_hit_tokens`` inside the prompt; Moonshot ``cached_tokens``, Mistral
                        ``num_cached_tokens``
Mistral, sound          its tokens beside ``prompt_tokens``: named in the details, or what the total has beyond the rest
Gemini                  tool-use prompt beside ``promptTokenCount``, thoughts beside ``candidatesTokenCount``, cached
                        content inside the prompt
Cohere                  what is billed stands in ``billed_units``, else in ``tokens``
Voyage, Jina            only ``total_tokens``: all of it is input
======================  ================================================================================================

A count that cannot be one (negative, a fraction, text, a boolean) is treated as absent and the usage as ``partial``;
then nothing is inferred from a total that may have been made with it.
The total is always prompt plus completion in *our* convention; a provider's own total only helps to find what it left
out. Sources: the providers' API references, read 2026-11; https://docs.x.ai/developers/cost-tracking for ticks.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, cast

import msgspec
from msgspec import UNSET

from counterfoil.record.money import NANOS_PER_DOLLAR
from counterfoil.record.usage import ABSENT, FALLBACK, Usage, UsageSource
from counterfoil.surfaces.foreign import COUNT_MAX, count, decimal, enum, mapping, sequence, text

TICKS_PER_NANO = 10
COSTS = frozenset({"cost", "cost_in_usd_ticks", "estimated_cost"})
"""The fields of a usage object in which providers say what a call cost."""
_DOLLARS_MAX = 1_000_000
THOUGHTS_MAX = 1 << 20
"""Tokens that a total may hold beyond prompt and completion: no model thinks longer in one call. More is no count."""

_MODALITIES = {
    "TEXT": "text_tokens",
    "AUDIO": "audio_tokens",
    "IMAGE": "image_tokens",
    "VIDEO": "video_tokens",
    "DOCUMENT": "image_tokens",  # pages are read, and billed, as images
}
_MODALITY_NUMBERS = ("", "TEXT", "IMAGE", "VIDEO", "AUDIO", "DOCUMENT")
"""The same as ``$alt=json;enum-encoding=int`` writes them (googleapis, content.proto)."""

# What each dialect calls the same count. One pass over a usage object sorts its counts by these tables.
_COUNTS = {
    "prompt_tokens": "prompt",
    "input_tokens": "input",
    "inputTokens": "input",
    "completion_tokens": "completion",
    "output_tokens": "output",
    "outputTokens": "output",
    "total_tokens": "total",
    "totalTokens": "total",
    "cached_tokens": "cached",
    "num_cached_tokens": "cached",
    "prompt_cache_hit_tokens": "cached",
    "cached_prompt_text_tokens": "cached",
    "cache_read_input_tokens": "read_beside",
    "cacheReadInputTokens": "read_beside",
    "cacheReadTokens": "read_beside",
    "cache_creation_input_tokens": "write_beside",
    "cacheWriteInputTokens": "write_beside",
    "cacheWriteTokens": "write_beside",
    "reasoning_tokens": "reasoning_beside",
    "citation_tokens": "citations",
    "search_units": "search_units",
    "num_search_queries": "searches",
    "pages_processed": "pages",
    "input_text_messages": "messages",
}
_INPUT = {
    "cached_tokens": "cached_tokens",
    "cache_read_tokens": "cached_tokens",
    "cache_read_input_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_creation_tokens": "cache_write_tokens",
    "cache_creation_input_tokens": "cache_write_tokens",
    "text_tokens": "text_tokens",
    "audio_tokens": "audio_tokens",
    "image_tokens": "image_tokens",
    "video_tokens": "video_tokens",
}
_CACHED = {f"{kind}_tokens": f"cached_{kind}_tokens" for kind in ("text", "audio", "image", "video")}
_OUTPUT = {
    "reasoning_tokens": "reasoning_tokens",
    "thinking_tokens": "reasoning_tokens",
    "text_tokens": "text_tokens",
    "audio_tokens": "audio_tokens",
    "image_tokens": "image_tokens",
    "video_tokens": "video_tokens",
    "accepted_prediction_tokens": "accepted_prediction_tokens",
    "rejected_prediction_tokens": "rejected_prediction_tokens",
}
_WRITES = {
    "ephemeral_5m_input_tokens": "cache_write_5m_tokens",
    "ephemeral_1h_input_tokens": "cache_write_1h_tokens",
}
_TOOLS = {
    "web_search_requests": "web_searches",
    "web_search_calls": "web_searches",
    "web_fetch_requests": "web_fetches",
    "x_search_calls": "social_searches",
    "file_search_calls": "file_searches",
    "document_search_calls": "attachment_searches",  # xAI: in files sent along, at a price of its own
    "code_interpreter_calls": "code_executions",
}
_CONTEXT_SIZES = ("low", "medium", "high")
_INVOCATIONS = {"search_web": "web_searches", "fetch_url": "web_fetches"}
_SECONDS = {
    "prompt_audio_seconds": "input_audio_ms",
    "seconds": "input_audio_ms",
    "billable_audio_seconds": "audio_ms",
}
_BESIDE = (
    ("searches", "web_searches"),
    ("search_units", "search_units"),
    ("pages", "pages"),
    ("messages", "input_messages"),
)
_OBJECTS = {
    "prompt_tokens_details": _INPUT,
    "input_tokens_details": _INPUT,
    "input_token_details": _INPUT,
    "completion_tokens_details": _OUTPUT,
    "output_tokens_details": _OUTPUT,
    "output_token_details": _OUTPUT,
    "cache_creation": _WRITES,
    "server_tool_use": _TOOLS,
    "server_tool_use_details": _TOOLS,
    "server_side_tool_usage_details": _TOOLS,
    "billed_units": _COUNTS,
    "tokens": _COUNTS,
    "tool_calls_details": _INVOCATIONS,
    **dict.fromkeys(_SECONDS, _SECONDS),
}


def _sort(body: dict[str, Any], names: dict[str, str], found: dict[str, int]) -> bool:
    """Put the counts of ``body`` into ``found`` by their own names. False when one of them cannot be a count."""
    honest = True
    for name, value in body.items():
        slot = names.get(name)
        if slot is None or value is None:
            continue
        if type(value) is int and 0 <= value <= COUNT_MAX:
            found[slot] = value
        else:
            honest = False
    return honest


class _Sorted:
    """A usage object sorted by what its counts mean. ``honest`` is False when one of them could not be a count."""

    __slots__ = ("billed", "counts", "honest", "input", "meters", "output")

    def __init__(self, body: dict[str, Any]) -> None:
        self.counts: dict[str, int] = {}
        self.input: dict[str, int] = {}
        self.output: dict[str, int] = {}
        self.meters: dict[str, int] = {}
        self.billed = "billed_units" in body  # Cohere: what was cached is not in them
        self.honest = _sort(body, _COUNTS, self.counts)
        for name, value in body.items():
            names = _OBJECTS.get(name)
            if names is not None:
                self._inside(name, names, value)
        if "cacheDetails" in body:
            self._bedrock_writes(sequence(body["cacheDetails"]))

    def _inside(self, name: str, names: dict[str, str], value: Any) -> None:
        if names is _SECONDS or names is _INVOCATIONS:
            self._measured(name, names, value)
            return
        inner = mapping(value)
        if names is _INPUT or names is _WRITES:
            target = self.input
            if "cached_tokens_details" in inner:
                self.honest = _sort(mapping(inner["cached_tokens_details"]), _CACHED, target) and self.honest
        elif names is _OUTPUT:
            target = self.output
        elif names is _TOOLS:
            target = self.meters
        elif name == "tokens" and self.billed:
            return
        else:
            target = self.counts
        self.honest = _sort(inner, names, target) and self.honest

    def _measured(self, name: str, names: dict[str, str], value: Any) -> None:
        """Durations, and tools as Perplexity's agents count them."""
        if names is _SECONDS:
            heard = milliseconds(value)
            if heard:
                self.meters[names[name]] = heard
            return
        for tool, meter in names.items():
            calls = count(mapping(mapping(value).get(tool)).get("invocation"))
            if calls:
                self.meters[meter] = calls

    def _bedrock_writes(self, entries: list[Any]) -> None:
        for entry in entries:
            tokens = count(mapping(entry).get("inputTokens")) or 0
            slot = "cache_write_1h_tokens" if mapping(entry).get("ttl") == "1h" else "cache_write_5m_tokens"
            self.input[slot] = self.input.get(slot, 0) + tokens


def usage_of(body: object, meters: dict[str, int] | None = None) -> Usage:
    """The usage in an OpenAI-, Anthropic-, Cohere- or Bedrock-shaped usage object. ``meters`` are added to its own."""
    usage = mapping(body)
    if not usage:
        return _only_meters(meters)
    if not meters:
        plain = plain_usage_of(usage)
        if plain is not None:
            return plain
    return long_usage_of(usage, meters)


def long_usage_of(usage: dict[str, Any], meters: dict[str, int] | None = None) -> Usage:
    """As :func:`usage_of`, for a usage object of any shape."""
    if "iterations" in usage:
        usage, meters = _with_iterations(usage, meters)
    found = _Sorted(usage)
    counts = found.counts
    prompt = _prompt(found, inside="prompt_tokens" in usage or "input_tokens_details" in usage)
    if prompt is not None and "total" in counts:
        prompt += _sound_beside(found, prompt)
    completion = _completion(found, prompt, apart="market_cost" in usage)
    if prompt is None and completion is None:
        prompt = counts.get("total")
    own = _meters(found, _with_request(usage, meters))
    if prompt is None and completion is None and found.honest:
        return _only_meters(own)
    return _usage(prompt or 0, completion or 0, found.input, found.output, own, honest=found.honest)


def plain_usage_of(usage: dict[str, Any]) -> Usage | None:
    """The usage in OpenAI's own two spellings when there is nothing to decide; None leaves it to the long way.

    Nearly every answer is of this kind: three counts that add up, and details of known meaning beside them.
    """
    prompt, completion, total = usage.get("prompt_tokens"), usage.get("completion_tokens"), usage.get("total_tokens")
    inside, outside = "prompt_tokens_details", "completion_tokens_details"
    if prompt is None:
        prompt, completion = usage.get("input_tokens"), usage.get("output_tokens")
        inside, outside = "input_tokens_details", "output_tokens_details"
    if type(prompt) is not int or type(completion) is not int or type(total) is not int:
        return None
    if prompt + completion != total or prompt < 0 or completion < 0 or total > COUNT_MAX:
        return None
    known = 3
    details: list[dict[str, int]] = []
    for name, slots in ((inside, _INPUT), (outside, _OUTPUT)):
        found: dict[str, int] = {}
        details.append(found)
        if name not in usage:
            continue
        known += 1
        value = usage[name]
        if type(value) is not dict:
            return None
        for detail, quantity in cast("dict[str, Any]", value).items():
            slot = slots.get(detail)
            if type(quantity) is not int or slot is None or not 0 <= quantity <= total:
                return None
            found[slot] = quantity
    if known != len(usage):
        return None
    return Usage(prompt, completion, total, details[0] or UNSET, details[1] or UNSET, UNSET, UsageSource.REPORTED)


def _usage(
    prompt: int,
    completion: int,
    prompt_details: dict[str, int],
    completion_details: dict[str, int],
    meters: dict[str, int] | None,
    *,
    honest: bool,
) -> Usage:
    return Usage(
        prompt,
        completion,
        prompt + completion,
        prompt_details or UNSET,
        completion_details or UNSET,
        meters or UNSET,
        UsageSource.REPORTED if honest else UsageSource.PARTIAL,
    )


def _only_meters(meters: dict[str, int] | None) -> Usage:
    return Usage(meters=meters, source=UsageSource.REPORTED) if meters else ABSENT


def _prompt(found: _Sorted, *, inside: bool) -> int | None:
    """All input. ``inside`` tells the OpenAI spelling, in which cached tokens are inside the prompt already."""
    counts, details = found.counts, found.input
    prompt = counts.get("prompt", counts.get("input"))
    if "cached" in counts and not found.billed:
        details.setdefault("cached_tokens", counts["cached"])
    split = details.get("cache_write_5m_tokens", 0) + details.get("cache_write_1h_tokens", 0)
    if split == 0:
        details.pop("cache_write_5m_tokens", None)
        details.pop("cache_write_1h_tokens", None)
    elif "cache_write_tokens" not in details:
        counts.setdefault("write_beside", split)
    if "read_beside" not in counts and "write_beside" not in counts:
        return prompt
    read, write = counts.get("read_beside", 0), counts.get("write_beside", 0)
    if prompt is not None and _beside(counts, prompt, read + write, inside=inside):
        prompt += read + write
    if "read_beside" in counts:
        details.setdefault("cached_tokens", read)
    if "write_beside" in counts:
        details.setdefault("cache_write_tokens", write)
    return prompt


def _beside(counts: dict[str, int], prompt: int, cached: int, *, inside: bool) -> bool:
    """Whether ``cached`` tokens are not in ``prompt`` yet: a total decides, else the spelling."""
    rest = counts.get("total", -1) - prompt - counts.get("completion", counts.get("output", 0))
    return rest == cached if rest in (0, cached) else not inside


def _sound_beside(found: _Sorted, prompt: int) -> int:
    """The tokens of sound that ``prompt`` leaves out and the total holds (Mistral)."""
    counts, details = found.counts, found.input
    rest = counts["total"] - prompt - counts.get("completion", counts.get("output", 0))
    if 0 < rest == details.get("audio_tokens"):
        return rest
    if 0 < rest <= COUNT_MAX and "input_audio_ms" in found.meters and "audio_tokens" not in details:
        details["audio_tokens"] = rest
        return rest
    return 0


def _completion(found: _Sorted, prompt: int | None, *, apart: bool) -> int | None:
    """All output, reasoning that stands beside it included; ``apart`` from it and from the total where it is larger."""
    counts, details = found.counts, found.output
    completion = counts.get("completion", counts.get("output"))
    total = counts.get("total")
    if completion is None:
        if total is None or prompt is None or total <= prompt:
            return None
        completion = total - prompt
    reasoning = details.get("reasoning_tokens")
    beside = reasoning is None and ("citations" in counts or "searches" in counts)  # Perplexity
    if reasoning is None and "reasoning_beside" in counts:
        reasoning = details["reasoning_tokens"] = counts["reasoning_beside"]
    counted = (prompt or 0) + completion  # a total of just this says that reasoning is inside (OpenRouter rounds it up)
    if reasoning and (
        beside or total == counted + reasoning or (reasoning > completion and (apart or total != counted))
    ):
        completion += reasoning
    citations = counts.get("citations")
    if reasoning is None and citations is None and total is not None and "completion" in counts and found.honest:
        thoughts = total - counted
        if 0 < thoughts <= THOUGHTS_MAX:
            details["reasoning_tokens"] = thoughts
            completion += thoughts
    if citations:
        details["citation_tokens"] = citations
        completion += citations
    return completion


def _with_iterations(
    usage: dict[str, Any], meters: dict[str, int] | None
) -> tuple[dict[str, Any], dict[str, int] | None]:
    """Anthropic's usage with the iterations that its totals leave out, though they are billed.

    A compaction was made by the same model: its counts are added. An advisor's message was made by another model:
    its counts become meters that name it, ``advisor_input_tokens.claude-opus-4-8``. When a fallback served, the totals
    are its own, and the meter ``fallbacks.claude-opus-4-8`` says whose; what a model wrote before it declined is billed
    at its own rates (``declined_output_tokens.claude-fable-5``), and nothing where it declined at once.
    Source: platform.claude.com, compaction, the advisor tool, refusals and fallback, read 2026-11.
    """
    whole, beside = dict(usage), dict(meters or {})
    iterations = [mapping(each) for each in sequence(usage["iterations"])]
    served = [text(each.get("model")) for each in iterations if each.get("type") == "fallback_message"]
    if served and served[-1]:
        beside[f"{FALLBACK}{served[-1]}"] = 1
    for each in iterations:
        kind, model = each.get("type"), text(each.get("model"))
        if kind == "fallback_message" or (kind == "message" and not (served and model and each.get("output_tokens"))):
            continue
        if model is None:
            _add(whole, each)
        else:
            _count_beside(each, "declined" if kind == "message" else "advisor", model, beside)
    return whole, beside or None


def _count_beside(iteration: dict[str, Any], who: str, model: str, beside: dict[str, int]) -> None:
    """Add what another model consumed to the meters that name it."""
    one = usage_of({name: value for name, value in iteration.items() if name != "iterations"})
    inner = one.prompt_tokens_details or {}
    for name, tokens in (
        ("input_tokens", one.prompt_tokens),
        ("output_tokens", one.completion_tokens),
        ("cached_tokens", inner.get("cached_tokens", 0)),
        ("cache_write_tokens", inner.get("cache_write_tokens", 0)),
    ):
        if tokens:
            meter = f"{who}_{name}.{model}"
            beside[meter] = beside.get(meter, 0) + tokens


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add the counts of ``part`` to those of ``whole``, and those of the objects inside likewise."""
    for name, value in part.items():
        tokens = count(value)
        if tokens is not None:
            whole[name] = (count(whole.get(name)) or 0) + tokens
        elif name in _OBJECTS:
            inner = whole[name] = dict(mapping(whole.get(name)))
            _add(inner, mapping(value))


def _with_request(usage: dict[str, Any], meters: dict[str, int] | None) -> dict[str, int] | None:
    """``meters`` and the request itself where its price depends on how much was searched for it (Perplexity)."""
    size = usage.get("search_context_size")
    return {**(meters or {}), f"requests.{size}": 1} if size in _CONTEXT_SIZES else meters


def _meters(found: _Sorted, meters: dict[str, int] | None) -> dict[str, int] | None:
    """What is billed beside tokens; what the usage object counts itself is believed first."""
    own = {name: value for name, value in found.meters.items() if value}
    for slot, name in _BESIDE:
        if found.counts.get(slot):
            own.setdefault(name, found.counts[slot])
    return {**meters, **own} if meters else own or None


def milliseconds(seconds: object) -> int | None:
    """Seconds, as a number or text, as whole milliseconds (half-even)."""
    value = decimal(seconds)
    return None if value is None else int((value * 1000).to_integral_value(ROUND_HALF_EVEN))


def cost_nanos_of(body: object) -> int | None:
    """What the provider says this call cost.

    OpenRouter's ``cost``, Perplexity's ``cost.total_cost``, xAI's ticks, DeepInfra's ``estimated_cost``.
    """
    usage = mapping(body)
    ticks = count(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return int((Decimal(ticks) / TICKS_PER_NANO).to_integral_value(ROUND_HALF_EVEN))
    cost = usage.get("cost", usage.get("estimated_cost"))
    dollars = decimal(mapping(cost).get("total_cost", cost))
    if dollars is None:
        return None
    if usage.get("is_byok") is True:  # OpenRouter: ``cost`` is then only its fee
        dollars += decimal(mapping(usage.get("cost_details")).get("upstream_inference_cost")) or 0
    if dollars > _DOLLARS_MAX:
        return None
    return int((dollars * NANOS_PER_DOLLAR).to_integral_value(ROUND_HALF_EVEN))


_GEMINI = {
    "promptTokenCount": "prompt",
    "candidatesTokenCount": "candidates",
    "responseTokenCount": "candidates",
    "thoughtsTokenCount": "thoughts",
    "toolUsePromptTokenCount": "tools",
    "cachedContentTokenCount": "cached",
}
_GEMINI_INPUT = ("promptTokensDetails", "promptTokenDetails", "toolUsePromptTokensDetails")
_GEMINI_OUTPUT = ("candidatesTokensDetails", "responseTokensDetails")


def gemini_usage_of(body: object, meters: dict[str, int] | None = None) -> Usage:
    """The usage in Gemini's ``usageMetadata``, where a count left out is zero (proto3) but not all may be."""
    usage = mapping(body)
    counts: dict[str, int] = {}
    honest = _sort(usage, _GEMINI, counts)
    if not counts:
        return _only_meters(meters) if honest else Usage(source=UsageSource.PARTIAL)
    prompt_details: dict[str, int] = {}
    completion_details: dict[str, int] = {}
    for name in _GEMINI_INPUT:
        _modalities(usage.get(name), "", prompt_details)
    _modalities(usage.get("cacheTokensDetails"), "cached_", prompt_details)
    for name in _GEMINI_OUTPUT:
        _modalities(usage.get(name), "", completion_details)
    for slot, detail in (("cached", "cached_tokens"), ("tools", "tool_tokens")):
        if slot in counts:
            prompt_details[detail] = counts[slot]
    if "thoughts" in counts:
        completion_details["reasoning_tokens"] = counts["thoughts"]
    prompt = counts.get("prompt", 0) + counts.get("tools", 0)
    completion = counts.get("candidates", 0) + counts.get("thoughts", 0)
    return _usage(prompt, completion, prompt_details, completion_details, meters, honest=honest)


def _modalities(entries: object, prefix: str, found: dict[str, int]) -> None:
    for entry in sequence(entries):
        detail = _MODALITIES.get(enum(mapping(entry).get("modality"), _MODALITY_NUMBERS) or "")
        tokens = count(mapping(entry).get("tokenCount"))
        if detail is not None and tokens is not None:
            found[prefix + detail] = found.get(prefix + detail, 0) + tokens


def unseen(usage: Usage, meters: dict[str, int]) -> Usage:
    """``usage`` beside which a provider bills ``meters`` without telling their numbers: those given are the least.

    A meter that the usage counts itself is not among them.
    """
    counted = {name.partition(".")[0] for name in usage.meters or ()}
    missing = {name: least for name, least in meters.items() if name.partition(".")[0] not in counted}
    if not missing:
        return usage
    return msgspec.structs.replace(
        usage,
        meters={**(usage.meters or {}), **{name: least for name, least in missing.items() if least}} or UNSET,
        source=UsageSource.PARTIAL,
        estimated=tuple(missing),
    )


def pro_search(usage: Usage) -> Usage:
    """The same usage of a request that was searched for in several steps, which has its own price (Perplexity)."""
    meters = {
        name.replace("requests.", "requests.pro.", 1): quantity for name, quantity in (usage.meters or {}).items()
    }
    return msgspec.structs.replace(usage, meters=meters or UNSET)


def partial(usage: Usage) -> Usage:
    """The same usage, of an answer that broke off before its final count."""
    if usage.source is not UsageSource.REPORTED:
        return usage
    return msgspec.structs.replace(usage, source=UsageSource.PARTIAL)
