"""The official SDKs through the gateway, in front of an emulator of the providers that somebody else wrote.

Each call is made as an application makes it and followed at once by its lookup.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as google_errors
from google.genai import types as google_types

from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer

HELLO = "Hello from the emulator, in a sentence long enough to be cut into several pieces."
CHAT = "openai/gpt-4o-mini"
CLAUDE = "anthropic/claude-sonnet-4-5"
GEMINI = "gemini-2.5-flash"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}
OPENAI_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
ANTHROPIC_TOOL: Any = {"name": "get_weather", "input_schema": WEATHER}


@pytest.fixture(scope="module")
def gateway(start_gateway: Callable[..., Gateway], aimock: str) -> Iterator[Gateway]:
    """Give a gateway whose three providers are the emulator."""
    running = start_gateway(
        {
            "providers": {
                "openai": {"base_url": f"{aimock}/v1", "api_key": "sk-operator"},
                "anthropic": {"base_url": f"{aimock}/v1", "api_key": "sk-ant-operator"},
                "google": {"base_url": f"{aimock}/v1beta", "api_key": "operator"},
            },
            "models": {"fast": [CHAT]},
        }
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


@pytest.fixture
def google_client(gateway: Gateway) -> Iterator[genai.Client]:
    """Give Google's SDK as it comes, with only its address changed."""
    with genai.Client(api_key=gateway.key(), http_options={"base_url": gateway.url}) as client:
        yield client


def user(text: str) -> Any:
    """Give a conversation of one message."""
    return [{"role": "user", "content": text}]


def assert_served(record: dict[str, Any], endpoint: str, model: str, tokens: tuple[int, int] | None = None) -> None:
    """The record is that of a success on ``endpoint`` with ``model``; ``tokens`` are input and output."""
    assert record["success"] is True
    assert record["status_code"] == 200
    assert record["endpoint"] == endpoint
    assert record["model_id"] == model
    assert record["team_id"] == "acme"
    assert record["cost_nanos"] == sum(line["amount_nanos"] for line in record["pricing_lines"])
    if tokens:
        usage = record["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (*tokens, sum(tokens))
        assert usage["source"] == "reported"


def count_records(gateway: Gateway) -> int:
    """Give the number of records in the ledger, read beside the running gateway."""
    return json.loads(gateway.command("ledger", "stats", "--json").stdout)["records"]


# OpenAI ---------------------------------------------------------------------------------------------------------------


def test_chat(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A chat completion arrives whole; its record is found by our id and by the provider's, and is priced."""
    raw = openai_client.chat.completions.with_raw_response.create(model=CHAT, messages=user("hello"))
    answer = raw.parse()

    record = gateway.record(raw.headers["x-request-id"])

    assert answer.choices[0].message.content == HELLO
    assert_served(record, "/v1/chat/completions", CHAT, (11, 17))
    assert record["finish_reason"] == "stop"
    assert record["cost_state"] == "exact"
    assert record["cost_nanos"] > 0
    assert gateway.record(answer.id)["request_id"] == record["request_id"]


def test_the_sdk_knows_our_id_as_its_request_id(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """What OpenAI's SDK calls the request id is the id of the record."""
    answer = openai_client.chat.completions.create(model=CHAT, messages=user("hello"))
    assert gateway.record(str(answer._request_id))["native_response_id"] == answer.id


@pytest.mark.parametrize("asked", [False, True], ids=["usage not asked for", "usage asked for"])
def test_chat_stream(gateway: Gateway, openai_client: openai.OpenAI, asked: bool) -> None:
    """A stream arrives in pieces; the usage frame comes only to a client that asked, the usage is always recorded."""
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    raw = openai_client.chat.completions.with_raw_response.create(
        model=CHAT, messages=user("hello"), stream=True, **options
    )
    chunks = list(raw.parse())

    record = gateway.record(raw.headers["x-request-id"])

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == HELLO
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == ([28] if asked else [])
    assert all(chunk.choices for chunk in chunks) is not asked
    assert_served(record, "/v1/chat/completions", CHAT, (11, 17))
    assert record["stream"] is True
    assert record["latency_ms"] <= record["generation_ms"]


def test_chat_tools(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A tool is called and its result answered: two calls, two records, told apart by their finish reasons."""
    first = openai_client.chat.completions.create(model=CHAT, messages=user("weather?"), tools=[OPENAI_TOOL])
    called = first.choices[0].message
    assert called.tool_calls
    assert called.tool_calls[0].type == "function"
    assert "Lisbon" in called.tool_calls[0].function.arguments
    result = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "21"}
    second = openai_client.chat.completions.create(
        model=CHAT,
        messages=[*user("weather?"), called.model_dump(exclude_none=True), result],
        tools=[OPENAI_TOOL],
    )

    records = [gateway.record(str(answer._request_id)) for answer in (first, second)]

    assert second.choices[0].message.content == "It is 21 degrees in Lisbon."
    assert [record["finish_reason"] for record in records] == ["tool_calls", "stop"]
    assert records[1]["replay_request"]["messages"][2] == result


def test_responses(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """The Responses protocol passes, and its usage is read in its own words."""
    answer = openai_client.responses.create(model=CHAT, input="hello")
    record = gateway.record(str(answer._request_id))
    assert answer.output_text == HELLO
    assert_served(record, "/v1/responses", CHAT, (11, 17))
    assert record["native_response_id"] == answer.id


def test_responses_stream(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A Responses stream ends with its completed event, and the record is there when it does."""
    raw = openai_client.responses.with_raw_response.create(model=CHAT, input="hello", stream=True)
    events = list(raw.parse())
    record = gateway.record(raw.headers["x-request-id"])
    assert events[-1].type == "response.completed"
    assert_served(record, "/v1/responses", CHAT, (11, 17))


def test_embeddings(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """An embedding passes; its record has no throughput, because nothing was generated."""
    model = "openai/text-embedding-3-small"
    answer = openai_client.embeddings.with_raw_response.create(model=model, input="embed this", encoding_format="float")
    record = gateway.record(answer.headers["x-request-id"])
    assert answer.parse().data[0].embedding == [0.25, -0.5, 0.125]
    assert_served(record, "/v1/embeddings", model)
    assert record["throughput"] is None


def test_image(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """An image is generated and recorded."""
    model = "openai/gpt-image-1"
    answer = openai_client.images.with_raw_response.generate(model=model, prompt="a red square")
    assert answer.parse().data
    assert_served(gateway.record(answer.headers["x-request-id"]), "/v1/images/generations", model)


def test_image_edit(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """An upload of several parts passes, and is recorded with its model."""
    model = "openai/gpt-image-1"
    picture = ("square.png", b"\x89PNG\r\n\x1a\n" + bytes(2000))
    answer = openai_client.images.with_raw_response.edit(model=model, prompt="make it blue", image=picture)
    assert answer.parse().data
    assert_served(gateway.record(answer.headers["x-request-id"]), "/v1/images/edits", model)


def test_speech(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A binary answer arrives unharmed, and is recorded."""
    model = "openai/tts-1"
    with openai_client.audio.speech.with_streaming_response.create(model=model, voice="alloy", input="hi") as answer:
        sound = answer.read()
        record_id = answer.headers["x-request-id"]
    assert sound.startswith(b"ID3")
    assert_served(gateway.record(record_id), "/v1/audio/speech", model)


def test_transcription(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A recording is uploaded and its text comes back."""
    model = "openai/whisper-1"
    answer = openai_client.audio.transcriptions.with_raw_response.create(model=model, file=("a.mp3", b"ID3" * 700))
    assert answer.parse().text == "One two three."
    assert_served(gateway.record(answer.headers["x-request-id"]), "/v1/audio/transcriptions", model)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_translation(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A recording is uploaded and its translation comes back."""
    model = "openai/whisper-1"
    answer = openai_client.audio.translations.with_raw_response.create(model=model, file=("a.mp3", b"ID3" * 700))
    assert answer.parse().text == "Four five six."
    assert_served(gateway.record(answer.headers["x-request-id"]), "/v1/audio/translations", model)


def test_an_error_reaches_the_sdk_as_its_own_kind(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A provider's 429 becomes the SDK's RateLimitError, with our id; its record names the provider as the cause."""
    with pytest.raises(openai.RateLimitError, match="Slow down") as raised:
        openai_client.chat.completions.create(model=CHAT, messages=user("refuse this"))

    record = gateway.record(str(raised.value.request_id))

    assert record["status_code"] == 429
    assert record["success"] is False
    assert record["error_code"] == "upstream:rate_limited"
    assert record["replay_supported"] is True
    assert raised.value.response.headers["retry-after"] == "1"


def test_the_sdks_own_retry_makes_a_second_record(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """The SDK retries a 500 by itself and succeeds; both calls are recorded, because both happened."""
    before = count_records(gateway)
    retrying = openai_client.with_options(max_retries=2)
    raw = retrying.chat.completions.with_raw_response.create(model=CHAT, messages=user("break once"))
    assert raw.parse().choices[0].message.content == "This time it worked."
    assert raw.retries_taken == 1
    assert gateway.record(raw.headers["x-request-id"])["success"] is True
    assert count_records(gateway) == before + 2


def test_an_unknown_model_is_an_sdk_error(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A model that nobody serves is a NotFoundError for the SDK, and a record for the operator."""
    with pytest.raises(openai.NotFoundError) as raised:
        openai_client.chat.completions.create(model="nobody/nothing", messages=user("hello"))
    record = gateway.record(str(raised.value.request_id))
    assert record["error_code"] == "user:model_not_found"
    assert record["provider"] == "none"


def test_a_wrong_key_is_an_sdk_error(gateway: Gateway) -> None:
    """A key that nobody made is an AuthenticationError for the SDK."""
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="cf_sk_wrong_wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model=CHAT, messages=user("hello"))


def test_models_are_listed(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, google_client: genai.Client
) -> None:
    """Each SDK's own list has what it can call, and each can ask for one of them."""
    assert "fast" in [model.id for model in openai_client.models.list()]
    assert openai_client.models.retrieve("fast").object == "model"
    assert "fast" in [model.id for model in anthropic_client.models.list(limit=5)]
    assert anthropic_client.models.retrieve(CHAT).display_name == CHAT
    names = [model.name for model in google_client.models.list()]
    assert names
    assert all(str(name).startswith("models/google/") for name in names)
    assert not any("claude" in str(name) for name in names), "they do not speak Gemini's protocol"
    bare = str(names[0]).removeprefix("models/google/")
    assert google_client.models.get(model=bare).name == names[0]


def test_what_is_not_served_is_an_sdk_error_with_a_message(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic, google_client: genai.Client
) -> None:
    """Files, batches and stored responses: 404, and a person can read why."""
    with pytest.raises(openai.NotFoundError, match="no such endpoint"):
        openai_client.files.list()
    with pytest.raises(openai.NotFoundError, match="no such endpoint"):
        openai_client.responses.retrieve("resp_1")
    with pytest.raises(anthropic.NotFoundError, match="no such endpoint"):
        anthropic_client.messages.batches.list()
    with pytest.raises(genai.errors.ClientError, match="no such endpoint"):
        list(google_client.files.list())


def test_a_wrong_base_url_is_an_sdk_error_that_says_the_right_one(gateway: Gateway) -> None:
    """The likeliest mistakes of a first hour: /v1 left out for OpenAI's SDK, and added for Anthropic's."""
    with (
        openai.OpenAI(base_url=gateway.url, api_key=gateway.key(), max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match=r"did you mean /v1/chat/completions\? .* ends in /v1"),
    ):
        client.chat.completions.create(model=CHAT, messages=user("hello"))
    with (
        anthropic.Anthropic(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client,
        pytest.raises(anthropic.NotFoundError, match=r"did you mean /v1/messages\? .* has no path"),
    ):
        client.messages.create(model=CLAUDE, max_tokens=10, messages=user("hello"))


def test_a_refusal_of_the_list_of_models_is_an_sdk_error_with_a_message(
    gateway: Gateway,
    openai_client: openai.OpenAI,
    anthropic_client: anthropic.Anthropic,
    google_client: genai.Client,
) -> None:
    """The list is the control plane's, and yet each SDK can show what was wrong with it."""
    with pytest.raises(openai.NotFoundError, match="no such model"):
        openai_client.models.retrieve("nothing")
    with pytest.raises(anthropic.NotFoundError, match="no such model"):
        anthropic_client.models.retrieve("nothing")
    with pytest.raises(google_errors.ClientError, match="no such model") as caught:
        google_client.models.get(model="nothing")
    assert caught.value.status == "NOT_FOUND"
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="sk-foreign", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not a Counterfoil API key"),
    ):
        client.models.list()


def test_an_alias_is_recorded_as_what_it_stands_for(gateway: Gateway, openai_client: openai.OpenAI) -> None:
    """A call of an alias is billed as its target, and the record keeps both names."""
    answer = openai_client.chat.completions.create(model="fast", messages=user("hello"))
    record = gateway.record(str(answer._request_id))
    assert_served(record, "/v1/chat/completions", CHAT, (11, 17))
    assert record["requested_model"] == "fast"


# Anthropic ------------------------------------------------------------------------------------------------------------


def test_messages(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """A message arrives whole, and its record is found by the SDK's own request id."""
    answer = anthropic_client.messages.create(model=CLAUDE, max_tokens=50, messages=user("hello"))
    record = gateway.record(str(answer._request_id))
    assert answer.content[0].type == "text"
    assert answer.content[0].text == HELLO
    assert_served(record, "/v1/messages", CLAUDE, (11, 17))
    assert record["finish_reason"] == "end_turn"
    assert record["native_response_id"] == answer.id


def test_messages_stream(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """A message arrives in pieces; the record is there when the last event is."""
    with anthropic_client.messages.stream(model=CLAUDE, max_tokens=50, messages=user("hello")) as stream:
        text = "".join(stream.text_stream)
        record_id = stream.response.headers["request-id"]
    record = gateway.record(record_id)
    assert text == HELLO
    assert_served(record, "/v1/messages", CLAUDE, (11, 17))
    assert record["stream"] is True


def test_messages_tools(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """A tool is called, and the record says so."""
    answer = anthropic_client.messages.create(
        model=CLAUDE, max_tokens=50, messages=user("weather?"), tools=[ANTHROPIC_TOOL]
    )
    assert answer.content[0].type == "tool_use"
    assert gateway.record(str(answer._request_id))["finish_reason"] == "tool_use"


def test_messages_thinking(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """Thinking and its signature pass untouched."""
    answer = anthropic_client.messages.create(model=CLAUDE, max_tokens=50, messages=user("think first"))
    assert [block.type for block in answer.content] == ["thinking", "text"]
    assert gateway.record(str(answer._request_id))["success"] is True


def test_messages_error(gateway: Gateway, anthropic_client: anthropic.Anthropic) -> None:
    """A provider's 429 becomes the SDK's RateLimitError, with our id."""
    with pytest.raises(anthropic.RateLimitError, match="Slow down") as raised:
        anthropic_client.messages.create(model=CLAUDE, max_tokens=50, messages=user("refuse this"))
    assert gateway.record(str(raised.value.request_id))["error_code"] == "upstream:rate_limited"


# Google ---------------------------------------------------------------------------------------------------------------


def our_id(answer: Any) -> str:
    """Give the id of the record, from the headers that Google's SDK kept."""
    headers = {name.lower(): value for name, value in answer.sdk_http_response.headers.items()}
    return headers["x-generation-id"]


@pytest.mark.parametrize("name", [GEMINI, f"google/{GEMINI}"], ids=["a bare name", "with its provider"])
def test_gemini(gateway: Gateway, google_client: genai.Client, name: str) -> None:
    """Content is generated, by the SDK's default API version, whether the provider is named or not."""
    answer = google_client.models.generate_content(model=name, contents="hello")
    record = gateway.record(our_id(answer))
    assert answer.text == HELLO
    assert record["endpoint"].endswith(f"{name}:generateContent")
    assert_served(record, record["endpoint"], f"google/{GEMINI}", (11, 17))
    assert record["finish_reason"] == "STOP"


def test_gemini_stream(gateway: Gateway, google_client: genai.Client) -> None:
    """Content arrives in pieces; the record is there when the last is."""
    pieces = list(google_client.models.generate_content_stream(model=GEMINI, contents="hello"))
    record = gateway.record(our_id(pieces[0]))
    assert "".join(piece.text or "" for piece in pieces) == HELLO
    assert_served(record, record["endpoint"], f"google/{GEMINI}", (11, 17))
    assert record["stream"] is True


@pytest.mark.filterwarnings("ignore:FUNCTION_CALL is not a valid FinishReason")  # the emulator's own word
def test_gemini_tools(gateway: Gateway, google_client: genai.Client) -> None:
    """A function is called, and the call is recorded."""
    declared = google_types.FunctionDeclaration(name="get_weather", description="The weather in a city.")
    config = google_types.GenerateContentConfig(tools=[google_types.Tool(function_declarations=[declared])])
    answer = google_client.models.generate_content(model=GEMINI, contents="weather?", config=config)
    assert answer.function_calls
    assert answer.function_calls[0].name == "get_weather"
    assert gateway.record(our_id(answer))["success"] is True


def test_gemini_error(google_client: genai.Client) -> None:
    """A provider's 429 reaches Google's SDK as its own kind of error."""
    with pytest.raises(google_errors.ClientError) as raised:
        google_client.models.generate_content(model=GEMINI, contents="refuse this")
    assert raised.value.code == 429


def test_what_stands_beside_a_response_is_served(start_gateway: Callable[..., Gateway]) -> None:
    """OpenAI's SDK counts a response's input for nothing, and compacts a conversation for what that costs."""
    usage = {
        "input_tokens": 900, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 60, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 960,
    }  # fmt: skip
    said: dict[str, Any] = {
        "/v1/responses/compact": {
            "id": "resp_1", "object": "response.compaction", "created_at": 1, "output": [], "usage": usage
        },
        "/v1/responses/input_tokens": {"object": "response.input_tokens", "input_tokens": 900},
    }  # fmt: skip
    with ScriptedUpstream(lambda seen: answer(said[seen.path])) as upstream:
        gateway = start_gateway({"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-operator"}}})
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=gateway.key(), max_retries=0) as client:
            counted = client.responses.input_tokens.with_raw_response.count(model=CHAT, input="hello")
            compacted = client.responses.with_raw_response.compact(model="openai/gpt-4o-mini", input="hello")
        assert counted.parse().input_tokens == 900
        assert compacted.parse().usage.total_tokens == 960
        free, paid = (gateway.record(one.headers["x-request-id"]) for one in (counted, compacted))
        assert (free["cost_nanos"], free["cost_state"]) == (0, "free")
        assert (paid["cost_nanos"], paid["cost_state"]) == (900 * 150 + 60 * 600, "exact")
        assert paid["endpoint"] == "/v1/responses/compact"
        gateway.stop()
