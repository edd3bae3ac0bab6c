"""Recorded provider traffic through our meters: bytes untouched, ids, usage and ends as an independent reading says.

The recordings are not part of this repository. ``COUNTERFOIL_TEST_DATA`` names the folder that has them.
"""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from counterfoil.record.usage import Usage, UsageSource
from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Call, Reading, Request, Surface
from counterfoil.surfaces.metering import gemini_usage_of, usage_of

DATA = Path(os.environ.get("COUNTERFOIL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SIZES = (0, 1, 2, 3, 7, 16, 61, 256, 1000, 4096)

_ENDS = {
    "/chat/completions": "/v1/chat/completions",
    "/responses": "/v1/responses",
    "/v1/messages": "/v1/messages",
    "/v1/embeddings": "/v1/embeddings",
}


def load(name: str) -> Path:
    """The file ``name``, or a visible skip."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"recorded traffic is not here: {path}")
    return path


def surface_of(path: str) -> Surface | None:
    """The surface that speaks the protocol of a provider's own path."""
    for end, ours in _ENDS.items():
        if path.endswith(end):
            return registry.find(ours)
    if "/models/" in path and ":" in path:  # AI Studio, and Vertex with its longer paths
        return registry.find("/v1beta/models/x:" + path.rpartition(":")[2])
    return None


def captures() -> list[dict[str, Any]]:
    """The recorded exchanges that our surfaces cover, with ``surface`` beside."""
    with gzip.open(load("wire-captures-open.jsonl.gz"), "rt") as lines:
        rows = [json.loads(line) for line in lines]
    return [row | {"surface": surface} for row in rows if (surface := surface_of(row["path"])) is not None]


def call_of(**fields: Any) -> Call:
    """A call as far as a meter looks at one."""
    blank: dict[str, Any] = {"endpoint": "", "model": "m", "stream": True, "body": b"", "content_type": ""}
    return Call(**(blank | fields))


def answer(stream: str) -> dict[str, Any]:
    """An independent reading of a stream: every frame parsed, the last word on everything kept."""
    found: dict[str, Any] = {"usage": {}}
    for line in stream.splitlines():
        body = json.loads(line[6:]) if line.startswith("data: {") else {}
        inner = body.get("response") or body.get("message") or {}
        for source in (body, inner):
            for name in ("id", "responseId"):
                found.setdefault("id", source.get(name)) if source.get(name) else None
            for name in ("model", "modelVersion"):
                found.setdefault("model", source.get(name)) if source.get(name) else None
            usage = source.get("usage") or source.get("usageMetadata") or (source.get("x_groq") or {}).get("usage")
            found["usage"] |= {name: value for name, value in (usage or {}).items() if value is not None}
        for choice in body.get("choices") or body.get("candidates") or []:
            finish = choice.get("finish_reason") or choice.get("finishReason")
            found.setdefault("finish", finish) if finish else None
        if body.get("type") == "message_delta":
            found["finish"] = body["delta"]["stop_reason"]
        if body.get("type") in ("response.completed", "response.incomplete"):
            found["finish"] = (inner.get("incomplete_details") or {}).get("reason") or inner.get("status")
    return found


def totals(usage: dict[str, Any]) -> tuple[int, int]:
    """All input and all output of a usage object, by the published rule of its protocol."""
    if "promptTokenCount" in usage:
        prompt = usage["promptTokenCount"] + usage.get("toolUsePromptTokenCount", 0)
        return prompt, usage.get("candidatesTokenCount", 0) + usage.get("thoughtsTokenCount", 0)
    prompt = usage.get("prompt_tokens", usage.get("input_tokens", usage.get("total_tokens", 0)))
    prompt += usage.get("cache_read_input_tokens", 0) + usage.get("cache_creation_input_tokens", 0)
    completion = usage.get("completion_tokens", usage.get("output_tokens", 0))
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens", 0)
    beside = usage.get("total_tokens") == prompt + completion + reasoning
    return prompt, completion + (reasoning if beside else 0)


def check(reading: Reading, expected: dict[str, Any]) -> None:
    """The reading agrees with the independent one."""
    assert reading.native_response_id == expected.get("id")
    assert reading.native_model == expected.get("model")
    assert reading.finish_reason == expected.get("finish")
    if expected["usage"]:
        assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == totals(expected["usage"])
        assert reading.usage.source is UsageSource.REPORTED


def play(surface: Surface, stream: bytes, size: int, **fields: Any) -> tuple[bytes, Reading]:
    """What the client gets of ``stream`` in pieces of ``size`` bytes, and what was read."""
    meter = surface.meter(call_of(**fields))
    size = size or len(stream)
    out = b"".join(meter.push(stream[at : at + size]) for at in range(0, len(stream), size))
    return out + meter.end(), meter.reading()


def test_recorded_streams():
    """Every recorded event stream leaves in its own bytes at every cut, and is read right."""
    streams = [row for row in captures() if "event-stream" in row["content_type"]]
    assert len(streams) > 50
    for row in streams:
        data = row["response"].encode()
        readings = []
        for size in SIZES:
            out, reading = play(row["surface"], data, size)
            assert out == data, (row["host"], row["path"], size)
            readings.append(reading)
        assert all(reading == readings[0] for reading in readings)
        check(readings[0], answer(row["response"]))
        assert readings[0].has_output
        assert readings[0].complete or readings[0].error_code


@pytest.mark.parametrize("size", [0, 1, 100])
def test_recorded_streams_without_their_usage_frame(size: int):
    """With usage asked for by us, exactly the frames with empty choices and a usage are missing."""
    for row in captures():
        if "event-stream" not in row["content_type"] or not row["path"].endswith("/chat/completions"):
            continue
        frames = [frame + "\n\n" for frame in row["response"].split("\n\n")][:-1]
        kept = [frame for frame in frames if not is_usage_frame(frame)]
        out, reading = play(row["surface"], row["response"].encode(), size, adds_usage=True)
        assert out.decode() == "".join(kept), row["host"]
        check(reading, answer(row["response"]))


def is_usage_frame(frame: str) -> bool:
    """Whether a chat frame tells nothing but usage."""
    if not frame.startswith("data: {"):
        return False
    body = json.loads(frame[6:])
    return not body.get("choices") and bool(body.get("usage")) and "error" not in body


def test_recorded_answers():
    """Every recorded unary answer gives its ids, usage and end; every error gives a code and safe words."""
    count = 0
    for row in captures():
        if "event-stream" in row["content_type"]:
            continue
        meter = row["surface"].meter(call_of(stream=False))
        body = row["response"]
        meter.whole(row["status"], (body if isinstance(body, str) else json.dumps(body)).encode())
        reading = meter.reading()
        count += 1
        if row["status"] >= 400:
            assert reading.error_code
            assert reading.error_message
            assert len(reading.error_message) <= 300
            continue
        assert reading.complete
        if isinstance(body, dict) and (body.get("usage") or body.get("usageMetadata")):
            assert (reading.usage.prompt_tokens, reading.usage.completion_tokens) == totals(
                body.get("usage") or body["usageMetadata"]
            )
            assert reading.native_response_id == (body.get("id") or body.get("responseId"))
            assert reading.native_model == (body.get("model") or body.get("modelVersion"))
    assert count > 600


def test_recorded_requests_are_forwarded_in_their_own_bytes():
    """Of a real request, compact or spaced, only the model changes (and usage is asked for in a chat stream)."""
    for row in captures():
        request = row["request"]
        if not isinstance(request, dict) or "model" not in request:
            continue
        for separators in ((",", ":"), (", ", ": ")):
            body = json.dumps(request, separators=separators).encode()
            call = row["surface"].peek(Request("POST", row["path"], "", {b"content-type": b"application/json"}, body))
            assert call.model == request["model"]
            sent = row["surface"].prepare(call, "other")
            expected = request | {"model": "other"}
            if call.adds_usage:
                expected |= {"stream_options": (request.get("stream_options") or {}) | {"include_usage": True}}
            assert json.loads(sent.body) == expected
            assert row["surface"].prepare(call, call.model).body == body or call.adds_usage


# The independent oracle's names for what our usage calls otherwise.
_INPUT = {
    "cache_read_tokens": "cached_tokens",
    "cache_write_tokens": "cache_write_tokens",
    "cache_write_5m_tokens": "cache_write_5m_tokens",
    "cache_write_1h_tokens": "cache_write_1h_tokens",
    "input_tool_tokens": "tool_tokens",
    **{f"input_{kind}_tokens": f"{kind}_tokens" for kind in ("text", "audio", "image", "video")},
    **{f"cache_{kind}_read_tokens": f"cached_{kind}_tokens" for kind in ("text", "audio", "image", "video")},
}
_OUTPUT = {
    "output_reasoning_tokens": "reasoning_tokens",
    **{f"output_{kind}_tokens": f"{kind}_tokens" for kind in ("text", "audio", "image", "video")},
}

UNCOUNTED_BY_THE_ORACLE = {
    # Details that the provider reports and the oracle does not extract; each lies inside a total that agrees.
    "cache_read_tokens",  # Mistral's num_cached_tokens
    "cache_write_5m_tokens",  # Bedrock's cacheDetails
    "input_text_tokens",  # OpenAI's text_tokens beside audio; Gemini's promptTokenDetails of embeddings
    "output_text_tokens",
    "input_video_tokens",  # OpenRouter
}
UNCOUNTED_BY_US = {
    "input_text_tool_tokens",  # a tool prompt's modality: already inside both text_tokens and tool_tokens
}


def flat(usage: Usage) -> dict[str, int]:
    """Our usage under the oracle's names, zeros left out."""
    inside, outside, meters = (
        part or {} for part in (usage.prompt_tokens_details, usage.completion_tokens_details, usage.meters)
    )
    table = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    table |= {theirs: inside.get(ours, 0) for theirs, ours in _INPUT.items()}
    table |= {theirs: outside.get(ours, 0) for theirs, ours in _OUTPUT.items()}
    table["web_searches"] = meters.get("web_searches", 0)
    return {name: value for name, value in table.items() if value}


def beyond(used: dict[str, Any], ours: dict[str, int]) -> bool:
    """What the oracle passes over though it is billed: an Anthropic compaction, and thoughts in a total alone."""
    compaction = [each for each in used.get("iterations") or () if each["type"] == "compaction"]
    if compaction:
        assert ours["input_tokens"] == used["input_tokens"] + sum(each["input_tokens"] for each in compaction)
        assert ours["output_tokens"] == used["output_tokens"] + sum(each["output_tokens"] for each in compaction)
        return True
    if used.keys() == {"prompt_tokens", "completion_tokens", "total_tokens"} and used["completion_tokens"]:
        assert ours["output_tokens"] == used["total_tokens"] - used["prompt_tokens"]
        return ours["output_tokens"] != used["completion_tokens"]
    return False


def test_usage_agrees_with_an_independent_oracle():
    """783 real usage bodies: every total agrees, and every detail that one side alone counts is a known one."""
    rows = json.loads(load("usages-open.json").read_text())
    assert len(rows) > 700
    alike = 0
    for row in rows:
        body = row["body"]
        ours = flat(gemini_usage_of(body["usageMetadata"]) if "usageMetadata" in body else usage_of(body["usage"]))
        readings = [extracted["usage"] for extracted in row["extracted"]]
        if beyond(body.get("usage") or {}, ours):
            continue
        alike += ours in readings
        assert any(
            {name for name, _ in ours.items() - theirs.items()} <= UNCOUNTED_BY_THE_ORACLE
            and {name for name, _ in theirs.items() - ours.items()} <= UNCOUNTED_BY_US
            for theirs in readings
        ), (body, ours, readings)
    assert alike >= 0.95 * len(rows)
