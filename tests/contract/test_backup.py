"""A backup is taken from a running gateway, is whole in itself, and a gateway starts on it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from counterfoil.cli import main
from counterfoil.folder import DataFolder
from emulators.control import settlement, write
from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer

CHAT = "/v1/chat/completions"
BODY = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}


def serving(start_gateway: Any, upstream: ScriptedUpstream) -> Gateway:
    """A gateway with two workers in front of ``upstream``."""
    config = {"providers": {"openai": {"base_url": upstream.base_url, "api_key": "k"}}}
    return start_gateway(config, workers=2)


def on_copy(gateway: Gateway, copy: Path, *arguments: str) -> Any:
    """What a command prints of the copy, as JSON."""
    done = gateway.command(*arguments, "--json", "--data", str(copy), local=False)
    return json.loads(done.stdout)


def test_a_backup_of_a_busy_gateway_is_whole(start_gateway: Any, tmp_path: Path) -> None:
    """Every call answered before it began is in it with its body and key; it verifies, and serves as a data folder."""
    with ScriptedUpstream(answer(chat_answer())) as upstream:
        gateway = serving(start_gateway, upstream)
        key = gateway.key()
        before = [gateway.request("POST", CHAT, BODY, key=key).headers["x-request-id"] for _ in range(5)]
        enough = threading.Event()

        def keep_calling() -> None:
            while not enough.is_set():
                gateway.request("POST", CHAT, BODY, key=key)

        callers = [threading.Thread(target=keep_calling) for _ in range(2)]
        for caller in callers:
            caller.start()
        copy = tmp_path / "backups" / "one"
        try:
            copied = json.loads(gateway.command("backup", str(copy), "--json").stdout)
        finally:
            enough.set()
            for caller in callers:
                caller.join()
        gateway.stop()
        gateway.data.rename(tmp_path / "lost")

        verified = on_copy(gateway, copy, "ledger", "verify")
        assert (verified["ok"], verified["records"], verified["bodies"]) == (True, *[copied["records"]] * 2)
        assert copied["records"] >= len(before)
        assert on_copy(gateway, copy, "ledger", "stats")["open_intents"] == 0
        assert not list(copy.rglob("*-wal"))
        assert {path.stat().st_mode & 0o077 for path in (copy, *copy.rglob("*"))} == {0}

        copy.rename(gateway.data)
        gateway.start()
        for generation_id in before:
            assert gateway.record(generation_id, key)["replay_request"] == BODY
        assert gateway.request("POST", CHAT, BODY, key=key).status == 200
        assert json.loads(gateway.command("ledger", "verify", "--json").stdout)["ok"] is True
        gateway.stop()


def test_a_backup_never_covers_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into a folder that holds something nothing is copied, and nothing half done is left behind."""
    folder = DataFolder.create(tmp_path / "data")
    write(folder, [settlement(number) for number in range(1, 4)])
    copy = tmp_path / "one"
    command = ["backup", str(copy), "--data", str(folder.root)]
    assert main.run(command) == 0
    assert "3 records" in capsys.readouterr().out
    kept = sorted(path.name for path in copy.iterdir())
    assert main.run(command) == 1
    assert "already" in capsys.readouterr().err
    assert sorted(path.name for path in copy.iterdir()) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "one"]


def test_a_backup_that_fails_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged database is named and no folder appears that could be taken for a backup."""
    folder = DataFolder.create(tmp_path / "data")
    folder.ledger_db.write_bytes(b"no database" * 1000)
    assert main.run(["backup", str(tmp_path / "one"), "--data", str(folder.root)]) == 1
    assert "could not be made" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
