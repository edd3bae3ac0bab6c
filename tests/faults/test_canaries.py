"""Secrets planted everywhere a secret may be: none shows where people and machines look."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from emulators.gateway import Gateway
from emulators.raw import RawClient, post
from emulators.scripted import Close, ScriptedUpstream, Seen, Send, Step, answer, chat_answer, chat_frames, chunked

CHAT = "/v1/chat/completions"
CANARY = "canary"
"""Every planted secret holds it."""
HEADERS = {
    name: f"canary-header-{name}"
    for name in (
        *("cookie", "x_forwarded_for", "x_internal_token", "proxy_authorization", "x_amz_security_token", "from"),
        *(
            "forwarded",
            "via",
            "origin",
            "x_real_ip",
            "x_csrf_token",
            "x_auth_token",
            "authentication",
            "x_session_token",
        ),
    )
}
SAID: list[tuple[str, bytes]] = []
"""What was answered to whom without a good key, or to a body that cannot be read: model or path, and the answer."""


def misbehave(seen: Seen) -> list[Step]:
    """Answer as the model's name says, with a secret in every place a provider can put one."""
    planted = {"set_cookie": "canary-set-cookie", "x_provider_secret": "canary-provider-header"}
    match seen.json["model"]:
        case "fails":
            return answer({"error": {"message": "Incorrect API key provided: sk-canary-operator-1234567890"}}, 401)
        case "breaks":
            return [Send(b"HTTP/1.1 200 canary-reason\r\ncontent-length: 99\r\n\r\ncanary-half"), Close()]
        case "garbage":
            return [Send(b"canary-garbage\r\n\r\n"), Close()]
        case _ if seen.json.get("stream"):
            return chunked(*chat_frames("canary-answer", "canary-more"))
        case _:
            return answer(chat_answer("canary-answer"), **planted)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give the provider."""
    with ScriptedUpstream(misbehave) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(start_gateway: Any, upstream: ScriptedUpstream) -> Iterator[Gateway]:
    """Give a gateway that logs all it ever logs, and has served every call with secrets in it."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "sk-canary-operator-1234567890"}
    log = {"level": "debug", "format": "json"}
    running = start_gateway({"providers": {"local": one}, "log": log, "server": {"access_log": True}})
    plant(running)
    yield running
    running.stop()


def plant(gateway: Gateway) -> None:
    """Send secrets in every header, in the query and in bodies good and bad, with keys good and bad."""
    prompt = [{"role": "user", "content": "canary-prompt"}]
    bodies = [
        json.dumps({"model": f"local/{model}", "messages": prompt, "stream": stream, "user": "someone"}).encode()
        for model in ("works", "fails", "breaks", "garbage")
        for stream in (False, True)
    ]
    bodies += [b'{"canary-cut', b'{"canary-key": canary}', b'{"model": 7, "canary": 1}', b"canary-text", b"[canary]"]
    # A key of the right form that nobody made, and ones that are not keys at all.
    keys = [gateway.key(), "cf_sk_canarycanary_canarycanarycanarycanarycanarycanary", "sk-canary-openai"]
    for body in bodies:
        for key in keys:
            for path in (
                *(CHAT, f"{CHAT}?token=canary-query", "/v1/canary-path", "/v1/generations?id=canary-id"),
                *("/v1beta/models/local/x:generateContent?key=canary-query", "/metrics?key=canary-query"),
            ):
                with RawClient(gateway.port) as client:
                    client.send(post(path, body, key, connection="close", **HEADERS))
                    said = client.read_all()
                if key != keys[0] or b"canary-prompt" not in body:
                    SAID.append((path, said))
    with RawClient(gateway.port) as client:
        client.send(b"canary-raw garbage canary\r\ncanary: canary\r\n\r\n")
        client.read_all()


def test_the_log_holds_no_secret(gateway: Gateway) -> None:
    """Whatever came, from clients or providers, none of it is in the log."""
    assert CANARY not in gateway.process.log.read_text()


@pytest.mark.parametrize(
    ("level", "form"), [("debug", "console"), ("info", "json"), ("warning", "console"), ("error", "json")]
)
def test_no_level_and_no_form_of_the_log_holds_a_secret(
    start_gateway: Any, upstream: ScriptedUpstream, level: str, form: str
) -> None:
    """As it is at the level that says most, so at every other, with access lines where the level has them."""
    one = {"type": "openai", "base_url": upstream.base_url, "api_key": "sk-canary-operator-1234567890"}
    log = {"level": level, "format": form}
    running = start_gateway({"providers": {"local": one}, "log": log, "server": {"access_log": True}})
    plant(running)
    running.stop()
    said = running.process.log.read_text()
    assert ("POST /metrics HTTP" in said) == (level in ("debug", "info"))
    assert CANARY not in said


def test_the_metrics_hold_no_secret(gateway: Gateway) -> None:
    """Nor in the figures and the health pages that need no key."""
    for path in ("/metrics", "/health/ready", "/health/live"):
        assert CANARY not in gateway.request("GET", path).body.decode()


def test_the_records_hold_no_credential_and_no_prompt(gateway: Gateway) -> None:
    """Without their sealed bodies they tell what happened and quote nothing of it."""
    exported = gateway.request("GET", "/v1/generations/export", key=gateway.key())
    assert exported.status == 200
    records = [json.loads(line) for line in exported.body.splitlines()[:-1]]
    assert len(records) >= 8
    for record in records:
        # The path is the client's own, and is what the record is about.
        said = json.dumps({**record, "endpoint": ""})
        assert CANARY not in said, said


def test_the_folder_holds_no_secret_in_clear(gateway: Gateway) -> None:
    """Neither the key nor a prompt nor an answer can be found in any file, the write-ahead log included."""
    secret = gateway.key().rpartition("_")[2].encode()
    for path in (path for path in gateway.data.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for planted in (secret, b"canary-prompt", b"canary-answer", b"sk-canary", b"canary-header", b"canary-query"):
            assert planted not in data, f"{planted!r} in {path.name}"


def test_the_provider_gets_the_operators_key_and_nothing_else(upstream: ScriptedUpstream, gateway: Gateway) -> None:
    """No header that a client sent beyond the known ones, and not the client's own key."""
    assert upstream.seen
    for seen in upstream.seen:
        fields = {name: value for name, value in seen.headers.items() if name != "authorization"}
        assert CANARY not in json.dumps(fields)
        assert seen.headers["authorization"] == "Bearer sk-canary-operator-1234567890"
        assert gateway.key() not in json.dumps(seen.headers)
        assert "canary-query" not in seen.path


def test_no_error_repeats_what_was_sent(gateway: Gateway) -> None:
    """An answer to a stranger, or to a body that cannot be read, holds nothing of the request."""
    del gateway
    errors = [said for _, said in SAID if not said.startswith(b"HTTP/1.1 200 ")]
    assert len(errors) > 100
    assert not [said for said in errors if CANARY.encode() in said]


CRASH = """
import logging, sys
from counterfoil.config.model import LogConfig
from counterfoil.process.logs import configure

def crash(secret):
    held = {"authorization": secret}
    return held["nothing"]

configure(LogConfig(level="debug", format=sys.argv[1]))
for log in (logging.getLogger("uvicorn.error").error, logging.getLogger("counterfoil").error):
    try:
        crash("canary-" + "local")
    except KeyError:
        log("It broke.", exc_info=True)
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_crash_shows_no_values(form: str) -> None:
    """A traceback in the log has lines and names, and not what the variables held."""
    done = subprocess.run([sys.executable, "-c", CRASH, form], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("KeyError") >= 2
    assert "canary-local" not in done.stderr + done.stdout
