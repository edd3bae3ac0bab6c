"""The long mode: every target, every scenario, the audit matrix and the growth tables, into one JSON file.

Each part writes what it has as soon as it ends, so a run that is broken off keeps its finished parts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import (
    clocks,
    conversation,
    figures,
    growth,
    ledger_alone,
    machine,
    memory,
    misses,
    stalls,
)
from benchmarks.compare import Series, alternate, running, show_progress
from benchmarks.peers import PEERS
from benchmarks.rounds import Bench, Round, Scenario
from benchmarks.scenarios import FOR_ALL, FOR_FAST, MANY_STREAMS, PEAK, STREAMS, slowed
from benchmarks.targets import REPOSITORY, SCRATCH, Audit, Counterfoil, Direct, Nginx, Target, TargetFailed, Variant

RESULTS: Final = REPOSITORY / "benchmarks/results"
PARTS: Final = ("compare", "audit", "growth", "stalls", "memory", "lookup", "ledger", "conversation")
TRIALS: Final = SCRATCH / "trials"
SETTLE_S: Final = 2.0
# Targets whose peak is above this run the scenarios with a thousand calls a second and more as well.
FAST_PER_SECOND: Final = 1000
AUDITS: Final = (
    Audit("full", "fsync"),
    Audit("full", "write"),
    Audit("metadata", "fsync"),
    Audit("metadata", "write"),
    Audit("off", "fsync"),
)
NO_LEDGER: Final = "no ledger"
# Streams take five seconds a round.
AUDIT_STREAM_ROUNDS: Final = 3


class Report:
    """The JSON document of one run, written anew after every part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = {
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine.describe(),
            "commit": machine.commit(),
        }

    def add(self, **parts: Any) -> None:
        """Put in the parts and write the file."""
        self.document |= parts
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.document, indent=1) + "\n")


def run(parts: Sequence[str], only: Sequence[str], times: int, growth_tables: Sequence[str], scale: float = 1.0) -> int:
    """Measure the parts, write the file, and return the exit status: 1 when a record was lost, invented or late."""
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    report = Report((RESULTS if scale == 1.0 else TRIALS) / f"{name}.json")
    found: list[Series] = []
    failed: list[str] = []
    instructions = bool(report.document["machine"]["instructions_counted"])
    with Bench(instructions=instructions, scale=scale) as bench:
        makers: dict[str, Callable[[], Series]] = {
            "compare": lambda: _compare(bench, report, only, times),
            "audit": lambda: _audit(bench, report, times),
            "growth": lambda: _growth(bench, report, growth_tables, times),
            "stalls": lambda: _stalls(bench, report, times),
            "memory": lambda: _memory(bench, report, scale),
            "lookup": lambda: _lookup(bench, report, failed, scale),
            "ledger": lambda: _ledger(report, times, scale),
            "conversation": lambda: _conversation(report, scale),
        }
        for part in parts:
            began = time.monotonic()
            try:
                found.append(makers[part]())
            except (TargetFailed, AssertionError, OSError, subprocess.CalledProcessError) as error:
                failed.append(f"FAILED: {part}: {error}")
            sys.stderr.write(f"{part}: {time.monotonic() - began:.0f} s\n")
    lines = [*failed, *(line for series in found for line in figures.verdict(series))]
    sys.stdout.write("\n".join([*lines, f"written: {report.path}"]) + "\n")
    return int(bool(failed) or any(series.broken for series in found))


def _growth(bench: Bench, report: Report, tables: Sequence[str], times: int) -> Series:
    made, series = growth.measure(bench, tables, times)
    report.add(growth=made, growth_rounds=[asdict(r) for r in series.rounds])
    return series


def _stalls(bench: Bench, report: Report, times: int) -> Series:
    rows, series = stalls.measure(bench, times)
    report.add(stalls=rows, stall_rounds=[asdict(r) for r in series.rounds])
    return series


def _memory(bench: Bench, report: Report, scale: float) -> Series:
    grown, rounds = memory.measure(bench, scale)
    report.add(memory=grown)
    return Series(tuple(rounds))


def _lookup(bench: Bench, report: Report, failed: list[str], scale: float) -> Series:
    found = misses.measure(bench, int(misses.CALLS * scale), misses.ROUND_S * scale)
    report.add(lookup=found)
    if found["misses"] or found["http_misses"]:
        failed.append(f"MISSED: {found}")
    return Series(())


def _ledger(report: Report, times: int, scale: float) -> Series:
    report.add(ledger=ledger_alone.measure(times, 2.0 * scale, int(ledger_alone.RECORDS * scale)))
    return Series(())


def _conversation(report: Report, scale: float) -> Series:
    report.add(conversation=conversation.measure(max(int(conversation.TURNS * scale), 2)))
    return Series(())


def _compare(bench: Bench, report: Report, only: Sequence[str], times: int) -> Series:
    candidates: list[Target] = [Nginx(), Counterfoil(), *(peer() for peer in PEERS)]
    described: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        present: list[Target] = []
        for target in candidates:
            if not only or target.name in only:
                described[target.name] = _start(bench, stack, target)
                if not described[target.name]["skipped"]:
                    present.append(target)
        report.add(targets=described)
        series = _alternate(bench, present, described, times)
    report.add(targets=described, rounds=[asdict(r) for r in series.rounds])
    return series


def _start(bench: Bench, stack: ExitStack, target: Target) -> dict[str, Any]:
    reason = target.missing()
    if reason:
        return {"skipped": reason}
    began = time.monotonic()
    try:
        stack.enter_context(running(target, bench.port))
    except TargetFailed as failure:
        return {"skipped": str(failure)[:500]}
    start_s = time.monotonic() - began
    time.sleep(SETTLE_S)
    idle = clocks.rss_bytes(target.pids())
    return {
        "skipped": "",
        "version": target.version(),
        "start_s": round(start_s, 2),
        "rss_idle_bytes": idle,
        "per_second_warm": bench.warm(target),
    }


def _alternate(bench: Bench, present: Sequence[Target], described: dict[str, dict[str, Any]], times: int) -> Series:
    direct = Direct()
    direct.start(bench.port)

    def adapt(target: Target, scenario: Scenario) -> Scenario:
        return slowed(scenario, described[target.name]["per_second_warm"]) if target is not direct else scenario

    fast = [t for t in present if described[t.name]["per_second_warm"] > FAST_PER_SECOND]
    rounds: list[Round] = []
    for scenario in (*FOR_ALL, *FOR_FAST):
        chosen = [direct, *(present if scenario in FOR_ALL else fast)]
        rounds.extend(alternate(bench, chosen, [scenario], times, show_progress, adapt).rounds)
    rounds.extend(alternate(bench, [direct, *fast], [MANY_STREAMS], 1, show_progress).rounds)
    return Series(tuple(rounds))


def _audit(bench: Bench, report: Report, times: int) -> Series:
    """The same gateway under every policy, side by side, and one that writes nothing."""
    with ExitStack() as stack:
        kinds = [*(Counterfoil(audit) for audit in AUDITS), Variant(NO_LEDGER, ledger=False)]
        targets = [stack.enter_context(running(kind, bench.port)) for kind in kinds]
        for target in targets:
            bench.warm(target)
        unary = alternate(bench, targets, [PEAK], times, show_progress)
        streams = alternate(bench, targets, [STREAMS], min(times, AUDIT_STREAM_ROUNDS), show_progress)
    series = Series((*unary.rounds, *streams.rounds))
    report.add(audit=[asdict(r) for r in series.rounds])
    return series
