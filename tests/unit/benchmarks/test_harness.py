"""The harness judged by what it must never do: measure itself, count a lost call, or flatter a store."""

from __future__ import annotations

import json
import os
import time
import urllib.request
import zlib
from xml.etree import ElementTree as ET

import pytest
from benchmarks import charts, clocks, conversation, figures, goals, lookups, memory, misses, peers
from benchmarks.bodies import STAMP_MARK, chat_request, chat_response, stream_frames
from benchmarks.compare import Series, running
from benchmarks.load import Outcome, parse_splits
from benchmarks.mock import Behaviour, _request_size
from benchmarks.report import table
from benchmarks.rounds import Bench, Round, Scenario, _judge, is_broken
from benchmarks.scenarios import PEAK, STREAMS, slowed
from benchmarks.statistics import estimate, histogram, quantile
from benchmarks.targets import Audit, Counterfoil, Direct, Variant

from counterfoil.capture.sharing import bucket_of
from counterfoil.ledger.verify import Verifier


@pytest.mark.parametrize("size", [400, 1_000, 10_000, 400_000], ids="{}".format)
def test_request_has_the_size_asked_for_and_is_never_the_same_twice(size):
    """A request is JSON of the size asked for, and its serial is the only difference between two."""
    template = chat_request("gpt-4o-mini", size)
    one, two = template.fill(1), template.fill(2)
    assert json.loads(one)["model"] == "gpt-4o-mini"
    assert len(one) == len(two) == template.bytes_total == size
    assert one != two


def test_requests_are_no_conversation():
    """Two calls part within their first bytes, so the ledger does not take them for turns of one conversation."""
    template = chat_request("mock/gpt-4o-mini", 400_000, stream=True)
    one, two = (bucket_of("team", "key", template.fill(serial)) for serial in (1, 2))
    assert one != two


def test_bodies_compress_like_prose_and_not_like_a_repeated_letter():
    """A compressor gains between twice and six times on a body, as it does on text."""
    body = chat_response(10_000, seed=3).fill(1)
    assert 2 < len(body) / len(zlib.compress(body)) < 6


def test_stream_ends_with_usage_and_done_and_only_content_frames_carry_a_stamp():
    """A stream has a role frame, its content frames, a finish, usage and [DONE]."""
    frames = stream_frames(5)
    assert len(frames) == 5 + 4
    assert [STAMP_MARK.encode() in frame for frame in frames] == [False, *[True] * 5, False, False, False]
    assert json.loads(frames[-2][6:])["usage"]["completion_tokens"] == 5
    assert frames[-1] == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"POST /v1/x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", (44, 42)),
        (b"POST /v1/x HTTP/1.1\r\ncontent-length: 2\r\n\r\n", (44, 42)),
        (b"POST /v1/x HTTP/1.1\r\nContent-", (0, 0)),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", (36, 36)),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", (59, 47)),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", (0, 47)),
    ],
    ids=["whole", "body to come", "cut head", "no body", "chunked", "chunked, cut"],
)
def test_mock_finds_the_end_of_a_request(request_bytes, expected):
    """The size is known once the head is whole, and for a chunked body once its last chunk is there."""
    size, body_at = _request_size(request_bytes)
    assert (size, body_at) == expected or (size == expected[0] == 0)


def test_quantiles_and_intervals_of_known_samples():
    """Quantiles interpolate, an interval holds its median, and no round gives no figure."""
    assert quantile([1, 2, 3, 4], 0.5) == 2.5
    found = estimate([10.0, 11.0, 12.0, 13.0, 50.0])
    assert found.low <= found.value == 12.0 <= found.high
    assert estimate([]).rounds == 0
    assert figures.text(estimate([])) == "–"


@pytest.mark.parametrize("sample", [1, 31, 32, 1_000, 1_234_567], ids="{}".format)
def test_histogram_buckets_are_within_seven_percent(sample):
    """A bucket's name is at most the sample and less than seven percent below it."""
    (bucket,) = histogram([sample])
    assert bucket <= sample < bucket * 1.07 + 1


def test_ratio_pairs_rounds_of_one_number_and_leaves_void_ones_out():
    """A ratio is taken between rounds of one number; a void round takes its pair out with it."""
    rounds = [
        Round("a", "s", number=0, cpu_us_per_request=20),
        Round("b", "s", number=0, cpu_us_per_request=10),
        Round("a", "s", number=1, cpu_us_per_request=900),
        Round("b", "s", number=1, cpu_us_per_request=1, void="lost"),
        Round("a", "s", number=2, cpu_us_per_request=40),
        Round("b", "s", number=2, cpu_us_per_request=20),
    ]
    found = Series(tuple(rounds)).ratio("s", "a", "b", figures.cpu_per_request)
    assert (found.value, found.rounds) == (2.0, 2)


@pytest.mark.parametrize(
    ("round_", "scenario", "outcome", "void"),
    [
        (Round("x", "s"), PEAK, Outcome(failed=1, window_done=9), "1 failed"),
        (Round("x", "s"), PEAK, Outcome(lost=2, window_done=9), "2 lost"),
        (Round("x", "s"), STREAMS, Outcome(done=2, frames=135, window_done=2), "135 frames arrived of 136"),
        (Round("x", "s", mock_cores=0.5, generator_cores=0.4), Scenario("s", rate=9), Outcome(window_done=9), "limit"),
        (Round("x", "s"), Scenario("s", rate=1000), Outcome(window_done=500), "of 1000 offered"),
        (Round("x", "s"), Scenario("s", rate=1000), Outcome(window_done=990), ""),
    ],
    ids=["failed", "lost", "frame missing", "load at its limit", "schedule not kept", "good"],
)
def test_rounds_that_did_not_measure_the_target_are_void(round_, scenario, outcome, void):
    """A failed or missing answer, a missing frame and a load at its limit each void a round."""
    _judge(round_, scenario, outcome)
    assert void in round_.void
    assert bool(void) == bool(round_.void)


def test_a_peak_that_the_load_set_is_not_called_a_peak():
    """Requests a second count only when the target, not the load, was at its limit."""
    round_ = Round("x", "s", target_cores=0.4, mock_cores=0.5, generator_cores=0.5, per_second=9)
    _judge(round_, PEAK, Outcome(window_done=9))
    assert not round_.void
    assert Series((round_,)).peak("s", "x").rounds == 0


def test_a_slow_target_gets_less_and_a_fast_one_the_same():
    """Open loops are slowed to what a target can bear; closed loops never."""
    assert slowed(STREAMS, 50).rate < 5
    assert slowed(STREAMS, 50_000) == STREAMS
    assert slowed(PEAK, 50) == PEAK


def test_split_header_is_read_in_microseconds():
    """Server-Timing durations are milliseconds."""
    assert parse_splits([b"gw;dur=0.04, upstream;dur=1.2", b"gw;dur=0.06"]) == {"gw": [40, 60], "upstream": [1200]}


def test_cpu_of_a_process_is_what_it_used_itself():
    """The clock read from outside agrees with the process's own, in nanoseconds."""
    before, own = clocks.read([os.getpid()]), time.process_time_ns()
    while time.process_time_ns() - own < 30_000_000:
        pass
    spent = clocks.read([os.getpid()]).since(before)
    assert 29_000_000 < spent.cpu_ns < 60_000_000


def test_every_call_and_frame_of_a_round_comes_back_from_the_mock():
    """Unary and streamed rounds against the mock alone: nothing lost, calls equal hits, latency and frames measured."""
    with Bench() as bench:
        target = Direct()
        target.start(bench.port)
        unary = bench.run(target, Scenario("u", rate=200, connections=8, warm_s=0.05, window_s=0.3))
        behaviour = Behaviour(frames=6, pace_ms=5)
        streamed = bench.run(
            target,
            Scenario("s", rate=20, connections=8, stream=True, warm_s=0.0, window_s=0.4, behaviour=behaviour),
        )
        large = bench.run(
            target, Scenario("l", rate=10, connections=2, request_bytes=400_000, warm_s=0.05, window_s=0.3)
        )
    for round_ in (unary, streamed, large):
        assert (round_.failed, round_.lost, round_.first_error) == (0, 0, "")
        assert round_.mock_hits == round_.sent > 0
    assert unary.latency_us["p50"] > 0
    assert streamed.frames > 0
    assert streamed.frame_delay_us["p50"] > 0


def test_mock_waits_as_long_as_it_is_told():
    """A latency of 30 ms shows in the time to the first byte."""
    with Bench() as bench:
        bench._control("behave", {"latency_ms": 30})
        call = urllib.request.Request(f"http://127.0.0.1:{bench.port}/v1/chat/completions", b"{}")
        began = time.monotonic()
        with urllib.request.urlopen(call, timeout=10) as answer:
            answer.read()
    assert time.monotonic() - began >= 0.03


def test_a_difference_between_records_and_calls_breaks_the_run():
    """A target that keeps fewer records than the mock had calls is reported as broken."""

    class Forgetful(Direct):
        name = "forgetful"

        def records(self):
            return 0

    with Bench() as bench:
        target = Forgetful()
        target.start(bench.port)
        round_ = bench.run(target, Scenario("u", rate=50, connections=4, warm_s=0.0, window_s=0.2))
    assert "0 records for" in round_.broken
    assert Series((round_,)).broken


@pytest.mark.parametrize(
    ("failed", "records", "broken"),
    [(0, 10, False), (0, 9, True), (0, 11, True), (3, 13, False), (3, 14, True), (3, 9, True)],
    ids=["equal", "lost", "invented", "refused with record", "more than refused", "lost beside refusals"],
)
def test_only_calls_refused_before_dispatch_may_have_records_beyond_the_mock(failed, records, broken):
    """Records equal hits, plus at most one for each failed call; fewer is always a loss."""
    assert is_broken(records, hits=10, failed=failed) is broken


def test_missing_peers_say_so(monkeypatch, tmp_path):
    """A peer that is not installed gives its reason and is not started."""
    monkeypatch.setattr(peers, "SCRATCH", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert all(peer().missing() for peer in (peers.LiteLLM, peers.Portkey, peers.Bifrost, peers.Aiohttp))


def test_names_of_the_audit_matrix_differ():
    """Each policy is a target of its own name, so its rounds are told apart."""
    names = {Counterfoil(Audit(capture, sync)).name for capture in ("full", "off") for sync in ("fsync", "write")}
    assert len(names) == 4


def _round(scenario, target, **figures):
    return {"scenario": scenario.name, "target": target, "requests": 1, **figures}


def test_the_table_of_goals_says_what_is_met_and_what_was_not_measured():
    """A goal is met, missed or not measured; each target has its own figures in its own column."""
    rounds = [
        _round(PEAK, "nginx", cpu_us_per_request=10.0),
        _round(PEAK, "counterfoil", cpu_us_per_request=45.0, per_second=9000.0),
        _round(PEAK, "portkey", cpu_us_per_request=900.0),
        _round(STREAMS, "nginx", cpu_us_per_frame=10.0),
        _round(STREAMS, "counterfoil", cpu_us_per_frame=14.0),
    ]
    targets = {name: {"skipped": "", "rss_idle_bytes": 60e6} for name in ("nginx", "counterfoil", "portkey")}
    targets["litellm"] = {"skipped": "not installed"}
    lookups = [{"records": n, "by_id_p99_us": us} for n, us in ((10_000, 100.0), (10_000_000, 140.0))]
    documents = {
        "compare": {"targets": targets, "rounds": rounds},
        "growth": {"growth": {"lookups": lookups}},
        "lookup": {"lookup": {"calls": 10, "misses": 0, "http_misses": 1}},
        "memory": {"memory": {"bytes_per_100k_calls": 1000, "calls": 5, "minutes": 1.0}},
        "conversation": {"conversation": [{"turns": 100, "conversation": "chat", "ratio": 1.2}]},
    }
    head, rows = goals.table(documents)
    assert head[3:] == ["counterfoil", "", "nginx", "portkey"]
    marks = {(row[0], row[4]) for row in rows}
    assert marks == {
        ("P1", "met"), ("P2", "missed"), ("P3", "–"), ("P4", "–"), ("P5", "–"), ("P6", "missed"), ("P7", "missed"),
        ("P8", "met"), ("P11", "–"), ("P11", "met"), ("P13", "–"), ("P14", "met"),
    }  # fmt: skip
    assert next(row[3] for row in rows if row[0] == "P8") == "0.140; 1.40"
    assert next(row[6] for row in rows if row[0] == "P3").startswith("20.00")


def test_nothing_measured_is_an_empty_table():
    """Without results there is a head and no rows."""
    assert goals.table({}) == (["", "figure", "goal", "counterfoil", ""], [])


def test_every_call_is_there_when_its_last_byte_is():
    """P7 in short: each of some thousand calls is found at once, by another process and over HTTP."""
    with Bench() as bench:
        found = misses.measure(bench, calls=1500, round_s=0.5)
    assert found["calls"] >= 1500
    assert found["streamed"] > 0
    assert found["http_lookups"] > 0
    assert (found["misses"], found["http_misses"], found["failed"]) == (0, 0, 0)


@pytest.mark.parametrize(("kind", "stream"), [(conversation.Chat, False), (conversation.Messages, True)])
def test_a_conversation_through_the_gateway_is_not_kept_once_a_turn(kind, stream):
    """P14 in short: what a dozen turns take is near the last transcript, and far from all transcripts."""
    found = conversation.converse(kind(stream=stream), 12)
    assert found["turns"] == 12
    assert found["ratio"] < 2 < found["ratio_whole"] / 3


def test_a_gateway_without_a_ledger_writes_nothing():
    """What the audit tax is measured against answers every call and keeps none."""
    with Bench() as bench, running(Variant("no ledger", ledger=False), bench.port) as target:
        round_ = bench.run(target, Scenario("u", rate=100, connections=4, warm_s=0.0, window_s=0.3))
        assert (round_.void, round_.records) == ("", None)
        assert target.stats()["records"] == 0


def test_a_prepared_ledger_answers_and_is_made_once(monkeypatch, tmp_path):
    """The ledgers of the lookup table hold, have what is asked of them, and are used again."""
    monkeypatch.setattr(lookups, "SCRATCH", tmp_path)
    folder, ids = lookups.prepared(3000)
    row = lookups._ask(folder, ids)
    assert row["bytes_per_record"] > 300
    report = Verifier(folder, now_ms=lookups._FIRST_MS, deep=False).run()
    assert (report.records, report.problems) == (3000, [])
    made = folder.ledger_db.stat().st_mtime_ns
    assert lookups.prepared(3000)[0].ledger_db.stat().st_mtime_ns == made


def test_a_slope_is_found_in_steps():
    """Memory that grows by two bytes a call has that slope."""
    assert memory._slope([(0, 100), (10, 120), (20, 140)]) == pytest.approx(2.0)


def test_charts_and_tables_have_what_they_are_given():
    """A chart is well-formed XML with every value; nothing to draw gives nothing."""
    drawn = [
        charts.bars("CPU", {"nginx": 14.0, "a<b": 1400.0}, "µs"),
        charts.lines("growth", "streams", [1, 10, 100], {"nginx": [1.0, 2.0, None], "counterfoil": [2.0, 3.0, 4.0]}),
    ]
    assert all(ET.fromstring(svg) is not None for svg in drawn)
    assert "1,400" in drawn[0]
    assert charts.bars("none", {}, "µs") == ""
    assert table(["a", "b"], [["1", "2"]]) == ["| a | b |", "| --- | --: |", "| 1 | 2 |", ""]
