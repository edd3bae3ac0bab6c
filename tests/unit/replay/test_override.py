"""Changing a captured request, and leaving alone what was not asked to change."""

from __future__ import annotations

import json

import pytest

from counterfoil.errors import CallerFault
from counterfoil.replay.override import Edit, Overrides, Sendable, apply, edited, merge, parse, pointer, write
from counterfoil.surfaces import registry

CHAT = b'{ "model": "openai/gpt-4o", "temperature": 0.10, "messages": [{"role":"user","content":"h\\u00e9"}] }'
JSON = "application/json"
FORM_TYPE = "multipart/form-data; boundary=cut"
FORM = (
    b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nopenai/whisper-1\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n--cu\r\n'
    b'--cut\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--cut--\r\n'
)

# RFC 7396, appendix A.
MERGES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


def changed(body: bytes, overrides: Overrides, path: str = "/v1/chat/completions", kind: str = JSON) -> Sendable:
    """The request at ``path`` with ``overrides``."""
    surface = registry.find(path.partition("?")[0])
    assert surface is not None
    return apply(Sendable(path, kind, body), surface, overrides, "openai/gpt-4o")


@pytest.mark.parametrize(("target", "patch", "result"), MERGES, ids=range(len(MERGES)))
def test_merge_patch_examples(target, patch, result):
    """Every example of RFC 7396 gives its result."""
    assert merge(target, patch) == result


@pytest.mark.parametrize(
    ("path", "tokens"),
    [("", []), ("/", [""]), ("/a~1b", ["a/b"]), ("/m~0n", ["m~n"]), ("/~01", ["~1"]), ("/foo/0", ["foo", "0"])],
)
def test_pointer_examples(path, tokens):
    """The escapes of RFC 6901 are read in the right order."""
    assert pointer(path) == tokens


def test_nothing_changed_is_the_same_object():
    """Without overrides the body is the captured body itself."""
    assert changed(CHAT, Overrides()).body is CHAT


def test_model_alone_is_spliced():
    """Another model leaves every other byte, its white space and its numbers' spelling."""
    assert changed(CHAT, Overrides(model="a/b")).body == CHAT.replace(b"openai/gpt-4o", b"a/b")


def test_provider_keeps_the_model_name():
    """Another provider serves the model under its own name."""
    assert changed(CHAT, Overrides(provider="azure")).body == CHAT.replace(b"openai/gpt-4o", b"azure/gpt-4o")


def test_patch_keeps_the_spelling_of_numbers():
    """A patch writes other numbers as they were."""
    assert b'"temperature":0.10' in changed(CHAT, Overrides(patch={"top_p": 1})).body


def test_edit_of_the_prompt():
    """An edit by pointer changes one place of the prompt."""
    body = json.loads(changed(CHAT, Overrides(edits=(Edit("/messages/0/content", "Bye"),))).body)
    assert body["messages"] == [{"role": "user", "content": "Bye"}]
    assert body["temperature"] == 0.1


@pytest.mark.parametrize(
    "edit",
    [Edit("/none/0", 1), Edit("/messages/7", 1), Edit("/messages/00", 1), Edit("messages", 1), Edit("/model/x", 1),
     Edit("/absent", op="remove"), Edit("", op="remove"), Edit("/a~2", 1)],
    ids=lambda edit: f"{edit.op} {edit.path}",
)  # fmt: skip
def test_an_edit_of_nothing_is_refused(edit):
    """An edit at a place that is not there is the caller's fault."""
    with pytest.raises(CallerFault):
        edited(json.loads(CHAT), edit)


def test_list_edits():
    """Lists take insertions, appended items and removals."""
    assert edited([1, 2], Edit("/1", 9, "add")) == [1, 9, 2]
    assert edited([1, 2], Edit("/-", 9, "add")) == [1, 2, 9]
    assert edited([1, 2], Edit("/0", op="remove")) == [2]


def test_stream_switched_off_drops_its_options():
    """Without a stream the options of a stream go too, because providers refuse them."""
    body = b'{"model":"openai/x","stream":true,"stream_options":{"include_usage":true}}'
    assert changed(body, Overrides(stream=False)).body == b'{"model":"openai/x","stream":false}'


def test_gemini_streams_and_models_by_path():
    """Gemini's model and streaming change in the path; the body is left alone."""
    path, body = "/v1beta/models/google/gemini-2.0-flash:generateContent", b'{"contents":[]}'
    result = changed(body, Overrides(model="google/other", stream=True), path)
    assert result.target == "/v1beta/models/google/other:streamGenerateContent?alt=sse"
    assert result.body is body


def test_form_fields_change_and_files_do_not():
    """A form's fields are exchanged, added and removed, while the bytes of its file stay."""
    path = "/v1/audio/transcriptions"
    result = changed(FORM, Overrides(model="x/y", patch={"language": None, "prompt": "A B"}), path, FORM_TYPE).body
    assert b"x/y" in result
    assert b"language" not in result
    assert b'name="prompt"\r\n\r\nA B\r\n--cut--' in result
    assert b"\x00\xff\r\n--cu\r\n--cut" in result
    with pytest.raises(CallerFault):
        changed(FORM, Overrides(patch={"file": "x"}), path, FORM_TYPE)


def test_half_surrogates_survive():
    """Half a surrogate pair is written as the escape it came as."""
    assert write(parse(b'{"a":"\\ud800","b":"\xc3\xa9"}')) == b'{"a":"\\ud800","b":"\xc3\xa9"}'
