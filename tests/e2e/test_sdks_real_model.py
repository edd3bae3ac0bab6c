"""The official SDKs through the gateway, in front of a real language model on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from emulators.gateway import Gateway

MODEL = "local/smollm2-135m"
QUESTION: Any = [{"role": "user", "content": "Name one colour."}]
SEEDED: Any = {"seed": 3, "temperature": 0.8, "max_tokens": 12, "extra_body": {"cache_prompt": False}}


@pytest.fixture(scope="module")
def gateway(start_gateway: Callable[..., Gateway], model_server: str) -> Iterator[Gateway]:
    """Give a gateway in front of the model."""
    running = start_gateway(
        {"providers": {"local": {"type": "openai", "base_url": f"{model_server}/v1", "api_key": "none"}}}
    )
    yield running
    running.stop()


@pytest.fixture
def openai_client(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """Give OpenAI's SDK, without retries."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """Give Anthropic's SDK, without retries."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as client:
        yield client


def test_a_call_is_recorded_as_it_was(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """Text, tokens and ids of the record are those the client got; a model without a price costs an unknown amount."""
    raw = openai_client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, **SEEDED)
    answer = raw.parse()
    record = gateway.record(raw.headers["x-request-id"])
    assert answer.usage
    assert record["usage"]["prompt_tokens"] == answer.usage.prompt_tokens
    assert record["usage"]["completion_tokens"] == answer.usage.completion_tokens == 12
    assert record["native_response_id"] == answer.id
    assert record["finish_reason"] == "length"
    assert record["throughput"] > 0
    assert record["cost_state"] == "unknown"
    assert {line["state"] for line in record["pricing_lines"]} == {"unpriced"}


def test_a_stream_is_recorded_as_it_was(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A streamed answer has the tokens of the same answer in one piece, and its first output came before its last."""
    raw = openai_client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, stream=True, **SEEDED)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse() if chunk.choices)
    record = gateway.record(raw.headers["x-request-id"])
    whole = openai_client.chat.completions.create(model=MODEL, messages=QUESTION, **SEEDED)
    assert whole.usage
    assert text == whole.choices[0].message.content
    assert record["usage"]["completion_tokens"] == whole.usage.completion_tokens
    assert 0 < record["latency_ms"] < record["generation_ms"]


def test_the_captured_request_runs_again(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """Posting ``replay_request`` to ``endpoint`` gives the same text from a seeded model, and a linked record."""
    raw = openai_client.chat.completions.with_raw_response.create(model=MODEL, messages=QUESTION, **SEEDED)
    first = gateway.record(raw.headers["x-request-id"])

    again = gateway.request(
        "POST",
        first["endpoint"],
        first["replay_request"],
        key=gateway.key(),
        headers={"x-counterfoil-replay-of": first["request_id"]},
    )
    second = gateway.record(again.headers["x-generation-id"])

    assert again.json()["choices"][0]["message"]["content"] == raw.parse().choices[0].message.content
    assert second["replay_of"] == first["request_id"]
    assert second["usage"] == first["usage"]
    assert second["replay_request"] == first["replay_request"]


def test_one_cached_prompt_in_three_protocols(
    gateway: Gateway, openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    """The model reports a cached prompt in three conventions; the records give it in one."""
    question: Any = [{"role": "user", "content": "Which day follows Monday, and which follows Friday?"}]
    openai_client.chat.completions.create(model=MODEL, messages=question, max_tokens=3)
    chat = openai_client.chat.completions.create(model=MODEL, messages=question, max_tokens=3)
    responses = openai_client.responses.create(model=MODEL, input=question, max_output_tokens=3)
    message = anthropic_client.messages.create(model=MODEL, messages=question, max_tokens=3)

    records = [gateway.record(str(answer._request_id)) for answer in (chat, responses, message)]

    assert message.usage.input_tokens < 5  # Anthropic's convention: without what was read from the cache
    for record in records:
        assert record["usage"]["prompt_tokens"] == records[0]["usage"]["prompt_tokens"]
        assert record["usage"]["prompt_tokens_details"]["cached_tokens"] > 20


def test_messages_stream(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """A message arrives in pieces through Anthropic's SDK, and is recorded."""
    with anthropic_client.messages.stream(model=MODEL, max_tokens=8, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
        record_id = stream.response.headers["request-id"]
    record = gateway.record(record_id)
    assert text
    assert record["endpoint"] == "/v1/messages"
    assert record["usage"]["completion_tokens"] == final.usage.output_tokens


def test_tokens_are_counted(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """Counting tokens passes, and consumes nothing."""
    counted = anthropic_client.messages.with_raw_response.count_tokens(model=MODEL, messages=QUESTION)
    record = gateway.record(counted.headers["request-id"])
    assert counted.parse().input_tokens > 5
    assert record["endpoint"] == "/v1/messages/count_tokens"
    assert record["usage"]["total_tokens"] == 0


def test_a_full_context_is_the_callers_error(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A prompt beyond the model's context is refused by the model, and recorded as refused."""
    with pytest.raises(openai.BadRequestError) as raised:
        openai_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "word " * 3000}])
    record = gateway.record(str(raised.value.request_id))
    assert record["status_code"] == 400
    assert record["success"] is False
    assert record["error_code"] == "user:provider_rejected"
