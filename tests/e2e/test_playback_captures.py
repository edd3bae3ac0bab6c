"""Recorded traffic of real providers: what a client got once it gets again, byte for byte, from ledger and cassette."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as google_types

from counterfoil.capture.recording import Asked, match_text
from counterfoil.folder import DataFolder
from counterfoil.replay import cassette as cassettes
from counterfoil.replay import serving
from counterfoil.tenancy.admin import Admin
from e2e.test_wire_captures import COVERED, PROVIDERS, Surface, surface_of
from emulators import captures
from emulators.captures import Capture
from emulators.cassette import Cassette, Take
from emulators.gateway import Answer, Gateway
from emulators.raw import RawClient, post

pytestmark = pytest.mark.skipif(not captures.load(), reason=captures.ABSENT)
CUTS = (None, 1, 7, 61, 1024)
STRICT = {"x-counterfoil-playback": "strict"}


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, cassette: Cassette) -> Iterator[Gateway]:
    """Give a gateway in front of the cassette, with a provider for each recorded host."""
    own = {"type": "openai", "base_url": f"{cassette.url}/v1", "api_key": "none"}
    google = {"type": "google", "base_url": f"{cassette.url}/v1beta", "api_key": "none"}
    anthropic = {"type": "anthropic", "base_url": f"{cassette.url}/v1", "api_key": "none"}
    providers = dict.fromkeys([*PROVIDERS.values(), "other"], own)
    running = start_gateway({"providers": {**providers, "google": google, "vertex": google, "anthropic": anthropic}})
    yield running
    running.stop()


@pytest.fixture(scope="module")
def keys(gateway: Gateway) -> Iterator[Callable[[Surface], str]]:
    """Give a key for a request; one that was recorded before is another team's, so that each has one recording."""
    admin = Admin(DataFolder.existing(gateway.data))
    seen: Counter[bytes] = Counter()
    made: dict[int, str] = {}

    def key(surface: Surface) -> str:
        asked = match_text(Asked("", "", None, surface.path, "application/json", surface.body))
        seen[asked] += 1
        team = seen[asked]
        if team not in made:
            made[team] = admin.create_key(f"team-{team}", make_missing=True).key
        return made[team]

    yield key
    admin.close()


GOT: dict[int, Answer] = {}
"""What the client got of each capture when it was recorded, by the capture's number, in the order of recording."""


@pytest.mark.parametrize("capture", COVERED, ids=lambda capture: capture.name)
def test_a_ledger_gives_back_what_the_client_got(
    gateway: Gateway, keys: Callable[[Surface], str], cassette: Cassette, capture: Capture
) -> None:
    """The kept request is what the client sent, and a played answer is what the client got: status, type and bytes."""
    surface = surface_of(capture)
    assert surface
    key = keys(surface)
    cut = CUTS[capture.number % len(CUTS)] if len(capture.body) < 20_000 else 4096
    cassette.play(Take(capture.body, capture.status, capture.content_type, cut=cut))
    got = gateway.request("POST", surface.path, surface.body, key=key)
    GOT[capture.number] = got
    kept = gateway.request("GET", f"/v1/generations/{got.headers['x-generation-id']}/content", key=key).json()
    assert kept["request"]["body"].encode() == surface.body
    assert kept["response"]["body"].encode() == capture.body
    cassette.play(Take(b"never"))

    played = gateway.request("POST", surface.path, surface.body, key=key, headers=STRICT)

    assert cassette.requests == []
    assert (played.status, played.body) == (got.status, got.body)
    assert played.headers["content-type"] == got.headers["content-type"]
    assert played.headers["x-counterfoil-playback-of"] == got.headers["x-generation-id"]
    record = gateway.record(played.headers["x-generation-id"], key)
    assert (record["cost_nanos"], record["cost_state"]) == (0, "playback")
    assert record["success"] is (capture.status < 400 and record["error_code"] is None)


def test_one_cassette_of_all_gives_back_the_same(gateway: Gateway, tmp_path: Path) -> None:
    """Exported into one file and served without a gateway, every answer is the one the client got, in its order."""
    if len(GOT) < len(COVERED):
        pytest.skip("only some captures were recorded before")
    path = tmp_path / "all.jsonl"
    gateway.command("cassette", "export", str(path), "--limit", "100000")
    read = cassettes.read(path)
    assert b"".join(cassettes.lines(read)) == path.read_bytes()
    assert len(read.interactions) == len(COVERED)

    with serving.in_thread(read) as served, RawClient(int(served.url.rpartition(":")[2])) as client:
        for capture in COVERED:
            surface = surface_of(capture)
            assert surface
            client.send(post(surface.path, surface.body, "anything"))
            reply = client.reply()
            got = GOT[capture.number]
            assert (reply.status, reply.body) == (got.status, got.body), capture.name
            assert reply.headers["content-type"] == got.headers["content-type"]


def test_the_ledger_verifies_after_all_that(gateway: Gateway) -> None:
    """Every played record is chained, adds up, and follows from its book."""
    gateway.stop()
    done = gateway.command("ledger", "verify", check=False)
    gateway.start()
    assert done.returncode == 0, done.stdout + done.stderr


def sample(protocol: str, *, stream: bool) -> Capture | None:
    """The first good capture of a protocol and shape."""
    for capture in COVERED:
        surface = surface_of(capture)
        assert surface
        if surface.protocol == protocol and surface.stream is stream and capture.status == 200:
            return capture
    return None


SHAPES = [(protocol, stream) for protocol in ("chat", "responses", "messages") for stream in (False, True)]


@pytest.mark.parametrize(("protocol", "stream"), [*SHAPES, ("embeddings", False)])
def test_the_official_clients_get_the_same_bytes(
    gateway: Gateway, cassette: Cassette, protocol: str, stream: bool
) -> None:
    """OpenAI's and Anthropic's clients, asking what was asked, get the recorded bytes and can read them."""
    capture = sample(protocol, stream=stream)
    if capture is None:
        pytest.skip("there is no such capture")
    surface = surface_of(capture)
    assert surface
    body = json.loads(surface.body)
    admin = Admin(DataFolder.existing(gateway.data))
    key = admin.create_key(f"sdk-{protocol}-{stream}".lower(), make_missing=True).key
    admin.close()
    cassette.play(Take(capture.body, capture.status, capture.content_type, cut=61))
    got = gateway.request("POST", surface.path, surface.body, key=key)
    cassette.play(Take(b"never"))

    kind: Any = anthropic.Anthropic if protocol == "messages" else openai.OpenAI
    base = gateway.url if protocol == "messages" else f"{gateway.url}/v1"
    with kind(base_url=base, api_key=key, max_retries=0, default_headers=STRICT) as client:
        endpoint = {
            "chat": lambda: client.chat.completions,
            "responses": lambda: client.responses,
            "messages": lambda: client.messages,
            "embeddings": lambda: client.embeddings,
        }[protocol]()
        named = {name: body[name] for name in ("model", "messages", "input", "max_tokens", "stream") if name in body}
        rest = {name: value for name, value in body.items() if name not in named}
        if protocol == "embeddings":
            rest.setdefault("encoding_format", body.get("encoding_format", None))
            rest = {name: value for name, value in rest.items() if value is not None}
            named["encoding_format"] = body.get("encoding_format", openai.NOT_GIVEN)
        headers = {"x-counterfoil-playback-ignore": "/encoding_format"} if protocol == "embeddings" else {}
        options: Any = {**named, "extra_body": rest, "extra_headers": headers}
        with endpoint.with_streaming_response.create(**options) as response:
            assert b"".join(response.iter_bytes()) == got.body
        parsed = endpoint.create(**options)
        if stream:
            assert list(parsed)
    assert cassette.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_googles_client_gets_the_same(gateway: Gateway, cassette: Cassette, stream: bool) -> None:
    """Google's client writes its own requests: what it gets of a recorded answer it gets again when it is played."""
    capture = sample("gemini", stream=stream)
    assert capture is not None
    admin = Admin(DataFolder.existing(gateway.data))
    key = admin.create_key(f"sdk-google-{stream}".lower(), make_missing=True).key
    admin.close()

    def talk(headers: dict[str, str]) -> list[Any]:
        options = google_types.HttpOptions(base_url=gateway.url, headers=headers)
        client = genai.Client(api_key=key, http_options=options)
        models = client.models
        asked: Any = {"model": "gemini-2.5-flash", "contents": "Say something."}
        answers = models.generate_content_stream(**asked) if stream else [models.generate_content(**asked)]
        return [answer.model_dump(exclude={"sdk_http_response"}) for answer in answers]

    cassette.play(Take(capture.body, capture.status, capture.content_type, cut=61))
    got = talk({})
    cassette.play(Take(b"never"))
    assert got
    assert talk(STRICT) == got
    assert cassette.requests == []
