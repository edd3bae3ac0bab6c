"""The walk of docs/replay.md on a real model."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emulators import inprocess
from emulators.waiting import STORY_S

PAGE = Path(__file__).parents[2] / "docs" / "replay.md"

SEEDED = {
    "model": "local/smollm2",
    "messages": [{"role": "user", "content": "Name three colours."}],
    "seed": 7,
    "temperature": 0.2,
    "max_tokens": 24,
    "cache_prompt": False,
}


def test_equal_input_gives_equal_output(model_server, tmp_path):
    """With a seed a rerun differs in nothing it says; at another temperature it says something else."""
    provider = {"type": "openai", "base_url": f"{model_server}/v1", "api_key": "none"}
    with inprocess.running(tmp_path, {"providers": {"local": provider}}) as gateway:
        key = gateway.key()
        first = gateway.request("POST", "/v1/chat/completions", SEEDED, key=key)
        assert first.status == 200, first.body
        path = f"/v1/generations/{first.headers['x-request-id']}/replay"
        [same] = gateway.request("POST", path, {}, key=key).json()["runs"]
        assert same["difference"]["equal"], same["difference"]["text"]
        assert same["difference"]["text"]["similarity"] == 1.0
        [warm] = gateway.request("POST", path, {"patch": {"temperature": 1.8, "seed": 8}}, key=key).json()["runs"]
        assert not warm["difference"]["text"]["equal"]
        assert warm["difference"]["cost_nanos"]["a"] is None  # nobody prices this model: unknown, not 0


def test_the_walk_of_the_page(model_server, start_gateway, tmp_path):
    """The commands of the page, run in a shell as they stand there: the same, and then something else."""
    if shutil.which("curl") is None:
        pytest.skip("the page's commands need curl")
    gateway = start_gateway(
        {"providers": {"local": {"type": "openai", "base_url": f"{model_server}/v1", "api_key": "none"}}}
    )
    shim = tmp_path / "bin" / "counterfoil"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m counterfoil "$@"\n')
    shim.chmod(0o755)
    paths = {"PATH": f"{shim.parent}:{os.environ['PATH']}", "COUNTERFOIL_URL": gateway.url}
    walk = re.search(r"## A walk with a real model\n(.*?)\n## ", PAGE.read_text(), re.DOTALL)
    assert walk is not None
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```", walk[1], re.MULTILINE | re.DOTALL))
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=STORY_S,
        env={**os.environ, **paths, "COUNTERFOIL_KEY": gateway.key()}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal" in (tmp_path / "same.txt").read_text().splitlines()[0]
    assert "{+" not in (tmp_path / "same.txt").read_text()
    warm = (tmp_path / "warm.txt").read_text()
    assert "different" in warm.splitlines()[0]
    assert "{+" in warm
    gateway.stop()
