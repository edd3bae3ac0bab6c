"""A gateway of one worker is one process, the one that was started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from counterfoil.process import alone
from emulators.gateway import Gateway
from emulators.waiting import PATIENCE_S


@pytest.fixture
def gateway(tmp_path: Path):
    """A gateway with one worker."""
    started = Gateway(tmp_path, {"providers": {}})
    yield started
    started.stop()


def test_it_is_the_process_that_was_started(gateway: Gateway) -> None:
    """Whoever supervises it has its process id; it has no children, and shows how it was started."""
    pid = gateway.process.pid
    command = Path(f"/proc/{pid}/cmdline")
    if not command.exists():
        pytest.skip("this system has no /proc")
    shown = command.read_bytes().split(b"\0")
    assert b"counterfoil.worker" in shown
    assert [b"serve", b"--config", bytes(gateway.config)] == shown[-4:-1]
    assert not Path(f"/proc/{pid}/task/{pid}/children").read_text()


def test_it_holds_its_folder(gateway: Gateway) -> None:
    """The lock outlives the change of interpreters: a second gateway on the folder is refused."""
    command = [sys.executable, "-m", "counterfoil", "serve", "--config", str(gateway.config), "--port", "0"]
    second = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert second.returncode == 1
    assert "Another gateway is running" in second.stderr


def test_its_configuration_is_not_in_its_arguments_or_environment(tmp_path: Path) -> None:
    """The keys of providers go through a pipe."""
    secret = "sk-canary-" + "7" * 20
    providers = {"openai": {"type": "openai", "base_url": "http://127.0.0.1:9/v1", "api_key": secret}}
    gateway = Gateway(tmp_path, {"providers": providers})
    try:
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{gateway.process.pid}/{name}")
            assert not shown.exists() or secret.encode() not in shown.read_bytes()
    finally:
        assert gateway.stop() == 0


def test_an_interrupt_ends_it_in_order(gateway: Gateway) -> None:
    """Ctrl-C is a stop like any other: no traceback, and everything written."""
    os.kill(gateway.process.pid, signal.SIGINT)
    assert gateway.process._popen.wait(PATIENCE_S) == 0
    assert "Traceback" not in (gateway.folder / "gateway.log").read_text()
    assert gateway.command("ledger", "verify").returncode == 0


def test_only_a_configuration_that_a_pipe_holds_goes_that_way() -> None:
    """A larger one has a supervisor, which can write while its worker reads."""
    assert alone.fits(b"{}")
    assert not alone.fits(bytes(2 * alone.PIPE_BYTES))


def test_it_says_where_it_listens(gateway: Gateway) -> None:
    """One line for a person, with the address and the data folder."""
    log = (gateway.folder / "gateway.log").read_text()
    assert f"Counterfoil listens on {gateway.url}" in log
    assert str(gateway.data) in log
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=PATIENCE_S):
        pass
