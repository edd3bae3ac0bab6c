"""What the tests of the surfaces share: a meter that is shown an answer, and the ways to cut one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from counterfoil.surfaces import registry
from counterfoil.surfaces.base import Call, Meter, Reading, Request


class Played(NamedTuple):
    """What became of an answer: the bytes the client got before and after :meth:`Meter.end`, and the reading."""

    before: bytes
    after: bytes
    reading: Reading
    meter: Meter

    @property
    def delivered(self) -> bytes:
        """All that the client got."""
        return self.before + self.after


def call_of(**fields: Any) -> Call:
    """A call with nothing in it but ``fields``."""
    blank: dict[str, Any] = {"endpoint": "", "model": "m", "stream": True, "body": b"", "content_type": ""}
    return Call(**(blank | fields))


def request(
    path: str, body: bytes | dict[str, Any], query: str = "", content_type: str = "application/json"
) -> Request:
    """A request to ``path``."""
    data = body if isinstance(body, bytes) else json.dumps(body, separators=(",", ":")).encode()
    return Request("POST", path, query, {b"content-type": content_type.encode()} if content_type else {}, data)


def play(path: str, stream: bytes, size: int = 0, **fields: Any) -> Played:
    """Show ``stream`` to the meter of the surface at ``path``, in pieces of ``size`` bytes (0: whole)."""
    surface = registry.find(path)
    assert surface is not None
    meter = surface.meter(call_of(**fields))
    size = size or max(1, len(stream))
    before = b"".join(meter.push(stream[at : at + size]) for at in range(0, len(stream), size))
    after = meter.end()
    return Played(before, after, meter.reading(), meter)


def play_frames(path: str, frames: list[bytes], **fields: Any) -> Played:
    """Show one frame at a time."""
    surface = registry.find(path)
    assert surface is not None
    meter = surface.meter(call_of(**fields))
    before = b"".join(meter.push(frame) for frame in frames)
    after = meter.end()
    return Played(before, after, meter.reading(), meter)


def whole(path: str, body: bytes | dict[str, Any], status: int = 200, **fields: Any) -> Reading:
    """Show a unary answer."""
    surface = registry.find(path)
    assert surface is not None
    meter = surface.meter(call_of(stream=False, **fields))
    meter.whole(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    return meter.reading()


class Bench(NamedTuple):
    """The helpers above, for tests that are found by path and cannot import them."""

    play: Callable[..., Played]
    play_frames: Callable[..., Played]
    whole: Callable[..., Reading]
    request: Callable[..., Request]


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Give the helpers."""
    return Bench(play, play_frames, whole, request)
