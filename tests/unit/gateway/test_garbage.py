"""Neither a call nor a connection leaves anything for the cyclic collector: finding it would cost a tenth of a call."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CoroutineType

import pytest

from emulators.inprocess import running
from emulators.raw import RawClient, post
from emulators.scripted import Close, ScriptedUpstream, Seen, Step, answer, chat_answer, chunked
from emulators.waiting import wait_until

CALLS = 40
FRAME = b'data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'


def provide(seen: Seen) -> list[Step]:
    """A whole answer, a stream, or an error, as asked."""
    if b"refuse" in seen.body:
        return answer({"error": {"message": "no"}}, 429)
    return chunked(*[FRAME] * 5, b"data: [DONE]\n\n") if seen.json.get("stream") else answer(chat_answer())


def of_ours(found: object) -> bool:
    """Whether an object is made by a call."""
    if isinstance(found, CoroutineType):
        return "counterfoil" in found.cr_code.co_filename
    return type(found).__module__.startswith(("counterfoil.gateway", "counterfoil.surfaces", "counterfoil.record"))


@contextmanager
def watched() -> Iterator[list[str]]:
    """Give a list; at the end it names what only the cyclic collector found."""
    left: list[str] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield left
        gc.collect()
        left += [repr(found)[:100] for found in gc.garbage if of_ours(found)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("extra", ['"x":1', '"stream":true', '"user":"refuse"'], ids=["unary", "stream", "error"])
def test_a_call_leaves_no_circles(tmp_path: Path, extra: str) -> None:
    """Neither on its own connection nor on one that several calls share."""
    body = b'{"model":"local/gpt-4o-mini","messages":[],%b}' % extra.encode()
    with ScriptedUpstream(provide) as upstream:
        settings = {"providers": {"local": {"type": "openai", "base_url": upstream.base_url, "api_key": "x"}}}
        with running(tmp_path, settings) as gateway, RawClient(gateway.port) as client:
            request = post("/v1/chat/completions", body, gateway.key())
            client.send(request)
            assert client.reply().body
            with watched() as left:
                for _ in range(CALLS):
                    client.send(request)
                    assert client.reply().body
    assert not left


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/nothing", "/v1/generations?id=x"])
def test_a_lost_connection_leaves_no_circles(tmp_path: Path, path: str) -> None:
    """Neither the client's, whatever it asked for, nor the provider's, which closes after each answer."""
    with ScriptedUpstream(lambda _: [*answer(chat_answer(), connection="close"), Close()]) as upstream:
        settings = {"providers": {"local": {"type": "openai", "base_url": upstream.base_url, "api_key": "x"}}}
        with running(tmp_path, settings) as gateway:
            request = post(path, b'{"model":"local/gpt-4o-mini","messages":[]}', gateway.key())

            def call() -> None:
                with RawClient(gateway.port) as client:
                    client.send(request)
                    assert client.reply().status

            call()
            with watched() as left:
                for _ in range(CALLS):
                    call()
                wait_until(lambda: not gateway.host._gateway._connections)
    assert not left
