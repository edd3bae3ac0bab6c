"""What a provider's answer says, read the slow and obvious way: whole, as JSON, after the fact.

It shares no code with the gateway, which reads streams as they pass and only where they matter. Where the two differ,
one of them is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

Protocol = Literal["chat", "responses", "messages", "gemini", "embeddings"]
UNFINISHED = ("queued", "in_progress")
ENDINGS = ("response.completed", "response.failed", "response.incomplete")


class Said(NamedTuple):
    """An answer's id, how it ended, and its tokens: all input, all output, and the parts of both that are named.

    ``failed`` is True when an error was reported inside an answer that had begun well.
    """

    native_id: str | None = None
    finish: str | None = None
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0
    usage: bool = False
    failed: bool = False


def read(protocol: Protocol, body: bytes, *, stream: bool) -> Said:
    """What ``body`` says."""
    parts = list(events(body)) if stream else [json.loads(body)]
    said = {"chat": _chat, "responses": _responses, "messages": _messages, "gemini": _gemini, "embeddings": _chat}
    failed = any(part.get("error") and not part.get("output") for part in parts)
    return said[protocol](parts)._replace(failed=failed)


def events(body: bytes) -> Iterator[Any]:
    """The JSON of every event of an event stream, in order; ``[DONE]`` is left out."""
    for block in frames(body):
        lines = block.replace(b"\r\n", b"\n").split(b"\n")
        data = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
        if data and data != b"[DONE]":
            yield json.loads(data)


def frames(body: bytes) -> Iterator[bytes]:
    """The frames of an event stream, each with the blank line that ends it."""
    end = b"\r\n\r\n" if b"\r\n\r\n" in body else b"\n\n"
    pieces = body.split(end)
    for piece in pieces[:-1]:
        yield piece + end
    if pieces[-1]:
        yield pieces[-1]


def is_usage_frame(frame: bytes) -> bool:
    """Whether a frame of a chat stream is the one that only tells the usage."""
    for event in events(frame):
        return event.get("choices") == [] and bool(event.get("usage"))
    return False


def _chat(parts: list[Any]) -> Said:
    usage: dict[str, Any] = {}
    finish = native_id = None
    for part in parts:
        native_id = native_id or part.get("id")
        for choice in part.get("choices") or []:
            finish = finish or choice.get("finish_reason")
        usage = part.get("usage") or (part.get("x_groq") or {}).get("usage") or usage
    prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    if not prompt and not completion and usage.get("total_tokens"):
        prompt = usage["total_tokens"]  # an embedding: all of it is input
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or usage.get("num_cached_tokens")
    reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    if reasoning > completion and usage.get("total_tokens") != prompt + completion:
        completion += reasoning  # what is larger than the whole cannot be a part of it, unless the total says it is
    return Said(native_id or None, finish or None, prompt, completion, cached or 0, reasoning, bool(usage))


def _responses(parts: list[Any]) -> Said:
    answer = next((part["response"] for part in parts if part.get("type") in ENDINGS), parts[-1])
    usage = answer.get("usage") or {}
    reason = (answer.get("incomplete_details") or {}).get("reason")
    return Said(
        answer.get("id"),
        reason or (answer.get("status") if answer.get("status") not in UNFINISHED else None),
        usage.get("input_tokens") or 0,
        usage.get("output_tokens") or 0,
        (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0,
        (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0,
        bool(usage),
    )


def _messages(parts: list[Any]) -> Said:
    usage: dict[str, Any] = {}
    native_id = finish = None
    for part in parts:
        message = part.get("message") or part
        native_id = native_id or message.get("id")
        finish = (part.get("delta") or part).get("stop_reason") or finish
        told = message.get("usage") or part.get("usage") or {}
        usage |= {name: value for name, value in told.items() if value is not None}
    cached = usage.get("cache_read_input_tokens", 0)
    prompt = usage.get("input_tokens", 0) + cached + usage.get("cache_creation_input_tokens", 0)
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens") or 0
    return Said(native_id, finish, prompt, usage.get("output_tokens", 0), cached, thinking, bool(usage))


def _gemini(parts: list[Any]) -> Said:
    usage: dict[str, Any] = {}
    native_id = finish = None
    for part in parts:
        native_id = native_id or part.get("responseId")
        usage = part.get("usageMetadata") or usage
        for candidate in part.get("candidates") or []:
            finish = candidate.get("finishReason") or finish
    thoughts = usage.get("thoughtsTokenCount", 0)
    return Said(
        native_id,
        finish,
        usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0),
        usage.get("candidatesTokenCount", 0) + thoughts,
        usage.get("cachedContentTokenCount", 0),
        thoughts,
        bool(usage),
    )
