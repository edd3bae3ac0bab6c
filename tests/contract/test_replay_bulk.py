"""Many recorded generations, run again."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from counterfoil.record import ids
from emulators import inprocess
from emulators.bulk import call, ended, record, report, results, started, until
from emulators.inprocess import InProcess
from emulators.scripted import ScriptedUpstream, Seen, answer, chat_answer
from emulators.waiting import PATIENCE_S

PROMPTS = 12


class Provider:
    """Answers by model and prompt; ``gate`` holds answers back while it is shut, ``refuse`` gives 429s first."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.refuse = 0
        self.asked_at: list[float] = []

    def __call__(self, seen: Seen):
        self.asked_at.append(time.monotonic())
        self.gate.wait(PATIENCE_S)
        asked = seen.json
        if self.refuse:
            self.refuse -= 1
            return answer({"error": {"message": "slow down", "type": "rate_limit"}}, 429, retry_after="0")
        text = asked["messages"][-1]["content"]
        if "<candidate>" in text:
            good = "HELLO" not in text.split("<candidate>")[1]
            return answer(chat_answer(json.dumps({"score": 1.0 if good else 0.2}), prompt=50))
        if asked["model"] == "gpt-4o":
            text = text.upper() if "3" in text else f"Hello, {text}."
            return answer(chat_answer(f"{text} HELLO" if "5" in text else text, "gpt-4o", completion=6))
        return answer(chat_answer(f"Hello, {text}.", asked["model"], completion=3))


@pytest.fixture(scope="module")
def provider() -> Provider:
    """Give the provider's manners."""
    return Provider()


@pytest.fixture(scope="module")
def upstream(provider) -> Iterator[ScriptedUpstream]:
    """Give a provider."""
    with ScriptedUpstream(provider) as running:
        yield running


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, upstream) -> Iterator[InProcess]:
    """Give a gateway in front of it."""
    settings = {"providers": {"openai": {"base_url": upstream.base_url, "api_key": "sk-operator"}}}
    with inprocess.running(tmp_path_factory.mktemp("bulk"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def key(gateway) -> str:
    """Give a key of the team."""
    return gateway.key("acme")


@pytest.fixture(scope="module")
def originals(gateway, key) -> list[str]:
    """Give the ids of a dozen calls."""
    return [call(gateway, key, f"number {at}") for at in range(PROMPTS)]


def test_a_run_over_a_filter(gateway, upstream, key, originals):
    """Each generation of the filter runs at each target, once, and every rerun has a record that names its original."""
    upstream.seen.clear()
    targets = ["openai/gpt-4o", {"name": "warmer", "patch": {"temperature": 1}}]
    run = started(gateway, key, filter={"model": "openai/gpt-4o-mini"}, targets=targets, name="Try it")
    done = ended(gateway, key, run)
    assert (done["state"], done["items"]) == ("finished", PROMPTS)
    assert done["progress"]["done"] == len(upstream.seen) == 2 * PROMPTS
    found = results(gateway, key, run)
    assert [one["a"]["request_id"] for one in found] == [one for one in sorted(originals) for _ in targets]
    for one in found:
        [tried] = one["tries"]
        made = record(gateway, key, tried["request_id"])
        assert made["replay_of"] == one["a"]["request_id"]
        assert made["cost_nanos"] == tried["cost_nanos"] == one["b"]["cost_nanos"]
    assert done["progress"]["spent_nanos"] == sum(one["b"]["cost_nanos"] for one in found)
    assert sum(seen.json.get("temperature") == 1 for seen in upstream.seen) == PROMPTS


def test_reruns_are_not_run_again_unless_asked_for(gateway, key, originals):
    """A filter finds originals; reruns of earlier runs are among them only when the filter says so."""
    first = ended(gateway, key, started(gateway, key, ids=originals[:2]))
    assert first["progress"]["done"] == 2
    run = started(gateway, key, filter={"model": "openai/gpt-4o-mini"}, sample=1)
    assert run["excluded"] == {"not_sampled": PROMPTS - 1}
    again = started(gateway, key, filter={"model": "openai/gpt-4o-mini", "reruns": True}, sample=1)
    assert again["excluded"]["not_sampled"] > PROMPTS


@pytest.mark.usefixtures("originals")
def test_a_sample_is_drawn_by_its_seed(gateway, key):
    """The same seed draws the same generations; another one others."""

    def drawn(seed: int) -> list[str]:
        run = started(gateway, key, filter={"model": "openai/gpt-4o-mini"}, sample=5, seed=seed)
        ended(gateway, key, run)
        return [one["a"]["request_id"] for one in results(gateway, key, run)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_report(gateway, key, originals):
    """The report holds the originals against the target over the same items, and knows the lines of its money."""
    run = started(gateway, key, ids=originals, targets=["openai/gpt-4o"])
    ended(gateway, key, run)
    [target] = report(gateway, key, run)["targets"]
    found = results(gateway, key, run)
    costs = target["metrics"]["cost_nanos"]
    assert costs["target"]["total"] == sum(one["b"]["cost_nanos"] for one in found)
    assert costs["original"]["total"] == sum(one["a"]["cost_nanos"] for one in found)
    assert costs["target"]["p50"] == found[0]["b"]["cost_nanos"]
    assert target["metrics"]["completion_tokens"]["ratio"] == 2.0
    assert target["agreement"]["compared"] == PROMPTS
    assert target["agreement"]["equal"] == sum(one["agreement"]["equal"] for one in found) == PROMPTS - 2
    assert sum(target["agreement"]["histogram"]) == PROMPTS
    assert [one["original"] for one in target["largest"]] == [originals[3], originals[5]]
    difference = gateway.request("GET", target["largest"][0]["diff"], key=key).json()
    assert difference["text"]["similarity"] == target["largest"][0]["similarity"]
    assert target["month"] is None
    text = gateway.request("GET", f"/v1/replays/{run['run_id']}/report?format=markdown", key=key)
    assert text.headers["content-type"].startswith("text/markdown")
    assert "openai/gpt-4o" in text.body.decode()
    page = gateway.request("GET", f"/v1/replays/{run['run_id']}/report?format=html&texts=true", key=key)
    assert page.status == 200
    assert "<ins>" in page.body.decode()


@pytest.mark.usefixtures("originals")
def test_the_month_is_reckoned_by_what_the_pairs_cost(gateway, key):
    """The month's known cost is scaled by the ratio of the pairs, in whole nanos."""
    run = started(gateway, key, filter={"model": "openai/gpt-4o-mini"}, targets=["openai/gpt-4o"], sample=6)
    ended(gateway, key, run)
    [target] = report(gateway, key, run)["targets"]
    month, costs = target["month"], target["metrics"]["cost_nanos"]
    assert month["records"] == PROMPTS
    assert month["pairs"] == 6
    assert month["target_nanos"] == month["original_nanos"] * costs["target"]["total"] // costs["original"]["total"]


def test_an_unknown_price_never_passes_for_nothing(gateway, key, originals):
    """A target nobody prices runs without a budget, its costs are unknown everywhere; under one it does not."""
    run = started(gateway, key, ids=originals[:3], targets=["openai/gpt-nobody"])
    done = ended(gateway, key, run)
    [target] = report(gateway, key, run)["targets"]
    assert done["progress"]["spent_nanos"] == 0
    assert (target["unpriced"], target["unpriced_meters"]) == (3, {"input_tokens": 3, "output_tokens": 3})
    assert target["metrics"]["cost_nanos"]["target"] == {
        "known": 0, "unknown": 3, "total": None, "mean": None, "p50": None, "p90": None, "p99": None,
    }  # fmt: skip
    text = gateway.request("GET", f"/v1/replays/{run['run_id']}/report?format=markdown", key=key).body.decode()
    assert "| | target | unknown | unknown | unknown | unknown | 3 |" in text
    named = "3 reruns are not wholly priced: input_tokens (3), output_tokens (3)."
    page = gateway.request("GET", f"/v1/replays/{run['run_id']}/report?format=html", key=key).body.decode()
    assert named in text
    assert named in page
    bound = ended(
        gateway, key, started(gateway, key, ids=originals[:3], targets=["openai/gpt-nobody"], budget_nanos=10**9)
    )
    assert bound["progress"]["skipped"] == 3
    assert {one["reason"] for one in results(gateway, key, bound)} == {"unpriced"}


def test_the_budget_stops_the_run_before_it_is_passed(gateway, upstream, key, originals):
    """No call is sent that might pass the budget; a larger budget goes on where it stopped and pays nothing twice."""
    upstream.seen.clear()
    estimate = gateway.request("POST", f"/v1/generations/{originals[0]}/replay", {"dry_run": True}, key=key).json()
    budget = estimate["estimate"]["high_nanos"] * 2
    run = started(gateway, key, ids=originals, budget_nanos=budget, concurrency=8)
    stopped = ended(gateway, key, run)
    assert (stopped["state"], stopped["reason"]) == ("stopped", "budget")
    assert 0 < stopped["progress"]["done"] < PROMPTS
    assert stopped["progress"]["spent_nanos"] <= budget
    path = f"/v1/replays/{run['run_id']}/resume"
    assert gateway.request("POST", path, {"budget_nanos": 10**12}, key=key).status == 200
    assert ended(gateway, key, run)["progress"]["done"] == PROMPTS == len(upstream.seen)


def test_cancel_and_resume(gateway, upstream, provider, key, originals):
    """Cancelled, a run starts nothing more; what was in flight ends and counts; resumed, it does the rest."""
    provider.gate.clear()
    try:
        upstream.seen.clear()
        run = started(gateway, key, ids=originals, concurrency=2)
        until(gateway, key, run, lambda found: found["in_flight"] == 2 and len(upstream.seen) == 1)
        cancelled = gateway.request("POST", f"/v1/replays/{run['run_id']}/cancel", key=key).json()
        assert cancelled["cancelled"]
    finally:
        provider.gate.set()
    stopped = ended(gateway, key, run)
    assert (stopped["state"], stopped["progress"]["done"]) == ("cancelled", 2)
    assert gateway.request("POST", f"/v1/replays/{run['run_id']}/resume", key=key).status == 200
    assert ended(gateway, key, run)["progress"]["done"] == PROMPTS == len(upstream.seen)


def test_a_rate_holds_calls_back(gateway, provider, key, originals):
    """With room for all at once, the fifth call still does not begin before four intervals of the rate are over."""
    provider.asked_at.clear()
    began = time.monotonic()
    run = started(gateway, key, ids=originals[:5], targets=["openai/gpt-4o"], concurrency=5, rate=5)
    assert ended(gateway, key, run)["progress"]["done"] == len(provider.asked_at) == 5
    assert provider.asked_at[-1] - began >= 4 / 5 - 0.01  # a loop's timer may be a clock tick early


def test_refusals_before_any_work_are_tried_again(gateway, upstream, provider, key, originals):
    """A 429 is tried again as another attempt with a record of its own; the result is the last."""
    provider.refuse = 2
    upstream.seen.clear()
    run = started(gateway, key, ids=originals[:4], concurrency=1)
    done = ended(gateway, key, run)
    assert (done["progress"]["done"], done["progress"]["calls"]) == (4, 6) == (4, len(upstream.seen))
    codes = [tried["error_code"] for one in results(gateway, key, run) for tried in one["tries"]]
    assert sorted(codes, key=str) == [None, None, None, None, "upstream:rate_limited", "upstream:rate_limited"]


def test_an_error_is_a_result(gateway, provider, key, originals):
    """Without retries a refused item has failed, and the report counts it by its code."""
    provider.refuse = 1
    run = started(gateway, key, ids=originals[:4], concurrency=1, retries=0)
    assert ended(gateway, key, run)["progress"] | {"failed": 1, "done": 3} == ended(gateway, key, run)["progress"]
    [target] = report(gateway, key, run)["targets"]
    assert target["errors_by_code"] == {"upstream:rate_limited": 1}
    assert (target["target"]["errors"], target["original"]["errors"]) == (1, 0)
    assert target["agreement"]["not_compared"] == {"failed": 1}


def test_what_cannot_run_says_why(gateway, key, originals):
    """What is not there at the start is left out by reason; what goes meanwhile is skipped by reason."""
    kept_out = call(gateway, key, "secret", x_counterfoil_capture="metadata")
    run = started(gateway, key, ids=[*originals[:1], kept_out])
    assert run["excluded"] == {"policy": 1}
    assert started(gateway, key, 400, ids=[kept_out])["field"] == "filter"
    changed = started(gateway, key, ids=originals[:1], targets=[{"edits": [{"path": "/nowhere/1", "value": 1}]}])
    ended(gateway, key, changed)
    assert results(gateway, key, changed)[0]["reason"] == "invalid_field"


def test_judges(gateway, key, originals):
    """Checks, a model and an outsider judge each answer; the model's calls have records and count as spent."""
    judges = [
        {"type": "exact"},
        {"type": "regex", "name": "greets", "pattern": "^Hello, "},
        {"type": "regex", "name": "calm", "pattern": "[A-Z]{4}", "absent": True},
        {"type": "json_schema", "schema": {"type": "object"}},
        {"type": "model", "name": "model", "model": "openai/gpt-4o-mini"},
        {"type": "external", "name": "mine"},
    ]
    run = started(gateway, key, ids=originals, targets=["openai/gpt-4o"], judges=judges)
    done = ended(gateway, key, run)
    verdicts = [{"item": at, "target": 0, "judge": "mine", "passed": at > 0, "score": at / 11} for at in range(PROMPTS)]
    path = f"/v1/replays/{run['run_id']}/verdicts"
    assert gateway.request("POST", path, {"verdicts": verdicts}, key=key).json()["kept"] == PROMPTS
    found = report(gateway, key, run)
    counted = {one["name"]: (one["passed"], one["failed"], one["none"]) for one in found["targets"][0]["judges"]}
    assert counted == {
        "exact": (10, 2, 0), "greets": (11, 1, 0), "calm": (10, 2, 0), "json_schema": (0, 12, 0),
        "model": (11, 1, 0), "mine": (11, 1, 0),
    }  # fmt: skip
    assert done["progress"]["calls"] == 2 * PROMPTS
    judged = [calls for one in results(gateway, key, run) for calls in one["judged"]]
    assert found["judges_nanos"] == sum(record(gateway, key, one["request_id"])["cost_nanos"] for one in judged) > 0
    reruns = sum(one["b"]["cost_nanos"] for one in results(gateway, key, run))
    assert done["progress"]["spent_nanos"] == reruns + found["judges_nanos"]
    _check_marks(gateway, key, run, {one["request_id"] for one in judged}, found["judges_nanos"])


def _check_marks(gateway: InProcess, key: str, run: dict[str, Any], judged: set[str], cost_nanos: int) -> None:
    """The judge's calls say so, are found by it, and can be left out of lists, sums and later runs."""
    of = {calls["request_id"]: one["b"]["request_id"] for one in results(gateway, key, run) for calls in one["judged"]}
    for request_id in judged:
        made = record(gateway, key, request_id)
        assert (made["judge_of"], made["replay_of"]) == (of[request_id], None)

    def found(query: str) -> set[str]:
        rows = gateway.request("GET", f"/v1/generations/search?limit=1000&{query}", key=key).json()["data"]
        return {row["request_id"] for row in rows}

    def summed(query: str) -> dict[str, Any]:
        return gateway.request("GET", f"/v1/generations/summary?{query}", key=key).json()

    one = next(iter(judged))
    assert found(f"judge_of={of[one]}") == {one}
    assert found("judges=true") >= judged
    assert not found("judges=false") & judged
    assert found("reruns=true&judges=true") == set()
    assert found("reruns=true") >= set(of.values())
    assert summed("judges=true")["cost_nanos"] >= cost_nanos
    whole, rest = summed(""), summed("judges=false")
    assert whole["cost_nanos"] - rest["cost_nanos"] == summed("judges=true")["cost_nanos"]
    ordinary = len(found("judges=false&reruns=false"))
    again = ended(gateway, key, started(gateway, key, filter={}, targets=["openai/gpt-4o"]))
    assert again["items"] + sum(again["excluded"].values()) == ordinary
    both = gateway.request("GET", f"/v1/generations/search?judge_of={one}&replay_of={one}", key=key)
    assert (both.status, both.json()["field"]) == (400, "judge_of")


def test_events(gateway, key, originals):
    """The stream has every item once, the last progress is the whole, and it ends with the run."""
    run = started(gateway, key, ids=originals)
    done = gateway.request("GET", f"/v1/replays/{run['run_id']}/events", key=key)
    assert done.headers["content-type"].startswith("text/event-stream")
    events = [
        dict(line.split(": ", 1) for line in part.splitlines()) for part in done.body.decode().strip().split("\n\n")
    ]
    items = [one for one in events if one["event"] == "item"]
    assert sorted(json.loads(one["data"])["item"] for one in items) == list(range(PROMPTS))
    assert events[-1]["event"] == "end"
    assert json.loads(events[-1]["data"])["progress"]["done"] == PROMPTS
    path = f"/v1/replays/{run['run_id']}/events"
    rest = gateway.request("GET", path, key=key, last_event_id=items[-2]["id"]).body.decode()
    assert rest.count("event: item") == 1


def test_another_team_finds_nothing(gateway, key, originals):
    """Another team's run, an unknown one and one that is no id are the same 404, whatever is asked."""
    run = started(gateway, key, ids=originals[:1])
    stranger = gateway.key("other")
    unknown = f"run_{ids.text(1)[4:]}"
    for method, rest in (("GET", ""), ("GET", "/results"), ("GET", "/events"), ("GET", "/report"), ("POST", "/cancel"),
                         ("POST", "/resume"), ("POST", "/verdicts")):  # fmt: skip
        asked = [
            gateway.request(method, f"/v1/replays/{one}{rest}", key=stranger) for one in (run["run_id"], unknown, "x")
        ]
        told = [(done.status, done.body) for done in asked]
        assert told == [(404, b'{"ok":false,"error":"not_found"}')] * 3, (method, rest)
    assert gateway.request("GET", "/v1/replays", key=stranger).json()["data"] == []
    assert started(gateway, stranger, 404, ids=originals[:1]) == {"ok": False, "error": "not_found"}


def test_scopes(gateway, key, originals):
    """A management key needs replay to see runs, content too to start one, and names a team when it has all."""
    reads = gateway.admin.create_management_key(("generations:read", "generations:content")).key
    assert gateway.request("GET", "/v1/replays", key=reads).json()["needs"] == "generations:replay"
    blind = gateway.admin.create_management_key(("generations:replay",)).key
    assert gateway.request("GET", "/v1/replays", key=blind).status == 200
    assert started(gateway, blind, 403, ids=originals[:1])["needs"] == "generations:content"
    full = gateway.admin.create_management_key(("generations:replay", "generations:content")).key
    assert started(gateway, full, 400, ids=originals[:1])["field"] == "team"
    done = gateway.request("POST", "/v1/replays?team=acme", {"ids": originals[:1]}, key=full).json()
    assert done["team_id"] == "acme"
    run = ended(gateway, key, done)
    assert (run["state"], run["progress"]["done"]) == ("finished", 1)


def test_a_revoked_key_stops_its_run(gateway, provider, key, originals):
    """A run acts as the key that started it: revoked, it stops; another key may resume it."""
    issued = gateway.admin.create_key("acme")
    provider.gate.clear()
    try:
        run = started(gateway, issued.key, ids=originals, concurrency=1)
        until(gateway, key, run, lambda found: found["in_flight"] == 1)
        gateway.admin.revoke_key(issued.info.key_id)
    finally:
        provider.gate.set()
    stopped = ended(gateway, key, run)
    assert (stopped["state"], stopped["reason"]) == ("stopped", "key")
    assert stopped["progress"]["done"] <= 1
    assert gateway.request("POST", f"/v1/replays/{run['run_id']}/resume", key=key).status == 200
    assert ended(gateway, key, run)["progress"]["done"] == PROMPTS


@pytest.mark.parametrize(
    "asked",
    [{}, {"ids": ["gen_1"], "filter": {}}, {"filter": {"colour": "red"}}, {"filter": {}, "targets": []},
     {"filter": {}, "targets": ["a/b", "a/b"]}, {"filter": {}, "concurrency": 0}, {"filter": {}, "rate": 0},
     {"filter": {}, "judges": [{"type": "regex", "pattern": "("}]}, {"filter": {}, "budget_nanos": -1},
     {"filter": {}, "judges": [{"type": "json_schema", "schema": {"typo": 1}}]},
     {"filter": {"since": "soon"}}, {"filter": {}, "judges": [{"type": "python", "name": "os:system"}]}],
    ids=str,
)  # fmt: skip
@pytest.mark.usefixtures("originals")
def test_what_no_run_can_be_made_of_is_refused(gateway, upstream, key, asked):
    """With 400, before anything is sent."""
    upstream.seen.clear()
    assert gateway.request("POST", "/v1/replays", asked, key=key).status == 400
    assert upstream.seen == []


def test_the_document_says_what_a_run_takes(gateway):
    """Every reference of the bodies' schemas leads somewhere in the document, and the judges are told apart."""
    document = gateway.request("GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    body = document["paths"]["/v1/replays"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/RunBody"}
    wanted = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schemas)))
    assert wanted <= set(schemas)
    assert set(schemas["RunBody"]["properties"]["judges"]["items"]["discriminator"]["mapping"]) == {
        "exact", "regex", "json_schema", "model", "external",
    }  # fmt: skip
    assert set(schemas["RunFilter"]["properties"]) >= {"since", "from", "to", "model", "max_cost_nanos", "reruns"}
