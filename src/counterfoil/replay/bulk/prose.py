"""A report for people: as Markdown, and as one HTML page that needs nothing else. Unknown is written as a word."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final

import jinja2

from counterfoil.record import words
from counterfoil.record.money import dollars
from counterfoil.replay.bulk.report import Both, Report, Spread, TargetReport
from counterfoil.replay.diff import TextDifference

Value = float | int | None
UNKNOWN: Final = "unknown"
PERCENTILES: Final = ("mean", "p50", "p90", "p99")


def money(nanos: Value) -> str:
    """Nanos in dollars; ``unknown`` for none."""
    return UNKNOWN if nanos is None else dollars(int(nanos))


def number(value: Value) -> str:
    """A number with its thousands apart."""
    if value is None:
        return UNKNOWN
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def share(part: int, whole: int) -> str:
    """``12.5 % (3 of 24)``; a dash where there is nothing to share."""
    return f"{100 * part / whole:.1f} % ({part:,} of {whole:,})" if whole else "–"


def ratio(value: float | None) -> str:
    """``× 0.52``, a dash where there is none."""
    return "–" if value is None else f"× {value:.2f}" if value >= 0.01 else f"× {value:.4f}"


def moment(ms: int | None) -> str:
    """A time in UTC, to the second."""
    return "–" if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(ms: Value) -> str:
    """A time as people say it; ``unknown`` for none."""
    return UNKNOWN if ms is None else words.duration(ms)


METRICS: Final[dict[str, tuple[str, Callable[[Value], str]]]] = {
    "cost_nanos": ("Cost of a call", money),
    "latency_ms": ("Time to first output", duration),
    "generation_ms": ("Time to the end", duration),
    "throughput": ("Output tokens per second", number),
    "prompt_tokens": ("Input tokens", number),
    "completion_tokens": ("Output tokens", number),
}


REASONS: Final = {
    "failed": "where the rerun failed",
    "original_failed": "where the original failed",
    "no_content": "without bodies",
    "not_sampled": "not in the sample",
    "not_captured": "not captured",
    "too_large": "too large",
    "no_score": "without a score",
    "unpriced": "without a known price",
}
"""Reasons whose own word would be misread; others are shown as they are."""


def markdown(found: Report) -> str:
    """The report as Markdown."""
    lines = [
        f"# {_cell(found.name or 'Bulk run')}",
        "",
        f"`{found.run_id}`, {state(found)}, begun {moment(found.created_ms)}.",
        "",
    ]
    lines += [f"- {name}: {value}" for name, value in facts(found)]
    for target in found.targets:
        lines += ["", f"## {_cell(target.name)}", "", *_target(target)]
    return "\n".join(lines) + "\n"


def state(found: Report) -> str:
    """How it ended, in words."""
    return f"{found.state} ({found.reason})" if found.reason else found.state


def facts(found: Report) -> list[tuple[str, str]]:
    """What holds for the whole run, as name and value."""
    progress = found.progress
    left = progress.total - progress.done - progress.failed - progress.skipped
    ended = f"{progress.done:,} answered, {progress.failed:,} failed, {progress.skipped:,} skipped, {left:,} not run"
    held = f" known, and up to {money(progress.held_nanos)} that is not known" if progress.held_nanos else ""
    rows = [
        ("Generations", f"{found.items:,}" + _counts(found.excluded, " (left out: ", ")")),
        ("Reruns", ended),
        ("Spent", money(progress.spent_nanos) + held),
    ]
    if found.budget_nanos is not None:
        rows.append(("Budget", money(found.budget_nanos)))
    if found.judges_nanos or found.judges_unknown:
        rows.append(
            (
                "Of it for judges",
                money(found.judges_nanos) + (f" and {found.judges_unknown} unknown" if found.judges_unknown else ""),
            )
        )
    if found.in_flight_at_a_kill:
        rows.append(("In flight when a gateway died", f"{len(found.in_flight_at_a_kill)}: perhaps paid, made again"))
    return rows


def outcomes(target: TargetReport) -> list[tuple[str, str, str]]:
    """Errors and refusals, as name, originals, target."""
    a, b = target.original, target.target
    return [
        ("Errors", share(a.errors, a.calls), share(b.errors, b.calls)),
        ("Refusals", share(a.refusals, a.refusals_known), share(b.refusals, b.refusals_known)),
    ]


def agreements(target: TargetReport) -> list[tuple[str, str]]:
    """How alike the answers are, as name and value."""
    found = target.agreement
    said = found.similarity
    rows = [
        ("Say the same", share(found.equal, found.compared)),
        ("Same text", share(found.text_equal, found.compared)),
        ("Same tool calls", share(found.tool_calls_equal, found.compared)),
        ("Same finish reason", share(found.finish_equal, found.compared)),
        (
            "Similarity",
            f"mean {_plain(said.mean)}, median {_plain(said.p50)}, lowest tenth {_plain(found.similarity_p10)}",
        ),
    ]
    if found.not_compared:
        rows.append(("Not compared", _counts(found.not_compared)))
    return rows


def month(target: TargetReport) -> str | None:
    """What the month would have cost, as a sentence; None where there is no month."""
    found = target.month
    if found is None:
        return None
    calls = f"{found.records:,} calls in 30 days"
    unknown, partial = found.original_unknown, found.original_partial
    was = words.total(found.original_nanos, records=found.records, unknown=unknown, partial=partial)
    if found.unpriced_meters:
        was += f"; not wholly priced: {_meters(found.unpriced_meters)}"
    if found.target_nanos is None:
        return f"{calls} cost {was}. What they would have cost here is unknown: no rerun has a price."
    said = f"{calls} cost {was}. Here they would have cost ≈ {money(found.target_nanos)}"
    left = f", leaving out {target.unpriced} reruns without a price" if target.unpriced else ""
    return f"{said} (from {found.pairs:,} pairs{left})."


def missing(target: TargetReport) -> str | None:
    """How many reruns have no price, or not for all of it, and of which meters; None where none lacks one."""
    if not target.unpriced:
        return None
    return f"{target.unpriced:,} reruns are not wholly priced: {_meters(target.unpriced_meters)}."


def _meters(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{_cell(name)} ({count:,})" for name, count in counts.items())


def _target(target: TargetReport) -> list[str]:
    lines = [
        f"{target.done:,} answered, {target.failed:,} failed, {target.skipped:,} skipped, {target.pending:,} not run."
        + _counts(target.skipped_by_reason, " Skipped: ", ".") + _counts(target.errors_by_code, " Errors: ", "."),
        "",
    ]  # fmt: skip
    for told in (month(target), missing(target)):
        lines += [told, ""] if told is not None else []
    lines += ["| | | mean | p50 | p90 | p99 | unknown | |", "|---|---|--:|--:|--:|--:|--:|--:|"]
    for name, both in target.metrics.items():
        title, shown = METRICS[name]
        lines.append(f"| {title} | original | {_spread(both.original, shown)} | |")
        lines.append(f"| | target | {_spread(both.target, shown)} | {ratio(both.ratio)} |")
    lines += ["", "| | originals | target |", "|---|--:|--:|"]
    lines += [f"| {' | '.join(row)} |" for row in outcomes(target)]
    lines += ["", "| agreement | |", "|---|---|", *(f"| {name} | {value} |" for name, value in agreements(target))]
    if target.judges:
        lines += ["", "| judge | passed | failed | no verdict | mean score | |", "|---|--:|--:|--:|--:|---|"]
        lines += [
            f"| {_cell(one.name)} | {one.passed:,} | {one.failed:,} | {one.none:,} | {_plain(one.mean_score)} | "
            f"{_cell(_counts(one.reasons))} |"
            for one in target.judges
        ]
    if target.largest:
        lines += ["", "| largest differences | similarity | cost | |", "|---|--:|--:|---|"]
        lines += [
            f"| `{one.original}` → `{one.rerun}` | {_plain(one.similarity)} | {money(one.cost_nanos[0])} → "
            f"{money(one.cost_nanos[1])} | [diff]({one.diff}) |"
            for one in target.largest
        ]
    return lines


def _spread(found: Spread, shown: Callable[[Value], str]) -> str:
    return " | ".join([*(shown(getattr(found, name)) for name in PERCENTILES), f"{found.unknown:,}"])


def _counts(counts: Mapping[str, int], before: str = "", after: str = "") -> str:
    said = ", ".join(f"{count:,} {REASONS.get(name, name)}" for name, count in counts.items())
    return f"{before}{said}{after}" if said else ""


def _plain(value: Value) -> str:
    return "–" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text from outside as one cell: no markup, no power over a terminal."""
    return words.printable(text).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _bar(both: Both, name: str, side: str) -> int:
    """The length of a bar in percent of the longest of its metric."""
    ends = [getattr(part, name) for part in (both.original, both.target)]
    longest = max((end for end in ends if end is not None), default=0)
    value = getattr(getattr(both, side), name)
    return round(100 * value / longest) if value is not None and longest else 0


def page(found: Report, texts: Mapping[str, TextDifference] | None = None, base_url: str = "") -> str:
    """The report as one HTML page. ``texts`` are word diffs by the rerun's id, to be shown in it."""
    return _template().render(found=found, texts=texts or {}, base_url=base_url.rstrip("/"))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(_NAMES)
    source = resources.files("counterfoil.replay").joinpath("templates/report.html").read_text("utf-8")
    return environment.from_string(source)


_NAMES: Final[dict[str, Any]] = {
    "METRICS": METRICS,
    "PERCENTILES": PERCENTILES,
    "agreements": agreements,
    "bar": _bar,
    "counts": _counts,
    "facts": facts,
    "moment": moment,
    "money": money,
    "missing": missing,
    "month": month,
    "outcomes": outcomes,
    "plain": _plain,
    "ratio": ratio,
    "share": share,
    "state": state,
}


def bars(histogram: Sequence[int]) -> list[int]:
    """Heights in percent of the highest."""
    highest = max(histogram, default=0)
    return [round(100 * count / highest) if highest else 0 for count in histogram]


_NAMES["bars"] = bars
