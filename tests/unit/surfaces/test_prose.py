"""The text that a model reads and writes, out of every protocol's bodies, and whether it is all there is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from counterfoil.surfaces import prose

ASKED: dict[str, tuple[dict[str, Any], str, bool]] = {
    "chat": (
        {
            "messages": [
                {"role": "system", "content": "be kind"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            ]
        },
        "be kind|hi",
        True,
    ),
    "messages": (
        {"system": [{"type": "text", "text": "s"}], "messages": [{"role": "user", "content": "u"}]},
        "s|u",
        True,
    ),
    "responses": (
        {
            "instructions": "i",
            "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]}],
        },
        "i|u",
        True,
    ),
    "completions": ({"prompt": "p"}, "p", True),
    "gemini": (
        {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [{"parts": [{"text": "u"}]}]},
        "s|u",
        True,
    ),
    "a seal is not read": (
        {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "xyz"}]}]},
        "t",
        True,
    ),
    "a picture": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "x"}],
                }
            ]
        },
        "x",
        False,
    ),
    "a document": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "eA=="}}]}
            ]
        },
        "",
        False,
    ),
    "tools": ({"messages": [], "tools": [{"name": "n"}]}, '[{"name":"n"}]', False),
    "an earlier call": ({"input": "u", "previous_response_id": "r"}, "u", False),
}


@pytest.mark.parametrize(("body", "text", "whole"), ASKED.values(), ids=ASKED)
def test_what_is_read(body: dict[str, Any], text: str, whole: bool) -> None:
    """All text in order, no names and no seals; what cannot be seen is known to be missing."""
    found = prose.asked(json.dumps(body).encode())
    assert found is not None
    assert ("|".join(found.pieces), found.whole) == (text, whole)


CHAT = {"choices": [{"message": {"role": "assistant", "content": "c", "reasoning": "r"}}]}
ANSWERED: dict[str, tuple[Any, str, bool]] = {
    "chat": (CHAT, "cr", True),
    "completions": ({"choices": [{"text": "t", "finish_reason": "stop"}]}, "t", True),
    "a tool": (
        {"choices": [{"message": {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]},
        "f{}",
        False,
    ),
    "messages": ({"type": "message", "content": [{"type": "text", "text": "a"}]}, "a", True),
    "a tool of messages": ({"content": [{"type": "tool_use", "name": "f", "input": {"a": 1}}]}, 'f{"a":1}', False),
    "responses": ({"output": [{"type": "message", "content": [{"type": "output_text", "text": "o"}]}]}, "o", True),
    "gemini": ({"candidates": [{"content": {"parts": [{"text": "g"}]}}]}, "g", True),
    "gemini's array": ([{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in "ab"], "ab", True),
    "nothing": ({}, "", True),
    "no JSON": (None, "", True),
}


@pytest.mark.parametrize(("body", "text", "whole"), ANSWERED.values(), ids=ANSWERED)
def test_what_is_written(body: Any, text: str, whole: bool) -> None:
    """Generated text, reasoning and the arguments of tools; a call of a tool takes tokens that do not show."""
    found = prose.answered(
        json.dumps(body).encode() if body is not None else b"<html>", streamed=isinstance(body, list)
    )
    assert found is not None
    assert ("".join(found.pieces), found.whole) == (text, whole)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["LF", "CRLF"])
def test_what_a_stream_writes(end: str) -> None:
    """Every piece once: what Responses says again in its other events is passed over, a cut frame as well."""
    frames = [
        {"type": "response.created", "response": {"output": []}},
        {"type": "response.output_text.delta", "delta": "a"},
        {"type": "response.output_text.delta", "delta": "b"},
        {"type": "response.output_text.done", "text": "ab"},
        {"type": "response.output_item.done", "item": {"content": [{"text": "ab"}]}},
    ]
    body = "".join(f"data: {json.dumps(frame)}{end}" for frame in frames) + 'data: {"type":"response.output_text.del'
    found = prose.answered(body.encode(), streamed=True)
    assert found is not None
    assert found.pieces == ("ab",)


def test_what_a_frame_repeats_is_written_once() -> None:
    """Perplexity's frames hold all that was said so far beside what is new."""
    words = [("He", "He"), ("llo", "Hello"), ("", "Hello")]
    frames = [{"choices": [{"delta": {"content": new}, "message": {"content": so_far}}]} for new, so_far in words]
    body = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames)
    found = prose.answered(body.encode(), streamed=True)
    assert found is not None
    assert found.pieces == ("Hello",)


def test_no_more_is_counted_than_any_model_reads() -> None:
    """Beyond the bound nothing is estimated."""
    long = "a" * (prose.CHARACTERS_MAX + 1)
    assert prose.asked(json.dumps({"prompt": long}).encode()) is None
    assert prose.answered(json.dumps({"choices": [{"text": long}]}).encode(), streamed=False) is None
    assert prose.asked(b"[]") is None
