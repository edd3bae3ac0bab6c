"""A request is peeked at without being parsed whole, refused by name when it is no call, forwarded byte for byte."""

from __future__ import annotations

import base64
import json

import pytest

from counterfoil.errors import CallerFault
from counterfoil.surfaces import registry

JSON_PATHS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/embeddings",
    "/v1/moderations",
    "/v1/rerank",
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/audio/speech",
    "/v1/audio/transcriptions",
    "/v1/audio/translations",
]
BOUNDARY = "multipart/form-data; boundary=B"


def form(**values: str) -> bytes:
    """A form with a file and these values."""
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in values.items()]
    parts.insert(0, 'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00model\x01\r\n')
    return ("--B\r\n" + "--B\r\n".join(parts) + "--B--\r\n").encode()


@pytest.mark.parametrize("path", JSON_PATHS)
def test_the_model_alone_is_exchanged(bench, path: str):
    """Only the model's bytes differ between what came and what goes on; the path keeps what follows the version."""
    surface = registry.find(path)
    body = b'{"x":{"model":"inner"}, "model" : "openai/gpt-4o" ,"z":"\\ud83d\\ude00 \xc3\xbc \\u0000 \\udead"}'
    call = surface.peek(bench.request(path, body))
    assert (call.model, call.stream, call.endpoint, call.body) == ("openai/gpt-4o", False, path, body)
    outgoing = surface.prepare(call, 'gpt-"4o"')
    assert outgoing.body == body.replace(b'"openai/gpt-4o"', b'"gpt-\\"4o\\""')
    assert outgoing.path == path.removeprefix("/v1")
    assert surface.prepare(call, "openai/gpt-4o").body is body


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{}", "model_required", "model"),
        (b'{"model":""}', "model_required", "model"),
        (b'{"model":" "}', "model_required", "model"),
        (b'{"model":null}', "model_required", "model"),
        (b'{"model":1}', "invalid_field", "model"),
        (b'{"model":["a"]}', "invalid_field", "model"),
        (b'{"model":"a\\nx-header: 1"}', "invalid_field", "model"),
        (b'{"model":"a\\u0000"}', "invalid_field", "model"),
        (b'{"model":"a\\u007f"}', "invalid_field", "model"),
        (b'{"model":"a\\u2028"}', "invalid_field", "model"),
        (b'{"model":"\\ud800"}', "invalid_field", "model"),
        (b'{"model":"%b"}' % (b"a" * 257), "invalid_field", "model"),
        (b'{"model":"a","model":"b"}', "duplicate_key", "model"),
        (b'{"model":"a","stream":true,"stream":false}', "duplicate_key", "stream"),
        (b"[]", "not_an_object", None),
        (b"", "invalid_json", None),
        (b'{"model":"a"', "invalid_json", None),
    ],
)
@pytest.mark.parametrize("path", JSON_PATHS)
def test_refused_requests(bench, path: str, body: bytes, code: str, param: str | None):
    """Every surface refuses a request without a usable model with the same codes, and names the field."""
    with pytest.raises(CallerFault) as caught:
        registry.find(path).peek(bench.request(path, body))
    assert (caught.value.short_code, caught.value.param) == (code, param)


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ({"stream": "yes"}, "stream"),
        ({"stream": 1}, "stream"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
        ({"stream": True, "stream_options": [1]}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ],
)
def test_wrong_types_name_the_field(bench, field: dict, param: str):
    """A field of the wrong type is refused by its name."""
    with pytest.raises(CallerFault) as caught:
        registry.find("/v1/chat/completions").peek(bench.request("/v1/chat/completions", {"model": "m"} | field))
    assert (caught.value.short_code, caught.value.param) == ("invalid_field", param)


@pytest.mark.parametrize(
    ("written", "sent", "adds"),
    [
        (b'"stream":true', None, True),
        (b'"stream":true,"stream_options":null', b'"stream_options":{"include_usage":true}', True),
        (b'"stream":true,"stream_options":{}', b'"stream_options":{"include_usage":true}', True),
        (b'"stream_options":{"a":1},"stream":true', b'"stream_options":{"include_usage":true,"a":1}', True),
        (b'"stream":true,"stream_options":{"include_usage":false}', b'{"include_usage":true}', True),
        (b'"stream":true, "stream_options": { "include_usage" : null }', b'{ "include_usage" : true }', True),
        (b'"stream":true,"stream_options":{"include_usage":true}', b'"stream_options":{"include_usage":true}', False),
        (b'"stream":false', b'"stream":false', False),
        (b'"stream":null,"stream_options":{}', b'"stream_options":{}', False),
    ],
)
@pytest.mark.parametrize("order", ["first", "last"])
def test_a_chat_stream_is_made_to_report_usage(bench, written: bytes, sent: bytes | None, adds: bool, order: str):
    """Usage is asked for in every stream, merged into what the client wrote, and remembered when it was our wish."""
    model = b'"model":"p/m"'
    body = b"{%b}" % b",".join((model, written) if order == "first" else (written, model))
    surface = registry.find("/v1/chat/completions")
    call = surface.peek(bench.request("/v1/chat/completions", body))
    assert call.adds_usage is adds
    outgoing = surface.prepare(call, "m").body
    expected = json.loads(body) | {"model": "m"}
    if call.stream:
        expected["stream_options"] = (expected.get("stream_options") or {}) | {"include_usage": True}
    assert json.loads(outgoing) == expected
    assert (sent or b'{"stream_options":{"include_usage":true},') in outgoing


def test_who_a_call_is_for(bench):
    """End user, session, tags and tier are read where each protocol has them; what cannot be an id is left out."""
    chat = registry.find("/v1/chat/completions")
    fields = {"model": "m", "user": "u1", "session_id": "s", "metadata": {"k": "v", "n": 1}, "service_tier": "flex"}
    call = chat.peek(bench.request("/v1/chat/completions", fields))
    assert (call.end_user, call.session_id, call.tags, call.service_tier) == ("u1", "s", {"k": "v", "n": 1}, "flex")
    call = chat.peek(bench.request("/v1/chat/completions", {"model": "m", "user": "u", "safety_identifier": "x"}))
    assert call.end_user == "x"
    call = chat.peek(bench.request("/v1/chat/completions", b'{"model":"m","user":"\\ud800","metadata":{"a":[]}}'))
    assert (call.end_user, call.tags) == (None, None)
    call = chat.peek(bench.request("/v1/chat/completions", {"model": "m", "user": "a\r\nb", "session_id": 5}))
    assert (call.end_user, call.session_id) == (None, None)
    fields = {"model": "m", "metadata": {"user_id": "u2", "team": "t"}}
    call = registry.find("/v1/messages").peek(bench.request("/v1/messages", fields))
    assert (call.end_user, call.tags) == ("u2", {"team": "t"})


@pytest.mark.parametrize(
    ("path", "query", "model", "endpoint", "outgoing"),
    [
        (
            "/v1beta/models/gemini-2.0-flash:generateContent",
            "",
            "gemini-2.0-flash",
            "/v1beta/models/gemini-2.0-flash:generateContent",
            "/models/gem:generateContent",
        ),
        (
            "/v1/models/google/gemini-2.0-flash:streamGenerateContent",
            "alt=sse&key=AIzaSecret",
            "google/gemini-2.0-flash",
            "/v1/models/google/gemini-2.0-flash:streamGenerateContent?alt=sse",
            "/models/gem:streamGenerateContent?alt=sse",
        ),
        (
            "/v1beta1/models/a%2Fb:countTokens",
            "k%65y=AIzaSecret",
            "a/b",
            "/v1beta1/models/a%252Fb:countTokens",
            "/models/gem:countTokens",
        ),
        (
            "/v1beta/tunedModels/mine:embedContent",
            "key=&x=key%3D1&monkey=1",
            "tunedModels/mine",
            "/v1beta/tunedModels/mine:embedContent?x=key%3D1&monkey=1",
            "/models/gem:embedContent?x=key%3D1&monkey=1",
        ),
    ],
)
def test_gemini_paths(bench, path: str, query: str, model: str, endpoint: str, outgoing: str):
    """The model comes from the path; a key in the query goes neither upstream nor into the record."""
    surface = registry.find(path)
    body = b'{ "contents": [] }'
    call = surface.peek(bench.request(path, body, query))
    assert (call.model, call.endpoint, call.stream) == (model, endpoint, "stream" in path)
    sent = surface.prepare(call, "gem")
    assert (sent.path, sent.body) == (outgoing, body)
    assert "AIza" not in sent.path + call.endpoint
    assert surface.prepare(call, "tunedModels/x").path.startswith("/tunedModels/x:")


@pytest.mark.parametrize("path", ["/v1beta/models/a\nb:generateContent", "/v1beta/models/ :generateContent"])
def test_gemini_models_are_checked(bench, path: str):
    """A model in the path is held to the same rules as one in the body."""
    surface = registry.find(path)
    assert surface is not None
    with pytest.raises(CallerFault):
        surface.peek(bench.request(path, b"{}"))


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/audio/translations", "/v1/images/edits"])
def test_a_form_is_forwarded_and_replays_from_json(bench, path: str):
    """The model's form value alone is exchanged, and the JSON kept for a replay gives the very form again."""
    surface = registry.find(path)
    body = form(model="openai/whisper-1", stream="true", user="u")
    call = surface.peek(bench.request(path, body, content_type=BOUNDARY))
    assert (call.model, call.stream, call.end_user, call.body) == ("openai/whisper-1", True, "u", body)
    sent = surface.prepare(call, "whisper-1")
    assert (sent.body, sent.content_type) == (body.replace(b"openai/whisper-1", b"whisper-1"), BOUNDARY)
    kept = json.loads(call.replayable)
    assert base64.b64decode(kept["multipart"]["body_base64"]) == body
    again = surface.peek(bench.request(path, call.replayable))
    assert (again.body, again.content_type, again.model_span) == (body, BOUNDARY, call.model_span)
    assert again.replayable == call.replayable
    assert surface.prepare(again, "whisper-1") == sent


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (form(language="en"), BOUNDARY, "model_required"),
        (form(model=""), BOUNDARY, "model_required"),
        (form(model="a" * 5000), BOUNDARY, "invalid_field"),
        (form(model="a", stream="maybe"), BOUNDARY, "invalid_field"),
        (form(model="a") + form(model="b"), "multipart/form-data", "invalid_multipart"),
        (
            form(model="a").replace(b"--B--", b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\nb\r\n--B--'),
            BOUNDARY,
            "duplicate_key",
        ),
        (b"--B\r\n", BOUNDARY, "invalid_multipart"),
        (form(model="a"), "multipart/mixed; boundary=B", "unsupported_media_type"),
        (b'{"multipart":{"content_type":"x","body_base64":"!"}}', "application/json", "invalid_field"),
        (b'{"multipart":{"content_type":1}}', "application/json", "invalid_field"),
        (b'{"multipart":{"content_type":"x","body_base64":"","more":1}}', "application/json", "invalid_field"),
        (b'{"multipart":{"content_type":"x","body_base64":""}}', "application/json", "invalid_multipart"),
        (b'{"multipart":{},"x":1}', "application/json", "model_required"),
    ],
)
def test_refused_forms(bench, body: bytes, content_type: str, code: str):
    """A form that cannot be a call is refused with the code that says why."""
    path = "/v1/audio/transcriptions"
    with pytest.raises(CallerFault) as caught:
        registry.find(path).peek(bench.request(path, body, content_type=content_type))
    assert caught.value.short_code == code


def test_what_only_the_request_tells(bench):
    """Characters of speech and the images asked for are counted from the request."""
    speech = registry.find("/v1/audio/speech")
    call = speech.peek(bench.request("/v1/audio/speech", {"model": "tts-1", "input": "grüß 𝄞"}))
    assert call.meters == {"characters": 6}
    images = registry.find("/v1/images/generations")
    fields = {"model": "dall-e-3", "n": 2, "quality": "hd", "size": "1024x1024"}
    assert images.peek(bench.request("/v1/images/generations", fields)).meters == {"images.hd.1024x1024": 2}
    fields = {"model": "gpt-image-1", "quality": "auto", "n": "many"}
    assert images.peek(bench.request("/v1/images/generations", fields)).meters == {"images": 1}


@pytest.mark.parametrize(
    ("content_type", "sent"),
    [
        ("", "application/json"),
        ("application/json; charset=utf-8", "application/json; charset=utf-8"),
        ("application/x-www-form-urlencoded", "application/json"),
        ("text/plain", "application/json"),
    ],
)
def test_json_is_sent_as_json(bench, content_type: str, sent: str):
    """A JSON body goes on with a JSON content type, whatever a careless client called it."""
    surface = registry.find("/v1/chat/completions")
    call = surface.peek(bench.request("/v1/chat/completions", b'{"model":"m"}', content_type=content_type))
    assert surface.prepare(call, "m").content_type == sent


def test_a_form_is_no_chat(bench):
    """A form sent to a JSON surface is refused as the wrong media type."""
    with pytest.raises(CallerFault) as caught:
        registry.find("/v1/chat/completions").peek(
            bench.request("/v1/chat/completions", form(model="m"), content_type=BOUNDARY)
        )
    assert caught.value.status == 415
