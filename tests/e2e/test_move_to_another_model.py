"""The commands of docs/move-to-another-model.md, run in a shell as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from counterfoil import config
from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, Seen, Step, answer, chat_answer
from emulators.waiting import STORY_S

PAGE = Path(__file__).parents[2] / "docs" / "move-to-another-model.md"
CALLS = 60


def script(seen: Seen) -> list[Step]:
    """Answer as three models would: the new one is wordier, and sometimes somebody else; the third judges."""
    asked = seen.json
    text = asked["messages"][-1]["content"]
    if "<candidate>" in text:
        return answer(chat_answer('{"score": 0.9}', asked["model"], prompt=90))
    if asked["model"] == "gpt-4.1-mini":
        said = f"Good day, {text}." if text.endswith("7") else f"Hello and welcome, {text}."
        return answer(chat_answer(said, asked["model"], completion=5))
    return answer(chat_answer(f"Hello, {text}.", asked["model"], completion=3))


@pytest.fixture
def gateway(start_gateway) -> Iterator[Gateway]:
    """Give a gateway with a day's calls."""
    with ScriptedUpstream(script) as upstream:
        running = start_gateway({"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-1"}}})
        for at in range(CALLS):
            body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": f"number {at}"}]}
            assert running.request("POST", "/v1/chat/completions", body, key=running.key()).status == 200
        yield running
        running.stop()


def blocks(language: str) -> list[str]:
    """Give the page's code blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_every_command_of_the_page_works(gateway, tmp_path):
    """From the first look to the page for the others; the figures are those of the provider's script."""
    shim = tmp_path / "bin" / "counterfoil"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m counterfoil "$@"\n')
    shim.chmod(0o755)
    [(tmp_path / "polite.py").write_text(source) for source in blocks("python")]
    environment = {
        **os.environ,
        "PATH": f"{shim.parent}:{os.environ['PATH']}",
        "COUNTERFOIL_URL": gateway.url,
        "COUNTERFOIL_KEY": gateway.key(),
    }
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(blocks("bash"))],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=STORY_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    new, third = report["targets"]
    assert (new["name"], new["done"], third["done"]) == ("openai/gpt-4.1-mini", CALLS, CALLS)
    assert third["agreement"]["equal"] == CALLS
    assert new["agreement"]["equal"] == 0
    assert new["month"]["records"] == CALLS
    assert "Good day" in (tmp_path / "report.html").read_text()
    runs = gateway.request("GET", "/v1/replays", key=gateway.key()).json()["data"]
    assert [run["name"] for run in runs] == ["the whole day", "cooler", "judged", "first look"]
    judged = gateway.request("GET", f"/v1/replays/{runs[2]['run_id']}/report", key=gateway.key()).json()
    verdicts = {one["name"]: one for one in judged["targets"][0]["judges"]}
    assert set(verdicts) == {"exact", "not:(?i)as an ai", "openai/gpt-4o", "polite:greets"}
    assert (verdicts["openai/gpt-4o"]["passed"], verdicts["polite:greets"]["none"]) == (50, 0)
    assert 0 < verdicts["polite:greets"]["failed"] < 50


def test_the_configuration_of_the_page_is_one():
    """The alias is accepted by the loader beside a provider."""
    [example] = blocks("yaml")
    config.parse("providers: {openai: {api_key: sk-1}}\n" + example, "the page", {})
