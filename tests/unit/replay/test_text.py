"""What an answer says, whatever protocol says it."""

from __future__ import annotations

import json

import pytest

from counterfoil.replay.text import Said, ToolCall, read

CALL = ToolCall("weather", {"city": "Riga"})


def sse(*values: object, events: bool = False) -> bytes:
    """Event-stream frames of JSON values."""
    frames = []
    for value in values:
        event = f"event: {value['type']}\n" if events and isinstance(value, dict) else ""
        frames.append(f"{event}data: {json.dumps(value)}\n\n")
    return "".join(frames).encode()


ANSWERS = {
    "chat": {
        "choices": [
            {
                "message": {
                    "content": "Hi there",
                    "tool_calls": [{"id": "x", "function": {"name": "weather", "arguments": '{"city": "Riga"}'}}],
                }
            }
        ]
    },
    "responses": {
        "output": [
            {"type": "message", "content": [{"type": "output_text", "text": "Hi there"}]},
            {"type": "function_call", "name": "weather", "arguments": '{"city":"Riga"}'},
        ]
    },
    "messages": {
        "type": "message",
        "content": [
            {"type": "text", "text": "Hi there"},
            {"type": "tool_use", "id": "y", "name": "weather", "input": {"city": "Riga"}},
        ],
    },
    "gemini": {
        "candidates": [
            {
                "content": {
                    "parts": [{"text": "Hi there"}, {"functionCall": {"name": "weather", "args": {"city": "Riga"}}}]
                }
            }
        ]
    },
}
STREAMS = {
    "chat": sse(
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": "Hi "}}]},
        {"choices": [{"index": 0, "delta": {"content": "there"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "weather"}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Riga"}'}}]}}]},
    )
    + b"data: [DONE]\n\n",
    "responses": sse(
        {"type": "response.output_text.delta", "delta": "Hi "},
        {"type": "response.output_text.delta", "delta": "there"},
        {
            "type": "response.output_item.done",
            "item": {"type": "function_call", "name": "weather", "arguments": '{"city":"Riga"}'},
        },
        {"type": "response.completed", "response": {"output": []}},
        events=True,
    ),
    "messages": sse(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi there"}},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "tool_use", "name": "weather", "input": {}},
        },
        {
            "type": "content_block_delta",
            "index": 1,
            "delta": {"type": "input_json_delta", "partial_json": '{"city":"R'},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": 'iga"}'}},
        events=True,
    ),
    "gemini": sse(
        {"candidates": [{"content": {"parts": [{"text": "Hi "}]}}]},
        {"candidates": [{"content": {"parts": [{"text": "there"}]}}]},
        ANSWERS["gemini"]
        | {"candidates": [{"content": {"parts": ANSWERS["gemini"]["candidates"][0]["content"]["parts"][1:]}}]},
    ),
}


@pytest.mark.parametrize("protocol", ANSWERS)
def test_a_whole_answer(protocol):
    """Text and tool calls of a whole answer are read in every protocol."""
    assert read(json.dumps(ANSWERS[protocol]).encode(), "application/json") == Said("Hi there", tool_calls=(CALL,))


@pytest.mark.parametrize("protocol", STREAMS)
def test_a_stream_says_the_same_as_the_whole(protocol):
    """A stream says what the whole answer says."""
    assert read(STREAMS[protocol], "text/event-stream; charset=utf-8") == Said("Hi there", tool_calls=(CALL,))


def test_a_message_beside_the_delta_says_nothing_new():
    """Perplexity's frames repeat all that was said so far; its whole answers have an empty delta beside the message."""
    words = [("He", "He"), ("llo", "Hello"), ("", "Hello")]
    frames = [{"choices": [{"delta": {"content": new}, "message": {"content": so_far}}]} for new, so_far in words]
    assert read(sse(*frames), "text/event-stream") == Said(text="Hello")
    whole = {"choices": [{"delta": {"content": ""}, "message": {"content": "Hello"}}]}
    assert read(json.dumps(whole).encode(), "application/json") == Said(text="Hello")


def test_gemini_array_stream():
    """Gemini's growing JSON array is read like its event stream."""
    body = json.dumps([{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in ("Hi ", "there")])
    assert read(body.encode(), "application/json").text == "Hi there"


def test_thoughts_are_not_the_answer():
    """Reasoning is kept apart from the text."""
    body = {"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}, {"text": "42"}]}}]}
    said = read(json.dumps(body).encode(), "application/json")
    assert (said.text, said.reasoning) == ("42", "hm")


@pytest.mark.parametrize(
    "body",
    [b"\xff\xfe\x00", b"not json", b"[1,2]", b"{", b"[" * 100_000],
    ids=["binary", "text", "numbers", "cut", "deep"],
)
def test_what_is_no_answer_is_compared_by_digest(body):
    """Bytes that hold no answer are told apart by digest and never raise."""
    assert read(body, "audio/mpeg").digest is not None


def test_vectors_are_compared_by_digest():
    """Two answers whose protocol has no text are never taken for equal unless their bytes are."""
    one, other = (read(json.dumps({"data": [{"embedding": [n]}]}).encode(), "application/json") for n in (1, 2))
    assert one.digest is not None
    assert one != other
