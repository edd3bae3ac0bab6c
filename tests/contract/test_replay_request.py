"""``replay_request`` posted to ``endpoint``, as the lookup gives both: the provider gets the same request again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from counterfoil.surfaces import registry
from counterfoil.surfaces.families import JsonSurface
from emulators import inprocess
from emulators.inprocess import InProcess
from emulators.scripted import ScriptedUpstream, Seen, Step, answer, chat_answer, chat_frames, chunked

MULTIPART = "multipart/form-data; boundary=cut"


def form(model: bytes, **files: bytes) -> bytes:
    """A form with a model, a text that is repeated, and files of any bytes."""
    parts = [b'name="model"\r\n\r\n' + model, b'name="note[]"\r\n\r\na', b'name="note[]"\r\n\r\nb\r\n']
    parts += [
        b'name="%b"; filename="f.bin"\r\nContent-Type: application/octet-stream\r\n\r\n%b' % (name.encode(), data)
        for name, data in files.items()
    ]
    return b"".join(b"--cut\r\nContent-Disposition: form-data; %b\r\n" % part for part in parts) + b"--cut--\r\n"


BYTES = bytes(range(256)) + b"\r\n--cu"
CHAT = (
    b'{ "temperature":1.50,"model":"openai/gpt-4o-mini",\n "seed": 12345678901234567890,'
    b'"messages":[{"role":"user","content":"h\xc3\xa9 \\u00e9 \\ud83d"}] }'
)
CONTENTS = b'{"contents" : [{"parts":[{"text":"h\xc3\xa9"}]}],"generationConfig":{"temperature":1.0}}'
MESSAGES = b'{"model":"anthropic/claude-sonnet-4-5", "max_tokens":9,"messages":[{"role":"user","content":"\\u0068i"}] }'


class Row(NamedTuple):
    """A call as a client makes it."""

    name: str
    target: str
    body: bytes
    content_type: str = "application/json"


FLASH = "/v1beta/models/gemini-2.5-flash"
EMBED = "/v1beta/models/gemini-embedding-001"
STREAMED = MESSAGES.replace(b'"max_tokens"', b'"stream":true,"max_tokens"')
PROMPT = b'{"prompt":"a\\tb" ,"model":"openai/gpt-3.5-turbo-instruct"}'
INPUT = b'{"model":"openai/gpt-4o-mini","input":"\\u2028 x","store" :false}'
SPOKEN = form(b"openai/whisper-1", file=BYTES)
ONE = b'{"content":{"parts":[{"text":"a"}]} }'
MANY = b'{"requests":[ {"model":"models/gemini-embedding-001","content":{"parts":[{"text":"a"}]}}]}'
AZURE = "/openai/deployments"
NAMELESS = b' {"temperature":1.50, "messages":[{"role":"user","content":"h\xc3\xa9"}] }'
STREAMED_NAMELESS = NAMELESS.replace(b"{", b'{"stream":true,', 1)
NAMELESS_FORM = SPOKEN[SPOKEN.index(b"--cut", 2) :]
ROWS = [
    Row("chat", "/v1/chat/completions", CHAT),
    Row("chat, streamed", "/v1/chat/completions", CHAT.replace(b'"seed"', b'"stream" : true, "seed"')),
    Row("completions", "/v1/completions", PROMPT),
    Row("responses", "/v1/responses", INPUT),
    Row("compaction", "/v1/responses/compact", INPUT),
    Row("input tokens", "/v1/responses/input_tokens", INPUT),
    Row("messages", "/v1/messages", MESSAGES),
    Row("messages, streamed", "/v1/messages", STREAMED),
    Row("count_tokens", "/v1/messages/count_tokens", MESSAGES),
    Row("embeddings", "/v1/embeddings", b'{"input":["a" , "b"],"model":"openai/text-embedding-3-small"}'),
    Row("moderations", "/v1/moderations", b'{"model":"openai/omni-moderation-latest","input":"x"}'),
    Row("rerank", "/v1/rerank", b'{"model":"openai/rerank-1","query":"q","documents":["a","b"],"top_n":1 }'),
    Row("images", "/v1/images/generations", b'{"prompt":"a cat","model":"openai/gpt-image-1"}'),
    Row("image edits", "/v1/images/edits", form(b"openai/gpt-image-1", image=BYTES), MULTIPART),
    Row("speech", "/v1/audio/speech", b'{"model":"openai/tts-1","input":"h\xc3\xa9","voice":"alloy"}'),
    Row("transcription", "/v1/audio/transcriptions", SPOKEN, MULTIPART),
    Row("translation", "/v1/audio/translations", SPOKEN, MULTIPART),
    Row("generateContent", "/v1beta/models/google/gemini-2.5-flash:generateContent", CONTENTS),
    Row("generateContent under /v1", "/v1/models/gemini-2.5-flash:generateContent", CONTENTS),
    Row("an escaped colon", "/v1beta/models/google%2Fgemini-2.5-flash%3AgenerateContent", CONTENTS),
    Row("streamed frames", f"{FLASH}:streamGenerateContent?alt=sse", CONTENTS),
    Row("streamed array", f"{FLASH}:streamGenerateContent", CONTENTS),
    Row("embedContent", f"{EMBED}:embedContent", ONE),
    Row("batchEmbedContents", f"{EMBED}:batchEmbedContents", MANY),
    Row("deployment", f"{AZURE}/openai/gpt-4o-mini/chat/completions?api-version=2024-10-21", NAMELESS),
    Row("deployment, streamed", f"{AZURE}/openai%2Fgpt-4o-mini/chat/completions", STREAMED_NAMELESS),
    Row(
        "deployment, another model named",
        f"{AZURE}/openai/gpt-4o-mini/chat/completions",
        CHAT.replace(b"4o-mini", b"4"),
    ),
    Row("deployment of completions", f"{AZURE}/openai/gpt-3.5-turbo-instruct/completions", PROMPT),
    Row("deployment of embeddings", f"{AZURE}/openai/text-embedding-3-small/embeddings", b' { "input":"a" } '),
    Row("deployment of speech", f"{AZURE}/openai/tts-1/audio/speech", b'{"input":"a","voice":"alloy"}'),
    Row("deployment, a form", f"{AZURE}/openai/whisper-1/audio/transcriptions", NAMELESS_FORM, MULTIPART),
    Row("deployment, a named form", f"{AZURE}/openai/whisper-1/audio/translations", SPOKEN, MULTIPART),
    Row("deployment of images", f"{AZURE}/openai/gpt-image-1/images/generations", b'{"prompt":"a cat"}'),
    Row("deployment, an image", f"{AZURE}/openai/gpt-image-1/images/edits", NAMELESS_FORM, MULTIPART),
    Row("countTokens", f"{FLASH}:countTokens", CONTENTS),
]


def script(seen: Seen) -> list[Step]:
    """Answer whatever is asked in a way that its protocol knows."""
    path = seen.path.partition("?")[0]
    if path.endswith("/audio/speech"):
        return answer(BYTES, content_type="audio/mpeg")
    if path.endswith("/chat/completions") and seen.json.get("stream"):
        return chunked(*chat_frames("one"))
    if path.endswith("/messages") and seen.json.get("stream"):
        return chunked(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    if path.endswith(":streamGenerateContent"):
        whole = b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}'
        if "alt=sse" in seen.path:
            return chunked(b"data: " + whole + b"\r\n\r\n")
        return answer(b"[" + whole + b"]")
    return answer(chat_answer())


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider of every protocol."""
    with ScriptedUpstream(script) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[InProcess]:
    """Give a gateway in front of it."""
    names = ("openai", "anthropic", "google")
    settings = {"providers": {name: {"base_url": upstream.base_url, "api_key": "sk-operator"} for name in names}}
    with inprocess.running(tmp_path_factory.mktemp("again"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: InProcess) -> str:
    """Give a key of the team."""
    return gateway.key("acme")


def sent(upstream: ScriptedUpstream) -> tuple[str, str, bytes]:
    """What the provider got, once: path with query, content type, body."""
    [seen] = upstream.seen
    upstream.seen.clear()
    return seen.path, seen.headers["content-type"], seen.body


def member(text: str, name: str) -> bytes:
    """The last value of an answer, in its very bytes: read as JSON and written again it would be others."""
    start = text.index(f'"{name}":') + len(name) + 3
    assert json.loads(text[start:-1]) == json.loads(text)[name]
    return text[start:-1].encode()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_provider_gets_the_same_bytes_again(
    gateway: InProcess, upstream: ScriptedUpstream, key: str, row: Row
) -> None:
    """Called, looked up, posted as it stands in the answer: path, type and bytes are the same, and the record."""
    upstream.seen.clear()
    called = gateway.request("POST", row.target, row.body, key=key, content_type=row.content_type)
    assert called.status == 200, called.body
    first = sent(upstream)
    generation = called.headers["x-request-id"]
    looked_up = gateway.request("GET", f"/v1/generations?id={generation}", key=key).body
    record = json.loads(looked_up)
    assert record["replay_supported"] is True
    replay_request = member(looked_up.decode(), "replay_request")
    if row.content_type == "application/json":
        assert replay_request == row.body
    again = gateway.request("POST", record["endpoint"], replay_request, key=key)
    assert again.status == 200, again.body
    assert sent(upstream) == first
    rerun = json.loads(gateway.request("GET", f"/v1/generations?id={again.headers['x-request-id']}", key=key).body)
    same = ("endpoint", "model_id", "provider", "stream", "requested_model", "replay_request", "usage", "cost_nanos")
    assert {name: rerun[name] for name in same} == {name: record[name] for name in same}


def test_every_path_has_a_row() -> None:
    """A new surface needs one."""
    called = [row.target.partition("?")[0] for row in ROWS]
    paths = {surface.path for path in called if isinstance(surface := registry.find(path), JsonSurface)}
    assert paths == {path for path, _ in registry.served()}
