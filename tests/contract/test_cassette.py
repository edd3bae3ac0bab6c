"""Cassettes: exported, cleaned, committed, served with nothing behind them, and put into another ledger."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types as google_types
from hypothesis import given
from hypothesis import strategies as st

from conftest import StartGateway, providers
from counterfoil.capture.body import Capture
from counterfoil.capture.recording import Recording
from counterfoil.errors import ConfigError
from counterfoil.folder import DataFolder
from counterfoil.replay import cassette as cassettes
from counterfoil.replay import serving
from counterfoil.replay.cassette import Interaction
from counterfoil.replay.redact import Redactor, Rules
from counterfoil.tenancy.admin import Admin
from emulators.cassette import Cassette, Take
from emulators.gateway import Gateway
from emulators.raw import RawClient, post
from emulators.waiting import PATIENCE_S

CHAT = "/v1/chat/completions"
MODEL = "openai/gpt-4o-mini"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hé"}, "finish_reason": "stop"}],
        "usage": USAGE,
    },
    indent=1,
).encode()


def frames(*texts: str) -> bytes:
    """A provider's chat stream."""
    head = {"id": "chatcmpl-2", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini"}
    parts = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    parts += [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, {"choices": [], "usage": USAGE}]
    data = [b"data: %b\n\n" % json.dumps({**head, **part}, ensure_ascii=False).encode() for part in parts]
    return b"".join(data) + b"data: [DONE]\n\n"


def asked(text: str, **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway, cassette: Cassette) -> Iterator[Gateway]:
    """Give a gateway with a unary call, a stream and an error in its ledger."""
    running = start_gateway({"providers": providers(cassette.url)})
    cassette.play(Take(WHOLE))
    beta = {"openai-beta": "assistants=v2"}
    running.request("POST", CHAT, asked("one", user="jane@example.com"), key=running.key(), headers=beta)
    cassette.play(Take(frames("a", "ü"), content_type="text/event-stream; charset=utf-8", cut=37))
    running.request("POST", CHAT, asked("two", stream=True), key=running.key())
    cassette.play(Take(b'{"error":{"message":"slow down","type":"x"}}', status=429))
    running.request("POST", CHAT, asked("three"), key=running.key())
    running.request("POST", CHAT, {"model": MODEL}, key=running.key(), headers={"x-counterfoil-capture": "metadata"})
    yield running
    running.stop()


def served(text: bytes | cassettes.Cassette) -> Any:
    """Serve a cassette in this process."""
    return serving.in_thread(cassettes.parse(text) if isinstance(text, bytes) else text)


def ask(url: str, body: Any, path: str = CHAT, key: str | None = None, **headers: str) -> Any:
    """One raw call."""
    with RawClient(int(url.rpartition(":")[2])) as client:
        client.send(post(path, body if isinstance(body, bytes) else json.dumps(body).encode(), key, **headers))
        return client.reply()


def test_an_export_holds_whole_answers_and_reads_like_a_diff(gateway: Gateway, tmp_path: Path) -> None:
    """One JSON object a line, one line a frame; what was not kept is left out and counted; over HTTP it is the same."""
    path, remote = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    said = gateway.command("cassette", "export", str(path)).stderr
    assert "3 recordings" in said
    assert "1 records hold no whole answer" in said
    command = [sys.executable, "-m", "counterfoil", "cassette", "export", str(remote), "--url", gateway.url]
    subprocess.run([*command, "--key", gateway.key()], check=True, timeout=60, capture_output=True)

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"cassette": "counterfoil", "version": 1}
    assert [line["endpoint"] for line in lines if "generation" in line] == [CHAT] * 3
    assert any(line.get("text") == ' "model": "gpt-4o-mini",\n' for line in lines)
    assert any("at_us" in line for line in lines)
    assert [["openai-beta", "assistants=v2"]] in [line.get("fields") for line in lines]
    assert sum("data: " in line.get("text", "") for line in lines) >= 5
    assert remote.read_bytes() == path.read_bytes()
    assert b"cf_sk_" not in path.read_bytes()


def _end(process: subprocess.Popen[str]) -> int:
    """Ask it to end, and see to it that it does; give its status."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(PATIENCE_S)
    finally:
        process.kill()


def test_a_served_cassette_answers_with_no_gateway(gateway: Gateway, tmp_path: Path) -> None:
    """The command serves every recording to any key and to none; misses say what is near; records can be looked up."""
    path = tmp_path / "c.jsonl"
    gateway.command("cassette", "export", str(path))
    command = [sys.executable, "-m", "counterfoil", "playback", "serve", "--cassette", str(path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stderr
            said = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, said
            url = found[0]
            unary = ask(url, asked("one", user="jane@example.com"))
            assert (unary.status, unary.body) == (200, WHOLE)
            stream = ask(url, asked("two", stream=True), key="sk-whatever")
            assert stream.body.endswith(b"data: [DONE]\n\n")
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert ask(url, asked("three")).status == 429
            missed = ask(url, asked("four")).json()["error"]
            assert missed["code"] == "user:no_recording"
            assert "differs in: /messages/0/content." in missed["message"]
            with RawClient(int(url.rpartition(":")[2])) as client:
                client.send(b"GET /v1/generations?id=%b HTTP/1.1\r\nhost: x\r\n\r\n" % unary.generation_id.encode())
                record = client.reply().json()
            assert (record["cost_state"], record["usage"]["total_tokens"]) == ("playback", 12)
            assert not list(tmp_path.glob("counterfoil-data*"))
        finally:
            status = _end(process)
    assert status == 0


def test_an_imported_cassette_answers_in_another_ledger(
    gateway: Gateway, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Its recordings become records of a team that cost nothing; playback finds them; the ledger verifies."""
    path = tmp_path / "d.jsonl"
    gateway.command("cassette", "export", str(path))
    other = start_gateway({"providers": {}})
    made = json.loads(other.command("cassette", "import", str(path), "--team", "acme", "--json").stdout)["imported"]
    assert len(made) == 3

    strict = {"x-counterfoil-playback": "strict"}
    played = other.request("POST", CHAT, asked("one", user="jane@example.com"), key=other.key(), headers=strict)
    assert (played.body, played.headers["x-counterfoil-playback-of"]) == (WHOLE, made[0])
    record = other.record(made[1])
    assert (record["provider"], record["cost_state"], record["cost_nanos"]) == ("cassette", "playback", 0)
    assert (record["stream"], record["usage"]["total_tokens"], record["finish_reason"]) == (True, 12, "stop")
    assert record["playback_of"].startswith("gen_")
    assert record["replay_request"] == asked("two", stream=True)
    assert other.record(made[2])["error_code"] == "upstream:rate_limited"
    again = tmp_path / "e.jsonl"
    other.command("cassette", "export", str(again))
    assert re.sub(r"gen_\w+|\d{4}-.*?Z", "", again.read_text()) == re.sub(r"gen_\w+|\d{4}-.*?Z", "", path.read_text())
    other.stop()
    assert other.command("ledger", "verify", check=False).returncode == 0


def test_rules_take_text_out_and_requests_still_match(gateway: Gateway, tmp_path: Path) -> None:
    """A redacted cassette holds nothing of what its rules name, and answers the request as it was."""
    path = tmp_path / "f.jsonl"
    gateway.command(
        "cassette", "export", str(path), "--redact-pointer", "request:/user", "--redact-pattern", "tw[o]|hé|slow",
        "--ignore", "/seed",
    )  # fmt: skip
    text = path.read_text()
    recordings = text.partition("\n")[2]
    assert not re.search(r'jane@|"two\\"|hé|slow', recordings)

    with served(path.read_bytes()) as server:
        first = ask(server.url, asked("one", user="somebody else", seed=7))
        assert first.json()["choices"][0]["message"]["content"] == "redacted"
        assert ask(server.url, asked("two", stream=True)).status == 200
        assert ask(server.url, asked("tw", stream=True)).status == 404
        assert len(server.played) == 2


def test_the_official_clients_read_a_cassette(gateway: Gateway, cassette: Cassette, tmp_path: Path) -> None:
    """OpenAI's, Anthropic's and Google's clients get from a cassette what a gateway gave them, unary and streamed."""
    claude = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn",
        "stop_sequence": None, "content": [{"type": "text", "text": "Bonjour"}],
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**claude, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Bonjour"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 2},
        },
        {"type": "message_stop"},
    ]  # fmt: skip
    gemini = {
        "candidates": [
            {"content": {"role": "model", "parts": [{"text": "Hallo"}]}, "finishReason": "STOP", "index": 0}
        ],
        "usageMetadata": {"promptTokenCount": 2, "candidatesTokenCount": 1, "totalTokenCount": 3},
        "modelVersion": "gemini-2.5-flash", "responseId": "r1",
    }  # fmt: skip
    whole = {"chat": WHOLE, "messages": json.dumps(claude).encode(), "gemini": json.dumps(gemini).encode()}
    stream = {
        "chat": frames("Hi", " there"),
        "messages": b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events),
        "gemini": b"data: %b\r\n\r\n" % json.dumps(gemini).encode(),
    }
    admin = Admin(DataFolder.existing(gateway.data))
    key = admin.create_key("sdks", make_missing=True).key
    admin.close()

    def talk(url: str, key: str, kind: str, *, streamed: bool) -> Any:
        if kind == "chat":
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                if not streamed:
                    return client.chat.completions.create(**asked("sdk")).model_dump()
                return [part.model_dump() for part in client.chat.completions.create(**asked("sdk", stream=True))]
        if kind == "messages":
            with anthropic.Anthropic(base_url=url, api_key=key, max_retries=0) as client:
                said: Any = {
                    "model": "anthropic/claude-sonnet-4-5",
                    "max_tokens": 9,
                    "messages": [{"role": "user", "content": "s"}],
                }
                if not streamed:
                    return client.messages.create(**said).model_dump()
                with client.messages.stream(**said) as parts:
                    return parts.get_final_message().model_dump()
        google = genai.Client(api_key=key, http_options=google_types.HttpOptions(base_url=url))
        if not streamed:
            return google.models.generate_content(model="gemini-2.5-flash", contents="s").text
        return [part.text for part in google.models.generate_content_stream(model="gemini-2.5-flash", contents="s")]

    got: dict[tuple[str, bool], Any] = {}
    for kind in ("chat", "messages", "gemini"):
        for streamed in (False, True):
            body = stream[kind] if streamed else whole[kind]
            cassette.play(Take(body, content_type="text/event-stream" if streamed else "application/json", cut=29))
            got[kind, streamed] = talk(gateway.url, key, kind, streamed=streamed)
    path = tmp_path / "g.jsonl"
    gateway.command("cassette", "export", str(path), "--team", "sdks")

    with served(path.read_bytes()) as server:
        for (kind, streamed), before in got.items():
            assert talk(server.url, "none", kind, streamed=streamed) == before


def test_each_key_and_session_has_its_own_turn() -> None:
    """Several recordings of one request come in order to each; a test with a key of its own begins at the first."""
    body = {"model": "m", "messages": []}
    three = cassettes.Cassette(
        tuple(_interaction(b'{"n":%d}' % n, json.dumps(body).encode(), number=n) for n in range(3))
    )
    with served(three) as server:
        assert [ask(server.url, body, key="a").json()["n"] for _ in range(4)] == [0, 1, 2, 0]
        assert [ask(server.url, body, key="b").json()["n"] for _ in range(2)] == [0, 1]
        assert ask(server.url, body, key="a", x_session_id="s").json()["n"] == 0


def _interaction(response: bytes | tuple[bytes, ...], request: bytes, number: int = 0, **more: Any) -> Interaction:
    times = more.pop("offsets_us", ())
    capture = Capture(request, "application/json", None, response, "application/json", 200, times)
    return Interaction(CHAT, "2026-11-02T10:15:04.112Z", Recording(f"gen_{number}", MODEL, capture, 1.5, success=True))


TEXTS = (
    st.text(max_size=40).map(str.encode) | st.binary(max_size=40) | st.sampled_from([b"", b"\n", b"\r\n\n", b"\xc3"])
)


@given(st.lists(st.tuples(TEXTS, TEXTS | st.lists(TEXTS, max_size=5).map(tuple), st.booleans()), max_size=4))
def test_what_is_written_is_read(interactions: list[tuple[bytes, Any, bool]]) -> None:
    """Bodies of any bytes, cut anywhere, with times or without, come back byte for byte and chunk for chunk."""
    made = tuple(
        _interaction(
            response,
            request,
            number,
            offsets_us=tuple(range(len(response))) if timed and isinstance(response, tuple) else (),
        )
        for number, (request, response, timed) in enumerate(interactions)
    )
    cassette = cassettes.Cassette(made, (("user",),), Rules(patterns=("x",)))
    data = b"".join(cassettes.lines(cassette))
    assert cassettes.parse(data) == cassette
    assert cassettes.parse(data.replace(b"\n", b"\r\n\n")) == cassette


@given(st.lists(st.text(alphabet='ab"{\n', min_size=1, max_size=9).map(str.encode), min_size=1, max_size=8))
def test_cuts_stay_at_the_same_text(chunks: list[bytes]) -> None:
    """Rules change the text they name and nothing else; no chunk is empty, and each keeps its time."""
    capture = Capture(b"{}", "application/json", None, tuple(chunks), "text/plain", 200, tuple(range(len(chunks))))
    found = Redactor(Rules(patterns=("ab",))).capture(capture)
    text = b"".join(chunks)
    assert found.response_body == text.replace(b"ab", b"redacted")
    assert len(found.response) == len(found.offsets_us)
    if b"ab" not in text:
        assert found == capture
    assert all(found.response)


def test_numbers_and_names_survive_the_rules() -> None:
    """Rules look at texts: numbers keep their spelling, names are left alone, and untouched bodies their bytes."""
    redactor = Redactor(Rules(pointers=("/a/*/b",), patterns=(r"\d{3}",)))
    body = b'{"n": 1.50e3, "123": 12345678901234567890, "a": [{"b": 1}, {"b": {"c": 2}}], "t": "x 123"}'
    assert json.loads(redactor.request(body, "application/json")) == {
        "n": 1500.0, "123": 12345678901234567890, "a": [{"b": "redacted"}, {"b": "redacted"}], "t": "x redacted",
    }  # fmt: skip
    assert b"1.50e3" in redactor.request(body, "application/json")
    assert redactor.request(b'{ "t" : "x" }', "application/json") == b'{ "t" : "x" }'


def test_the_parts_of_a_form_are_cleaned_by_name() -> None:
    """A pointer exchanges a field, a pattern text, a header the file's name; the file's bytes stay."""
    form = (
        b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\ncall 0151-555\r\n'
        b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\njane\r\n'
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="jane.wav"\r\n\r\n\x00\xff555\r\n--x--\r\n'
    )
    rules = Rules(pointers=("/user",), patterns=("555",), headers=("content-disposition",))
    cleaned = Redactor(rules).request(form, "multipart/form-data; boundary=x")
    assert cleaned == (
        form.replace(b"0151-555", b"0151-redacted")
        .replace(b"\r\njane\r\n", b"\r\nredacted\r\n")
        .replace(b"jane.wav", b"redacted")
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "empty"),
        (b"{}", "no cassette"),
        (b'{"cassette":"counterfoil","version":2}', "version 2"),
        (b'{"cassette":"counterfoil","version":1,"filter":1}', "filter"),
        (b'{"cassette":"counterfoil","version":1,"redact":{"patterns":["("]}}', "regular expression"),
        (b'{"cassette":"counterfoil","version":1}\n{"text":"a"}', "line 2"),
        (b'{"cassette":"counterfoil","version":1}\n{"generation":"g"}\n{"request":"x"}', "no response"),
        (b'{"cassette":"counterfoil","version":1}\n\n{"generation":"g"}\n{"request":"x"}\n{"base64":"?"}', "line 5"),
    ],
    ids=["empty", "foreign", "newer", "unknown member", "bad rule", "no beginning", "cut off", "damaged"],
)
def test_what_is_no_cassette_is_refused_with_its_line(text: bytes, said: str) -> None:
    """A file that cannot be trusted is not half read: the error says where it is wrong."""
    with pytest.raises(ConfigError, match=said):
        cassettes.parse(text)
