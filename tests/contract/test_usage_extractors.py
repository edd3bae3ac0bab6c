"""Every usage field that an independent reader knows, for every provider, alone and in pairs, is read alike here.

The recordings show what providers sent; this goes through what they may send. The reader, genai-prices, is a
development dependency. Its field definitions say where each count stands; bodies are made from them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces.metering import gemini_usage_of, usage_of

data = pytest.importorskip("genai_prices.data", reason="the independent reader is not installed")

TOTALS = {"input_tokens", "output_tokens", "promptTokenCount", "candidatesTokenCount"}
SUMS = (  # a breakdown never comes without the count that it breaks down
    (("cache_creation",), "cache_creation_input_tokens"),
    (("cacheDetails",), "cacheWriteInputTokens"),
    (("cacheTokensDetails",), "cachedContentTokenCount"),
    (("toolUsePromptTokensDetails",), "toolUsePromptTokenCount"),
)
_INPUT = {
    "cache_read_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_5m_tokens": "cache_write_5m_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_tool_tokens": "tool_tokens",
    **{f"input_{kind}_tokens": f"{kind}_tokens" for kind in ("text", "audio", "image", "video")},
    **{f"cache_{kind}_read_tokens": f"cached_{kind}_tokens" for kind in ("text", "audio", "image", "video")},
}
_OUTPUT = {f"output_{kind}_tokens": f"{kind}_tokens" for kind in ("reasoning", "text", "audio", "image", "video")}
_OUTPUT["output_citation_tokens"] = "citation_tokens"
_METERS = {
    "web_searches": ("web_searches", 1),
    "input_document_pages": ("pages", 1),
    "input_text_messages": ("input_messages", 1),
}

NO_TOTAL = {("perplexity", "default"), ("x-ai", "default"), ("x-ai", "chat")}
"""Reasoning beside the completion is recognised by the total, which these providers always send. Without one a body
does not say whose it is, and most providers count reasoning inside; those bodies are left out."""

NOT_HERE = {
    "input_annotated_document_pages",  # the request, not the answer, says that pages were annotated
    "input_text_tool_tokens",  # a tool prompt's modality: already inside both counts
    "input_audio_tool_tokens",
    "input_image_tool_tokens",
    "input_video_tool_tokens",
}


def put(body: dict[str, Any], path: Any, value: int) -> None:
    """Set the count at a path of names and of ``(field equals text)`` steps into lists."""
    steps = [path] if isinstance(path, str) else list(path)
    place: Any = body
    for step, following in itertools.pairwise(steps):
        if isinstance(step, str):
            place = place.setdefault(step, {} if isinstance(following, str) else [])
            continue
        wanted = {step.field: step.match.equals}
        entry = next((each for each in place if wanted.items() <= each.items()), None)
        if entry is None:
            entry = wanted
            place.append(entry)
        place = entry
    place[steps[-1]] = value


def last(path: Any) -> str:
    """Give the name of the count at a path."""
    return path if isinstance(path, str) else path[-1]


def bodies(extractor: Any) -> Iterator[dict[str, Any]]:
    """Usage objects for one reader: its required counts with every other count alone, in pairs, and all of them."""
    paths = list({json.dumps(each.path, default=vars): each for each in extractor.mappings}.values())
    needed = [each.path for each in paths if each.required or (last(each.path) in TOTALS and len(each.path) != 3)]
    needed = [path for path in needed if isinstance(path, str) or path[0] != "cacheDetails"]
    optional = [each.path for each in paths if each.path not in needed]
    chosen = [(), *((one,) for one in optional), *itertools.combinations(optional, 2), tuple(optional)]
    for choice in chosen:
        usage: dict[str, Any] = {}
        for number, path in enumerate(needed, 1):
            put(usage, path, 1000 * number + 7)
        for number, path in enumerate(choice, 1):
            put(usage, path, 11 * number)
        _sum_up(usage)
        yield usage


def _sum_up(usage: dict[str, Any]) -> None:
    for (name,), whole in SUMS:
        parts = usage.get(name)
        if parts:
            each = (
                parts.values()
                if isinstance(parts, dict)
                else (entry.get("tokenCount") or entry.get("inputTokens") for entry in parts)
            )
            usage[whole] = sum(each)
    details = usage.get("input_token_details", {})
    if "cached_tokens_details" in details:
        details["cached_tokens"] = sum(details["cached_tokens_details"].values())


def read(extractor: Any, usage: dict[str, Any]) -> dict[str, int] | None:
    """Give what the independent reader reads, or None when the object holds too little for it."""
    body: dict[str, Any] = {}
    put(body, extractor.root, 0)
    place = body
    steps = [extractor.root] if isinstance(extractor.root, str) else extractor.root
    for step in steps[:-1]:
        place = place[step]
    place[steps[-1]] = usage
    put(body, extractor.model_path, 0)
    body_model: Any = body
    names = [extractor.model_path] if isinstance(extractor.model_path, str) else extractor.model_path
    for name in names[:-1]:
        body_model = body_model[name]
    body_model[names[-1]] = "m"
    if not usage:
        return None
    _, found = extractor.extract(body)
    return {name: value for name, value in vars(found).items() if isinstance(value, int) and value}


def flat(usage: Usage) -> dict[str, int]:
    """Give our usage under the independent reader's names."""
    inside, outside, meters = (
        part or {} for part in (usage.prompt_tokens_details, usage.completion_tokens_details, usage.meters)
    )
    table = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    table |= {theirs: inside.get(ours, 0) for theirs, ours in _INPUT.items()}
    table |= {theirs: outside.get(ours, 0) for theirs, ours in _OUTPUT.items()}
    table |= {theirs: meters.get(ours, 0) for theirs, (ours, _) in _METERS.items()}
    table["audio_seconds"] = (meters.get("audio_ms", 0) + meters.get("input_audio_ms", 0)) // 1000
    return {name: value for name, value in table.items() if value}


READERS = [
    pytest.param(provider.id, each, id=f"{provider.id}-{each.api_flavor}")
    for provider in data.providers
    for each in provider.extractors or ()
]


@pytest.mark.parametrize(("provider", "extractor"), READERS)
@pytest.mark.parametrize("total", [False, True], ids=["without a total", "with a total"])
def test_every_field_is_read_alike(provider: str, extractor: Any, total: bool) -> None:
    """All counts agree, with and without the provider's own total; nothing is thought doubtful."""
    compared = 0
    for usage in bodies(extractor):
        theirs = read(extractor, usage)
        if theirs is None or (
            not total and (provider, extractor.api_flavor) in NO_TOTAL and "reasoning_tokens" in json.dumps(usage)
        ):
            continue
        gemini = extractor.root == "usageMetadata"
        if total:
            name = "totalTokenCount" if gemini else "totalTokens" if "inputTokens" in usage else "total_tokens"
            usage[name] = theirs.get("input_tokens", 0) + theirs.get("output_tokens", 0)
        ours = gemini_usage_of(usage) if gemini else usage_of(usage)
        assert flat(ours) == {name: value for name, value in theirs.items() if name not in NOT_HERE}, usage
        assert ours.source is UsageSource.REPORTED
        compared += 1
    assert compared
