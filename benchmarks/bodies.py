"""Request and response bodies of the OpenAI chat protocol, sized to order and never twice the same.

A store that keeps equal bodies once would look cheaper than it is if every call carried the same bytes, and a
compressor would look better on `aaaa…` than on prose.  So the text is words drawn by a fixed seed, and each body has a
place for a serial number.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from itertools import islice, product
from typing import Final

SERIAL_DIGITS: Final = 16
SERIAL_MARK: Final = "#" * SERIAL_DIGITS
# Sixteen digits hold a monotonic clock in nanoseconds for 115 days of uptime.
STAMP_DIGITS: Final = 16
STAMP_MARK: Final = "@" * STAMP_DIGITS

_ONSETS = ("b", "br", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "st", "t", "tr", "v")
_RHYMES = ("a", "an", "e", "el", "en", "er", "i", "in", "o", "on", "or", "u")
_WORDS = tuple(a + b for a, b in islice(product((x + y for x, y in product(_ONSETS, _RHYMES)), _RHYMES), 0, 2000, 3))


@dataclass(frozen=True, slots=True)
class Template:
    """Bytes before and after a place of fixed width that takes a serial number."""

    before: bytes
    after: bytes

    def fill(self, serial: int) -> bytes:
        """The bytes with the serial in place, zero-padded, so the length never varies."""
        return b"%b%016d%b" % (self.before, serial, self.after)

    @property
    def bytes_total(self) -> int:
        """Length of every filled body."""
        return len(self.before) + SERIAL_DIGITS + len(self.after)


def prose(chars: int, seed: int = 7) -> str:
    """Pseudo-words of exactly `chars` characters; equal arguments give equal text."""
    source = random.Random(seed)  # filler, not a secret
    parts: list[str] = []
    length = 0
    while length < chars:
        word = source.choice(_WORDS)
        parts.append(word)
        length += len(word) + 1
    return " ".join(parts)[:chars].ljust(chars, ".")


def chat_request(model: str, body_bytes: int, *, stream: bool = False) -> Template:
    """A chat completion request of about `body_bytes` bytes, at least the envelope's size."""
    document: dict[str, object] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You answer in one short paragraph."},
            {"role": "user", "content": ""},
        ],
        "temperature": 0.2,
        "max_tokens": 512,
    }
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    envelope = len(json.dumps(document)) + SERIAL_DIGITS + 1
    # The serial comes first: bodies that begin alike are packed against each other, and these are not one conversation.
    text = SERIAL_MARK + " " + prose(max(0, body_bytes - envelope))
    document["messages"][1]["content"] = text  # type: ignore[index]
    return _split(json.dumps(document).encode(), SERIAL_MARK)


def chat_response(body_bytes: int, seed: int) -> Template:
    """A chat completion answer of about `body_bytes` bytes with usage, as OpenAI returns it."""
    message: dict[str, object] = {"role": "assistant", "content": "", "refusal": None, "annotations": []}
    document: dict[str, object] = {
        "id": f"chatcmpl-{SERIAL_MARK}",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(body_bytes // 5),
        "service_tier": "default",
        "system_fingerprint": "fp_3af2b1c9d0",
    }
    message["content"] = prose(max(0, body_bytes - len(json.dumps(document))), seed)
    return _split(json.dumps(document).encode(), SERIAL_MARK)


def stream_frames(frames: int, words_per_frame: int = 1) -> list[bytes]:
    """The server-sent events of one streamed answer, each with places for serial and stamp, the `[DONE]` frame last.

    `frames` counts the content frames; before them comes the frame with the role, after them the finish reason, the
    usage and `[DONE]`.
    """
    source = random.Random(11)  # filler, not a secret
    events = [_frame({"role": "assistant", "content": "", "refusal": None}, None)]
    for _ in range(frames):
        words = " ".join(source.choice(_WORDS) for _ in range(words_per_frame))
        events.append(_frame({"content": f" {words} {STAMP_MARK}"}, None))
    events.append(_frame({}, "stop"))
    events.append(_chunk([], _usage(frames)))
    return [*(b"data: " + json.dumps(e, separators=(",", ":")).encode() + b"\n\n" for e in events), b"data: [DONE]\n\n"]


def _frame(delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    return _chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}], None)


def _chunk(choices: list[object], usage: dict[str, object] | None) -> dict[str, object]:
    return {
        "id": f"chatcmpl-{SERIAL_MARK}",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": "fp_3af2b1c9d0",
        "choices": choices,
        "usage": usage,
    }


def _usage(completion_tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": 97,
        "completion_tokens": completion_tokens,
        "total_tokens": 97 + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _split(body: bytes, mark: str) -> Template:
    before, found, after = body.rpartition(mark.encode())
    if not found:
        raise ValueError("the body has no place for a serial")
    return Template(before, after)
