"""Proofs, checkpoints and verifications asked for from elsewhere; and signed checkpoints that reach a second place."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import pytest

from counterfoil.cli import main
from counterfoil.folder import DataFolder
from counterfoil.ledger.verification import Verifications
from emulators import sink
from emulators.control import request_id, serving, settlement, write
from emulators.gateway import Gateway
from emulators.scripted import ScriptedUpstream, answer, chat_answer
from emulators.waiting import wait_until

SCRIPT = Path(__file__).parents[1] / "faults" / "check_proof.py"
CALLS = 3
Run = Callable[..., "Ended"]


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Place(NamedTuple):
    """A gateway whose calls are signed for, a key of its team, one of another and one of an admin."""

    gateway: Gateway
    ids: list[str]
    key: str
    other: str
    admin: str


@pytest.fixture(scope="module")
def place(start_gateway: Any) -> Iterator[Place]:
    """Give a running gateway with a few calls that a checkpoint covers."""
    with ScriptedUpstream(answer(chat_answer("yes"))) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        gateway: Gateway = start_gateway({"providers": {"local": one}, "ledger": {"checkpoint_seconds": 0.1}})
        call = {"model": "local/gpt-4o-mini", "messages": [{"role": "user", "content": "yes?"}]}
        key = gateway.key()
        ids = [
            gateway.request("POST", "/v1/chat/completions", call, key=key).headers["x-request-id"] for _ in range(CALLS)
        ]
        admin = gateway.command("keys", "create", "--scopes", "admin").stdout.strip()
        made = Place(gateway, ids, key, gateway.key("other"), admin)
        wait_until(lambda: proof(made, ids[-1]).status == 200)
        yield made
        gateway.stop()


def proof(place: Place, generation_id: str, key: str | None = None) -> Any:
    """The answer to the question for a proof."""
    return place.gateway.request("GET", f"/v1/generations/{generation_id}/proof", key=key or place.key)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command, in a folder where nothing is configured."""
    monkeypatch.chdir(tmp_path)
    for name in ("COUNTERFOIL_URL", "COUNTERFOIL_DATA", "COUNTERFOIL_CONFIG", "COUNTERFOIL_KEY"):
        monkeypatch.delenv(name, raising=False)

    def ended(*arguments: str) -> Ended:
        capfd.readouterr()
        code = main.run(arguments)
        return Ended(code, *capfd.readouterr())

    return ended


def there(place: Place, key: str) -> list[str]:
    """The options that ask the gateway."""
    return ["--url", place.gateway.url, "--key", key]


def here(place: Place) -> list[str]:
    """The options that ask the folder."""
    return ["--data", str(place.gateway.data)]


def test_a_proof_over_http_holds_offline(place: Place, run: Run, tmp_path: Path) -> None:
    """The team's own key gets the proof that the folder gives, and a script that knows nothing of us believes it."""
    ended = run("generations", "show", place.ids[0], "--proof", *there(place, place.key))
    assert ended.code == 0, ended.err
    local = run("generations", "show", place.ids[0], "--proof", *here(place))
    assert json.loads(ended.out) == json.loads(local.out)
    (tmp_path / "proof.json").write_text(ended.out)
    command = [sys.executable, "-I", str(SCRIPT), str(tmp_path / "proof.json"), json.loads(local.out)["public_key"]]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_another_teams_record_has_no_proof(place: Place) -> None:
    """It is not found, in the bytes of one that does not exist."""
    foreign, unknown = proof(place, place.ids[0], place.other), proof(place, request_id(1), place.other)
    assert (foreign.status, foreign.body) == (404, unknown.body)


def test_a_record_that_no_checkpoint_covers_yet(run: Run, start_gateway: Any) -> None:
    """409 says that asking again helps, over HTTP and on the command line."""
    with ScriptedUpstream(answer(chat_answer("yes"))) as upstream:
        one = {"type": "openai", "base_url": upstream.base_url, "api_key": "none", "prices": "openai"}
        gateway: Gateway = start_gateway({"providers": {"local": one}, "ledger": {"checkpoint_seconds": 3600}})
        call = {"model": "local/gpt-4o-mini", "messages": []}
        generation = gateway.request("POST", "/v1/chat/completions", call, key=gateway.key()).headers["x-request-id"]
        answered = gateway.request("GET", f"/v1/generations/{generation}/proof", key=gateway.key())
        ended = run("generations", "show", generation, "--proof", "--url", gateway.url, "--key", gateway.key())
        gateway.stop()
    assert (answered.status, answered.json()["error"]) == (409, "conflict")
    assert ended.code == 1
    assert "every minute" in ended.err


def test_checkpoints_read_over_http_are_a_second_place(place: Place, run: Run, tmp_path: Path) -> None:
    """Lines fetched with a key alone hold the ledger to what it was; `after` goes on where an earlier fetch ended."""
    listed = run("ledger", "checkpoints", "--json", "--limit", "1", *there(place, place.admin))
    assert listed.code == 0, listed.err
    newest = json.loads(listed.out)[0]
    fetched = run("ledger", "checkpoints", "--lines", *there(place, place.admin))
    lines = fetched.out.splitlines()
    assert newest["statement"] in [json.loads(line)["statement"] for line in lines]
    assert run("ledger", "checkpoints", "--lines", *here(place)).out.startswith(fetched.out)
    kept = tmp_path / "kept.jsonl"
    kept.write_text(fetched.out)
    assert run("ledger", "verify", "--checkpoints", str(kept), *here(place)).code == 0
    later = run("ledger", "checkpoints", "--lines", "--after", str(newest["number"] - 1), *here(place))
    assert json.loads(later.out.splitlines()[0])["statement"] == newest["statement"]
    forged = json.loads(lines[0])
    forged["statement"] = forged["statement"].replace('"last_sequence":', '"last_sequence":9')
    kept.write_text(json.dumps(forged))
    assert run("ledger", "verify", "--checkpoints", str(kept), *here(place)).code == 1


def test_checkpoints_are_of_all_teams(place: Place, run: Run) -> None:
    """A team's key does not see them."""
    ended = run("ledger", "checkpoints", *there(place, place.key))
    assert (ended.code, "403" in ended.err) == (1, True)


def test_pages_of_checkpoints(tmp_path: Path) -> None:
    """The newest come first, older ones before a number; one direction at a time."""
    folder = DataFolder.create(tmp_path / "data")
    for number in range(1, 5):
        write(folder, [settlement(number)])
    from_cli = main.run(["ledger", "checkpoints", "--json", "--limit", "2", "--data", str(folder.root)])
    assert from_cli == 0
    with serving(folder) as plane:
        admin = plane.admin.create_management_key(("generations:read",)).key
        first = plane.get("/v1/ledger/checkpoints?limit=2", admin).json
        older = plane.get(f"/v1/ledger/checkpoints?limit=2&before={first['next']}", admin).json
        rest = plane.get("/v1/ledger/checkpoints?after=0&limit=1000", admin).json
        both = plane.get("/v1/ledger/checkpoints?after=1&before=3", admin)
    found = [one["number"] for one in first["data"] + older["data"]]
    assert found == sorted(found, reverse=True)
    assert [one["number"] for one in rest["data"]][-4:] == found[::-1]
    assert rest["next"] is None
    assert (both.status, both.json["field"]) == (400, "before")


def test_a_gateway_verifies_itself(place: Place, run: Run) -> None:
    """The key of an admin is told what a verification of the folder finds; the state stays for whoever looks."""
    ended = run("ledger", "verify", "--json", *there(place, place.admin))
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["ok"] is True
    assert found["records"] == CALLS
    looked = place.gateway.request("GET", "/v1/ledger/verification", key=place.admin).json()
    assert (looked["state"], looked["chain_only"], looked["report"]) == ("finished", False, found)
    chain = run("ledger", "verify", "--chain-only", *there(place, place.admin))
    assert chain.code == 0
    assert "Intact: 3 records, 0 bodies" in chain.out


def test_one_verification_at_a_time(place: Place, run: Run) -> None:
    """While one holds the lock, in whichever process, the next is refused."""
    with (place.gateway.data / "verification.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = place.gateway.request("POST", "/v1/ledger/verification", {}, key=place.admin)
        ended = run("ledger", "verify", *there(place, place.admin))
    assert (refused.status, refused.json()["message"]) == (409, "A verification is under way.")
    assert ended.code == 1
    assert "under way" in ended.err


def test_only_an_admin_of_all_teams_has_the_ledger_verified(place: Place, run: Run) -> None:
    """A team's key is refused, by the command too."""
    assert place.gateway.request("POST", "/v1/ledger/verification", {}, key=place.key).status == 403
    assert run("ledger", "verify", *there(place, place.key)).code == 1


def test_a_second_place_here_is_not_for_a_gateway_there(place: Place, run: Run, tmp_path: Path) -> None:
    """The command says so instead of ignoring the option."""
    ended = run("ledger", "verify", "--checkpoints", str(tmp_path), *there(place, place.admin))
    assert (ended.code, "--data" in ended.err) == (1, True)


def test_what_was_altered_is_named_from_elsewhere(place: Place, run: Run) -> None:
    """A record edited below a running gateway: exit status 1, the record named. It is put back afterwards."""
    database = apsw.Connection(str(place.gateway.data / "ledger.db"))
    [(seq, cost)] = database.execute("SELECT seq, cost_nanos FROM generations ORDER BY seq LIMIT 1")
    database.execute("UPDATE generations SET cost_nanos = cost_nanos + 1 WHERE seq = ?", (seq,))
    try:
        ended = run("ledger", "verify", *there(place, place.admin))
    finally:
        database.execute("UPDATE generations SET cost_nanos = ? WHERE seq = ?", (cost, seq))
        database.close()
    assert ended.code == 1
    assert "NOT INTACT" in ended.out
    assert place.ids[0] in ended.out


def test_a_verification_that_died_says_so(tmp_path: Path) -> None:
    """One that says it is running while nobody holds its lock was interrupted."""
    folder = DataFolder.create(tmp_path / "data")
    verifications = Verifications(folder, lambda: 7)
    assert verifications.last() is None
    (folder.root / "verification.json").write_text('{"state":"running","chain_only":true,"started_ms":5}')
    found = verifications.last()
    assert found is not None
    assert (found.state, found.started_ms, found.finished_ms) == ("interrupted", 5, None)


def test_a_checkpoint_by_hand_reaches_the_second_places(tmp_path: Path, run: Run) -> None:
    """`ledger checkpoint` hands over what it signs, to the folder and to the address, as a running gateway does."""
    folder = DataFolder.create(tmp_path / "data")
    write(folder, [settlement(1)])
    second = tmp_path / "second"
    second.mkdir()
    with sink.running() as address:
        settings = {"checkpoint_folder": str(second), "checkpoint_url": address.url, "checkpoint_token": "t0ken"}
        config = tmp_path / "gateway.yaml"
        config.write_text(json.dumps({"data": str(folder.root), "ledger": settings}))
        ended = run("ledger", "checkpoint", "--json", "--config", str(config))
        assert ended.code == 0, ended.err
        [signed] = json.loads(ended.out)
        [line] = address.lines
        assert json.loads(json.loads(line)["statement"]) == signed
        assert (second / "w0.jsonl").read_bytes() == line + b"\n"
        assert address.headers[0]["authorization"] == "Bearer t0ken"
        assert run("ledger", "verify", "--checkpoints", str(second), "--config", str(config)).code == 0
        address.status = 500
        refused = run("ledger", "checkpoint", "--config", str(config))
    assert refused.code == 1
    assert "127.0.0.1" in refused.err
    assert "status 500" in refused.err
    assert "t0ken" not in refused.err


def test_another_folders_second_place_is_left_alone(tmp_path: Path, run: Run) -> None:
    """Beside a configuration of another gateway, --data alone sends nothing to that one's second place."""
    folder = DataFolder.create(tmp_path / "data")
    write(folder, [settlement(1)])
    second = tmp_path / "second"
    second.mkdir()
    settings = {"data": str(tmp_path / "other"), "ledger": {"checkpoint_folder": str(second)}}
    (tmp_path / "counterfoil.yaml").write_text(json.dumps(settings))
    ended = run("ledger", "checkpoint", "--data", str(folder.root))
    assert ended.code == 0
    assert "another folder's" in ended.err
    assert not list(second.iterdir())
    settings["data"] = str(folder.root)
    (tmp_path / "counterfoil.yaml").write_text(json.dumps(settings))
    assert run("ledger", "checkpoint", "--data", str(folder.root)).code == 0
    assert [path.name for path in second.iterdir()] == ["w0.jsonl"]
