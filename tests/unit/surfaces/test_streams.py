"""Streams leave in the provider's own bytes; the end waits for the record; usage, ids, errors are read on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from counterfoil.record.usage import UsageSource
from counterfoil.surfaces import registry

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GEMINI = "/v1beta/models/x:streamGenerateContent"
IMAGES = "/v1/images/generations"
SPEECH = "/v1/audio/speech"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
SIZES = [0, 1, 2, 3, 5, 11, 64, 257]


def data(*bodies: Any, end: str = "\n\n") -> list[bytes]:
    """Frames of one data line each."""
    return [f"data: {body if isinstance(body, str) else json.dumps(body)}{end}".encode() for body in bodies]


def events(*bodies: dict[str, Any], end: str = "\n") -> list[bytes]:
    """Frames named after their type."""
    return [f"event: {body['type']}{end}data: {json.dumps(body)}{end}{end}".encode() for body in bodies]


def chunk(content: str | None = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chat chunk."""
    delta = {} if content is None else {"content": content}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "chatcmpl-1", "model": "gpt-4o-2024", "choices": choices, "usage": None, **more}


USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
ROLE = {"id": "chatcmpl-1", "model": "gpt-4o-2024", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
USAGE_FRAME = {"id": "chatcmpl-1", "choices": [], "usage": USAGE, "service_tier": "default"}
BODY = data(ROLE, chunk('Say "usage": {"error"'), chunk(" [DONE] \n\n error"), chunk(None, "stop"))
CHAT_STREAM = [*BODY, *data(USAGE_FRAME, "[DONE]")]

RESPONSE = {
    "id": "resp_1",
    "model": "gpt-5",
    "status": "completed",
    "service_tier": "default",
    "error": None,
    "output": [{"type": "web_search_call", "status": "completed", "action": {"type": "search"}}, {"type": "message"}],
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 15,
    },
}
RESPONSES_STREAM = events(
    {"type": "response.created", "response": {"id": "resp_1", "model": "gpt-5", "usage": None, "error": None}},
    {"type": "response.output_item.added", "item": {"type": "message"}},
    {"type": "response.output_text.delta", "delta": "response.completed?"},
    {"type": "response.output_text.delta", "delta": "b"},
    {"type": "response.output_text.done", "text": "ab"},
    {"type": "response.completed", "response": RESPONSE},
)

MESSAGES_STREAM = events(
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "model": "claude-x",
            "usage": {"input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 1, "service_tier": "standard"},
        },
    },
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " message_stop"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 5, "cache_read_input_tokens": None, "output_tokens_details": {"thinking_tokens": 2}},
    },
    {"type": "message_stop"},
)


def part(text: str, finish: str | None = None, **usage: int) -> dict[str, Any]:
    """One piece of a Gemini answer."""
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}] if text else []}}
    if finish:
        candidate["finishReason"] = finish
    usage_metadata = {"promptTokenCount": 10, "cachedContentTokenCount": 4} | usage
    body = {"candidates": [candidate], "usageMetadata": usage_metadata, "modelVersion": "gemini-x"}
    return body | {"responseId": "g1"}


PARTS = [part("Hello"), part(" finishReason"), part("!", "STOP", candidatesTokenCount=3, thoughtsTokenCount=2)]
GEMINI_STREAM = data(*PARTS)
GEMINI_ARRAY = [("[" + ",\r\n".join(json.dumps(body, indent=2) for body in PARTS) + "\n]\n").encode()]

IMAGE_STREAM = events(
    {"type": "image_generation.partial_image", "b64_json": "aGk=", "partial_image_index": 0},
    {"type": "image_generation.completed", "b64_json": "aGk=", "usage": {"input_tokens": 10, "output_tokens": 5}},
)
SPEECH_STREAM = data(
    {"type": "speech.audio.delta", "audio": "aGk="},
    {"type": "speech.audio.done", "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}},
)
TRANSCRIPT_STREAM = data(
    {"type": "transcript.text.delta", "delta": "Hi"},
    {
        "type": "transcript.text.done",
        "text": "Hi",
        "usage": {"type": "tokens", "input_tokens": 10, "input_token_details": {"audio_tokens": 8}, "output_tokens": 5},
    },
)

# name: path, frames, how many frames at the end are kept back, id, model, finish reason
STREAMS: dict[str, tuple[str, list[bytes], int, str | None, str | None, str | None]] = {
    "chat": (CHAT, CHAT_STREAM, 1, "chatcmpl-1", "gpt-4o-2024", "stop"),
    "chat-crlf": (CHAT, [f.replace(b"\n", b"\r\n") for f in CHAT_STREAM], 1, "chatcmpl-1", "gpt-4o-2024", "stop"),
    "chat-cr": (CHAT, [f.replace(b"\n", b"\r") for f in CHAT_STREAM], 1, "chatcmpl-1", "gpt-4o-2024", "stop"),
    "chat-no-space": (
        CHAT,
        [f.replace(b"data: ", b"data:", 1) for f in CHAT_STREAM],
        1,
        "chatcmpl-1",
        "gpt-4o-2024",
        "stop",
    ),
    "chat-bom": (CHAT, [b"\xef\xbb\xbf" + CHAT_STREAM[0], *CHAT_STREAM[1:]], 1, "chatcmpl-1", "gpt-4o-2024", "stop"),
    "chat-comments": (
        CHAT,
        [b": hi\n\n", CHAT_STREAM[0], b":\n\n", *CHAT_STREAM[1:]],
        1,
        "chatcmpl-1",
        "gpt-4o-2024",
        "stop",
    ),
    "chat-usage-first": (
        CHAT,
        [*BODY[:3], *data(USAGE_FRAME), BODY[3], *data("[DONE]")],
        1,
        "chatcmpl-1",
        "gpt-4o-2024",
        "stop",
    ),
    "chat-usage-rides": (
        CHAT,
        [*BODY[:3], *data(chunk("", "stop", usage=USAGE), "[DONE]")],
        1,
        "chatcmpl-1",
        "gpt-4o-2024",
        "stop",
    ),
    "chat-groq": (
        CHAT,
        [*BODY[:3], *data(chunk(None, "stop", x_groq={"usage": USAGE}), "[DONE]")],
        1,
        "chatcmpl-1",
        "gpt-4o-2024",
        "stop",
    ),
    "chat-unterminated": (CHAT, [*CHAT_STREAM[:-1], b"data: [DONE]"], 1, "chatcmpl-1", "gpt-4o-2024", "stop"),
    "responses": (RESPONSES, RESPONSES_STREAM, 1, "resp_1", "gpt-5", "completed"),
    "responses-crlf": (
        RESPONSES,
        [f.replace(b"\n", b"\r\n") for f in RESPONSES_STREAM],
        1,
        "resp_1",
        "gpt-5",
        "completed",
    ),
    "messages": (MESSAGES, MESSAGES_STREAM, 1, "msg_1", "claude-x", "end_turn"),
    "gemini": (GEMINI, GEMINI_STREAM, 1, "g1", "gemini-x", "STOP"),
    "gemini-crlf": (GEMINI, [f.replace(b"\n", b"\r\n") for f in GEMINI_STREAM], 1, "g1", "gemini-x", "STOP"),
    "gemini-array": (GEMINI, GEMINI_ARRAY, 0, "g1", "gemini-x", "STOP"),
    "images": (IMAGES, IMAGE_STREAM, 1, None, None, None),
    "speech": (SPEECH, SPEECH_STREAM, 1, None, None, None),
    "transcription": (TRANSCRIPTIONS, TRANSCRIPT_STREAM, 1, None, None, None),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("trailing", [b"", b"\n", b": bye\n\n", b"\r\n\r\n"], ids=["", "lf", "comment", "crlf"])
@pytest.mark.parametrize("name", STREAMS)
def test_streams_whole_and_in_pieces(bench, name: str, trailing: bytes, size: int):
    """However a stream is cut and whatever trails it, the client gets its bytes and the record its facts."""
    path, frames, kept, native_id, model, finish = STREAMS[name]
    stream = b"".join(frames) + trailing
    if name == "chat-unterminated":
        stream = stream.replace(b"[DONE]:", b"[DONE]\n:")  # a comment stands on a line of its own
    played = bench.play(path, stream, size)
    reading = played.reading
    assert played.delivered == stream
    if kept:
        assert not played.before.endswith(frames[-1])
        assert played.after.startswith(frames[-1].rstrip(b"\r\n"))
    assert (reading.native_response_id, reading.native_model, reading.finish_reason) == (native_id, model, finish)
    assert (reading.complete, reading.has_output, reading.error_code) == (True, True, None)
    usage = reading.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (10, 5, 15)
    assert usage.source is UsageSource.REPORTED


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("position", ["after", "before", "spaced", "unterminated"])
def test_the_usage_frame_we_asked_for_is_withheld(bench, position: str, end: str, size: int):
    """A client that did not ask for usage gets the stream without that one frame, wherever it stands."""
    usage = data(USAGE_FRAME, end=end)
    if position == "spaced":
        usage = [usage[0].replace(b'"choices": []', b'"choices" : [ ]')]
    frames = [frame.replace(b"\n\n", end.encode()) for frame in BODY]
    done = data("[DONE]", end=end)
    if position == "before":
        stream, expected = [*frames[:2], *usage, *frames[2:], *done], [*frames, *done]
    elif position == "unterminated":
        stream, expected = [*frames, usage[0].rstrip()], frames
    else:
        stream, expected = [*frames, *usage, *done], [*frames, *done]
    played = bench.play(CHAT, b"".join(stream), size, adds_usage=True)
    assert played.delivered == b"".join(expected)
    assert played.reading.usage.total_tokens == 15
    assert bench.play(CHAT, b"".join(stream), size, adds_usage=False).delivered == b"".join(stream)


def test_only_the_usage_frame_is_withheld(bench):
    """Frames with empty choices and no usage (Azure's filter results), and usage beside choices, are the client's."""
    azure = {"id": "", "choices": [], "prompt_filter_results": [{}], "usage": None}
    stream = b"".join([*data(azure), *BODY[:3], *data(chunk("", "stop", usage=USAGE), "[DONE]")])
    played = bench.play(CHAT, stream, adds_usage=True)
    assert played.delivered == stream
    assert played.reading.native_response_id == "chatcmpl-1"
    assert played.reading.usage.total_tokens == 15


@pytest.mark.parametrize("name", [name for name in STREAMS if STREAMS[name][2]])
def test_the_end_waits(bench, name: str):
    """Shown frame by frame, everything but the last frame leaves at once, and pushes after the end pass untouched."""
    path, frames, _, _, _, _ = STREAMS[name]
    surface = registry.find(path)
    assert surface is not None
    meter = bench.play_frames(path, []).meter
    assert meter.push(b"late") == b"late"
    played = bench.play_frames(path, frames)
    assert played.before == b"".join(frames[:-1])
    assert played.after == frames[-1]
    if not name.startswith(("gemini", "chat-unterminated")):
        assert played.meter.terminal


@pytest.mark.parametrize(
    ("path", "frames", "first"),
    [
        (CHAT, CHAT_STREAM, 1),
        (CHAT, data(ROLE, chunk(""), chunk(None, reasoning="x"), {"choices": [{"delta": {"tool_calls": [1]}}]}), 3),
        (CHAT, data(ROLE, {"choices": [{"delta": {"reasoning_content": "x"}}]}), 1),
        ("/v1/completions", data({"choices": [{"text": ""}]}, {"choices": [{"text": "x"}]}), 1),
        (RESPONSES, RESPONSES_STREAM, 2),
        (RESPONSES, events({"type": "response.output_item.added", "item": {"type": "function_call"}}), 0),
        (MESSAGES, MESSAGES_STREAM, 3),
        (MESSAGES, events({"type": "content_block_start", "content_block": {"type": "tool_use"}}), 0),
        (MESSAGES, events({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "x"}}), 0),
        (GEMINI, data(part(""), part("x")), 1),
        (GEMINI, data({"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}), 0),
        (IMAGES, IMAGE_STREAM, 0),
        (SPEECH, SPEECH_STREAM, 0),
        (TRANSCRIPTIONS, TRANSCRIPT_STREAM, 0),
    ],
)
def test_output_is_seen_at_its_first_frame(bench, path: str, frames: list[bytes], first: int):
    """The clock of the first token stops at generated output, not at a role or an empty frame."""
    surface = registry.find(path)
    assert surface is not None
    meter = bench.play_frames(path, []).meter
    meter = surface.meter(meter._call)
    seen = []
    for frame in frames:
        meter.push(frame)
        seen.append(meter.output_seen)
    assert seen.index(True) == first


ERRORS = {
    "openai": (
        CHAT,
        [*BODY[:2], *data({"error": {"message": "Boom\n\x07", "type": "server_error", "code": None}})],
        "stream_error",
        "server_error: Boom",
    ),
    "openai-then-done": (
        CHAT,
        [*BODY[:2], *data({"error": {"message": "slow down", "code": 429}}, "[DONE]")],
        "rate_limited",
        "429: slow down",
    ),
    "openai-string": (CHAT, [*BODY[:2], *data({"error": "overloaded"})], "stream_error", "overloaded"),
    "openai-event": (
        CHAT,
        [*BODY[:2], b'event: error\ndata: {"error":{"message":"x","type":"rate_limit_error"}}\n\n'],
        "rate_limited",
        "rate_limit_error: x",
    ),
    "vllm": (
        CHAT,
        [*BODY[:2], *data({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400})],
        "stream_error",
        "BadRequestError: bad",
    ),
    "anthropic": (
        MESSAGES,
        [
            *MESSAGES_STREAM[:4],
            *events({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        ],
        "overloaded",
        "overloaded_error: Overloaded",
    ),
    "responses": (
        RESPONSES,
        [*RESPONSES_STREAM[:3], *events({"type": "error", "code": "server_error", "message": "x", "param": None})],
        "stream_error",
        "server_error: x",
    ),
    "gemini": (
        GEMINI,
        [*GEMINI_STREAM[:1], *data({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}})],
        "overloaded",
        "UNAVAILABLE: busy",
    ),
    "gemini-array": (
        GEMINI,
        [b'[{"candidates":[]},', b'{"error":{"code":429,"message":"q","status":"RESOURCE_EXHAUSTED"}}]'],
        "rate_limited",
        "RESOURCE_EXHAUSTED: q",
    ),
    "llama.cpp": (
        CHAT,
        [
            *CHAT_STREAM[:2],
            b'error: {"detail":"no","error":{"code":500,"message":"no room","type":"server_error"}}\n\n',
        ],
        "stream_error",
        "server_error: no room",
    ),
    "image": (
        IMAGES,
        events({"type": "error", "error": {"type": "image_error", "message": "no"}}),
        "stream_error",
        "image_error: no",
    ),
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", ERRORS)
def test_errors_inside_a_stream(bench, name: str, size: int):
    """An error after the answer began is recorded with a safe message and reaches the client in its own bytes."""
    path, frames, code, message = ERRORS[name]
    played = bench.play(path, b"".join(frames), size)
    assert played.delivered == b"".join(frames)
    assert (played.reading.error_code, played.reading.error_message) == (f"upstream:{code}", message)


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "gemini-array"])
def test_an_error_waits_for_the_record(bench, name: str):
    """The client does not learn of an error before its record is made."""
    path, frames, _, _ = ERRORS[name]
    kept = 2 if name == "openai-then-done" else 1
    assert bench.play_frames(path, frames).after == b"".join(frames[-kept:])


def test_a_failed_response(bench):
    """``response.failed`` ends the stream, with the provider's error and the usage it reports."""
    failed = RESPONSE | {"status": "failed", "error": {"code": "server_error", "message": "it broke"}}
    frames = [*RESPONSES_STREAM[:3], *events({"type": "response.failed", "response": failed})]
    reading = bench.play_frames(RESPONSES, frames).reading
    assert (reading.error_code, reading.error_message) == ("upstream:stream_error", "server_error: it broke")
    assert (reading.finish_reason, reading.usage.total_tokens, reading.complete) == ("failed", 15, True)


def test_an_incomplete_response(bench):
    """``response.incomplete`` is an end, not an error; its reason is the finish reason."""
    cut = RESPONSE | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    reading = bench.play_frames(RESPONSES, events({"type": "response.incomplete", "response": cut})).reading
    assert (reading.finish_reason, reading.error_code, reading.complete) == ("max_output_tokens", None, True)


BROKEN = {
    "chat-no-usage": (CHAT, BODY[:3], UsageSource.ABSENT),
    "chat-finished-no-done": (CHAT, CHAT_STREAM[:-1], UsageSource.REPORTED),
    "chat-running-usage": (CHAT, data(chunk("a", usage=USAGE), chunk("b", usage=USAGE)), UsageSource.PARTIAL),
    "messages": (MESSAGES, MESSAGES_STREAM[:5], UsageSource.PARTIAL),
    "messages-no-stop": (MESSAGES, MESSAGES_STREAM[:-1], UsageSource.REPORTED),
    "responses": (RESPONSES, RESPONSES_STREAM[:-1], UsageSource.ABSENT),
    "gemini": (GEMINI, GEMINI_STREAM[:2], UsageSource.PARTIAL),
    "gemini-cut-frame": (GEMINI, [*GEMINI_STREAM[:2], GEMINI_STREAM[2][:40]], UsageSource.PARTIAL),
    "nothing": (CHAT, [], UsageSource.ABSENT),
    "half-a-frame": (CHAT, [b'data: {"id":"x","cho'], UsageSource.ABSENT),
    "no-events": (CHAT, [b"<html>busy</html>"], UsageSource.ABSENT),
    "binary": (CHAT, [bytes(range(256))], UsageSource.ABSENT),
    "not-utf-8": (CHAT, [b'data: {"id":"\xff\xfe"}\n\n', b"data: [1]\n\n", b"data: null\n\n"], UsageSource.ABSENT),
}


@pytest.mark.parametrize("size", [0, 1, 9])
@pytest.mark.parametrize("name", BROKEN)
def test_streams_that_break_off(bench, name: str, size: int):
    """A stream without its end is not complete, gives every byte it had, and says how much of its usage is known."""
    path, frames, source = BROKEN[name]
    played = bench.play(path, b"".join(frames), size)
    assert played.delivered == b"".join(frames)
    assert (played.reading.complete, played.reading.usage.source) == (False, source)


@pytest.mark.parametrize("pad", [0, 2_000_000], ids=["short", "long"])
@pytest.mark.parametrize(
    ("path", "frames"),
    [
        (RESPONSES, RESPONSES_STREAM),
        (MESSAGES, MESSAGES_STREAM),
        (IMAGES, IMAGE_STREAM),
        (GEMINI, GEMINI_STREAM),
    ],
    ids=["responses", "messages", "images", "gemini"],
)
def test_an_end_that_broke_off_is_no_end(bench, path: str, frames: list[bytes], pad: int):
    """The last frame's name may have come; what it names must have come too, wherever inside it the break is.

    Of a long frame only the end is known, so a break behind a brace there looks like an end; its usage was read, then.
    """
    *begun, last = frames
    if pad:
        last = last.replace(b"{", b'{"pad":"%b",' % (b"A" * pad), 1)
    size = len(last.rstrip())
    places = {size - 1, size - 2, size // 2, 40, *range(30, size - 1, 1 if size < 5000 else size // 3)}
    for at in places:
        if pad and last[:at].endswith((b"}", b"]")):
            continue
        stream = b"".join(begun) + last[:at]
        played = bench.play(path, stream, 65_536)
        assert played.delivered == stream
        assert not played.reading.complete, last[:at][-60:]


def test_gemini_frames_after_a_finish_with_more_output(bench):
    """Models that write a finish reason into every frame stream on, one frame behind."""
    frames = data(part("a", "STOP"), part("b", "STOP"), part("c", "STOP", candidatesTokenCount=5))
    meter = bench.play_frames(GEMINI, []).meter
    meter = registry.find(GEMINI).meter(meter._call)
    assert [meter.push(frame) for frame in frames] == [b"", frames[0], frames[1]]
    assert meter.end() == frames[2]
    assert meter.reading().usage.completion_tokens == 5


def test_a_gemini_usage_frame_behind_the_finish_waits_too(bench):
    """A frame without output behind the finish does not set the finish free."""
    frames = data(part("a", "STOP"), part("", candidatesTokenCount=5))
    played = bench.play_frames(GEMINI, frames)
    assert played.after == b"".join(frames)
    assert played.reading.usage.completion_tokens == 5


def test_a_blocked_gemini_prompt_is_an_end(bench):
    """A refused prompt has no candidates; its reason is the finish reason."""
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 10}}
    reading = bench.play_frames(GEMINI, data(blocked)).reading
    assert (reading.finish_reason, reading.complete, reading.has_output) == ("SAFETY", True, False)


@pytest.mark.parametrize("array_first", [b"", b" ", b"\r\n "])
def test_a_gemini_array_leaves_element_by_element(bench, array_first: bytes):
    """Without ``alt=sse`` the elements of the array leave as they are completed, and the last waits."""
    pieces = [array_first, b"[" + json.dumps(PARTS[0]).encode(), b",\n" + json.dumps(PARTS[1]).encode()]
    pieces += [b",\n" + json.dumps(PARTS[2]).encode(), b"\n]"]
    meter = registry.find(GEMINI).meter(bench.play_frames(GEMINI, []).meter._call)
    out = [meter.push(piece) for piece in pieces]
    assert out == [b"", array_first + pieces[1], pieces[2], b"", b""]
    assert meter.end() == pieces[3] + pieces[4]
    assert meter.reading().complete


def test_two_images_end_a_stream_of_two(bench):
    """A stream of several images ends with the last one asked for."""
    frames = [*IMAGE_STREAM[:1], IMAGE_STREAM[1], IMAGE_STREAM[1]]
    meter = registry.find(IMAGES).meter(bench.play_frames(IMAGES, [], meters={"images": 2}).meter._call)
    meter.push(frames[0] + frames[1])
    assert not meter.terminal
    meter.push(frames[2])
    assert meter.terminal


def test_a_huge_image_passes_with_its_end_kept_back(bench):
    """A frame of several megabytes leaves but for its end, and the usage at that end is read."""
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    body = {"type": "image_generation.completed", "b64_json": "A" * 5_000_000, "size": "1024x1024", "usage": usage}
    stream = b"".join(events(body))
    played = bench.play(IMAGES, stream, 65_536)
    assert played.delivered == stream
    assert 0 < len(played.after) < 2_000_000
    assert played.meter.terminal
    assert (played.reading.usage.total_tokens, played.reading.complete) == (15, True)


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        (
            RESPONSES,
            b"".join(events({"type": "response.completed", "response": {"instructions": "A" * 3_000_000, **RESPONSE}})),
        ),
        (GEMINI, b"".join(data(part("A" * 3_000_000, "STOP", candidatesTokenCount=5)))),
        (GEMINI, json.dumps([part("A" * 3_000_000, "STOP", candidatesTokenCount=5)]).encode()),
    ],
    ids=["responses", "gemini", "gemini-array"],
)
def test_huge_last_frames_are_read_at_their_end(bench, path: str, stream: bytes):
    """Usage and finish of a frame too long to hold are found at its end."""
    played = bench.play(path, stream, 65_536)
    assert played.delivered == stream
    assert len(played.after) < 2_000_000
    assert played.after
    assert (played.reading.usage.total_tokens, played.reading.complete) == (15, True)
    assert played.reading.finish_reason in ("completed", "STOP")


@pytest.mark.parametrize(
    ("path", "frames", "asked", "missing"),
    [
        (
            RESPONSES,
            events({"type": "response.completed", "response": {"instructions": "A" * 3_000_000, **RESPONSE}}),
            b'{"tools":[{"type":"web_search"},{"type":"image_generation"}]}',
            ("web_searches", "image_generations"),
        ),
        (
            GEMINI,
            data(part("A" * 3_000_000, "STOP", candidatesTokenCount=5)),
            b'{"tools":[{"googleSearch":{}}]}',
            ("web_searches",),
        ),
    ],
    ids=["responses", "gemini"],
)  # fmt: skip
def test_tools_that_a_huge_frame_may_name_are_not_forgotten(bench, path, frames, asked, missing):
    """What such a frame says of calls of tools goes unread, so the usage is only a part of what was consumed."""
    stream = b"".join(frames)
    usage = bench.play(path, stream, 65_536, body=asked).reading.usage
    assert (usage.total_tokens, usage.source, usage.estimated) == (15, UsageSource.PARTIAL, missing)
    assert bench.play(path, stream, 65_536, body=b"{}").reading.usage.source is UsageSource.REPORTED


def test_a_line_of_64_mb_is_bounded(bench):
    """A line without end passes in bounded memory."""
    meter = registry.find(CHAT).meter(bench.play_frames(CHAT, []).meter._call)
    piece = b"y" * 1_000_000
    size = 0
    for _ in range(64):
        size += len(meter.push(piece))
        assert len(meter._cutter._pending) <= 1 << 20
    assert size + len(meter.end()) == 64_000_000


def test_sound_leaves_but_for_its_last_byte(bench):
    """Speech as sound streams through; its last byte waits for the record."""
    meter = registry.find(SPEECH).meter(
        bench.play_frames(SPEECH, [], stream=False, meters={"characters": 9}).meter._call
    )
    assert [meter.push(piece) for piece in (b"ab", b"c", b"", b"defg")] == [b"a", b"b", b"", b"cdef"]
    assert meter.end() == b"g"
    reading = meter.reading()
    assert (reading.complete, reading.has_output, reading.usage.source) == (True, True, UsageSource.ESTIMATED)
    assert reading.usage.meters == {"characters": 9}


@pytest.mark.parametrize("size", [0, 1, 3])
@pytest.mark.parametrize("sound", [b"dat", b"eve\x00nt", b"RIFF", b"\xef\xbb", b""])
def test_sound_in_answer_to_an_event_request(bench, sound: bytes, size: int):
    """A provider that sends sound where events were asked for is passed on all the same."""
    assert bench.play(SPEECH, sound, size).delivered == sound


def test_templates_never_hide_a_telling_frame(bench):
    """Frames that equal the learned template but for their text pass quickly; one that differs anywhere is read."""
    plain = [chunk(f"word {number}") for number in range(30)]
    frames = data(ROLE, *plain, chunk('q"uote'), chunk("x", "length"), USAGE_FRAME, "[DONE]")
    reading = bench.play_frames(CHAT, frames, adds_usage=True).reading
    assert (reading.finish_reason, reading.usage.total_tokens) == ("length", 15)
    padded = [{**chunk(f"w{number}"), "obfuscation": "x" * (number % 7)} for number in range(30)]
    frames = data(
        ROLE, *padded, {**chunk("", "stop"), "obfuscation": "xx"}, {**USAGE_FRAME, "obfuscation": ""}, "[DONE]"
    )
    played = bench.play_frames(CHAT, frames, adds_usage=True)
    assert played.delivered == b"".join([*frames[:-2], frames[-1]])
    assert (played.reading.finish_reason, played.reading.usage.total_tokens) == ("stop", 15)


@pytest.mark.parametrize(
    ("path", "content_type", "stream", "expected"),
    [
        (CHAT, "text/event-stream", True, True),
        (CHAT, "text/event-stream; charset=utf-8", False, True),
        (CHAT, "application/json", True, False),
        (GEMINI, "application/json; charset=UTF-8", True, True),
        (GEMINI, "application/json", False, False),
        (SPEECH, "audio/mpeg", False, True),
        (SPEECH, "application/json", False, False),
    ],
)
def test_which_answers_stream(bench, path: str, content_type: str, stream: bool, expected: bool):
    """Events, Gemini's array and sound are metered as they pass; everything else is read whole."""
    call = bench.play_frames(path, [], stream=stream).meter._call
    assert registry.find(path).streams(call, content_type) is expected
