"""The commands that read records: for people, for programs, from a folder and from a gateway alike."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from counterfoil.cli import main, render
from counterfoil.folder import DataFolder
from counterfoil.record import words
from counterfoil.record.charge import CostState
from counterfoil.record.record import Attempt, CapturePolicy
from counterfoil.record.usage import ABSENT
from emulators.control import REQUEST, ControlPlane, request_id, serving, settlement, write

RECORDS = 8
Run = Callable[..., "Ended"]


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out
        self.text = out.decode()
        self.error = err.decode()


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A ledger of one team with a failure, an unknown, a partial and an absent among its records, and its gateway."""
    folder = DataFolder.create(tmp_path_factory.mktemp("cli") / "data")
    tries = (
        Attempt(
            number=1,
            provider="openai",
            model="gpt-4o-mini",
            key_source="operator",
            status_code=None,
            error_code="upstream:timeout",
            error_message="The provider did not answer in time.",
            latency_ms=None,
            generation_ms=900.0,
        ),
    )
    failed = {"error_code": "upstream:timeout", "error_message": "Late \x1b[2J[bold]", "attempts": tries}
    write(
        folder,
        [
            settlement(1, session_id="\x1b]0;title\x07"),
            settlement(2, cost_nanos=0, cost_state=CostState.UNKNOWN),
            settlement(3, cost_nanos=700, cost_state=CostState.PARTIAL, cost_reason="one meter has no price"),
            settlement(4, cost_nanos=0, cost_state=CostState.UNKNOWN, usage=ABSENT, **failed),
            settlement(5, policy=CapturePolicy.METADATA, request=None),
            *[settlement(number) for number in range(6, RECORDS + 1)],
        ],
    )
    with serving(folder) as running:
        yield running


@pytest.fixture(scope="module")
def key(plane: ControlPlane) -> str:
    """A key that may see everything."""
    return plane.admin.create_management_key(("admin",)).key


@pytest.fixture(params=["--data", "--url"])
def run(
    request: pytest.FixtureRequest,
    plane: ControlPlane,
    key: str,
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Run a command on the folder, and on the gateway."""
    for name in ("COUNTERFOIL_URL", "COUNTERFOIL_DATA", "COUNTERFOIL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COUNTERFOIL_KEY", key)
    where = [request.param, str(plane.folder.root) if request.param == "--data" else plane.url]

    def ended(*arguments: str, at: list[str] | None = None) -> Ended:
        capsysbinary.readouterr()
        code = main.run([*arguments, *(where if at is None else at)])
        out, err = capsysbinary.readouterr()
        return Ended(code, out, err)

    return ended


def test_a_list_shows_unknown_cost_as_unknown(run: Run) -> None:
    """No unknown is a zero, no part a whole, and the sum says how much it lacks."""
    ended = run("generations", "list")
    rows = [line for line in ended.text.splitlines() if "gen_" in line]
    assert ended.code == 0
    assert [row.split()[-1] for row in rows[-4:]] == ["unknown", "$0.0000007", "unknown", "$0.000001"]
    assert "≥ $0.0000007" in rows[-3]
    assert f"{RECORDS} of {RECORDS} records, 1 failed" in ended.text
    assert "≥ $0.0000057 (2 of 8 unknown, 1 of 8 partial)" in ended.text


def test_a_summary_is_told_apart_and_adds_up(run: Run, plane: ControlPlane, key: str) -> None:
    """A row a group with what is not known of it, the whole below; the same for programs as over HTTP."""
    ended = run("generations", "summary", "--by", "day,model")
    assert ended.code == 0
    rows = [line.split() for line in ended.text.splitlines() if line.strip()]
    assert rows[0] == ["day", "model", "records", "failed", "in", "out", "cost"]
    assert rows[2][:4] == ["2026-09-21", "openai/gpt-4o-mini", "8", "1"]
    assert rows[-1][:3] == ["all", "8", "1"]
    assert "≥ $0.0000057 (2 of 8 unknown, 1 of 8 partial)" in ended.text
    found = run("generations", "summary", "--by", "day,model", "--json")
    assert json.loads(found.out) == plane.get("/v1/generations/summary?by=day,model", key).json
    assert run("generations", "summary", "--by", "moon").code == 1


def test_a_summary_for_a_sheet_shows_no_unknown_as_nothing(run: Run) -> None:
    """Exact dollars; an empty cell where nothing is known."""
    ended = run("generations", "summary", "--by", "error_code", "--csv")
    lines = [line.split(",") for line in ended.text.splitlines()]
    assert lines[0][0:2] == ["error_code", "records"]
    costs = {line[0]: line[lines[0].index("cost_usd")] for line in lines[1:]}
    assert costs == {"": "0.0000057", "upstream:timeout": ""}


@pytest.mark.parametrize("name", ["=1+1", "@cmd", "-2", "+x"])
def test_a_name_is_no_formula_in_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Applications are named by clients; a spreadsheet computes what begins like a formula."""
    folder = DataFolder.create(tmp_path / "data")
    write(folder, [settlement(1, app_id=name)])
    assert main.run(["generations", "summary", "--by", "app", "--csv", "--data", str(folder.root)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"'{name},1,")


def test_a_list_for_programs_is_the_control_planes_page(run: Run, plane: ControlPlane, key: str) -> None:
    """--json prints the very bytes of the search, wherever they were read, and its cursor goes on."""
    page = run("generations", "list", "--json", "--limit", "3")
    served = plane.get("/v1/generations/search?limit=3", key).body
    assert page.out == served + b"\n"
    rest = run("generations", "list", "--json", "--cursor", json.loads(page.out)["next"])
    assert len(json.loads(rest.out)["data"]) == RECORDS - 3


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        pytest.param(["--failed"], [4], id="failed"),
        pytest.param(["--succeeded", "--limit", "1"], [8], id="succeeded"),
        pytest.param(["--error-code", "upstream:timeout"], [4], id="error code"),
        pytest.param(["--to", "2026-09-21T14:13:23Z"], [2, 1], id="before"),
        pytest.param(["--from", "2026-09-21T14:13:28Z"], [8], id="from"),
        pytest.param(["--max-cost-nanos", "999"], [], id="no cost that is known in part, or not at all"),
        pytest.param(["--team", "acme", "--stream"], [], id="nothing"),
    ],
)
def test_filters_are_the_control_planes(run: Run, options: list[str], numbers: list[int]) -> None:
    """A filter means the same on a folder and on a gateway."""
    ended = run("generations", "list", "--json", *options)
    assert [row["request_id"] for row in json.loads(ended.out)["data"]] == [request_id(n) for n in numbers]


def test_nothing_found_is_said_beside_the_output(run: Run) -> None:
    """A program that reads the output gets nothing; a person is told."""
    ended = run("generations", "list", "--provider", "none")
    assert (ended.code, ended.out) == (0, b"")
    assert "no such records" in ended.error


@pytest.mark.parametrize("wanted", [request_id(1), "chatcmpl-1"], ids=["our id", "the provider's"])
def test_show_for_programs_is_the_record_itself(run: Run, plane: ControlPlane, key: str, wanted: str) -> None:
    """--json prints the bytes of the lookup, the captured request untouched among them."""
    ended = run("generations", "show", wanted, "--json")
    assert ended.out == plane.get(f"/v1/generations?id={wanted}", key).body + b"\n"
    assert b'"replay_request":' + REQUEST in ended.out


def test_show_tells_a_person_everything(run: Run) -> None:
    """Who, when, what, how long, how many tokens, what it cost and why, and what can be done with it."""
    text = run("generations", "show", request_id(3)).text
    for part in (
        request_id(3),
        "200 answered",
        "team acme",
        "2026-09-21 14:13:23.000 UTC",
        "openai/gpt-4o-mini",
        "12 ms to the first output, 100 ms in all",
        "10 in + 5 out = 15 tokens, reported by the provider",
        "≥ $0.0000007",
        "one meter has no price",
        "post replay_request to /v1/chat/completions",
    ):
        assert part in text
    unpriced = next(line for line in text.splitlines() if "unpriced" in line)
    assert unpriced.count("unknown") == 2


def test_show_tells_how_a_call_failed(run: Run) -> None:
    """The error, every attempt, and no invented numbers."""
    text = run("generations", "show", request_id(4)).text
    assert "502 upstream:timeout" in text
    assert "The provider did not answer in time." in text
    assert "not reported by the provider" in text
    assert re.search(r"Cost +unknown", text)
    assert "[bold]" in text
    assert "$0" not in text


def test_show_says_why_a_call_cannot_be_replayed(run: Run) -> None:
    """In words, for a person."""
    assert "the capture policy keeps no bodies" in run("generations", "show", request_id(5)).text


@pytest.mark.parametrize("number", [1, 4])
def test_nothing_from_outside_reaches_the_terminal_as_control(run: Run, number: int) -> None:
    """Escape sequences in what clients and providers wrote are shown, not sent."""
    for arguments in (("show", request_id(number)), ("list",), ("tail", "--once")):
        assert "\x1b" not in run("generations", *arguments).text
        assert "\x07" not in run("generations", *arguments).text


def test_an_unknown_id_is_one_line_and_exit_1(run: Run) -> None:
    """No traceback; the line says what was looked for or what the gateway said."""
    ended = run("generations", "show", "gen_nothing")
    assert (ended.code, ended.out) == (1, b"")
    assert ended.error.count("\n") == 1
    assert "gen_nothing" in ended.error or "not_found" in ended.error


def test_tail_prints_the_newest_last(run: Run) -> None:
    """As a log does: one line each, in the order in which they came."""
    ended = run("generations", "tail", "--once", "--count", "3")
    assert [line.split()[1] for line in ended.text.splitlines()] == [request_id(number) for number in (6, 7, 8)]
    records = run("generations", "tail", "--once", "--json").text.splitlines()
    assert [json.loads(line)["request_id"] for line in records] == [request_id(n) for n in range(1, RECORDS + 1)]


def test_a_list_on_a_narrow_terminal_cuts_nothing(run: Run) -> None:
    """In 80 columns each id is whole, to be copied, and no cost or model is shortened."""
    values = json.loads(run("generations", "list", "--json").out)["data"]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render.Listing(values))
    shown = console.export_text()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for value in values:
        assert value["request_id"] in shown
        assert value["model_id"] in shown
        assert words.cost(value["cost_nanos"], value["cost_state"]) in shown


def test_an_export_is_the_control_planes(run: Run, plane: ControlPlane, key: str, tmp_path: Path) -> None:
    """The same bytes on the standard output, in a file, and over HTTP, with a manifest that proves them whole."""
    file = tmp_path / "records.jsonl"
    ended = run("generations", "export", "--json")
    assert run("generations", "export", "--output", str(file)).code == 0
    assert ended.out == file.read_bytes() == plane.get("/v1/generations/export", key).body
    *lines, last = ended.out.splitlines(keepends=True)
    manifest = json.loads(last)["manifest"]
    assert (manifest["records"], manifest["sha256"]) == (RECORDS, hashlib.sha256(b"".join(lines)).hexdigest())
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_an_export_for_a_sheet_has_a_line_a_record(run: Run, tmp_path: Path) -> None:
    """Every record's facts in columns; what is not known is an empty cell, and no zero."""
    file = tmp_path / "records.csv"
    assert run("generations", "export", "--csv", "-o", str(file)).code == 0
    rows = list(csv.DictReader(io.StringIO(run("generations", "export", "--csv").text)))
    assert rows == list(csv.DictReader(io.StringIO(file.read_text())))
    assert [row["request_id"] for row in rows] == [request_id(number) for number in range(RECORDS, 0, -1)]
    newest, late, part, unknown = rows[0], rows[-4], rows[-3], rows[-2]
    assert (newest["cost_usd"], newest["cost_nanos"], newest["success"], newest["prompt_tokens"]) == (
        "0.000001", "1000", "true", "10"
    )  # fmt: skip
    assert (part["cost_usd"], part["cost_state"]) == ("0.0000007", "partial")
    assert (unknown["cost_usd"], unknown["cost_nanos"], unknown["cost_state"]) == ("", "", "unknown")
    assert (late["prompt_tokens"], late["usage_source"], late["error_code"]) == ("", "absent", "upstream:timeout")


def test_labels_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a client said its call was for is in the record for people and in the sheet."""
    folder = DataFolder.create(tmp_path / "data")
    write(folder, [settlement(1, tags={"project": "x", "stage": "test"})])
    for command in (["show", request_id(1)], ["export", "--csv"]):
        assert main.run(["generations", *command, "--data", str(folder.root)]) == 0
        assert "project=x, stage=test" in capsys.readouterr().out


def test_an_export_to_nowhere_says_so(run: Run, tmp_path: Path) -> None:
    """One line with the file's name."""
    ended = run("generations", "export", "--output", str(tmp_path / "none" / "x"))
    assert ended.code == 1
    assert "cannot be written" in ended.error


def test_ledger_stats_have_the_promised_figures(run: Run) -> None:
    """Records, open intents, bodies and bytes, for programs and for people."""
    stats = json.loads(run("ledger", "stats", "--json").out)
    assert {name: stats[name] for name in ("records", "open_intents", "bodies")} == {
        "records": RECORDS,
        "open_intents": 0,
        "bodies": RECORDS - 1,
    }
    assert stats["bytes"] > 0
    assert re.search(rf"^records +{RECORDS}$", run("ledger", "stats").text, re.MULTILINE)


def test_prices_are_the_gateways(run: Run) -> None:
    """Whether asked of the folder or of the gateway: the book's sources, a provider, a model, a comparison."""
    model = json.loads(run("prices", "show", "openai/gpt-4o-mini", "--json").out)
    assert {rate["meter"] for rate in model["rates"]} >= {"input_tokens", "output_tokens"}
    assert json.loads(run("prices", "show", "--json").out)["book"] == model["book"]
    assert "gpt-4o-mini" in run("prices", "show", "openai").text
    assert "price every model alike" in run("prices", "diff", "bundled").text
    assert run("prices", "history", "openai/gpt-4o-mini").code == 0


def test_a_record_that_is_not_there_is_told_alike(run: Run) -> None:
    """Of a folder and of a gateway: which id, and what an id looks like when that was none."""
    ended = run("generations", "show", "chatcmpl-none")
    assert (ended.code, ended.out) == (1, b"")
    assert "There is no record chatcmpl-none" in ended.error
    assert "gen_" in ended.error


def test_repricing_says_what_it_does_not_know(run: Run) -> None:
    """The folder and the gateway give the same sums; what has no price is unknown and not $0.00."""
    told = json.loads(run("ledger", "reprice", "--json").out)
    assert told["all"]["records"] == RECORDS
    assert told["all"]["charged_unpriced"] == 3
    shown = run("ledger", "reprice")
    assert (shown.code, shown.error) == (0, "")
    assert "not wholly priced" in shown.text
    assert "at least $0.00 " not in shown.text


def test_doctor_finds_a_good_installation_good(run: Run) -> None:
    """Exit 0 when there is no problem, and the findings as JSON."""
    ended = run("doctor", "--json")
    findings = json.loads(ended.out)
    assert (ended.code, findings["ok"]) == (0, True), findings
    warnings = sum(finding["state"] == "warning" for finding in findings["findings"])
    verdict = f"No problem, {warnings} warning" if warnings else "Everything is in order."
    assert verdict in run("doctor").text.splitlines()[-1]


def test_a_key_that_may_not_is_told_so(run: Run, plane: ControlPlane) -> None:
    """The gateway's reason reaches the person."""
    owner = plane.admin.create_key("acme", make_missing=True).key
    ended = run("ledger", "stats", at=["--url", plane.url, "--key", owner])
    assert ended.code == 1
    assert "forbidden" in ended.error


@pytest.mark.parametrize(
    "arguments",
    [("generations", "list"), ("generations", "show", "x"), ("generations", "export"), ("ledger", "stats")],
    ids=" ".join,
)
def test_a_place_that_is_not_there_is_one_line(run: Run, arguments: tuple[str, ...], tmp_path: Path) -> None:
    """A folder without data and a gateway that does not answer are said plainly."""
    for at in (["--data", str(tmp_path)], ["--url", "http://127.0.0.1:9"]):
        ended = run(*arguments, at=at)
        assert (ended.code, ended.out) == (1, b"")
        assert ended.error.count("\n") == 1
