"""One recorded generation, run again."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from counterfoil.cli import replay as cli
from counterfoil.cli.where import Source
from counterfoil.ledger.kept import captured
from counterfoil.ledger.query import StoredRecord
from counterfoil.record.codec import closing
from counterfoil.record.record import CaptureInfo, CapturePolicy, CaptureState, Chain
from emulators import inprocess
from emulators.inprocess import InProcess
from emulators.scripted import ScriptedUpstream, Seen, answer, chat_answer, chat_frames, chunked

ASKED = b'{ "model":"openai/gpt-4o-mini", "temperature": 0.10, "messages":[{"role":"user","content":"Hi"}]}'
UPSTREAM = ASKED.replace(b"openai/gpt-4o-mini", b"gpt-4o-mini")


def script(seen: Seen):
    """Answer by what is asked: a stream, or a text that depends on the temperature."""
    if seen.headers["content-type"].startswith("multipart/"):
        return answer({"text": "spoken"})
    if seen.json.get("stream"):
        return chunked(*chat_frames("Hello", "."))
    warm = seen.json.get("temperature") == 1
    return answer(chat_answer("Howdy, you." if warm else "Hello.", completion=5 if warm else 3))


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider that answers by what is asked."""
    with ScriptedUpstream(script) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream) -> Iterator[InProcess]:
    """Give a gateway in front of it."""
    settings = {"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-operator"}}}
    with inprocess.running(tmp_path_factory.mktemp("replay"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway) -> str:
    """Give a key of the team."""
    return gateway.key("acme")


def called(
    gateway: InProcess, key: str, body: bytes = ASKED, path: str = "/v1/chat/completions", **headers: str
) -> str:
    """Make one call; give its id."""
    done = gateway.request("POST", path, body, key=key, **headers)
    assert done.status == 200, done.body
    return done.headers["x-request-id"]


def replayed(gateway: InProcess, key: str, generation: str, status: int = 200, **asked):
    """Run ``generation`` again."""
    done = gateway.request("POST", f"/v1/generations/{generation}/replay", asked, key=key)
    assert done.status == status, done.body
    return done.json()


def test_the_same_bytes_leave_again(gateway, upstream, key):
    """A rerun without overrides sends the provider the very bytes of the original, and differs in nothing."""
    original = called(gateway, key)
    upstream.seen.clear()
    found = replayed(gateway, key, original)
    assert [seen.body for seen in upstream.seen] == [UPSTREAM]
    assert upstream.seen[0].headers["authorization"] == "Bearer sk-operator"
    [run] = found["runs"]
    assert found["original"]["request_id"] == original
    assert run["record"]["replay_of"] == original
    assert run["record"]["request_id"] == run["request_id"] != original
    assert run["difference"]["equal"]
    assert run["difference"]["cost_nanos"]["change"] == 0


def test_the_headers_that_change_a_body_s_meaning_leave_again(gateway, upstream, key):
    """A rerun asks for the same beta features; no other header of the client was kept, a credential least of all."""
    original = called(gateway, key, openai_beta="assistants=v2", x_internal="secret", cookie="session=1")
    upstream.seen.clear()
    replayed(gateway, key, original)
    sent = upstream.seen[0].headers
    assert sent["openai-beta"] == "assistants=v2"
    assert "x-internal" not in sent
    assert "cookie" not in sent


def test_a_call_posted_again_by_hand_is_linked(gateway, key):
    """The stored body posted to its endpoint with x-counterfoil-replay-of is linked to the original."""
    original = called(gateway, key)
    record = gateway.request("GET", f"/v1/generations?id={original}", key=key).json()
    again = called(gateway, key, json.dumps(record["replay_request"]).encode(), record["endpoint"],
                   x_counterfoil_replay_of=original)  # fmt: skip
    assert gateway.request("GET", f"/v1/generations?id={again}", key=key).json()["replay_of"] == original


def test_an_override_gives_a_difference(gateway, key):
    """A changed parameter gives another answer, and the difference names text, tokens and cost."""
    [run] = replayed(gateway, key, called(gateway, key), patch={"temperature": 1})["runs"]
    difference = run["difference"]
    assert not difference["equal"]
    assert 0 <= difference["text"]["similarity"] < 1
    assert difference["tokens"]["completion_tokens"] == {"a": 3, "b": 5, "change": 2, "ratio": 1.666667}
    assert difference["cost_nanos"]["change"] > 0


def test_a_stream_and_its_whole_say_the_same(gateway, key):
    """Rerun as a stream, the answer says the same as the whole one."""
    [run] = replayed(gateway, key, called(gateway, key), stream=True)["runs"]
    assert run["record"]["stream"] is True
    assert run["difference"]["text"]["equal"]


def test_usage_frames_we_ask_for_stay_out_of_the_replay(gateway, upstream, key):
    """What the gateway adds to a stream for its own sake is sent anew and never part of what was captured."""
    body = ASKED.replace(b'"temperature"', b'"stream":true,"temperature"')
    original = called(gateway, key, body)
    record = gateway.request("GET", f"/v1/generations?id={original}", key=key).json()
    assert "stream_options" not in record["replay_request"]
    upstream.seen.clear()
    replayed(gateway, key, original)
    assert upstream.seen[0].json["stream_options"] == {"include_usage": True}


def test_a_dry_run_sends_nothing(gateway, upstream, key):
    """A dry run says what would be sent, to whom and for how much, and calls nobody."""
    original = called(gateway, key)
    upstream.seen.clear()
    found = replayed(gateway, key, original, dry_run=True, n=3, patch={"max_tokens": 10})
    assert upstream.seen == []
    assert (found["model_id"], found["provider"]) == ("openai/gpt-4o-mini", "openai")
    assert json.loads(found["body"])["max_tokens"] == 10
    low, high = found["estimate"]["low_nanos"], found["estimate"]["high_nanos"]
    assert 0 < low < high
    assert found["estimate_high_nanos_all_runs"] == 3 * high


def test_the_ceiling_holds(gateway, upstream, key):
    """Nothing is sent when the runs may cost more than allowed, or when the price is not known."""
    original = called(gateway, key)
    upstream.seen.clear()
    assert replayed(gateway, key, original, 409, max_cost_nanos=1)["reason"] == "above_max_cost"
    asked = {"model": "openai/no-such-model", "max_cost_nanos": 10**12}
    assert replayed(gateway, key, original, 409, **asked)["reason"] == "unpriced"
    assert upstream.seen == []


def test_several_runs(gateway, key):
    """Each of several runs has a record of its own."""
    runs = replayed(gateway, key, called(gateway, key), n=3)["runs"]
    assert len({run["record"]["request_id"] for run in runs}) == 3


def test_another_team_finds_nothing(gateway, upstream, key):
    """What belongs to another team looks exactly like what does not exist, for reruns and differences."""
    original = called(gateway, key)
    stranger = gateway.key("other")
    upstream.seen.clear()
    for path in (f"/v1/generations/{original}/replay", "/v1/generations/gen_00000000000000000000000000/replay"):
        done = gateway.request("POST", path, {}, key=stranger)
        assert (done.status, done.body) == (404, b'{"ok":false,"error":"not_found"}')
    done = gateway.request("GET", f"/v1/generations/diff?a={original}&b={original}", key=stranger)
    assert done.status == 404
    assert upstream.seen == []


def test_a_management_key_needs_the_scope(gateway, key):
    """A management key reruns with generations:replay and content, inside the original's team, and not without."""
    original = called(gateway, key)
    reads = gateway.admin.create_management_key(("generations:read", "generations:content")).key
    assert replayed(gateway, reads, original, 403)["needs"] == "generations:replay"
    runs = gateway.admin.create_management_key(("generations:replay", "generations:content")).key
    [run] = replayed(gateway, runs, original)["runs"]
    assert run["record"]["team_id"] == "acme"


def test_the_difference_of_any_two(gateway, key):
    """Any two generations of a team can be compared."""
    a, b = called(gateway, key), called(gateway, key, ASKED.replace(b"0.10", b"1"))
    done = gateway.request("GET", f"/v1/generations/diff?a={a}&b={b}", key=key).json()
    assert (done["a"], done["b"], done["equal"], done["content"]) == (a, b, False, True)


@pytest.mark.parametrize("policy", ["metadata", "off"])
def test_what_was_not_captured_says_why(gateway, key, policy):
    """A call whose bodies policy kept out cannot be run again, and the answer says so."""
    original = called(gateway, key, x_counterfoil_capture=policy)
    assert replayed(gateway, key, original, 409)["reason"] == "policy"


def test_what_was_erased_says_so(gateway, key):
    """An erased call says that it was erased."""
    original = called(gateway, key)
    eraser = gateway.admin.create_management_key(("generations:erase",)).key
    assert gateway.request("DELETE", f"/v1/generations/{original}/content", key=eraser).status == 200
    assert replayed(gateway, key, original, 409)["reason"] == "erased"


def test_a_form_runs_again(gateway, upstream, key):
    """A form with a file goes out again byte for byte, and with one field changed only that changes."""
    kind = "multipart/form-data; boundary=cut"
    form = (
        b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nopenai/whisper-1\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n\x00\xff\r\n--cut--\r\n'
    )
    original = called(gateway, key, form, "/v1/audio/transcriptions", content_type=kind)
    upstream.seen.clear()
    [run] = replayed(gateway, key, original)["runs"]
    assert run["difference"]["equal"]
    replayed(gateway, key, original, patch={"language": "en"})
    sent = form.replace(b"openai/whisper-1", b"whisper-1")
    added = b'\r\n--cut\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--cut--'
    assert [seen.body for seen in upstream.seen] == [sent, sent.replace(b"\r\n--cut--", added)]


def test_an_image_to_edit_runs_again(gateway, upstream, key):
    """A form with an image goes out again byte for byte, whatever bytes the image has."""
    kind = "multipart/form-data; boundary=cut"
    form = (
        b'--cut\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
        + bytes(range(256))
        + b'\r\n--cut\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na hat\r\n'
        b'--cut\r\nContent-Disposition: form-data; name="model"\r\n\r\nopenai/gpt-image-1\r\n--cut--\r\n'
    )
    original = called(gateway, key, form, "/v1/images/edits", content_type=kind)
    upstream.seen.clear()
    replayed(gateway, key, original)
    assert [seen.body for seen in upstream.seen] == [form.replace(b"openai/gpt-image-1", b"gpt-image-1")]


@pytest.mark.parametrize(
    ("policy", "written", "now", "reason"),
    [
        ("full", "stored", "expired", "expired"),
        ("full", "stored", "erased", "erased"),
        ("full", "stored", "stored", "unreadable"),
        ("full", "too_large", "too_large", "too_large"),
        ("full", "not_captured", "not_captured", "not_captured"),
        ("full", "interrupted", "interrupted", "interrupted"),
        ("metadata", "not_captured", "not_captured", "policy"),
        ("off", "not_captured", "not_captured", "policy"),
    ],
)
def test_why_there_is_nothing_to_run(gateway, policy, written, now, reason):
    """Each way to have no bodies has its own reason."""
    data = b'{"request_id":"x"%b' % closing(CaptureInfo(policy=CapturePolicy(policy), state=CaptureState(written)))
    stored = StoredRecord("gen_x", "acme", data, Chain("w", 1, ""), CaptureState(now), 1)
    assert captured(gateway.reader, stored) == reason


@pytest.mark.parametrize(
    "asked",
    [{"n": 0}, {"n": 99}, {"tempo": 1}, {"edits": [{"path": "/none/1", "value": 1}]}, {"edits": [{"op": "move"}]},
     {"max_cost_nanos": -1}, {"patch": []}, {"pass_through": True, "n": 2}],
    ids=lambda asked: next(iter(asked)),
)  # fmt: skip
def test_bad_overrides_are_refused(gateway, upstream, key, asked):
    """What does not fit is refused with 400 before anything is sent."""
    original = called(gateway, key)
    upstream.seen.clear()
    replayed(gateway, key, original, 400, **asked)
    assert upstream.seen == []


def test_passed_through_as_it_comes(gateway, key):
    """With pass_through the answer is the new generation's own stream."""
    original = called(gateway, key)
    asked = {"pass_through": True, "stream": True}
    done = gateway.request("POST", f"/v1/generations/{original}/replay", asked, key=key)
    assert done.headers["content-type"].startswith("text/event-stream")
    assert done.body.endswith(b"data: [DONE]\n\n")
    assert done.headers["x-replay-of"] == original


def test_the_command_line_shows_what_differs(gateway, key, capsys):
    """`replay` and `diff` show the words that differ, from a gateway and from the data folder alike."""
    original = called(gateway, key)
    source = Source(url=f"http://127.0.0.1:{gateway.port}", key=key)
    cli.replay(original, patch='{"temperature": 1}', source=source)
    shown = capsys.readouterr().out
    assert "different" in shown
    assert "{+" in shown
    rerun = shown.split()[2]
    cli.diff(original, rerun, source=source)
    there = capsys.readouterr().out
    cli.diff(original, rerun, source=Source(data=gateway.folder.root))
    assert capsys.readouterr().out == there == shown
    cli.replay(original, dry_run=True, edit=("/messages/0/content=Bye",), source=source)
    assert "Bye" in capsys.readouterr().out
