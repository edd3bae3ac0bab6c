"""Where the output of a stream ends, which its meter tells before the answer itself ends."""

from __future__ import annotations

import pytest

from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Request

CHAT = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n',
    b"data: [DONE]\n\n",
)
TWO = (
    CHAT[0],
    CHAT[1],
    CHAT[0].replace(b'"index":0', b'"index":1'),
    CHAT[1].replace(b'"index":0', b'"index":1'),
    CHAT[3],
)
MESSAGES = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":1}}\n\n',
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
GEMINI = (
    b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}\n\n',
    b'data: {"candidates":[{"content":{"parts":[{"text":"b"}]},"finishReason":"STOP"}]}\n\n',
    b'data: {"usageMetadata":{"promptTokenCount":1}}\n\n',
)
RESPONSES = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"a"}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed"}}\n\n',
)
GENERATE = "/v1beta/models/google/m:streamGenerateContent"


@pytest.mark.parametrize(
    ("path", "frames", "endings"),
    [
        ("/v1/chat/completions", CHAT, [0, 1, 1, 2]),
        ("/v1/chat/completions", TWO, [0, 1, 1, 2, 3]),
        ("/v1/messages", MESSAGES, [0, 0, 1, 2]),
        (GENERATE, GEMINI, [0, 1, 1]),
        ("/v1/responses", RESPONSES, [0, 1]),
    ],
    ids=["chat", "choices", "messages", "gemini", "responses"],
)
def test_a_finish_reason_and_an_end_marker_are_endings(
    path: str, frames: tuple[bytes, ...], endings: list[int]
) -> None:
    """Usage between the two is none, and of several choices each has its own."""
    surface = registry.find(path)
    assert surface is not None
    query = "alt=sse" if path == GENERATE else ""
    meter = surface.meter(surface.peek(Request("POST", path, query, {}, b'{"model":"x/m","stream":true}')))
    told: list[int] = []
    for frame in frames:
        meter.push(frame)
        told.append(meter.endings)
    assert told == endings
