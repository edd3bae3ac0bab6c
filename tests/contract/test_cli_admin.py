"""The command line's side of tenancy and configuration: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from counterfoil.api import answers, tenancy
from counterfoil.cli import main
from counterfoil.cli.remote import Remote
from counterfoil.cli.times import duration_ms, moment_ms
from counterfoil.errors import ConfigError, Fault
from counterfoil.folder import DataFolder
from counterfoil.tenancy import keys
from counterfoil.tenancy.admin import Admin
from counterfoil.tenancy.directory import Directory
from counterfoil.tenancy.keys import KeyKind, ParsedKey


class Shell:
    """Runs the command line in a folder of its own, with no variable of ours set but those given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "counterfoil-data"

    def run(self, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``counterfoil`` with ``arguments`` and give how it ended."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("COUNTERFOIL_")}
        return subprocess.run(
            [sys.executable, "-m", "counterfoil", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=clean | variables,
            input=stdin,
            timeout=60,
        )

    def said(self, *arguments: str, **options: str) -> str:
        """Give the standard output of a command that must succeed, in silence on the standard error."""
        done = self.run(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """A command line in an empty folder."""
    return Shell(tmp_path)


def holder(data: Path, key: str) -> Any:
    """Give whom a worker takes the holder of ``key`` for."""
    directory = Directory(DataFolder.existing(data))
    try:
        return directory.authenticate(key)
    finally:
        directory.close()


def test_a_first_key_is_printed_alone(shell: Shell) -> None:
    """In an empty folder one command makes data folder, team, application and key, and prints the key."""
    printed = shell.said("keys", "create", "--team", "acme", "--app", "web")
    assert printed.endswith("\n")
    assert isinstance(keys.parse(printed[:-1]), ParsedKey)
    found = holder(shell.data, printed.strip())
    assert (found.team_id, found.app_id, found.kind) == ("acme", "web", KeyKind.INFERENCE)
    assert stat.S_IMODE(shell.data.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in shell.data.rglob("*") if path.is_file()} == {0o600}


def test_a_key_as_json(shell: Shell) -> None:
    """`--json` gives the key and everything about it."""
    made = json.loads(
        shell.said(
            "keys", "create", "--team", "acme", "--expires", "30d", "--capture", "metadata", "--name", "n", "--json"
        )
    )
    assert (made["team_id"], made["capture"], made["name"], made["state"]) == ("acme", "metadata", "n", "active")
    assert made["expires_at"] > made["created_at"]
    assert isinstance(keys.parse(made["key"]), ParsedKey)


@pytest.mark.parametrize(
    "scopes", [["generations:read", "keys:*"], ["generations:read,keys:*"]], ids=["words", "commas"]
)
def test_scopes_make_a_management_key(scopes: list[str], shell: Shell) -> None:
    """`--scopes` makes a management key; without a team one of all teams."""
    found = holder(shell.data, shell.said("keys", "create", "--scopes", *scopes).strip())
    assert (found.kind, found.team_id) == (KeyKind.MANAGEMENT, "*")
    assert found.scopes == {"generations:read", "keys:*"}


def test_the_life_of_a_key(shell: Shell) -> None:
    """List, disable, enable, expire, rotate, revoke: each says what became of the key."""
    made = json.loads(shell.said("keys", "create", "--team", "acme", "--json"))
    key_id, key = made["key_id"], made["key"]
    assert "disabled" in shell.said("keys", "disable", key_id)
    assert "active" in shell.said("keys", "enable", key_id)
    assert json.loads(shell.said("keys", "expire", key_id, "12h", "--json"))["expires_at"]
    assert json.loads(shell.said("keys", "expire", key_id, "never", "--json"))["expires_at"] is None
    rotated = shell.said("keys", "rotate", key_id, "--grace", "1h").strip()
    assert rotated != key
    assert holder(shell.data, key).key_id == holder(shell.data, rotated).key_id == key_id
    assert "disabled" in shell.said("keys", "disable", rotated)  # the key itself will do: it is what a leak shows
    assert "revoked" in shell.said("keys", "revoke", key_id)
    [listed] = json.loads(shell.said("keys", "list", "--team", "acme", "--json"))
    assert (listed["key_id"], listed["state"]) == (key_id, "revoked")
    table = shell.said("keys", "list")
    assert table.splitlines()[0].startswith("KEY ID ")
    for secret in (key, rotated):
        assert secret.rpartition("_")[2] not in table


def test_teams_and_apps(shell: Shell) -> None:
    """A team and an application are made, changed, disabled and shown."""
    shell.said("teams", "create", "acme", "--name", "Acme Ltd", "--capture", "off", "--guard-content")
    shown = json.loads(shell.said("teams", "show", "acme", "--json"))
    assert (shown["name"], shown["capture"], shown["content_needs_scope"]) == ("Acme Ltd", "off", True)
    changed = json.loads(shell.said("teams", "set", "acme", "--capture", "default", "--no-guard-content", "--json"))
    assert (changed["name"], changed["capture"], changed["content_needs_scope"]) == ("Acme Ltd", None, False)
    shell.said("apps", "create", "web", "--team", "acme")
    shell.said("apps", "rename", "web", "The shop", "--team", "acme")
    assert "The shop" in shell.said("apps", "list", "--team", "acme")
    assert json.loads(shell.said("apps", "disable", "web", "--team", "acme", "--json"))["disabled"] is True
    assert json.loads(shell.said("teams", "disable", "acme", "--json"))["disabled"] is True
    history = json.loads(shell.said("teams", "history", "--json"))
    assert [change["action"] for change in history][:2] == ["team.set", "app.set"]


@pytest.mark.parametrize("way", ["stdin", "variable"])
def test_a_provider_key_never_stands_on_the_command_line(way: str, shell: Shell) -> None:
    """The secret comes from the standard input or a variable, and is not printed."""
    key = shell.said("keys", "create", "--team", "acme").strip()
    secret = "sk-canary-0123456789"
    if way == "stdin":
        printed = shell.said("provider-keys", "set", "openai", "--team", "acme", stdin=secret + "\n")
    else:
        printed = shell.said("provider-keys", "set", "openai", "--team", "acme", "--from-env", "MINE", MINE=secret)
    assert "canary" not in printed + shell.said("provider-keys", "list")
    assert holder(shell.data, key).provider_key("openai").secret == secret
    shell.said("provider-keys", "remove", "openai", "--team", "acme")
    assert holder(shell.data, key).provider_key("openai") is None


def test_the_data_folder_is_found(shell: Shell) -> None:
    """`--data`, else COUNTERFOIL_DATA, else the file's `data`, else ./counterfoil-data; no provider's key is needed."""
    (shell.folder / "counterfoil.yaml").write_text("data: from-file\nproviders: {openai: {api_key: ${UNSET}}}\n")
    shell.said("keys", "create", "--team", "a")
    shell.said("keys", "create", "--team", "b", COUNTERFOIL_DATA="from-variable")
    shell.said("keys", "create", "--team", "c", "--data", "from-option", COUNTERFOIL_DATA="from-variable")
    for folder, team in (("from-file", "a"), ("from-variable", "b"), ("from-option", "c")):
        [found] = json.loads(shell.said("teams", "list", "--json", "--data", folder))
        assert found["team_id"] == team


MISTAKES = [
    pytest.param(["keys", "create"], 2, "Say whose key this is: --team NAME", id="no team"),
    pytest.param(["keys", "create", "--tame", "x"], 2, "--tame", id="unknown option"),
    pytest.param(["keys", "crate"], 2, "crate", id="unknown command"),
    pytest.param(["key"], 2, "no command 'key'; did you mean keys?", id="unknown group"),
    pytest.param(["keys", "revoke"], 2, "KEY_ID", id="missing argument"),
    pytest.param(["keys", "create", "--team", "a", "--capture", "some"], 2, "capture", id="not a choice"),
    pytest.param(["keys", "create", "--team", "a", "--app", "w", "--scopes", "admin"], 2, "--app", id="both kinds"),
    pytest.param(["keys", "create", "--team", "a", "--scopes", ""], 2, "--scopes names no scope", id="empty scopes"),
    pytest.param(["keys", "revoke", "cf_sk_abcdefghijkl_secret"], 2, "mistyped or cut short", id="part of a key"),
    pytest.param(["teams", "set", "acme"], 2, "Say what to change", id="nothing to change"),
    pytest.param(["keys", "create", "--team", "Acme Ltd"], 1, "an id has 1 to 64 of the characters", id="bad team"),
    pytest.param(["keys", "create", "--team", "a", "--expires", "soon"], 1, "'soon' is not a time", id="bad time"),
    pytest.param(["keys", "create", "--team", "a", "--expires", "2020-01-01"], 1, "expired already", id="past"),
    pytest.param(["keys", "create", "--scopes", "fly"], 1, "There is no scope 'fly'", id="bad scope"),
    pytest.param(["keys", "list", "--data", "nowhere"], 1, "/nowhere. Name the gateway's data folder", id="no data"),
    pytest.param(
        ["keys", "revoke", "x", "--data", "nowhere"], 1, "There is no Counterfoil data", id="no data to change"
    ),
    pytest.param(["keys", "list", "--config", "no.yaml"], 1, "There is no configuration file no.yaml", id="no file"),
    pytest.param(
        ["keys", "list", "--url", "localhost", "--key", "k"], 1, "is not the address of a gateway", id="no url"
    ),
    pytest.param(["keys", "list", "--url", "http://127.0.0.1:1"], 1, "set COUNTERFOIL_KEY", id="no key to ask with"),
    pytest.param(
        ["keys", "list", "--url", "http://127.0.0.1:1", "--key", "k"], 1, "cannot be reached", id="no gateway"
    ),
    pytest.param(["keys", "list", "--url", "http://h", "--data", "d"], 1, "Give --data or --url", id="two places"),
    pytest.param(
        ["provider-keys", "set", "openai", "--team", "a", "--from-env", "NO_SUCH"], 1, "is not set", id="unset"
    ),
    pytest.param(["config", "check", "no.yaml"], 1, "There is no configuration file no.yaml", id="no file to check"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES)
def test_a_mistake_is_one_line(
    arguments: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One line on the standard error, nothing on the other, 2 when the command line was wrong and 1 for the rest."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("COUNTERFOIL_")]:
        monkeypatch.delenv(name)
    assert main.run(arguments) == code
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("counterfoil: ")
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert "secret" not in printed.err  # what may be nearly all of a key is not repeated


def test_a_folder_that_cannot_be_written_says_so(shell: Shell) -> None:
    """The error names the folder and what to do."""
    (shell.folder / "file").write_text("")
    done = shell.run("keys", "create", "--team", "acme", "--data", "file/data")
    assert (done.returncode, done.stdout) == (1, "")
    assert "file/data cannot be written" in done.stderr
    assert "--data" in done.stderr


def test_no_traceback_reaches_the_user(shell: Shell) -> None:
    """Through the real process a mistake ends with its exit code and its line."""
    (shell.folder / "counterfoil.yaml").write_text("prot: 1\n")
    done = shell.run("config", "check")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "counterfoil: counterfoil.yaml:1: prot: unknown key; did you mean port?\n"


def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    """`counterfoil config schema | head -1` ends quietly."""
    command = f"{sys.executable} -m counterfoil config schema | head -1"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=False, cwd=shell.folder, timeout=60
    )
    assert (done.stdout, done.stderr) == ("{\n", "")


def test_config_check_says_what_it_amounts_to(shell: Shell) -> None:
    """A good configuration is summed up, without any key."""
    (shell.folder / "c.yaml").write_text(
        "providers: {openai: {api_key: sk-canary}}\nmodels: {fast: openai/gpt-4o-mini}\n"
    )
    for extra in ([], ["--json"]):
        printed = shell.said("config", "check", "c.yaml", *extra)
        assert "https://api.openai.com/v1" in printed
        assert "openai/gpt-4o-mini" in printed
        assert "canary" not in printed


def test_config_check_reads_the_price_file_too(shell: Shell) -> None:
    """What would keep the gateway from starting is found before it is started."""
    (shell.folder / "c.yaml").write_text("prices_file: prices.yaml\n")
    (shell.folder / "prices.yaml").write_text("prices:\n  - {model: m, rates: {input_tokens: dear}}\n")
    for command in (["config", "check", "c.yaml"], ["doctor", "--config", "c.yaml"]):
        done = shell.run(*command)
        assert done.returncode == 1
        assert "prices.yaml:2" in done.stdout + done.stderr


def test_config_schema_is_the_published_one(shell: Shell) -> None:
    """The command prints the file in the documents."""
    published = Path(__file__).parents[2] / "docs/counterfoil.schema.json"
    assert shell.said("config", "schema") == published.read_text()


def test_making_a_key_does_not_load_the_gateway() -> None:
    """Commands are loaded when they are called, so a key is made quickly."""
    script = (
        "import sys; from counterfoil.cli import main; main.run(['keys', '--help']);"
        "heavy = {'fastapi', 'uvicorn', 'uvloop', 'httptools', 'pydantic', 'zstandard', 'jinja2'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def url(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A control plane over HTTP and a key for it."""
    folder = DataFolder.create(tmp_path / "remote")
    admin, directory = Admin(folder), Directory(folder)
    admin.create_key("acme", app_id="web", make_missing=True)
    admin.set_provider_key("acme", "openai", "sk-canary-0123456789")
    key = admin.create_management_key(["keys:read", "teams:read"]).key
    app = FastAPI()
    app.add_exception_handler(Fault, answers.on_fault)
    app.include_router(tenancy.router(admin, directory))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", key
        finally:
            server.should_exit = True
            thread.join()
    admin.close()
    directory.close()


def test_reading_commands_ask_a_gateway(url: tuple[str, str], shell: Shell) -> None:
    """With `--url`, or COUNTERFOIL_URL, lists come over HTTP and read the same as from a folder."""
    address, key = url
    remote = {"COUNTERFOIL_URL": address, "COUNTERFOIL_KEY": key}
    local = ["--data", str(shell.folder / "remote")]
    for command in (
        ["keys", "list"],
        ["teams", "list"],
        ["teams", "show", "acme"],
        ["apps", "list"],
        ["provider-keys", "list"],
    ):
        assert sorted(shell.said(*command, **remote).splitlines()) == sorted(shell.said(*command, *local).splitlines())
    assert shell.said("teams", "list", *local, COUNTERFOIL_URL="http://127.0.0.1:1", COUNTERFOIL_KEY="k")


def test_a_gateways_refusal_is_one_line(url: tuple[str, str]) -> None:
    """What the gateway says no with reaches the user; the key does not."""
    address, key = url
    with pytest.raises(ConfigError, match=r"refused the key: This is not a Counterfoil API key; ") as caught:
        Remote(address, key[:-1] + "!").get("/v1/teams")
    assert key[:-1] not in str(caught.value)
    with pytest.raises(ConfigError, match="refused: 404"):
        Remote(address, key).get("/v1/teams/nobody")
    with pytest.raises(ConfigError, match="refused: 403"):
        Remote(address, key).call("POST", "/v1/teams", body={"team_id": "new"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("90s", 90_000, id="seconds"),
        pytest.param("15m", 900_000, id="minutes"),
        pytest.param("12h", 43_200_000, id="hours"),
        pytest.param("30d", 2_592_000_000, id="days"),
        pytest.param("1w", 604_800_000, id="weeks"),
        pytest.param("1y", 31_536_000_000, id="years"),
    ],
)
def test_durations(text: str, expected: int) -> None:
    """A number and a unit; from now, as a moment."""
    assert duration_ms(text) == expected
    assert moment_ms(text, 5) == expected + 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("never", None, id="never"),
        pytest.param("2027-01-15", 1_799_971_200_000, id="date"),
        pytest.param("2027-01-15T08:00Z", 1_800_000_000_000, id="time"),
        pytest.param("2027-01-15T09:00+01:00", 1_800_000_000_000, id="zone"),
    ],
)
def test_moments(text: str, expected: int | None) -> None:
    """A date or time, UTC unless it says."""
    assert moment_ms(text, 0) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "1.5h", "-1d", "30 d", "99999999999d", "tomorrow", "2027-13-01"])
def test_what_is_no_time(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ConfigError, match="30d"):
        moment_ms(text, 0)
