# ruff: noqa: INP001 - a script, found by its path
"""Writes the tables that stand before a dictionary's text: how often lengths, distances and letters come.

    python tools/dictionary_tables.py record|body

zstd makes these tables anew for every record and body that it compresses against bare text; with them it starts from
what is usual. The samples are records with random ids, counts and prices, and bodies of the protocols' skeletons around
sentences from this project's documentation. Needs the system's libzstd (the Python package cannot do it). What is
printed is part of the storage format under the dictionary's number: it is never made again for the same number.
"""

from __future__ import annotations

import base64
import ctypes
import ctypes.util
import json
import random
import re
import sys
from pathlib import Path
from typing import Final

from counterfoil.capture import body
from counterfoil.capture.body import Capture
from counterfoil.capture.dictionary import DICTIONARY_1
from counterfoil.ledger.packing import RECORD_TEXT
from counterfoil.record import codec
from counterfoil.record.charge import CostState, Line, LineState
from counterfoil.record.ids import text as id_text
from counterfoil.record.record import Attempt, CaptureInfo, CapturePolicy, CaptureState, Record
from counterfoil.record.usage import Usage, UsageSource

DOCS: Final = Path(__file__).parents[1] / "docs"
SAMPLES: Final = 3000
LEVEL: Final = 1
_ROOM: Final = 4096
_MODELS: Final = (
    ("openai", "gpt-4o-mini", "/v1/chat/completions"),
    ("openai", "gpt-5.2", "/v1/responses"),
    ("anthropic", "claude-sonnet-4-5", "/v1/messages"),
    ("google", "gemini-2.5-flash", "/v1beta/models/gemini-2.5-flash:generateContent"),
    ("local", "llama-3.3-70b", "/v1/chat/completions"),
    ("openai", "gpt-4o-mini", "/v1/chat/completions"),
)
_source = random.Random(20261127)  # noqa: S311  # samples, not secrets


class _Parameters(ctypes.Structure):
    _fields_ = (("level", ctypes.c_int), ("notification", ctypes.c_uint), ("dictionary", ctypes.c_uint))


def tables(content: bytes, samples: list[bytes]) -> bytes:
    """What zstd puts before ``content`` when it has seen ``samples``."""
    found = ctypes.util.find_library("zstd")
    if found is None:
        raise SystemExit("libzstd is not installed.")
    finalize = ctypes.CDLL(found).ZDICT_finalizeDictionary
    finalize.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(len(content) + _ROOM)
    sizes = (ctypes.c_size_t * len(samples))(*map(len, samples))
    given = (out, ctypes.c_size_t(len(out)), content, ctypes.c_size_t(len(content)))
    size = finalize(*given, b"".join(samples), sizes, ctypes.c_uint(len(samples)), _Parameters(LEVEL, 0, 2))
    whole = out.raw[:size] if size <= len(out) else b""
    if not whole.endswith(content):
        raise SystemExit("libzstd could not make the tables.")
    return whole[: -len(content)]


def _id(prefix: str, letters: int) -> str:
    return prefix + "".join(_source.choices("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz0123456789", k=letters))


def _line(model: str, meter: str, quantity: int, price: int, book: str) -> Line:
    amount = quantity * price // 1_000_000
    return Line(meter, quantity, 1_000_000, price, amount, f"{model}/{meter}", book, LineState.PRICED)


def record() -> bytes:
    """The canonical bytes of one record."""
    provider, model, endpoint = _source.choice(_MODELS)
    name = f"{provider}/{model}"
    book = _source.randbytes(32).hex()
    asked, answered = _source.randrange(8, 9000), _source.randrange(1, 1200)
    latency = _source.randrange(80_000, 3_000_000) / 1000
    total = latency + _source.randrange(1000, 9_000_000) / 1000
    native = _id(_source.choice(("chatcmpl-", "msg_01", "resp_")), 29)
    lines = (
        _line(name, "input_tokens", asked, _source.choice((150, 3000, 1250)) * 1_000_000, book),
        _line(name, "cached_tokens", asked // 3, _source.choice((75, 300)) * 1_000_000, book),
        _line(name, "output_tokens", answered, _source.choice((600, 15_000, 10_000)) * 1_000_000, book),
    )[:: _source.choice((1, 1, 2))]
    attempt = Attempt(
        number=1,
        provider=provider,
        model=model,
        key_source="operator",
        status_code=200,
        error_code=None,
        latency_ms=latency,
        generation_ms=total,
        native_response_id=native,
    )
    made = Record(
        created_at=f"2026-{_source.randrange(1, 13):02d}-{_source.randrange(1, 29):02d}T{_source.randrange(24):02d}:"
        f"{_source.randrange(60):02d}:{_source.randrange(60):02d}.{_source.randrange(1000):03d}Z",
        request_id=id_text(1_790_000_000_000 + _source.randrange(1 << 34) << 80 | _source.getrandbits(80)),
        team_id=_source.choice(("default", "acme", "research", "support-eu")),
        app_id=_source.choice((None, "web", "assistant")),
        key_id=_id("", 12),
        endpoint=endpoint,
        model_id=name,
        provider=provider,
        native_response_id=native,
        stream=_source.random() < 0.5,
        byok=False,
        status_code=200,
        success=True,
        error_code=None,
        error_message=None,
        latency_ms=latency,
        generation_ms=total,
        throughput=round(answered / total * 1000, 3),
        usage=Usage(
            asked,
            answered,
            asked + answered,
            {"cached_tokens": asked // 3, "audio_tokens": 0},
            {"reasoning_tokens": _source.choice((0, answered // 2)), "audio_tokens": 0},
            source=UsageSource.REPORTED,
        ),
        cost_nanos=sum(line.amount_nanos for line in lines),
        pricing_lines=lines,
        cost_state=CostState.EXACT,
        attempts=(attempt,),
        finish_reason=_source.choice(("stop", "stop", "end_turn", "tool_calls", "length")),
        gateway_ms=_source.randrange(40, 900) / 1000,
        requested_model=name,
        native_model=f"{model}-2026-0{_source.randrange(1, 10)}-1{_source.randrange(10)}",
        service_tier=_source.choice((None, "default")),
        session_id=_source.choice((None, None, _id("session-", 16))),
        end_user=_source.choice((None, None, _id("user-", 8))),
        bytes_delivered=_source.randrange(200, 20_000),
        book=book,
    )
    stored = CaptureInfo(
        policy=CapturePolicy.FULL,
        state=CaptureState.STORED,
        bytes=_source.randrange(200, 4000),
        digest=_source.randbytes(32).hex(),
        retention_days=30,
    )
    kept_not = CaptureInfo(policy=CapturePolicy.METADATA, state=CaptureState.NOT_CAPTURED)
    return codec.encode(made, stored if _source.random() < 0.75 else kept_not)


_SENTENCES: Final = [
    sentence
    for page in sorted(DOCS.rglob("*.md"))
    for sentence in re.split(r"(?<=[.:;?])\s+", page.read_text("utf-8"))
    if 20 < len(sentence) < 400 and "|" not in sentence and "`" not in sentence
]


def _said(sentences: int) -> str:
    return " ".join(_source.choices(_SENTENCES, k=sentences))


def exchange() -> bytes:
    """The bytes of one call's bodies."""
    question, answer = _said(_source.randrange(1, 6)), _said(_source.randrange(1, 9))
    counts = {"prompt_tokens": len(question) // 4, "completion_tokens": len(answer) // 4}
    counts["total_tokens"] = sum(counts.values())
    make = _source.choice((_chat, _chat, _chat, _stream, _stream, _messages, _messages_stream, _responses))
    asked, answered = make(question, answer, counts)
    request = json.dumps(asked, separators=_source.choice(((",", ":"), (", ", ": ")))).encode()
    if isinstance(answered, dict):
        layout = _source.choice(({"separators": (",", ":")}, {"separators": (",", ":")}, {"indent": 2}))
        response = json.dumps(answered, **layout).encode()
        return body.encode(Capture(request, "application/json", None, response, "application/json", 200))
    times: list[int] = []
    for _ in answered:
        times.append((times[-1] if times else 300_000) + _source.randrange(900, 40_000))
    kind = "text/event-stream; charset=utf-8"
    return body.encode(Capture(request, "application/json", None, tuple(answered), kind, 200, tuple(times)))


def _asked(question: str, **more: object) -> dict[str, object]:
    said = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": question}]
    return {"model": "openai/gpt-4o-mini", "messages": said[_source.randrange(2) :], "temperature": 0.2, **more}


def _chat(question: str, answer: str, counts: dict[str, int]) -> tuple[object, object]:
    message = {"role": "assistant", "content": answer, "refusal": None, "annotations": []}
    answered = {
        "id": _id("chatcmpl-", 29),
        "object": "chat.completion",
        "created": 1_790_000_000 + _source.randrange(10**7),
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": counts
        | {
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": f"fp_{_source.randbytes(5).hex()}",
    }
    return _asked(question, max_tokens=300), answered


def _pieces(text: str) -> list[str]:
    return re.findall(r"\s?\S{1,7}", text)[:120]


def _events(events: list[tuple[str, dict[str, object]]], *, named: bool) -> list[bytes]:
    return [
        b"%bdata: %b\n\n" % (b"event: %b\n" % name.encode() if named else b"", json.dumps(event).encode())
        if named
        else b"data: %b\n\n" % json.dumps(event, separators=(",", ":")).encode()
        for name, event in events
    ]


def _stream(question: str, answer: str, counts: dict[str, int]) -> tuple[object, object]:
    head = {
        "id": _id("chatcmpl-", 29),
        "object": "chat.completion.chunk",
        "created": 1_790_000_000 + _source.randrange(10**7),
        "model": "gpt-4o-mini-2024-07-18",
        "service_tier": "default",
        "system_fingerprint": f"fp_{_source.randbytes(5).hex()}",
    }
    deltas = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in _pieces(answer)), {}]
    frames = [
        ("", head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]})
        for delta in deltas
    ]
    frames.append(("", head | {"choices": [], "usage": counts}))
    return _asked(question, stream=True), [*_events(frames, named=False), b"data: [DONE]\n\n"]


def _messages(question: str, answer: str, counts: dict[str, int]) -> tuple[object, object]:
    answered = {
        "model": "claude-sonnet-4-5-20250929",
        "id": _id("msg_01", 22),
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": answer}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": counts["prompt_tokens"], "output_tokens": counts["completion_tokens"]},
    }
    asked = {"model": "claude-sonnet-4-5", "max_tokens": 1024, "messages": [{"role": "user", "content": question}]}
    return asked, answered


def _messages_stream(question: str, answer: str, counts: dict[str, int]) -> tuple[object, object]:
    asked, message = _messages(question, "", counts)
    deltas = [
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": piece}})
        for piece in _pieces(answer)
    ]
    events = [("message_start", {"message": message}), *deltas, ("message_stop", {})]
    return asked, _events([(name, {"type": name, **event}) for name, event in events], named=True)


def _responses(question: str, answer: str, counts: dict[str, int]) -> tuple[object, object]:
    text = {"type": "output_text", "annotations": [], "logprobs": [], "text": answer}
    output = {"id": _id("msg_", 48), "type": "message", "status": "completed", "content": [text], "role": "assistant"}
    answered = {
        "id": _id("resp_", 48),
        "object": "response",
        "created_at": 1_790_000_000 + _source.randrange(10**7),
        "status": "completed",
        "model": "gpt-5.2",
        "output": [output],
        "usage": {"input_tokens": counts["prompt_tokens"], "output_tokens": counts["completion_tokens"]},
    }
    return {"model": "gpt-5.2", "input": question}, answered


def main() -> None:
    """Print the tables of the dictionary that is named, in base 64."""
    content, sample = {"record": (RECORD_TEXT, record), "body": (DICTIONARY_1, exchange)}[sys.argv[1]]
    samples = [sample() for _ in range(SAMPLES)]
    sys.stdout.write(base64.b64encode(tables(content, samples)).decode() + "\n")


if __name__ == "__main__":
    main()
