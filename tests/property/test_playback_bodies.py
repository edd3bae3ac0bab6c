"""Bytes in are bytes out: however a body is written or cut, it is kept, handed back and played as it was."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import providers
from emulators.cassette import Cassette, Take
from emulators.gateway import Gateway

CHAT = "/v1/chat/completions"
STRICT = {"x-counterfoil-playback": "strict"}
SPACE = st.text(alphabet=" \t\r\n", max_size=3)
NUMBERS = st.sampled_from(["0", "-0.0", "1.0", "1e2", "12345678901234567890123456789", "0.10000000000000000000000001"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(["\u2028", "é", "𝄞", '"\\/'])
COUNT = itertools.count()
quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(scope="module")
def gateway(start_gateway: Callable[..., Gateway], cassette: Cassette) -> Iterator[Gateway]:
    """Give a gateway in front of the cassette."""
    running = start_gateway({"providers": providers(cassette.url)})
    yield running
    running.stop()


@st.composite
def bodies(draw: Any, *, stream: bool) -> bytes:
    """A chat request in a spelling of its own: white space, escapes, numbers, the order of members."""
    text = json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))
    members = [
        ("model", '"openai/gpt-4o-mini"'),
        ("messages", f'[{{"role":"user","content":{text}}}]'),
        ("seed", draw(NUMBERS)),
        ("stream", str(stream).lower()),
        ("user", f'"{next(COUNT)}"'),  # so that each has one recording
    ]
    spelled = [f'"{name}"{draw(SPACE)}:{draw(SPACE)}{value}' for name, value in draw(st.permutations(members))]
    return (draw(SPACE) + "{" + f"{draw(SPACE)},{draw(SPACE)}".join(spelled) + draw(SPACE) + "}").encode()


def check(gateway: Gateway, cassette: Cassette, body: bytes, take: Take) -> None:
    """Record one call and play it: the request as it was sent, the answer as the client got it."""
    cassette.play(take)
    got = gateway.request("POST", CHAT, body, key=gateway.key())
    assert got.status == 200
    [seen] = cassette.requests
    number = got.headers["x-generation-id"]
    assert gateway.look_up(number).body.endswith(b'"replay_request":%b}' % body)
    assert gateway.request("GET", f"/v1/generations/{number}/content?part=request", key=gateway.key()).body == body
    cassette.play(Take(b"never"))

    played = gateway.request("POST", CHAT, body, key=gateway.key(), headers=STRICT)

    assert cassette.requests == []
    assert played.headers["x-counterfoil-playback-of"] == number
    assert played.body == got.body
    assert gateway.look_up(played.headers["x-generation-id"]).body.endswith(b'"replay_request":%b}' % body)
    assert b"include_usage" not in gateway.look_up(number).body
    assert (b"include_usage" in seen.body) is (json.loads(body)["stream"])


@quick
@given(body=bodies(stream=False), said=TEXTS)
def test_unary_bodies(gateway: Gateway, cassette: Cassette, body: bytes, said: str) -> None:
    """A request of any spelling comes back byte for byte, and so does an answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    check(gateway, cassette, body, Take(json.dumps({"id": "c", "choices": [choice]}, indent=1).encode()))


@quick
@given(body=bodies(stream=True), texts=st.lists(TEXTS, min_size=1, max_size=6), cut=st.integers(1, 90))
def test_streams(gateway: Gateway, cassette: Cassette, body: bytes, texts: list[str], cut: int) -> None:
    """A stream cut anywhere, in the middle of a letter too, comes back byte for byte, less the frame we asked for."""
    parts: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    parts += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    parts += [{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}]
    data = [b"data: %b\n\n" % json.dumps({"id": "c", **part}, ensure_ascii=False).encode() for part in parts]
    check(
        gateway, cassette, body, Take(b"".join(data) + b"data: [DONE]\n\n", content_type="text/event-stream", cut=cut)
    )
