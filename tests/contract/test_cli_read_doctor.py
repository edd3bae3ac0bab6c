"""``counterfoil doctor`` and ``ledger verify``: what is wrong is found, named, and ends with 1."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import apsw
import pytest

from counterfoil.cli import doctor, main
from counterfoil.cli.doctor import State
from counterfoil.config import parse
from counterfoil.folder import DataFolder
from counterfoil.ledger import tally
from counterfoil.tenancy.admin import Admin
from emulators.control import request_id, settlement, write


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    """A data folder with some records."""
    made = DataFolder.create(tmp_path / "data")
    write(made, [settlement(number) for number in range(1, 6)])
    return made


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands see nothing of the machine they are tested on."""
    for name in [name for name in os.environ if name.startswith("COUNTERFOIL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def findings(folder: DataFolder, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, str]]:
    """The exit code, and the state of each check."""
    code = main.run(["doctor", "--json", "--data", str(folder.root), *options])
    return code, {one["check"]: one["state"] for one in json.loads(capsys.readouterr().out)["findings"]}


def test_a_good_folder_has_no_problem(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, and every check of the folder was made."""
    code, states = findings(folder, capsys)
    assert code == 0
    assert {"sqlite", "clock", "data folder", "permissions", "lock", "disk", "file system", "sync", "ledger"} <= set(
        states
    )
    assert State.PROBLEM not in states.values()


@pytest.mark.parametrize("part", [".", "secrets", "secrets/pepper", "ledger.db"])
def test_what_others_can_read_is_a_problem(folder: DataFolder, capsys: pytest.CaptureFixture[str], part: str) -> None:
    """The folder, its secrets and its databases are for their owner alone."""
    folder.secret("pepper")
    path = folder.root / part
    path.chmod(path.stat().st_mode | 0o040)
    code, states = findings(folder, capsys)
    assert (code, states["permissions"]) == (1, "problem")


def test_a_folder_of_a_newer_version_is_a_problem(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """It is not looked into."""
    (folder.root / "VERSION").write_text("99\n")
    code, states = findings(folder, capsys)
    assert (code, states["data folder"]) == (1, "problem")


def test_a_ledger_that_cannot_be_read_is_a_problem(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage is found, not crashed on."""
    folder.ledger_db.with_name("ledger.db-wal").unlink(missing_ok=True)
    folder.ledger_db.write_bytes(b"\xff" * 65_536)
    code, states = findings(folder, capsys)
    assert (code, states["ledger"]) == (1, "problem")


@pytest.mark.parametrize("command", [["verify"], ["stats"], ["checkpoint"]], ids=lambda command: command[0])
def test_no_command_takes_an_empty_ledger_for_a_lost_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """Where no gateway ever ran there is nothing to lose; where one did, nobody puts an empty ledger in its place."""
    folder = DataFolder.create(tmp_path / "data")
    Admin(folder).close()
    asked = ["ledger", *command, "--json", "--data", str(folder.root)]
    assert main.run(asked) == 0
    for path in folder.root.glob("ledger.db*"):
        path.unlink()
    counted = tally.Tally.of(folder.journal, 0)
    counted.publish(tally.Counts(accounted=7), tally.State(), tally.Waits())
    counted.close()
    assert main.run(asked) == 1
    assert "The ledger is missing" in capsys.readouterr().err
    assert not folder.ledger_db.exists()
    code, states = findings(folder, capsys)
    assert (code, states["ledger"]) == (1, "problem")


def test_a_bad_configuration_is_a_problem(
    folder: DataFolder, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With the line in it, and the rest is examined all the same."""
    file = tmp_path / "bad.yaml"
    file.write_text("providers:\n  openai: {api_key: x, nonsense: 1}\n")
    assert main.run(["doctor", "--data", str(folder.root), "--config", str(file)]) == 1
    said = capsys.readouterr().out
    assert "bad.yaml:2" in said
    assert "permissions" in said


def test_a_running_gateway_is_seen_and_not_disturbed(folder: DataFolder) -> None:
    """The lock tells whether a gateway runs; looking does not take it."""
    assert "no gateway" in doctor.lock(folder.root).said
    descriptor = folder.lock()
    try:
        assert doctor.lock(folder.root).said == "a gateway is running on it"
    finally:
        os.close(descriptor)
    assert "free" in doctor.lock(folder.root).said
    os.close(folder.lock())


@pytest.mark.parametrize(
    ("finding", "state"),
    [
        pytest.param(doctor.sqlite_version("3.51.2", 3_051_002), State.PROBLEM, id="SQLite with the bug"),
        pytest.param(doctor.sqlite_version("3.51.3", 3_051_003), State.GOOD, id="SQLite without it"),
        pytest.param(doctor.clock(0), State.PROBLEM, id="clock at the epoch"),
        pytest.param(doctor.disk(100 << 20), State.PROBLEM, id="disk nearly full"),
        pytest.param(doctor.disk(1 << 30), State.WARNING, id="disk filling"),
        pytest.param(doctor.disk(10 << 30), State.GOOD, id="disk roomy"),
        pytest.param(doctor.descriptors(256, None), State.WARNING, id="few open files"),
        pytest.param(doctor.descriptors(resource.RLIM_INFINITY, None), State.GOOD, id="open files without limit"),
    ],
)
def test_each_check_knows_its_bounds(finding: doctor.Finding, state: State) -> None:
    """Warnings come before problems, and both say what to do."""
    assert finding.state is state


@pytest.mark.parametrize(
    ("kind", "state"),
    [("ext4", State.GOOD), ("nfs4", State.PROBLEM), ("tmpfs", State.WARNING), ("9p", State.PROBLEM)],
)
def test_the_file_system_under_the_folder_is_judged(tmp_path: Path, kind: str, state: State) -> None:
    """The deepest mount point above the folder counts, also one with a space in its name."""
    home = tmp_path / "a b" / "data"
    home.mkdir(parents=True)
    mounts = tmp_path / "mountinfo"
    point = str(tmp_path / "a b").replace(" ", "\\040")
    mounts.write_text(
        f"1 0 8:1 / / rw - ext4 /dev/x rw\n2 1 0:9 / {point} rw,noatime shared:1 - {kind} some:where rw\n"
    )
    finding = doctor.file_system(home, mounts)
    assert finding.state is state
    assert kind in finding.said
    assert doctor.file_system(home, tmp_path / "none").said == "unknown"


def test_a_slow_disk_is_told(folder: DataFolder) -> None:
    """Every answer waits for one sync, so a slow one is a warning; the probe leaves nothing behind."""
    before = sorted(folder.root.iterdir())
    ticks = iter(range(0, 10**12, 80_000_000))
    assert doctor.sync_speed(folder.root, lambda: next(ticks)).state is State.WARNING
    assert sorted(folder.root.iterdir()) == before


def test_a_provider_that_cannot_be_reached_is_told() -> None:
    """By name and address; nothing is sent to one that can."""
    text = "providers: {here: {type: openai, base_url: 'http://127.0.0.1:9/v1', api_key: none}}"
    (finding,) = doctor.reachable(parse(text, "test", {}))
    assert (finding.check, finding.state) == ("provider here", State.WARNING)
    assert "127.0.0.1:9" in finding.said


def test_verify_ends_with_0_only_when_everything_holds(folder: DataFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """An edited record is found and named."""
    verify = ["ledger", "verify", "--data", str(folder.root)]
    assert main.run(verify) == 0
    assert capsys.readouterr().out.startswith("Intact: 5 records")
    connection = apsw.Connection(str(folder.ledger_db))
    connection.execute("UPDATE generations SET cost_nanos = 1 WHERE sequence = 3")
    connection.close()
    assert main.run(verify) == 1
    assert request_id(3) in capsys.readouterr().out
    assert main.run([*verify, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["problems"][0]["request_id"] == request_id(3)


def test_a_proof_is_printed_once_a_checkpoint_covers_the_record(
    folder: DataFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds the record's canonical bytes and a signature."""
    assert main.run(["generations", "show", request_id(2), "--proof", "--data", str(folder.root)]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert json.loads(proof["record"])["request_id"] == request_id(2)
    assert proof["signature"]


@pytest.mark.parametrize(
    ("text", "mode", "state"),
    [
        ("providers: {openai: {api_key: sk-literal}}", 0o644, "warning"),
        ('{"providers": {"openai": {"api_key": "sk-literal"}}}', 0o640, "warning"),
        ("ledger:\n  checkpoint_token: 'abc'\n", 0o604, "warning"),
        ("providers: {openai: {api_key: sk-literal}}", 0o600, "good"),
        ("providers: {openai: {api_key: ${KEY}}}", 0o644, "good"),
        ("providers: {local: {api_key: none}}", 0o644, "good"),
        ('{"providers": {"openai": {"api_key": "${KEY}"}}}', 0o644, "good"),
    ],
)
def test_a_secret_in_a_file_that_others_can_read_is_a_warning(tmp_path: Path, text: str, mode: int, state: str) -> None:
    """The name of a variable is no secret, and what only its owner reads is no matter."""
    path = tmp_path / "counterfoil.yaml"
    path.write_text(text)
    path.chmod(mode)
    finding = doctor.exposed(path)
    assert (finding.check, finding.state) == ("configuration file", state)
    assert "sk-literal" not in finding.said
