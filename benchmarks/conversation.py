"""What a long conversation costs on the disk (P14): an agent of a hundred turns, through the gateway.

With every turn the client sends all that was said before: instructions, tools, messages, tool calls and their results,
about 300 KB in the end. A gateway that keeps each call whole keeps some fifty transcripts. A row is one protocol, whole
or streamed: `stored_bytes` are the sealed bodies of all turns, requests and answers; `transcript_bytes` is the last
request compressed with zstd at its usual level; `ratio_whole` is what it would be with each turn's request compressed
by itself. `ledger_grew_bytes` is by how much the whole database grew, which has a record, its columns and its place in
the chain for each turn as well, and the pages' own unused ends.
"""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Final, TypeAlias

import msgspec
import zstandard

from benchmarks.bodies import prose
from benchmarks.compare import running
from benchmarks.targets import Counterfoil
from counterfoil.folder import DataFolder
from counterfoil.ledger.query import LedgerReader

TURNS: Final = 100
WORDS_PER_FRAME: Final = 1
_USAGE = {"prompt_tokens": 1000, "completion_tokens": 120, "total_tokens": 1120}
_MESSAGES_USAGE = {"input_tokens": 1000, "output_tokens": 120}
_TYPES = {True: "text/event-stream", False: "application/json"}

Json: TypeAlias = dict[str, Any]


class Agent:
    """A conversation about a code base. `turn()` gives what the model says; `say()` what comes back from the tools."""

    def __init__(self, seed: int = 3) -> None:
        self.random = random.Random(seed)
        self.instructions = prose(6000, seed)
        self.task = prose(600, seed + 1)
        self.tools = [
            (f"tool_{n}", prose(300, 100 + n), [prose(80, 200 + 7 * n + p) for p in range(4)]) for n in range(8)
        ]
        self.number = 0

    def turn(self) -> tuple[str, str, str, Json]:
        """Text, tool call's id, tool's name and arguments."""
        self.number += 1
        text = prose(self.random.randint(80, 600), 1000 + self.number)
        arguments = {
            "path": f"src/{prose(8, self.number).strip()}/{self.number}.py",
            "why": prose(60, 2000 + self.number),
        }
        return text, f"call_{self.random.getrandbits(96):024x}", f"tool_{self.number % 8}", arguments

    def result(self) -> str:
        """What the tool found: prose, code or a log."""
        size = self.random.randint(300, 4500)
        lines = prose(size, 3000 + self.number).split(" ")
        match self.number % 3:
            case 0:
                return " ".join(lines)
            case 1:
                return "\n".join(f"    {a} = self.{b}({a}, limit={len(b)})" for a, b in pairwise(lines))[:size]
            case _:
                stamp = f"2026-11-{self.number % 28 + 1:02}T10:00:"
                return "\n".join(f"{stamp}{n % 60:02} INFO {word} rows={n * 37 % 991}" for n, word in enumerate(lines))[
                    :size
                ]


class Chat(Agent):
    """The OpenAI protocol; its SDK writes messages before tools."""

    path: Final = "/v1/chat/completions"

    def __init__(self, *, stream: bool) -> None:
        super().__init__()
        self.stream = stream
        self.messages: list[Json] = [
            {"role": "system", "content": self.instructions},
            {"role": "user", "content": self.task},
        ]

    def request(self) -> Json:
        """The next request."""
        asked: Json = {
            "messages": self.messages,
            "model": "mock/gpt-4o-mini",
            "tools": [self._tool(*t) for t in self.tools],
        }
        return asked | ({"stream": True, "stream_options": {"include_usage": True}} if self.stream else {})

    def answer(self) -> bytes:
        """What the model says to it; both are part of what is sent next."""
        text, call_id, name, arguments = self.turn()
        call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        self.messages += [
            {"role": "assistant", "content": text, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call_id, "content": self.result()},
        ]
        head = {
            "id": f"chatcmpl-{call_id[5:]}",
            "created": 1_790_000_000 + self.number,
            "model": "gpt-4o-mini-2024-07-18",
        }
        if not self.stream:
            message = {**self.messages[-2], "refusal": None, "annotations": []}
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}
            return json.dumps({**head, "object": "chat.completion", "choices": [choice], "usage": _USAGE}).encode()
        head |= {"object": "chat.completion.chunk", "service_tier": "default", "system_fingerprint": "fp_3af2b1c9d0"}
        deltas: list[Json] = [{"role": "assistant", "content": "", "refusal": None}]
        deltas += [{"content": piece} for piece in _pieces(text)]
        deltas.append({"tool_calls": [{"index": 0, **call, "function": {"name": name, "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in _pieces(json.dumps(arguments))
        ]
        chunks = [{**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}], "usage": None} for d in deltas]
        chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": None})
        chunks.append({**head, "choices": [], "usage": _USAGE})
        return b"".join(b"data: " + _compact(c) + b"\n\n" for c in chunks) + b"data: [DONE]\n\n"

    @staticmethod
    def _tool(name: str, description: str, fields: list[str]) -> Json:
        function = {"name": name, "description": description, "parameters": _parameters(fields)}
        return {"type": "function", "function": function}


class Messages(Agent):
    """The Anthropic protocol, with a cache marker on the newest message, which moves on with every turn."""

    path: Final = "/v1/messages"

    def __init__(self, *, stream: bool) -> None:
        super().__init__()
        self.stream = stream
        self.messages: list[Json] = [{"role": "user", "content": [{"type": "text", "text": self.task}]}]

    def request(self) -> Json:
        """The next request."""
        *before, newest = self.messages
        marked = {**newest, "content": [{**newest["content"][0], "cache_control": {"type": "ephemeral"}}]}
        asked: Json = {
            "max_tokens": 4096,
            "messages": [*before, marked],
            "model": "claude/claude-sonnet-4-5",
            "system": [{"type": "text", "text": self.instructions, "cache_control": {"type": "ephemeral"}}],
            "tools": [{"name": n, "description": d, "input_schema": _parameters(f)} for n, d, f in self.tools],
        }
        return asked | ({"stream": True} if self.stream else {})

    def answer(self) -> bytes:
        """What the model says to it; both are part of what is sent next."""
        text, call_id, name, arguments = self.turn()
        call = {"type": "tool_use", "id": call_id.replace("call", "toolu"), "name": name, "input": arguments}
        content: list[Json] = [{"type": "text", "text": text}, call]
        result = {"type": "tool_result", "tool_use_id": call["id"], "content": self.result()}
        self.messages += [{"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        message: Json = {
            "id": f"msg_{call_id[5:]}",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5-20250929",
        }
        if not self.stream:
            ended = {"stop_reason": "tool_use", "stop_sequence": None, "usage": _MESSAGES_USAGE}
            return _compact({**message, "content": content, **ended})
        begun = {
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 1000, "output_tokens": 1},
        }
        events: list[Json] = [{"type": "message_start", "message": {**message, **begun}}]
        for index, (block, kind, field, said) in enumerate(
            [
                ({"type": "text", "text": ""}, "text_delta", "text", text),
                ({**call, "input": {}}, "input_json_delta", "partial_json", json.dumps(arguments)),
            ]
        ):
            events.append({"type": "content_block_start", "index": index, "content_block": block})
            events += [
                {"type": "content_block_delta", "index": index, "delta": {"type": kind, field: piece}}
                for piece in _pieces(said)
            ]
            events.append({"type": "content_block_stop", "index": index})
        events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 120}})
        events.append({"type": "message_stop"})
        return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), _compact(e)) for e in events)


def measure(turns: int = TURNS) -> list[Json]:
    """A row for each protocol, whole and streamed."""
    if Counterfoil().missing():
        return []
    return [converse(kind(stream=stream), turns) for kind in (Chat, Messages) for stream in (False, True)]


def converse(agent: Chat | Messages, turns: int) -> Json:
    """One conversation, held through a gateway of its own."""
    requests: list[bytes] = []
    with _upstream(agent) as port, running(Talking(), port) as target:
        before = target.stats()["bytes"]
        for _ in range(turns):
            requests.append(json.dumps(agent.request()).encode())
            _post(f"http://127.0.0.1:{target.port}{agent.path}", requests[-1], target.headers)
        stored, read_ms = target.stored()
        grown = target.stats()["bytes"] - before
    packed = [len(zstandard.ZstdCompressor(level=3).compress(one)) for one in requests]
    return {
        "conversation": f"{agent.path}{', streamed' if agent.stream else ''}",
        "turns": turns,
        "last_request_bytes": len(requests[-1]),
        "transcript_bytes": packed[-1],
        "stored_bytes": stored,
        "ratio": round(stored / packed[-1], 2),
        "ledger_grew_bytes": grown,
        "ledger_ratio": round(grown / packed[-1], 2),
        "ratio_whole": round(sum(packed) / packed[-1], 1),
        "last_body_read_ms": round(read_ms, 2),
    }


class Talking(Counterfoil):
    """The gateway in front of a model that speaks both protocols."""

    def providers(self, upstream_port: int) -> Json:
        claude = {"type": "anthropic", "base_url": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "none"}
        return {**super().providers(upstream_port), "claude": {**claude, "prices": "anthropic"}}

    def stored(self) -> tuple[int, float]:
        """The bytes of all bodies but the first call's, which asked if the gateway is there; ms to read the last."""
        reader = LedgerReader(DataFolder.existing(self.data))
        try:
            records = list(reader.all())[1:]
            size = sum(msgspec.json.decode(record.data)["capture"]["bytes"] for record in records)
            began = time.perf_counter()
            capture = reader.capture(records[-1])
            read_ms = (time.perf_counter() - began) * 1000
            if capture is None:
                raise AssertionError("the last body cannot be read")
            return size, read_ms
        finally:
            reader.close()


@contextmanager
def _upstream(agent: Chat | Messages) -> Iterator[int]:
    """A model that says the agent's next words. The first call, which asks if it is there, is answered as a chat."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        asked = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            first = Handler.asked == 0
            Handler.asked += 1
            body = Chat(stream=False).answer() if first else agent.answer()
            self.send_response(200)
            self.send_header("Content-Type", _TYPES[agent.stream and not first])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # as the base class has it
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        if answer.status != 200 or not answer.read():
            raise AssertionError(f"{url} answered {answer.status}")


def _parameters(fields: list[str]) -> Json:
    named = {f"field_{n}": {"type": "string", "description": text} for n, text in enumerate(fields)}
    return {"type": "object", "properties": named, "required": ["field_0"]}


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if number == 0 else f" {word}" for number, word in enumerate(words)]


def _compact(document: Json) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
