"""An upstream that does exactly what a test tells it, misbehaviour first of all.

A script is a list of steps played for each request once its body has arrived (or, with ``early=True``, as soon as the
head has): :class:`Send` bytes, :class:`Wait` for a time or :class:`Until` the test says so, :class:`Close` in order,
:class:`Reset` without it, :class:`Hang` until the peer leaves. It runs on its own thread and loop, so tests stay plain
functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from emulators.looped import Looped
from emulators.waiting import PATIENCE_S


@dataclass(frozen=True)
class Send:
    """These bytes, in one write."""

    data: bytes


@dataclass(frozen=True)
class Wait:
    """Nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Until:
    """Nothing until a test says so."""

    event: threading.Event


@dataclass(frozen=True)
class Close:
    """FIN."""


@dataclass(frozen=True)
class Reset:
    """RST."""


@dataclass(frozen=True)
class Hang:
    """Silence until the peer closes. :attr:`ScriptedUpstream.hung_up` counts those, and peers that left even sooner."""


Step = Send | Wait | Until | Close | Reset | Hang


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(
    body: bytes | dict[str, Any], status: int = 200, content_type: str = "application/json", **headers: str
) -> list[Step]:
    """A well-behaved unary answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-type: {content_type}", f"content-length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return [Send("\r\n".join(lines).encode() + b"\r\n\r\n" + data)]


def chunked(*pieces: bytes, end: bool = True, content_type: str = "text/event-stream") -> list[Step]:
    """A chunked answer; each piece is one chunk and one write."""
    steps: list[Step] = [
        Send(f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    ]
    steps += [Send(b"%x\r\n%b\r\n" % (len(piece), piece)) for piece in pieces]
    return [*steps, Send(b"0\r\n\r\n")] if end else steps


def chat_answer(text: str = "Hello.", model: str = "gpt-4o-mini", **usage: int) -> dict[str, Any]:
    """A chat completion's body with usage."""
    prompt, completion = usage.get("prompt", 9), usage.get("completion", 3)
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion},
    }


def chat_frames(*words: str, usage: bool = True, done: bool = True) -> list[bytes]:
    """The event-stream frames of a streamed chat completion."""

    def frame(**fields: Any) -> bytes:
        body = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
        return b"data: " + json.dumps(body | fields, separators=(",", ":")).encode() + b"\n\n"

    frames = [frame(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])]
    frames += [frame(choices=[{"index": 0, "delta": {"content": word}, "finish_reason": None}]) for word in words]
    frames.append(frame(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    if usage:
        count = len(words)
        frames.append(
            frame(choices=[], usage={"prompt_tokens": 9, "completion_tokens": count, "total_tokens": 9 + count})
        )
    return [*frames, b"data: [DONE]\n\n"] if done else frames


@dataclass
class ScriptedUpstream(Looped):
    """Serves ``script`` (a list of steps, or a function of the request) on a loopback port."""

    script: Sequence[Step] | Callable[[Seen], Sequence[Step]] = ()
    early: bool = False
    tls: ssl.SSLContext | None = None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    hung_up: int = 0

    @property
    def base_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/v1"

    def options(self) -> dict[str, Any]:
        return {"limit": 1 << 26, "ssl": self.tls, "backlog": 4096}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await self._one(reader, writer):
            pass

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        seen = Seen(method, path, headers, b"")
        self.seen.append(seen)
        if not self.early:
            seen.body = await reader.readexactly(int(headers.get("content-length", 0)))
        script = self.script(seen) if callable(self.script) else self.script
        try:
            for step in script:
                if not await self._play(step, reader, writer):
                    return False
        except ConnectionError:  # the peer did not stay for all of it
            self.hung_up += 1
            raise
        return not self.early

    async def _play(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        match step:
            case Send(data):
                writer.write(data)
                await writer.drain()
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Until(event):
                await asyncio.to_thread(event.wait, PATIENCE_S)
            case Close():
                writer.close()
                return False
            case Reset():
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.transport.abort()
                return False
            case Hang():
                with contextlib.suppress(ConnectionError):  # a reset is a way to hang up, too
                    await reader.read()
                self.hung_up += 1
                return False
        return True
