"""Tables and charts in `docs/benchmarks.md`, made anew from result files between two markers.

What a run did not measure is a dash; a target that was skipped is named with the reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import charts, figures
from benchmarks.compare import Series, Value
from benchmarks.full import PARTS, RESULTS
from benchmarks.rounds import Round
from benchmarks.scenarios import ALONE, FEW_STREAMS, LONG_PROMPT, MANY_STREAMS, PEAK, STEADY, STREAMS
from benchmarks.statistics import Estimate
from benchmarks.targets import REPOSITORY

DOCUMENT: Final = REPOSITORY / "docs/benchmarks.md"
CHARTS: Final = REPOSITORY / "docs/benchmarks"
ROUNDS_MIN: Final = 5
BEGIN: Final = "<!-- figures: made by `python -m benchmarks report`, do not edit -->"
END: Final = "<!-- end of figures -->"
_KEYS: Final = {"compare": "rounds", "audit": "audit", "growth": "growth"}


def write(paths: Sequence[Path]) -> int:
    """Replace what lies between the markers; 1 when there are no results or no markers."""
    chosen = _choose(paths or sorted(RESULTS.glob("*.json")))
    if not chosen:
        sys.stdout.write("no results: run `python -m benchmarks full` first\n")
        return 1
    text = DOCUMENT.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.stdout.write(f"{DOCUMENT} has no markers\n")
        return 1
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{render(chosen)}\n{END}{after}")
    sys.stdout.write(f"written: {DOCUMENT}\n")
    return 0


def render(parts: dict[str, dict[str, Any]]) -> str:
    """The Markdown of the parts, and their charts as files."""
    made: list[str] = []
    if "compare" in parts:
        made += _compare(parts["compare"])
    if "audit" in parts:
        made += _audit(parts["audit"])
    if "growth" in parts:
        made += _growth(parts["growth"])
    return "\n".join(made)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, the first column to the left."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)] + [""]


def _choose(paths: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """For each part, the last document that has it."""
    chosen: dict[str, dict[str, Any]] = {}
    for path in paths:
        document = json.loads(path.read_text()) | {"file": path.name}
        chosen |= {part: document for part in PARTS if document.get(_KEYS[part])}
    return chosen


def _source(document: dict[str, Any]) -> str:
    machine, commit = document["machine"], document["commit"]
    sync = machine["fdatasync_us"]
    changed = " with uncommitted changes" if commit["changed"] else ""
    pace = f"fdatasync p50 {sync['p50']} µs, p99 {sync['p99']} µs; load average {machine['load_average']:.1f}"
    return (
        f"Measured {document['made_at']} at commit `{commit['id']}`{changed} on {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}; {pace}. Raw figures: `benchmarks/results/{document['file']}`.\n"
    )


def _trial(series: Series) -> list[str]:
    rounds = 1 + max((r.number for r in series.rounds), default=-1)
    return [] if rounds >= ROUNDS_MIN else [f"**Only {rounds} rounds: a trial, not to be quoted.**", ""]


def _series(rounds: Sequence[dict[str, Any]]) -> Series:
    return Series(tuple(Round(**each) for each in rounds))


def _compare(document: dict[str, Any]) -> list[str]:
    series = _series(document["rounds"])
    names = [name for name, each in document["targets"].items() if not each["skipped"]]
    lines = ["## Beside nginx and the peers\n", _source(document), *_trial(series)]
    versions = [f"{name} {document['targets'][name]['version']}" for name in names]
    lines.append("Versions: " + ", ".join(versions) + ".")
    skipped = {name: each["skipped"] for name, each in document["targets"].items() if each["skipped"]}
    lines += [f"Not measured: {name} ({reason.splitlines()[0]})." for name, reason in skipped.items()]
    lines += ["", *figures.verdict(Series(tuple(r for r in series.rounds if r.records is not None)))[-1:], ""]
    lines += table(["figure", *names], [[label, *map(cell, names)] for label, cell in _cells(series, document)])
    for scenario, value, what, unit in (
        (PEAK, figures.cpu_per_request, "CPU per request", "µs"),
        (STREAMS, figures.cpu_per_frame, "CPU per streamed chunk", "µs"),
    ):
        values = {name: series.estimate(scenario.name, name, value).value for name in names}
        lines += _chart(what.replace(" ", "-").lower(), charts.bars(what, values, unit))
    lines += _void(series)
    return lines


def _cells(series: Series, document: dict[str, Any]) -> list[tuple[str, Callable[[str], str]]]:
    def plain(scenario: str, value: Value, unit: float = 1, digits: int = 1) -> Callable[[str], str]:
        return lambda name: figures.text(series.estimate(scenario, name, value) / unit, digits=digits)

    def over_nginx(scenario: str, value: Value) -> Callable[[str], str]:
        def cell(name: str) -> str:
            return "1" if name == "nginx" else figures.text(series.ratio(scenario, name, "nginx", value), digits=2)

        return cell

    def added(scenario: str, value: Value, unit: float) -> Callable[[str], str]:
        return lambda name: figures.text(series.difference(scenario, name, "direct", value) / unit, digits=2)

    def idle(name: str) -> str:
        return figures.number(document["targets"][name]["rss_idle_bytes"] / 1e6)

    return [
        ("P1 CPU a request, µs", plain(PEAK.name, figures.cpu_per_request)),
        ("P1 ÷ nginx", over_nginx(PEAK.name, figures.cpu_per_request)),
        ("P1 CPU a request at one rate, µs", plain(STEADY.name, figures.cpu_per_request)),
        ("P1 ÷ nginx at one rate", over_nginx(STEADY.name, figures.cpu_per_request)),
        ("P2 CPU a chunk, µs", plain(STREAMS.name, figures.cpu_per_frame)),
        ("P2 ÷ nginx", over_nginx(STREAMS.name, figures.cpu_per_frame)),
        ("P4 added latency p50, ms", added(ALONE.name, figures.latency_p50, 1000)),
        ("P4 added latency p99, ms", added(ALONE.name, figures.latency_p99, 1000)),
        ("P5 added time to first token p99, ms", added(FEW_STREAMS.name, figures.first_byte_p99, 1000)),
        ("P5 added gap between frames p99, µs", added(FEW_STREAMS.name, figures.gap_excess_p99, 1)),
        ("P6 requests/s on one core", lambda name: _peak(series.peak(PEAK.name, name))),
        ("P11 RSS idle, MB", idle),
        ("P11 RSS with 1,000 streams, MB", plain(MANY_STREAMS.name, figures.rss, 1e6)),
        ("P13 400 KB prompt, CPU µs", plain(LONG_PROMPT.name, figures.cpu_per_request)),
    ]


def _peak(estimate: Estimate) -> str:
    return figures.text(estimate) if estimate.rounds else "above the load's limit"


def _void(series: Series) -> list[str]:
    if not series.void:
        return []
    lines = [f"- {r.target}, {r.scenario}, round {r.number + 1}: {r.void.splitlines()[0]}" for r in series.void]
    return ["Void rounds, which count nowhere above:", "", *lines, ""]


def _audit(document: dict[str, Any]) -> list[str]:
    series = _series(document["audit"])
    rows: list[list[str]] = []
    names = list(dict.fromkeys(r.target for r in series.rounds))
    for name in names:
        unary = series.estimate(PEAK.name, name, figures.cpu_per_request)
        frame = series.estimate(STREAMS.name, name, figures.cpu_per_frame)
        tax = series.ratio(PEAK.name, name, names[-1], figures.cpu_per_request)
        rows.append([name, figures.text(unary), figures.text(frame), figures.text(tax, digits=2)])
    head = ["capture and durability", "CPU a request, µs", "CPU a chunk, µs", "÷ capture off"]
    note = "Every mode writes a durable record; `off` keeps no body.\n"
    return ["## What the audit costs\n", _source(document), *_trial(series), note, *table(head, rows)]


def _growth(document: dict[str, Any]) -> list[str]:
    series = _series(document["growth_rounds"])
    lines = ["## How cost grows\n", _source(document), *_trial(series)]
    for name, rows in document["growth"].items():
        if rows:
            head = list(rows[0])
            lines.append(f"### {name}\n")
            lines += table(head, [[_cell(row.get(column)) for column in head] for row in rows])
            lines += _growth_chart(name, rows)
    return lines + _void(series)


def _growth_chart(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    across, *columns = rows[0]
    drawn = [c for c in columns if c in ("nginx", "counterfoil") or c.endswith("id_p99_us")]
    if not drawn:
        return []
    series = {column: [row.get(column) for row in rows] for column in drawn}
    return _chart(f"growth-{name}", charts.lines(f"{name}, µs", across, [row[across] for row in rows], series))


def _cell(value: object) -> str:
    return figures.number(value, 0 if value == int(value) else 1) if isinstance(value, int | float) else "–"


def _chart(name: str, svg: str) -> list[str]:
    if not svg:
        return []
    CHARTS.mkdir(parents=True, exist_ok=True)
    (CHARTS / f"{name}.svg").write_text(svg)
    return [f"![{name}](benchmarks/{name}.svg)", ""]
