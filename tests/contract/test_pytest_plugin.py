"""The pytest plugin as an application's developer uses it: tests that run offline, and how their cassettes are made."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import StartGateway, providers
from counterfoil.folder import DataFolder
from counterfoil.replay import cassette as cassettes
from counterfoil.tenancy.admin import Admin
from counterfoil.testing import Recorder
from emulators.cassette import Cassette, Take
from emulators.gateway import Gateway
from emulators.waiting import STORY_S

APPLICATION = """
import openai
import pytest

def summary(client, text):
    answer = client.chat.completions.create(
        model="openai/gpt-4o-mini", user="jane@example.com",
        messages=[{"role": "user", "content": f"Summarise: {text}"}],
    )
    return answer.choices[0].message.content

def test_summary(counterfoil_cassette):
    with openai.OpenAI(
        base_url=counterfoil_cassette.base_url, api_key=counterfoil_cassette.api_key, max_retries=0
    ) as client:
        assert summary(client, "the sky") == "It is blue."
        if not counterfoil_cassette.recording:
            assert len(counterfoil_cassette.played) == 1

@pytest.mark.counterfoil("shared.jsonl", redact_pointers=["request:/user"], ignore=["/seed"], speed="none")
def test_another(counterfoil_cassette):
    with openai.OpenAI(
        base_url=counterfoil_cassette.base_url, api_key=counterfoil_cassette.api_key, max_retries=0
    ) as client:
        assert summary(client, "the sea") == "It is blue."
"""
MISSING = """
def test_nothing(counterfoil_cassette):
    pass
"""
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "It is blue."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
    }
).encode()


@pytest.fixture(scope="module")
def gateway(start_gateway: StartGateway, cassette: Cassette) -> Iterator[Gateway]:
    """Give a gateway to record from."""
    running = start_gateway({"providers": providers(cassette.url)})
    yield running
    running.stop()


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an application's tests, in a process and a folder of their own."""
    command = [sys.executable, "-m", "pytest", "-p", "counterfoil.fixtures", "-p", "no:cacheprovider", "-q"]
    options = ["--strict-markers", "-W", "error", "--rootdir", str(folder), "-c", os.devnull]
    variables = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **environment}
    command += [*options, *arguments, str(folder)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=STORY_S, check=False, cwd=folder, env=variables
    )


def test_tests_are_recorded_once_and_then_run_offline(gateway: Gateway, cassette: Cassette, tmp_path: Path) -> None:
    """Recorded from a gateway, committed, and played with no gateway, provider or key; what is private stays out."""
    (tmp_path / "test_app.py").write_text(APPLICATION)
    admin = Admin(DataFolder.existing(gateway.data))
    key = admin.create_key("plugin", make_missing=True).key
    admin.close()
    cassette.play(Take(ANSWER))

    recorded = run(tmp_path, "--counterfoil-record", COUNTERFOIL_URL=gateway.url, COUNTERFOIL_KEY=key)

    assert recorded.returncode == 0, recorded.stdout
    assert len(cassette.requests) == 2
    first = tmp_path / "cassettes" / "test_app" / "test_summary.jsonl"
    shared = tmp_path / "shared.jsonl"
    assert b"the sky" in first.read_bytes()
    assert b"the sea" not in first.read_bytes()
    assert b"jane@" in first.read_bytes()
    assert b"jane@" not in shared.read_bytes()
    assert key.encode() not in first.read_bytes() + shared.read_bytes()

    cassette.play(Take(b"never"))
    played = run(tmp_path, COUNTERFOIL_URL="http://127.0.0.1:1", COUNTERFOIL_KEY="")
    assert played.returncode == 0, played.stdout
    assert "2 passed" in played.stdout
    assert cassette.requests == []


def test_a_test_that_asks_something_else_fails_and_says_what(tmp_path: Path) -> None:
    """An application that changed its request is told what differs from the recording."""
    (tmp_path / "test_app.py").write_text(APPLICATION.replace("Summarise: ", "Summarize: "))
    folder = tmp_path / "cassettes" / "test_app"
    folder.mkdir(parents=True)
    request = json.dumps(
        {
            "model": "openai/gpt-4o-mini",
            "user": "jane@example.com",
            "messages": [{"role": "user", "content": "Summarise: the sky"}],
        }
    )
    lines = [
        {"cassette": "counterfoil", "version": 1},
        {"generation": "gen_1", "endpoint": "/v1/chat/completions", "model_id": "openai/gpt-4o-mini"},
        {"request": "application/json"},
        {"text": request},
        {"response": 200, "type": "application/json"},
        {"text": ANSWER.decode()},
    ]
    (folder / "test_summary.jsonl").write_text("\n".join(map(json.dumps, lines)))

    failed = run(tmp_path, "-k", "summary")

    assert failed.returncode == 1
    assert "The nearest, gen_1, differs in: /messages/0/content." in failed.stdout


def test_a_test_without_a_cassette_fails_and_says_how_to_make_one(tmp_path: Path) -> None:
    """What is missing is named, with the command that makes it; recording without a gateway says what it needs."""
    (tmp_path / "test_app.py").write_text(MISSING)
    played = run(tmp_path)
    assert played.returncode == 1
    assert "test_nothing.jsonl" in played.stdout
    assert "pytest --counterfoil-record" in played.stdout

    recorded = run(tmp_path, "--counterfoil-record", COUNTERFOIL_URL="", COUNTERFOIL_KEY="")
    assert recorded.returncode == 1
    assert "COUNTERFOIL_URL" in recorded.stdout


def test_a_failed_test_leaves_its_cassette_alone(gateway: Gateway, cassette: Cassette, tmp_path: Path) -> None:
    """A recording is written when its test has passed, and not before."""
    (tmp_path / "test_app.py").write_text(APPLICATION)
    cassette.play(Take(ANSWER.replace(b"blue", b"grey")))
    recorded = run(tmp_path, "--counterfoil-record", COUNTERFOIL_URL=gateway.url, COUNTERFOIL_KEY=gateway.key())
    assert recorded.returncode == 1
    assert not list(tmp_path.glob("**/*.jsonl"))


def test_an_answer_that_broke_off_is_no_recording(gateway: Gateway, cassette: Cassette, tmp_path: Path) -> None:
    """As in an export: only whole answers are in a cassette, a provider's errors among them."""
    recorder = Recorder(gateway.url, gateway.key("broken"), {})
    for take in (Take(ANSWER), Take(ANSWER, abort_after=9), Take(b'{"error":{"message":"no"}}', status=400)):
        cassette.play(take)
        body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": f"{take.status}"}]}
        with contextlib.suppress(http.client.IncompleteRead):
            gateway.request("POST", "/v1/chat/completions", body, key=recorder.key)
    recorder.write(tmp_path / "made.jsonl")
    made = cassettes.read(tmp_path / "made.jsonl").interactions
    assert [one.recording.capture.response_status for one in made] == [200, 400]


def test_the_plugin_costs_other_test_runs_next_to_nothing() -> None:
    """Every pytest run of an environment imports it: it brings in nothing of Counterfoil's but itself."""
    code = "import sys, pytest; seen = set(sys.modules); import counterfoil.fixtures; print(*set(sys.modules) - seen)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert {name for name in said.split() if name.startswith("counterfoil")} == {"counterfoil", "counterfoil.fixtures"}
    assert not {"msgspec", "uvicorn", "fastapi", "apsw", "cyclopts"} & set(said.split())
