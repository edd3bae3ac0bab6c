"""What keeps a gateway from starting, each said in one line that tells what to do."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from emulators.waiting import PATIENCE_S


def serve(
    folder: Path, *arguments: str, config: str | None = "providers: {}\n", hides: str = ""
) -> subprocess.CompletedProcess[str]:
    """``counterfoil serve`` that is expected to end by itself. The package that it ``hides`` is not there for it."""
    named: list[str] = []
    if config is not None:
        (folder / "counterfoil.yaml").write_text(config)
        named = ["--config", str(folder / "counterfoil.yaml")]
    command = [sys.executable, "-m", "counterfoil", "serve", *named, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
    if hides:
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules[{hides!r}] = None\n")
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment.get("PYTHONPATH", "")])
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=folder, env=environment
    )


def told(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed with one line that holds ``words``, and no traceback."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The address, and the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        told(serve(tmp_path, "--data", str(tmp_path / "data"), "--port", port), f"127.0.0.1:{port}", "--port")


def test_a_data_folder_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """Never guessed at, never written to."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "VERSION").write_text("999\n")
    told(serve(tmp_path, "--data", str(data)), "newer Counterfoil", str(data))
    assert sorted(path.name for path in data.iterdir() if path.is_file()) == ["VERSION"]


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file where the folder should be, as root sees every permission."""
    (tmp_path / "file").write_text("")
    told(serve(tmp_path, "--data", str(tmp_path / "file" / "data")), "cannot be written", "--data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as another user to see this")
def test_a_data_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    """What to change, and the option that avoids it."""
    data = tmp_path / "data"
    data.mkdir(mode=0o500)
    told(serve(tmp_path, "--data", str(data)), "cannot be written", "--data")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, ("nowhere.yaml",)),
        ("providers: [\n", ("counterfoil.yaml:",)),
        ("capture:\n  defalt: full\n", ("counterfoil.yaml:2", "default")),
        ("providers:\n  openai: {api_key: ${NO_SUCH_VARIABLE}}\n", ("counterfoil.yaml:2", "NO_SUCH_VARIABLE")),
    ],
    ids=["missing", "malformed", "unknown-key", "unset-variable"],
)
def test_an_unusable_configuration_is_named_with_its_line(
    tmp_path: Path, config: str | None, words: tuple[str, ...]
) -> None:
    """File, line and what is wrong; nothing was started."""
    extra = ("--config", str(tmp_path / "nowhere.yaml")) if config is None else ()
    told(serve(tmp_path, *extra, "--data", str(tmp_path / "data"), config=config), *words)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_estimates_without_their_extra_are_refused(workers: str, tmp_path: Path) -> None:
    """Nobody finds out by a missing figure that the tokenizer is not installed: the gateway says what to install."""
    done = serve(
        tmp_path, "--data", str(tmp_path / "data"), "--workers", workers,
        config="estimates: {tokens: true}\n", hides="bpe_openai",
    )  # fmt: skip
    told(done, "estimates.tokens", "requirements/tokenizer.txt")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_prices_that_cannot_be_read_are_refused(workers: str, tmp_path: Path) -> None:
    """With the line, and by the parent of several workers, none of which would ever start."""
    (tmp_path / "prices.yaml").write_text("prices:\n  - {model: m, rates: {input_tokens: dear}}\n")
    done = serve(tmp_path, "--data", str(tmp_path / "data"), "--workers", workers, config="prices_file: prices.yaml\n")
    told(done, "prices.yaml:2", "not dear")


def test_a_host_that_is_none_is_named(tmp_path: Path) -> None:
    """It is the address that is wrong, and no port that is in use."""
    told(serve(tmp_path, "--data", str(tmp_path / "data"), "--host", "no such host"), "no such host", "--host")


def test_prices_of_nobody_are_refused(tmp_path: Path) -> None:
    """Otherwise every call of that provider would be without a price, and nothing would say why."""
    config = "providers:\n  local: {type: openai, base_url: 'http://127.0.0.1:1/v1', api_key: none, prices: opnai}\n"
    done = serve(tmp_path, "--data", str(tmp_path / "data"), config=config)
    told(done, "providers.local.prices", "did you mean openai?")
