"""Recorded traffic of real providers, replayed through the gateway: equal bytes out, and a true record at once."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from emulators import captures, oracle
from emulators.captures import Capture
from emulators.cassette import Cassette, Framing, Take
from emulators.gateway import Gateway
from emulators.oracle import Protocol

PROVIDERS = {
    "aiplatform": "vertex",
    "api.anthropic.com": "anthropic",
    "generativelanguage": "google",
    "api.openai.com": "openai",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "openrouter.ai": "openrouter",
    "api.deepseek.com": "deepseek",
    "api.cerebras.ai": "cerebras",
    "router.huggingface.co": "huggingface",
    "api.z.ai": "zai",
    "api.voyageai.com": "voyageai",
}
"""Which provider of the configuration a recorded host stands for; every other host is ``other``."""

NOT_SPOKEN = ("/converse", "/v2/chat", "/v2/embed")
"""Endpoints in the recordings that are no surface of ours: Bedrock's Converse and Cohere's own protocol."""

CUTS = (1, 2, 3, 5, 7, 16, 61, 127, 1024, 4096)
"""Sizes of the pieces in which a sample of streams is sent."""


class Surface(NamedTuple):
    """How a recorded request is sent through the gateway."""

    protocol: Protocol
    path: str
    body: bytes
    stream: bool


def provider_of(capture: Capture) -> str:
    """Give the configured provider that stands for the recorded host."""
    return next((name for part, name in PROVIDERS.items() if part in capture.host), "other")


def surface_of(capture: Capture) -> Surface | None:
    """Give the request as a client of the gateway sends it, or None when no surface of ours covers it."""
    if capture.path.endswith(NOT_SPOKEN):
        return None
    provider = provider_of(capture)
    last = capture.path.rsplit("/", 1)[-1]
    if ":" in last:
        query = f"?{capture.query}" if capture.query else ""
        path = f"/v1beta/models/{provider}/{last}{query}"
        return Surface("gemini", path, json.dumps(capture.request).encode(), ":stream" in last)
    protocol: Protocol
    path, protocol = {
        "completions": ("/v1/chat/completions", "chat"),
        "responses": ("/v1/responses", "responses"),
        "messages": ("/v1/messages", "messages"),
        "embeddings": ("/v1/embeddings", "embeddings"),
    }[last]
    request = {**capture.request, "model": f"{provider}/{capture.request.get('model', 'unnamed')}"}
    return Surface(protocol, path, json.dumps(request).encode(), bool(capture.request.get("stream")))


COVERED = [capture for capture in captures.load() if surface_of(capture)]
STREAMS = [capture for capture in COVERED if "event-stream" in capture.content_type]

pytestmark = pytest.mark.skipif(not captures.load(), reason=captures.ABSENT)


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, cassette: Cassette) -> Any:
    """Give a gateway in front of the cassette, with a provider for each recorded host."""
    own = {"type": "openai", "base_url": f"{cassette.url}/v1", "api_key": "none"}
    google = {"type": "google", "base_url": f"{cassette.url}/v1beta", "api_key": "none"}
    anthropic = {"type": "anthropic", "base_url": f"{cassette.url}/v1", "api_key": "none"}
    providers = dict.fromkeys([*PROVIDERS.values(), "other"], own)
    running = start_gateway({"providers": {**providers, "google": google, "vertex": google, "anthropic": anthropic}})
    yield running
    running.stop()


@pytest.mark.parametrize("capture", COVERED, ids=lambda capture: capture.name)
def test_bytes_pass_and_the_record_is_true(gateway: Gateway, cassette: Cassette, capture: Capture) -> None:
    """The client gets the provider's bytes, and the record, looked up at once, says what the provider said."""
    check(gateway, cassette, capture)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("capture", STREAMS[::7], ids=lambda capture: capture.name)
def test_streams_may_be_cut_anywhere(gateway: Gateway, cassette: Cassette, capture: Capture, cut: int) -> None:
    """However a stream is cut into pieces, the client's bytes and the record are the same."""
    check(gateway, cassette, capture, cut=cut)


@pytest.mark.parametrize("framing", ["length", "close"])
@pytest.mark.parametrize("capture", COVERED[::40], ids=lambda capture: capture.name)
def test_answers_may_be_framed_in_any_way(
    gateway: Gateway, cassette: Cassette, capture: Capture, framing: Framing
) -> None:
    """An answer with a length, or one that ends with its connection, arrives like one in chunks."""
    check(gateway, cassette, capture, framing=framing)


def test_what_is_not_covered_is_known() -> None:
    """Every recorded request is either sent through the gateway or of a protocol that we say we do not speak."""
    rest = [capture for capture in captures.load() if capture not in COVERED]
    assert {capture.path.rsplit("/", 1)[-1] for capture in rest} == {"converse", "chat", "embed"}
    assert len(COVERED) > 700


def check(
    gateway: Gateway, cassette: Cassette, capture: Capture, *, cut: int | None = None, framing: Framing = "chunked"
) -> None:
    """Send one recorded request through the gateway, and compare what came with what was recorded."""
    surface = surface_of(capture)
    assert surface
    cassette.play(Take(capture.body, capture.status, capture.content_type, cut=cut, framing=framing))

    answer = gateway.request("POST", surface.path, surface.body, key=gateway.key())
    record = gateway.record(answer.headers["x-generation-id"])

    assert answer.status == capture.status
    assert answer.headers["content-type"] == capture.content_type
    assert answer.body == expected_body(capture, surface)
    assert_forwarded(capture, cassette)
    assert_record(record, capture, surface)


def expected_body(capture: Capture, surface: Surface) -> bytes:
    """Give the bytes a client must get: the provider's, less the usage frame that only the gateway asked for."""
    if surface.protocol != "chat" or not surface.stream or "event-stream" not in capture.content_type:
        return capture.body
    if (capture.request.get("stream_options") or {}).get("include_usage"):
        return capture.body
    return b"".join(frame for frame in oracle.frames(capture.body) if not oracle.is_usage_frame(frame))


def assert_forwarded(capture: Capture, cassette: Cassette) -> None:
    """The provider was asked once, for what the client asked for; only the usage frame may have been added."""
    [seen] = cassette.requests
    sent = json.loads(seen.body)
    if sent != capture.request and "stream_options" in sent:
        assert sent["stream_options"].pop("include_usage") is True
        if not sent["stream_options"]:
            del sent["stream_options"]
    if "model" not in capture.request:
        sent.pop("model", None)
    assert sent == capture.request


def assert_record(record: dict[str, Any], capture: Capture, surface: Surface) -> None:
    """The record agrees with what the oracle reads in the recorded answer."""
    assert record["status_code"] == capture.status
    assert record["stream"] is surface.stream
    assert record["provider"] == provider_of(capture)
    assert record["model_id"].startswith(f"{record['provider']}/")
    assert record["replay_supported"] is True
    assert record["replay_request"] == json.loads(surface.body)
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"])
    assert 0 <= record["latency_ms"] <= record["generation_ms"]
    streamed = "event-stream" in capture.content_type
    if capture.status >= 400:
        assert record["success"] is False
    elif streamed or "json" in capture.content_type:
        assert_said(record, oracle.read(surface.protocol, capture.body, stream=streamed))
    else:
        assert record["usage"]["source"] == "absent"


def assert_said(record: dict[str, Any], said: oracle.Said) -> None:
    """Ids, finish reason and usage are the provider's, and an error inside the answer is one in the record."""
    usage = record["usage"]
    assert record["success"] is not said.failed
    assert record["native_response_id"] == said.native_id
    assert record["finish_reason"] == said.finish
    unseen = usage.get("estimated") == ["web_searches.preview"]  # what the provider bills beside its usage
    assert usage["source"] == ("partial" if unseen else "reported" if said.usage else "absent")
    assert unseen == ("-search-preview" in (record["native_model"] or ""))
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (said.prompt, said.completion)
    assert usage["total_tokens"] == said.prompt + said.completion
    assert (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0) == said.cached
    if said.reasoning:
        assert usage["completion_tokens_details"]["reasoning_tokens"] == said.reasoning
