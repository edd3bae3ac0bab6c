"""Tables and charts in `docs/benchmarks.md`, made anew from result files between two markers.

What a run did not measure is a dash; a target that was skipped is named with the reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import charts, figures, goals
from benchmarks.compare import Series, Value
from benchmarks.full import PARTS, RESULTS
from benchmarks.scenarios import ALONE, FEW_STREAMS, LONG_PROMPT, MANY_STREAMS, PEAK, STEADY, STREAMS
from benchmarks.statistics import Estimate, median
from benchmarks.targets import REPOSITORY

DOCUMENT: Final = REPOSITORY / "docs/benchmarks.md"
CHARTS: Final = REPOSITORY / "docs/benchmarks"
ROUNDS_MIN: Final = 5
MEMORY_ROWS_MAX: Final = 12
BEGIN: Final = "<!-- figures: made by `python -m benchmarks report`, do not edit -->"
END: Final = "<!-- end of figures -->"
_KEYS: Final = {"compare": "rounds"} | {part: part for part in PARTS if part != "compare"}
_SPLIT: Final = ("gw", "upstream", "ledger")


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
    makers = {
        "compare": _compare,
        "audit": _audit,
        "growth": _growth,
        "stalls": _stalls,
        "memory": _memory,
        "lookup": _lookup,
        "ledger": _ledger,
        "conversation": _conversation,
    }
    made = ["## Goals\n", *table(*goals.table(parts))]
    for name, make in makers.items():
        if name in parts:
            made += make(parts[name])
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


def _compare(document: dict[str, Any]) -> list[str]:
    series = goals.series_of(document["rounds"])
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
    lines += _split(series)
    lines += _void(series)
    return lines


def _split(series: Series) -> list[str]:
    """Where a call's time goes, as the gateway itself says in `Server-Timing`."""
    rows: list[list[str]] = []
    for scenario in (ALONE, STEADY, PEAK):
        found = [r.split_us for r in series.of(scenario.name, goals.OURS) if r.split_us]
        if found:
            cells = [
                " / ".join(figures.number(median([split[part][share] for split in found])) for share in ("p50", "p99"))
                for part in _SPLIT
            ]
            rows.append([scenario.name, *cells])
    if not rows:
        return []
    lines = ["What the gateway says of its time, p50 / p99 in µs:", "", *table(["calls", *_SPLIT], rows)]
    return [*lines, *_slowest(series)]


def _slowest(series: Series) -> list[str]:
    """The slowest call of each round of a single client: one stall is what its p99 is made of."""
    found = [r.slowest for r in series.of(ALONE.name, goals.OURS) if r.slowest]
    rows = [[str(n + 1), *(_cell(one.get(f"{part}_us")) for part in ("total", *_SPLIT))] for n, one in enumerate(found)]
    if not rows:
        return []
    note = "The slowest call of each of these rounds of one client, in µs from its sending to its last byte:"
    return [note, "", *table(["round", "in all", *_SPLIT], rows)]


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
    series = goals.series_of(document["audit"])
    rows: list[list[str]] = []
    names = list(dict.fromkeys(r.target for r in series.rounds))
    for name in names:
        unary = series.estimate(PEAK.name, name, figures.cpu_per_request)
        frame = series.estimate(STREAMS.name, name, figures.cpu_per_frame)
        tax = series.ratio(PEAK.name, name, names[-1], figures.cpu_per_request)
        streamed = series.ratio(STREAMS.name, name, names[-1], figures.cpu_per_frame)
        rows.append([name, *(figures.text(each, digits=2) for each in (unary, tax, frame, streamed))])
    head = ["capture and durability", "CPU a request, µs", "÷ no ledger", "CPU a chunk, µs", "÷ no ledger"]
    note = (
        "Every mode but the last writes a durable record; `off` keeps no body and no detail. `no ledger` is the same "
        "gateway with a ledger that answers at once and writes nothing: it makes the record, and throws it away.\n"
    )
    return ["## What the audit costs\n", _source(document), *_trial(series), note, *table(head, rows)]


def _growth(document: dict[str, Any]) -> list[str]:
    series = goals.series_of(document["growth_rounds"])
    lines = ["## How cost grows\n", _source(document), *_trial(series)]
    for name, rows in document["growth"].items():
        if rows:
            head = list(rows[0])
            lines.append(f"### {name}\n")
            lines += table(head, [[_cell(row.get(column)) for column in head] for row in rows])
            lines += _growth_chart(name, rows)
    return lines + _void(series)


def _stalls(document: dict[str, Any]) -> list[str]:
    rows = document["stalls"]
    if not rows:
        return []
    series = goals.series_of(document["stall_rounds"])
    head = list(rows[0])
    note = (
        "Unary calls at 1,000/s and 50 streams, beside what the ledger does to look after itself. `calm`: the log is "
        "copied back between rounds only, and nothing signed. `log copied back`: after each megabyte instead of eight. "
        "`checkpoints signed`: four a second instead of one a minute. `export`: a client reads every record over and "
        "over.\n"
    )
    cells = [[str(row[head[0]]), *(_cell(row[name]) for name in head[1:])] for row in rows]
    lines = ["## While the ledger looks after itself\n", _source(document), *_trial(series), note]
    return [*lines, *table(head, cells), *_void(series)]


def _memory(document: dict[str, Any]) -> list[str]:
    grown = document["memory"]
    rows = [["idle", figures.number(grown["idle_bytes"] / 1e6)]]
    step = -(-len(grown["points"]) // MEMORY_ROWS_MAX)
    points = grown["points"][step - 1 :: step]
    rows += [[f"{calls:,}", figures.number(size / 1e6)] for calls, size in points]
    slope = grown["bytes_per_100k_calls"] / 1e6
    note = (
        f"{slope:.3f} MB in 100,000 calls, by least squares over the last two thirds; {grown['load']} for "
        f"{grown['minutes']:g} minutes, in {len(grown['points'])} steps of 64 new connections each. Counted is memory "
        "that is in no file: libraries and mapped files are not.\n"
    )
    return ["## Memory under load\n", _source(document), note, *table(["calls", "MB"], rows)]


def _lookup(document: dict[str, Any]) -> list[str]:
    found = document["lookup"]
    note = (
        f"{found['calls']:,} calls, {found['streamed']:,} of them streamed, each looked up as soon as its last byte "
        f"had arrived, by a reader in another process: {found['misses']} misses. {found['http_lookups']:,} also by "
        f"`GET /v1/generations?id=`: {found['http_misses']} misses. {found['failed']} calls failed.\n"
    )
    return ["## Looked up at once\n", _source(document), note]


def _ledger(document: dict[str, Any]) -> list[str]:
    rows = [[name, f"{value:,}"] for name, value in document["ledger"].items()]
    note = "One core, records a second; the writer commits 256 calls in flight, each commit synced.\n"
    return ["## The ledger alone\n", _source(document), note, *table(["", ""], rows)]


def _conversation(document: dict[str, Any]) -> list[str]:
    rows = document["conversation"]
    if not rows:
        return []
    head = list(rows[0])
    cells = [[str(row[head[0]]), *(_cell(row[name], 2) for name in head[1:])] for row in rows]
    note = (
        "An agent with eight tools. `stored_bytes` are all its requests and answers as they lie in the ledger, "
        "`ratio` is their size over that of the last request compressed (zstd, level 3), `ratio_whole` what it would "
        "be with each request kept whole. `ledger_ratio` counts all that the database grew by, records "
        "and the unused ends of pages included.\n"
    )
    return ["## What a long conversation takes\n", _source(document), note, *table(head, cells)]


def _growth_chart(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    across, *columns = rows[0]
    drawn = [c for c in columns if c in ("nginx", "counterfoil") or c.endswith("id_p99_us")]
    if not drawn:
        return []
    series = {column: [row.get(column) for row in rows] for column in drawn}
    return _chart(f"growth-{name}", charts.lines(f"{name}, µs", across, [row[across] for row in rows], series))


def _cell(value: object, digits: int = 1) -> str:
    return figures.number(value, 0 if value == int(value) else digits) if isinstance(value, int | float) else "–"


def _chart(name: str, svg: str) -> list[str]:
    if not svg:
        return []
    CHARTS.mkdir(parents=True, exist_ok=True)
    (CHARTS / f"{name}.svg").write_text(svg)
    return [f"![{name}](benchmarks/{name}.svg)", ""]
