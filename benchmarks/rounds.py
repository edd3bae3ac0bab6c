"""One round: a scenario against a target, between two readings of every clock; and the reasons that void it.

The mock and the generator share core 1, the target has core 0.  A round is void when it did not measure the target:
answers failed or went missing, or the schedule was not kept because mock and generator were at their limit.  A peak
counts only when the target, not the load, was at its limit.  A target whose records differ from the calls at the mock
has broken its promise; that fails the whole run.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from benchmarks import clocks
from benchmarks.load import Outcome, Plan
from benchmarks.mock import Behaviour
from benchmarks.statistics import histogram, quantile
from benchmarks.targets import LOAD_CORE, REPOSITORY, Target, end

LEAD_S: Final = 0.15
# Above this share of their core, mock and generator are taken to be the limit.
LOAD_CORES_MAX: Final = 0.85
# Below this share of the offered rate, the schedule was not kept.
RATE_KEPT_MIN: Final = 0.98
TARGET_CORES_BUSY: Final = 0.90
WARM_ROUND_S: Final = 2.0
WINDOW_MIN_S: Final = 0.2
WARM_ROUNDS_MAX: Final = 10
# A round that is not at least 3 % cheaper than the one before says that the target is warm.
WARM_ENOUGH: Final = 0.97


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is sent and what the mock does: `rate` in departures a second, 0 for closed loop over `connections`."""

    name: str
    rate: float = 0.0
    connections: int = 64
    request_bytes: int = 400
    behaviour: Behaviour = field(default_factory=Behaviour)
    stream: bool = False
    warm_s: float = 0.3
    window_s: float = 1.0
    poisson: bool = True

    @property
    def frames(self) -> int:
        """Server-sent events of one stream: role, content, finish, usage, `[DONE]`."""
        return self.behaviour.frames + 4 if self.stream else 0

    @property
    def stream_s(self) -> float:
        """How long one stream lasts at the mock."""
        return (self.behaviour.frames + 1) * self.behaviour.pace_ms / 1000


@dataclass(slots=True)
class Round:
    """The figures of one round.  Times in microseconds, quantiles by name, cores and waiting as shares of one core.

    `void` says why nothing in it counts, `not_peak` why `per_second` is not the most that the target can do, `broken`
    which promise the target broke.
    """

    target: str
    scenario: str
    number: int = 0
    requests: int = 0
    frames: int = 0
    per_second: float = 0.0
    cpu_us_per_request: float = 0.0
    cpu_us_per_frame: float = 0.0
    target_cores: float = 0.0
    mock_cores: float = 0.0
    generator_cores: float = 0.0
    target_waiting: float = 0.0
    load_waiting: float = 0.0
    latency_us: dict[str, float] = field(default_factory=dict[str, float])
    first_byte_us: dict[str, float] = field(default_factory=dict[str, float])
    frame_delay_us: dict[str, float] = field(default_factory=dict[str, float])
    gap_excess_us: dict[str, float] = field(default_factory=dict[str, float])
    split_us: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    slowest: dict[str, int] = field(default_factory=dict[str, int])
    latency_histogram_us: dict[int, int] = field(default_factory=dict[int, int])
    instructions_per_request: float | None = None
    rss_bytes: int = 0
    sent: int = 0
    failed: int = 0
    lost: int = 0
    mock_hits: int = 0
    records: int | None = None
    backlog_max: int = 0
    first_error: str = ""
    void: str = ""
    not_peak: str = ""
    broken: str = ""


class Bench:
    """The mock and the generator, both on core 1; use as a context manager.

    With `instructions` every round also counts user-mode instructions, where the machine lets perf do so. A `scale`
    below 1 shortens every window, to try the harness itself: such figures are not to be quoted.
    """

    def __init__(self, *, instructions: bool = False, scale: float = 1.0) -> None:
        self._count_instructions = instructions
        self.scale = scale
        with clocks.pinned({LOAD_CORE}):
            self._mock = _start("benchmarks.mock")
            self._generator = _start("benchmarks.load")
        self.port = int(_line(self._mock))
        self._serial = 0
        self._seed = 0
        self._records: dict[Target, int | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._generator, self._mock):
            end(process)
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    pipe.close()

    def hits(self) -> int:
        """Calls that have reached the mock."""
        return int(self._control("stats", None)["hits"])

    def behave(self, behaviour: Behaviour) -> None:
        """Tell the mock what to do."""
        self._control("behave", asdict(behaviour))

    def run(self, target: Target, scenario: Scenario) -> Round:
        """One round."""
        self.behave(scenario.behaviour)
        hits = self.hits()
        records = self._records[target] if target in self._records else target.records()
        round_ = self._measure(target, scenario)
        round_.mock_hits = self.hits() - hits
        after = target.records()
        round_.records = None if after is None or records is None else after - records
        self._records[target] = after
        if round_.records is not None and is_broken(round_.records, round_.mock_hits, round_.failed):
            round_.broken = f"{round_.records} records for {round_.mock_hits} calls at the mock, {round_.failed} failed"
        return round_

    def forget(self, target: Target) -> None:
        """Count the target's records anew before its next round: others than the rounds have made some."""
        self._records.pop(target, None)

    def warm(self, target: Target) -> float:
        """Let a target compile, cache and connect until its cost no longer falls; gives its requests a second then.

        Node takes more than ten seconds to get there.
        """
        self.behave(Behaviour())
        self.forget(target)
        last = math.inf
        per_second = 0.0
        for _ in range(WARM_ROUNDS_MAX):
            round_ = self._measure(target, Scenario("warm", connections=32, window_s=WARM_ROUND_S))
            per_second = max(per_second, round_.per_second)
            if round_.cpu_us_per_request > last * WARM_ENOUGH:
                break
            last = round_.cpu_us_per_request
        return per_second

    def _measure(self, target: Target, scenario: Scenario) -> Round:
        if self.scale != 1.0:
            scenario = replace(scenario, window_s=max(scenario.window_s * self.scale, WINDOW_MIN_S))
        warm_s = LEAD_S + scenario.warm_s + (scenario.stream_s if scenario.stream else 0)
        from_ns = time.monotonic_ns() + int(warm_s * 1e9)
        until_ns = from_ns + int(scenario.window_s * 1e9)
        self._seed += 1
        plan = Plan(
            host="127.0.0.1",
            port=target.port,
            path=target.path,
            headers=target.headers,
            model=target.model,
            body_bytes=scenario.request_bytes,
            stream=scenario.stream,
            rate=scenario.rate,
            connections=scenario.connections,
            from_ns=from_ns,
            until_ns=until_ns,
            poisson=scenario.poisson,
            seed=self._seed,
            first_serial=self._serial,
        )
        _write(self._generator, plan)
        before = self._read(target, from_ns)
        counted = self._count_instructions and target.pids()
        instructions = clocks.count_instructions(target.pids(), scenario.window_s) if counted else None
        after = self._read(target, until_ns)
        rss = clocks.rss_bytes(target.pids())
        outcome = Outcome(**json.loads(_line(self._generator)))
        self._serial += outcome.sent
        round_ = _figures(target, scenario, outcome, {name: after[name].since(before[name]) for name in before})
        round_.rss_bytes = rss
        if instructions and outcome.window_done:
            round_.instructions_per_request = instructions / outcome.window_done
        _judge(round_, scenario, outcome)
        return round_

    def _read(self, target: Target, at_ns: int) -> dict[str, clocks.Reading]:
        groups = {"mock": [self._mock.pid], "generator": [self._generator.pid]}
        time.sleep(max(0.0, (at_ns - time.monotonic_ns()) / 1e9))
        groups["target"] = target.pids()
        return {name: clocks.read(pids) for name, pids in groups.items()}

    def _control(self, verb: str, document: dict[str, Any] | None) -> dict[str, Any]:
        body = json.dumps(document).encode() if document is not None else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/mock/{verb}", body, timeout=10) as answer:
            return json.load(answer)


def is_broken(records: int, hits: int, failed: int) -> bool:
    """Whether records were lost or invented: a call refused before dispatch has one, though the mock never saw it."""
    return not 0 <= records - hits <= failed


def _figures(target: Target, scenario: Scenario, outcome: Outcome, spent: dict[str, clocks.Spent]) -> Round:
    cpu_us = spent["target"].cpu_ns / 1000
    return Round(
        target=target.name,
        scenario=scenario.name,
        requests=outcome.window_done,
        frames=outcome.window_frames,
        per_second=outcome.window_done / (spent["target"].wall_ns / 1e9),
        cpu_us_per_request=cpu_us / outcome.window_done if outcome.window_done else 0.0,
        cpu_us_per_frame=cpu_us / outcome.window_frames if outcome.window_frames else 0.0,
        target_cores=spent["target"].cores,
        mock_cores=spent["mock"].cores,
        generator_cores=spent["generator"].cores,
        target_waiting=spent["target"].waiting_ns / spent["target"].wall_ns,
        load_waiting=(spent["mock"].waiting_ns + spent["generator"].waiting_ns) / spent["mock"].wall_ns,
        latency_us=_quantiles(outcome.latency_ns),
        first_byte_us=_quantiles(outcome.first_byte_ns),
        frame_delay_us=_quantiles(outcome.frame_delay_ns),
        gap_excess_us=_quantiles([abs(gap) for gap in outcome.gap_excess_ns]),
        split_us={name: _quantiles([us * 1000 for us in values]) for name, values in outcome.split_us.items()},
        slowest=outcome.slowest,
        latency_histogram_us=histogram([ns // 1000 for ns in outcome.latency_ns]),
        sent=outcome.sent,
        failed=outcome.failed,
        lost=outcome.lost,
        backlog_max=outcome.backlog_max,
        first_error=outcome.first_error,
    )


def _judge(round_: Round, scenario: Scenario, outcome: Outcome) -> None:
    load_cores = round_.mock_cores + round_.generator_cores
    offered = scenario.rate * scenario.window_s
    if outcome.failed or outcome.lost or not outcome.window_done:
        round_.void = f"{outcome.failed} failed, {outcome.lost} lost: {outcome.first_error[:200]}"
    elif scenario.stream and outcome.frames != outcome.done * scenario.frames:
        round_.void = f"{outcome.frames} frames arrived of {outcome.done * scenario.frames}"
    elif scenario.rate and load_cores >= LOAD_CORES_MAX:
        round_.void = f"mock and generator used {load_cores:.0%} of their core: they were the limit"
    elif scenario.rate and outcome.window_done < offered * RATE_KEPT_MIN - 3 * offered**0.5:
        round_.void = f"{outcome.window_done} answers in a window of {offered:.0f} offered"
    if not scenario.rate and (load_cores >= LOAD_CORES_MAX or round_.target_cores < TARGET_CORES_BUSY):
        shares = f"the target used {round_.target_cores:.0%} of its core, the load {load_cores:.0%} of the other"
        round_.not_peak = shares


def _quantiles(samples_ns: list[int]) -> dict[str, float]:
    ordered = sorted(samples_ns)
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: quantile(ordered, share) / 1000 for name, share in shares.items()} if ordered else {}


def _start(module: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY)


def _write(process: subprocess.Popen[bytes], plan: Plan) -> None:
    if process.stdin is None:
        raise RuntimeError("the generator has no input")
    process.stdin.write(json.dumps(asdict(plan)).encode() + b"\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[bytes]) -> bytes:
    line = process.stdout.readline() if process.stdout else b""
    if not line:
        raise RuntimeError("the mock or the generator ended by itself")
    return line
