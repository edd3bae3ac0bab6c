"""Azure's SDK against its own paths: the deployment is the model, whatever the body says or leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from emulators import inprocess
from emulators.inprocess import InProcess
from emulators.scripted import ScriptedUpstream, Seen, Step, answer, chat_answer, chat_frames, chunked

VERSION = "2024-10-21"


def script(seen: Seen) -> list[Step]:
    """Answer what is asked."""
    if seen.path.endswith("/embeddings"):
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return answer({"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": "m", "usage": usage})
    if "/audio/" in seen.path:
        return answer({"text": "spoken"})
    return chunked(*chat_frames("Hi")) if seen.json.get("stream") else answer(chat_answer(model=seen.json["model"]))


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider."""
    with ScriptedUpstream(script) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[InProcess]:
    """Give a gateway with an alias."""
    settings = {
        "providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-operator"}},
        "models": {"our-mini": ["openai/gpt-4o-mini"]},
    }
    with inprocess.running(tmp_path_factory.mktemp("azure"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway: InProcess) -> Iterator[openai.AzureOpenAI]:
    """Give Azure's client, with a key of the gateway's."""
    key = gateway.key("acme")
    address = f"http://127.0.0.1:{gateway.port}"
    with openai.AzureOpenAI(azure_endpoint=address, api_key=key, api_version=VERSION, max_retries=0) as made:
        yield made


def record(gateway: InProcess, client: openai.AzureOpenAI, request_id: str | None) -> dict[str, object]:
    """The record of a call."""
    assert client.api_key
    return gateway.request("GET", f"/v1/generations?id={request_id}", key=client.api_key).json()


@pytest.mark.parametrize("deployment", ["our-mini", "openai/gpt-4o-mini"], ids=["an alias", "a model"])
def test_chat(gateway: InProcess, client: openai.AzureOpenAI, upstream: ScriptedUpstream, deployment: str) -> None:
    """The deployment is the model, which the provider gets by its own name, and the record says both."""
    said = client.chat.completions.create(model=deployment, messages=[{"role": "user", "content": "Hi"}])
    assert said.choices[0].message.content == "Hello."
    assert upstream.seen[-1].path.endswith("/chat/completions")
    assert upstream.seen[-1].json["model"] == "gpt-4o-mini"
    found = record(gateway, client, said._request_id)
    assert (found["model_id"], found["requested_model"]) == ("openai/gpt-4o-mini", deployment)
    assert found["endpoint"] == f"/openai/deployments/{deployment}/chat/completions"
    assert (found["cost_state"], found["success"]) == ("exact", True)


def test_a_client_of_one_deployment(gateway: InProcess, client: openai.AzureOpenAI, upstream: ScriptedUpstream) -> None:
    """With a deployment of the client's own the body's model is any name: the deployment counts. In a stream too."""
    address = f"http://127.0.0.1:{gateway.port}"
    with openai.AzureOpenAI(
        azure_endpoint=address, azure_deployment="our-mini", api_key=client.api_key, api_version=VERSION
    ) as one:
        frames = list(
            one.chat.completions.create(model="anything", messages=[{"role": "user", "content": "Hi"}], stream=True)
        )
    assert "".join(frame.choices[0].delta.content or "" for frame in frames) == "Hi"
    assert upstream.seen[-1].json["model"] == "gpt-4o-mini"
    assert upstream.seen[-1].json["stream_options"] == {"include_usage": True}


def test_embeddings_and_speech_to_text(client: openai.AzureOpenAI, upstream: ScriptedUpstream) -> None:
    """JSON and forms."""
    assert client.embeddings.create(model="openai/text-embedding-3-small", input="a").data[0].embedding == [0.5]
    assert client.audio.transcriptions.create(model="openai/whisper-1", file=("a.wav", b"RIFF")).text == "spoken"
    assert b"whisper-1" in upstream.seen[-1].body
    assert b"openai/whisper-1" not in upstream.seen[-1].body


def test_an_unknown_deployment_is_an_error_that_the_client_knows(client: openai.AzureOpenAI) -> None:
    """404 in OpenAI's shape, with a record."""
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="nobody/x", messages=[])
    assert caught.value.code == "user:model_not_found"
    assert (caught.value.request_id or "").startswith("gen_")


def test_another_model_is_asked_at_the_plain_path(
    gateway: InProcess, client: openai.AzureOpenAI, upstream: ScriptedUpstream
) -> None:
    """A rerun with another model leaves the deployment, so that the body's model counts; without one it stays."""
    key = client.api_key
    body = b'{"messages":[{"role":"user","content":"Hi"}]}'
    path = f"/openai/deployments/our-mini/chat/completions?api-version={VERSION}"
    called = gateway.request("POST", path, body, key="", api_key=key, authorization="")
    assert called.status == 200, called.body
    generation = called.headers["x-request-id"]
    looked = gateway.request("GET", f"/v1/generations?id={generation}", key=key).body
    assert b'"replay_request":' + body in looked
    for asked, model in (({}, "gpt-4o-mini"), ({"model": "openai/gpt-4o"}, "gpt-4o")):
        done = gateway.request("POST", f"/v1/generations/{generation}/replay", asked, key=key).json()
        [run] = done["runs"]
        assert run["status_code"] == 200
        assert upstream.seen[-1].json["model"] == model
        assert json.loads(upstream.seen[-1].body)["messages"] == [{"role": "user", "content": "Hi"}]
    assert run["record"]["endpoint"] == "/v1/chat/completions"


@pytest.mark.parametrize(
    "path", ["/openai/deployments/x/extensions", "/openai/deployments/chat/completions", "/openai/x"]
)
def test_what_is_no_operation_of_a_deployment(gateway: InProcess, client: openai.AzureOpenAI, path: str) -> None:
    """It is not served."""
    assert gateway.request("POST", path, {}, key=client.api_key).status == 404
