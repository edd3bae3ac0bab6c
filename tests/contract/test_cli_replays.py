"""``counterfoil replays``, from a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from counterfoil.cli import replays
from counterfoil.cli.backup import copy
from counterfoil.cli.main import run
from counterfoil.cli.records import Selection
from counterfoil.cli.where import Source
from counterfoil.errors import ConfigError
from emulators import inprocess
from emulators.inprocess import InProcess
from emulators.scripted import ScriptedUpstream, answer, chat_answer

JUDGE = """
def long_enough(case):
    return len(case.answer) / 100

def picky(case):
    return None if case.original == case.answer else False
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[InProcess]:
    """Give a gateway with a few calls."""
    with ScriptedUpstream(lambda seen: answer(chat_answer("Hello.", seen.json["model"]))) as upstream:
        settings = {"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-1"}}}
        with inprocess.running(tmp_path_factory.mktemp("replays"), settings) as running:
            key = running.key()
            for at in range(3):
                body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": f"n{at}"}]}
                assert running.request("POST", "/v1/chat/completions", body, key=key, x_session_id="s1").status == 200
            yield running


@pytest.fixture(scope="module")
def source(gateway) -> Source:
    """Give where to ask."""
    return Source(url=f"http://127.0.0.1:{gateway.port}", key=gateway.key())


def test_from_start_to_report(source, capsys, tmp_path, monkeypatch):
    """Start and watch with a Python judge, look, list, report: figures of the same run everywhere."""
    tmp_path.joinpath("fine_judges.py").write_text(JUDGE)
    monkeypatch.chdir(tmp_path)
    asked = {"selection": Selection(session="s1", failed=False), "target": ("openai/gpt-4o",), "name": "mine"}
    judges = ("exact", "fine_judges:long_enough", "fine_judges:picky")
    assert replays.start(**asked, budget="1.50", judge=judges, as_json=True, source=source) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["state"], done["progress"]["done"], done["budget_nanos"]) == ("finished", 3, 1_500_000_000)
    replays.show("last", as_json=True, source=source)
    assert json.loads(capsys.readouterr().out) == done
    replays.show(done["run_id"], source=source)
    assert "openai/gpt-4o" in capsys.readouterr().out
    replays.list_(source=source)
    assert done["run_id"] in capsys.readouterr().out
    replays.report("last", as_json=True, source=source)
    verdicts = {one["name"]: one for one in json.loads(capsys.readouterr().out)["targets"][0]["judges"]}
    assert (verdicts["exact"]["passed"], verdicts["fine_judges:long_enough"]["failed"]) == (3, 3)
    assert verdicts["fine_judges:long_enough"]["mean_score"] == 0.06
    assert verdicts["fine_judges:picky"]["none"] == 3
    replays.report("last", html=True, output_file=tmp_path / "report.html", source=source)
    assert f"{source.url}/v1/generations/diff" not in (tmp_path / "report.html").read_text()  # nothing differs
    assert "<h1>mine</h1>" in (tmp_path / "report.html").read_text()


def test_who_sees_skipped_items_is_told_where_they_are_explained(source, capsys):
    """A target that nobody serves answers nothing, and the next command says why."""
    replays.start(selection=Selection(session="s1"), target=("nobody/at-all",), source=source)
    said = capsys.readouterr()
    run_id = next(line.split()[1] for line in said.out.splitlines() if line.startswith("run_id"))
    assert f"counterfoil replays report {run_id}" in said.err
    replays.report(run_id, source=source)
    assert "model_not_found" in capsys.readouterr().out


def test_cancel_resume_watch(source, capsys):
    """A run is started without watching, cancelled, resumed and watched to its end."""
    replays.start(selection=Selection(session="s1"), rate=1, concurrency=1, watch=False, as_json=True, source=source)
    started = json.loads(capsys.readouterr().out)
    replays.cancel(started["run_id"], as_json=True, source=source)
    assert json.loads(capsys.readouterr().out)["state"] == "cancelled"
    assert replays.watch(started["run_id"], source=source) == 1
    assert "cancelled" in capsys.readouterr().out
    replays.resume(started["run_id"], budget="3", as_json=True, source=source)
    assert json.loads(capsys.readouterr().out)["budget_nanos"] == 3_000_000_000
    assert replays.watch("last", as_json=True, source=source) == 0
    assert json.loads(capsys.readouterr().out)["progress"]["done"] == 3


@pytest.mark.parametrize(
    ("text", "nanos"), [("2.50", 2_500_000_000), ("$0.000000001", 1), (".5", 500_000_000), ("7", 7_000_000_000)]
)
def test_dollars_are_exact(text: str, nanos: int) -> None:
    """Amounts become whole nanos without a float in between."""
    assert replays.nanos_of(text) == nanos


@pytest.mark.parametrize("text", ["", "1e3", "-1", "1.0000000001", "two", "1,50"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """With words that say how to write one."""
    with pytest.raises(ConfigError, match="dollars"):
        replays.nanos_of(text)


@pytest.mark.parametrize(
    "judge", ["exakt", "regex", "schema:@/nowhere.json", "no_such_module:f", "json:nothing", "model:"]
)
def test_what_is_no_judge_is_refused(judge: str, source, capsys) -> None:
    """Before anything is started, in one line."""
    code = run(["replays", "start", "--judge", judge, "--url", source.url or "", "--key", source.key or ""])
    assert code == 1
    assert capsys.readouterr().err.startswith("counterfoil: ")


def test_a_backup_spends_nothing_by_itself(gateway, source, capsys, tmp_path: Path):
    """A run that is under way is stopped in a copy of the folder, so that starting the copy makes no calls."""
    replays.start(selection=Selection(session="s1"), rate=0.5, concurrency=1, watch=False, as_json=True, source=source)
    run_id = json.loads(capsys.readouterr().out)["run_id"]
    copy(gateway.folder, tmp_path / "copy")
    database = apsw.Connection(str(tmp_path / "copy" / "replays" / "runs.db"))
    assert list(database.execute("SELECT state, reason FROM runs WHERE run_id = ?", (run_id,))) == [
        ("stopped", "copied")
    ]
    database.close()
    replays.show(run_id, as_json=True, source=source)
    assert json.loads(capsys.readouterr().out)["state"] == "running"
    replays.cancel(run_id, source=source)
