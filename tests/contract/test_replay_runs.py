"""Bulk runs before they begin and after they end: what one would do, and how it is forgotten."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from counterfoil.cli.main import run as command
from counterfoil.replay.bulk import rehearsal
from emulators import inprocess
from emulators.bulk import call, ended, record, results, shown, started, until
from emulators.inprocess import InProcess
from emulators.scripted import Hang, ScriptedUpstream, Seen, Step, answer, chat_answer

CALLS = 4
JUDGE = {"type": "model", "name": "fair", "model": "openai/gpt-4o-mini"}
HANG = "hang"


def script(seen: Seen) -> list[Step]:
    """Answer, unless told not to."""
    if seen.json["messages"][0]["content"] == HANG and seen.json["model"] == "gpt-4o":
        return [Hang()]
    return answer(chat_answer("Hello.", seen.json["model"], completion=7))


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    """Give a provider."""
    with ScriptedUpstream(script) as running:
        yield running


def settings(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    """A configuration with a provider whose prices are known, and one whose are not."""
    free = {"type": "openai", "base_url": upstream.base_url, "api_key": "none"}
    providers = {"openai": {"base_url": upstream.base_url, "api_key": "sk-1"}, "local": free}
    return {"providers": providers, "server": {"shutdown_seconds": 1}, **more}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[InProcess]:
    """Give a gateway in front of it."""
    with inprocess.running(tmp_path_factory.mktemp("runs"), settings(upstream)) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway: InProcess) -> str:
    """Give a key of the team."""
    return gateway.key("acme")


@pytest.fixture(scope="module")
def originals(gateway: InProcess, key: str) -> list[str]:
    """Give the ids of a few calls."""
    return [call(gateway, key, f"number {at}") for at in range(CALLS)]


@pytest.fixture(scope="module")
def gone(gateway: InProcess, key: str) -> dict[str, str]:
    """Give calls without bodies, by why they have none."""
    erased = call(gateway, key, "erased")
    eraser = gateway.admin.create_management_key(["generations:erase"], team_id="acme").key
    assert gateway.request("DELETE", f"/v1/generations/{erased}/content", key=eraser).json()["erased"]
    return {"erased": erased, "policy": call(gateway, key, "sparse", x_counterfoil_capture="metadata")}


def rehearsed(gateway: InProcess, key: str, status: int = 200, **asked: Any) -> dict[str, Any]:
    """Ask what a run would do."""
    return started(gateway, key, status, dry_run=True, **asked)


def runs(gateway: InProcess, key: str) -> list[str]:
    """The ids of the team's runs."""
    return [one["run_id"] for one in gateway.request("GET", "/v1/replays", key=key).json()["data"]]


def test_a_dry_run_is_what_the_run_then_does(gateway, upstream, key, originals, gone):
    """It sends nothing and makes no run; then the run makes those calls, and its cost lies between the estimates."""
    asked = {"ids": [*originals, *gone.values()], "targets": ["openai/gpt-4o", "local/gpt-4o", "nobody/at-all"]}
    before = len(upstream.seen), runs(gateway, key)
    told = rehearsed(gateway, key, **asked)
    assert (len(upstream.seen), runs(gateway, key)) == before
    priced, unpriced, unserved = told["targets"]
    assert (told["items"], told["looked_at"], told["extrapolated"]) == (CALLS, CALLS, False)
    assert told["excluded"] == {"erased": 1, "policy": 1}
    assert {one["request_id"]: one["reason"] for one in told["not_replayable"]} == {v: k for k, v in gone.items()}
    assert (priced["calls"], priced["unestimated"], priced["cannot"]) == (CALLS, {}, {})
    assert (unpriced["calls"], unpriced["unestimated"], unpriced["high_nanos"]) == (CALLS, {"unpriced": CALLS}, 0)
    assert {one["request_id"] for one in unpriced["named"]} == set(originals)
    assert (unserved["calls"], unserved["cannot"]) == (0, {"model_not_found": CALLS})
    assert (told["calls"], told["unestimated"]) == (2 * CALLS, CALLS)
    singles = [
        gateway.request(
            "POST", f"/v1/generations/{one}/replay", {"dry_run": True, "model": "openai/gpt-4o"}, key=key
        ).json()["estimate"]
        for one in originals
    ]
    assert priced["low_nanos"] == sum(one["low_nanos"] for one in singles)
    assert told["high_nanos"] == priced["high_nanos"] == sum(one["high_nanos"] for one in singles)
    run = ended(gateway, key, started(gateway, key, **asked))
    assert (run["items"], run["excluded"]) == (told["items"], told["excluded"])
    spent = sum(one["b"]["cost_nanos"] for one in results(gateway, key, run) if one["target"] == 0)
    assert priced["low_nanos"] <= spent <= priced["high_nanos"]
    assert run["progress"]["skipped"] == CALLS


def test_a_budget_is_held_against_the_estimates(gateway, key, originals):
    """Enough, too little, and no answer where a call has no price; a judge's calls are counted too."""
    told = rehearsed(gateway, key, ids=originals, targets=["openai/gpt-4o"], judges=[JUDGE], budget_nanos=10**12)
    [judge] = told["judges"]
    assert (judge["name"], judge["calls"], judge["unestimated"]) == ("fair", CALLS, {})
    assert told["high_nanos"] == told["targets"][0]["high_nanos"] + judge["high_nanos"]
    assert told["fits_budget"] is True
    short = rehearsed(gateway, key, ids=originals, targets=["openai/gpt-4o"], budget_nanos=1)
    assert short["fits_budget"] is False
    unknown = rehearsed(gateway, key, ids=originals, targets=["local/gpt-4o"], budget_nanos=10**12)
    assert unknown["fits_budget"] is None


def test_many_are_looked_at_in_part(gateway, key, originals, monkeypatch):
    """Beyond a bound some are looked at, evenly, and the sums are raised and say so."""
    whole = rehearsed(gateway, key, ids=originals, targets=["openai/gpt-4o"])
    monkeypatch.setattr(rehearsal, "ITEMS_LOOKED_AT_MAX", 2)
    part = rehearsed(gateway, key, ids=originals, targets=["openai/gpt-4o"])
    assert (part["items"], part["looked_at"], part["extrapolated"]) == (CALLS, 2, True)
    assert part["calls"] == CALLS
    assert part["high_nanos"] == pytest.approx(whole["high_nanos"], rel=0.2)


def test_nothing_to_run_is_refused_as_at_the_start(gateway, key, gone):
    """A dry run of nothing is no run either."""
    assert rehearsed(gateway, key, 400, ids=list(gone.values()))["field"] == "filter"
    assert rehearsed(gateway, key, 400)["field"] == "filter"


def test_a_deleted_run_is_gone_and_its_calls_are_not(gateway, key, originals):
    """Neither found nor listed, its results and its lock gone; the records of its calls stay."""
    run = ended(gateway, key, started(gateway, key, ids=originals[:1], targets=["openai/gpt-4o"]))
    [made] = results(gateway, key, run)
    path = f"/v1/replays/{run['run_id']}"
    assert gateway.request("DELETE", path, key=key).json() == {"ok": True, "deleted": run["run_id"]}
    for method, rest in (("GET", ""), ("GET", "/results"), ("GET", "/report"), ("POST", "/resume"), ("DELETE", "")):
        assert gateway.request(method, path + rest, {} if method == "POST" else None, key=key).status == 404
    assert run["run_id"] not in runs(gateway, key)
    assert record(gateway, key, made["b"]["request_id"])["replay_of"] == originals[0]
    assert not left(gateway.folder.root, run["run_id"])


def left(root: Path, run_id: str) -> list[str]:
    """What the folder still has of a run."""
    database = apsw.Connection(str(root / "replays" / "runs.db"))
    tables = ("runs", "items", "results", "verdicts")
    found = [name for name in tables if list(database.execute(f"SELECT 1 FROM {name} WHERE run_id = ?", (run_id,)))]
    database.close()
    return found + [path.name for path in (root / "replays").glob(f"{run_id}*")]


def test_a_run_under_way_is_not_deleted(gateway, key):
    """409 until it is cancelled and its last call has ended; then it goes."""
    hanging = call(gateway, key, HANG)
    run = started(gateway, key, ids=[hanging], targets=["openai/gpt-4o"])
    until(gateway, key, run, lambda found: found["in_flight"] == 1)
    path = f"/v1/replays/{run['run_id']}"
    refused = gateway.request("DELETE", path, key=key)
    assert (refused.status, refused.json()["error"]) == (409, "conflict")
    gateway.request("POST", f"{path}/cancel", key=key)
    assert gateway.request("DELETE", path, key=key).status == 409  # its call has not ended
    assert shown(gateway, key, run)["state"] == "cancelled"


@contextlib.contextmanager
def broken(root: Path, when: str) -> Iterator[None]:
    """Let the database of the runs refuse what is done to it."""
    with contextlib.closing(apsw.Connection(str(root / "replays" / "runs.db"))) as database:
        database.execute(f"CREATE TRIGGER broken BEFORE {when} BEGIN SELECT RAISE(ABORT, 'broken'); END")
        try:
            yield
        finally:
            database.execute("DROP TRIGGER broken")


def locks() -> list[str]:
    """The locks of runs that this process holds open."""
    held: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed while we look
            held.append(path.readlink().name)
    return [name for name in held if name.startswith("run_")]


def test_a_run_that_cannot_be_kept_is_not_begun(gateway, key, originals):
    """503, and nothing is held for it."""
    with broken(gateway.folder.root, "INSERT ON runs"):
        before = locks()
        assert started(gateway, key, 503, ids=originals)["error"] == "ledger_unavailable"
        assert locks() == before


def test_a_run_whose_results_cannot_be_kept_stops(gateway, upstream, key, originals):
    """No further call is paid for; what was paid for is found again when the run goes on."""
    before = len(upstream.seen)
    with broken(gateway.folder.root, "INSERT ON results"):
        run = ended(gateway, key, started(gateway, key, ids=originals, targets=["openai/gpt-4o"], concurrency=1))
    assert (run["state"], run["reason"]) == ("stopped", "ledger_unavailable")
    assert len(upstream.seen) == before + 1
    gateway.request("POST", f"/v1/replays/{run['run_id']}/resume", {}, key=key)
    assert ended(gateway, key, run)["progress"]["done"] == CALLS
    assert len(upstream.seen) == before + CALLS


def test_a_run_whose_end_cannot_be_noted_is_let_go_of(gateway, key, originals):
    """It can be cancelled and deleted in the same worker."""
    with broken(gateway.folder.root, "UPDATE ON runs"):
        run = started(gateway, key, ids=originals, targets=["openai/gpt-4o"])
        until(gateway, key, run, lambda found: found["progress"]["done"] == CALLS and found["in_flight"] is None)
    path = f"/v1/replays/{run['run_id']}"
    assert gateway.request("POST", f"{path}/cancel", key=key).status == 200
    assert gateway.request("DELETE", path, key=key).status == 200


def test_from_a_terminal(gateway, key, originals, capsys, upstream):
    """`start --dry-run` says what it would come to; `delete` forgets."""
    place = ["--url", f"http://127.0.0.1:{gateway.port}", "--key", key]
    before = len(upstream.seen)
    judge = ["--judge", "model:openai/gpt-4o-mini", "--budget", "5"]
    asked = ["replays", "start", *originals, "-t", "openai/gpt-4o", "-t", "local/gpt-4o", "--dry-run", *judge, *place]
    assert command(asked) == 0
    said = capsys.readouterr().out
    assert f"{CALLS} generations, {4 * CALLS} calls, $" in said
    assert f"and {CALLS} calls that nobody can price" in said
    assert "judge openai/gpt-4o-mini" in said
    assert f"{CALLS} unpriced" in said
    assert said.startswith("Nothing was sent.")
    assert len(upstream.seen) == before
    assert command(["replays", "start", originals[0], "-t", "openai/gpt-4o", "--json", *place]) == 0
    assert command(["replays", "delete", "last", *place]) == 0
    assert capsys.readouterr().out.rstrip().endswith("is deleted.")
    assert command(["replays", "delete", "run_01M8D6HWN4M36X41AN7SE5TS0Q", *place]) == 1
    assert "404" in capsys.readouterr().err


def test_old_runs_are_forgotten(tmp_path: Path, upstream: ScriptedUpstream):
    """What ended longer ago than `replays.retention_days` is deleted when a gateway starts; younger runs stay."""
    kept = settings(upstream, replays={"retention_days": 7})
    with inprocess.running(tmp_path, kept) as gateway:
        key = gateway.key()
        made = [call(gateway, key, f"n{at}") for at in range(2)]
        old, young = (ended(gateway, key, started(gateway, key, ids=made)) for _ in range(2))
    database = apsw.Connection(str(tmp_path / "data" / "replays" / "runs.db"))
    age = "UPDATE runs SET finished_ms = finished_ms - ? WHERE run_id = ?"
    for run, days in ((old, 7), (young, 6)):
        database.execute(age, (days * 86_400_000, run["run_id"]))
    database.close()
    with inprocess.running(tmp_path, kept) as gateway:
        path = f"/v1/replays/{old['run_id']}"
        while gateway.request("GET", path, key=key).status != 404:
            pass
        assert shown(gateway, key, young)["state"] == "finished"
    assert left(tmp_path / "data", old["run_id"]) == []
