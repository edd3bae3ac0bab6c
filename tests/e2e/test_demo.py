"""``counterfoil demo``: the first thing a newcomer sees."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from emulators.waiting import PATIENCE_S, STORY_S

COMMAND = [sys.executable, "-m", "counterfoil", "demo"]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, model_server: str) -> tuple[str, Path]:
    """Give what the demonstration printed and where it ran; ``model_server`` says that there is a model."""
    assert model_server
    folder = tmp_path_factory.mktemp("demo")
    wide = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(COMMAND, cwd=folder, env=wide, capture_output=True, text=True, timeout=STORY_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, folder


def test_it_shows_four_records_and_two_reruns(told: tuple[str, Path]) -> None:
    """Every call's record is printed; the request is run again unchanged and changed."""
    text, _ = told
    assert len(set(re.findall(r"gen_[0-9A-Za-z]{26}", text))) == 6
    assert "the text is the same, to the byte" in text
    assert "hotter and with another seed" in text


def test_it_never_shows_an_unknown_cost_as_zero(told: tuple[str, Path]) -> None:
    """What has a price costs an exact amount; what has none costs an unknown one, and nothing is said to cost $0."""
    text, _ = told
    assert re.search(r"Cost +\$0\.0000\d+", text)
    assert re.search(r"Cost +unknown", text)
    assert not re.search(r"\$0\.00(?!\d)", text)


def test_its_commands_work(told: tuple[str, Path]) -> None:
    """The commands it prints to go on with run as printed."""
    text, folder = told
    commands = re.findall(r"^  \S*counterfoil (.+)$", text, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        done = subprocess.run(
            [*COMMAND[:-1], *command.split()],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_it_leaves_nothing_running(told: tuple[str, Path]) -> None:
    """The model server and the gateway are gone when it ends."""
    text, _ = told
    for process in re.findall(r"process (\d+)", text):
        assert not Path(f"/proc/{process}").exists()


def test_a_port_in_use_is_named(tmp_path: Path, model_server: str) -> None:
    """A port that somebody else has is an error that says so and what to do, not a stack of calls."""
    assert model_server
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*COMMAND, "--port", str(port)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    assert done.returncode == 1
    assert f"Port {port} is in use" in done.stderr
    assert "Traceback" not in done.stderr
