"""The figures that tables show, each as a function of one round, and how a number is written."""

from __future__ import annotations

from benchmarks.compare import Series
from benchmarks.rounds import Round
from benchmarks.statistics import Estimate


def cpu_per_request(round_: Round) -> float:
    """CPU of all processes of the target, in µs a request."""
    return round_.cpu_us_per_request


def cpu_per_frame(round_: Round) -> float:
    """CPU of all processes of the target, in µs a server-sent event; opening and closing the streams included."""
    return round_.cpu_us_per_frame


def latency_p50(round_: Round) -> float:
    """From the intended start to the last byte, in µs."""
    return round_.latency_us.get("p50", 0.0)


def latency_p99(round_: Round) -> float:
    """From the intended start to the last byte, in µs."""
    return round_.latency_us.get("p99", 0.0)


def first_byte_p50(round_: Round) -> float:
    """From the intended start to the first byte of the body, in µs."""
    return round_.first_byte_us.get("p50", 0.0)


def first_byte_p99(round_: Round) -> float:
    """From the intended start to the first byte of the body, in µs."""
    return round_.first_byte_us.get("p99", 0.0)


def frame_delay_p50(round_: Round) -> float:
    """From the mock's write of a frame to its arrival, in µs."""
    return round_.frame_delay_us.get("p50", 0.0)


def frame_delay_p99(round_: Round) -> float:
    """From the mock's write of a frame to its arrival, in µs."""
    return round_.frame_delay_us.get("p99", 0.0)


def gap_excess_p99(round_: Round) -> float:
    """By how much the gap between two frames at the client differs from the gap at the mock, in µs."""
    return round_.gap_excess_us.get("p99", 0.0)


def rss(round_: Round) -> float:
    """Proportional resident memory of all processes of the target at the end of the round, in bytes."""
    return float(round_.rss_bytes)


def instructions(round_: Round) -> float:
    """User-mode instructions a request; 0 where they cannot be counted."""
    return round_.instructions_per_request or 0.0


def text(estimate: Estimate, unit: str = "", digits: int = 1) -> str:
    """`12.3 µs [11.9, 12.8]`: median and 95 % interval; a dash when there is no round that counts."""
    if not estimate.rounds:
        return "–"
    return f"{number(estimate.value, digits)}{f' {unit}' if unit else ''} [{_span(estimate, digits)}]"


def number(value: float, digits: int = 1) -> str:
    """With thousands separated; large numbers without decimals."""
    return f"{value:,.{0 if abs(value) >= 1000 else digits}f}"


def verdict(series: Series) -> list[str]:
    """Sentences on void rounds and on records that do not match the calls at the mock."""
    lines = [f"void: {r.target}, {r.scenario}, round {r.number + 1}: {r.void.splitlines()[0]}" for r in series.void]
    lines += [f"BROKEN: {r.target}, {r.scenario}, round {r.number + 1}: {r.broken}" for r in series.broken]
    counted = [r for r in series.rounds if r.records is not None]
    if counted and not series.broken:
        calls = sum(r.mock_hits for r in counted)
        lines.append(f"records = calls at the mock after each of {len(counted)} rounds: {calls:,} calls")
    return lines


def _span(estimate: Estimate, digits: int) -> str:
    return f"{number(estimate.low, digits)}, {number(estimate.high, digits)}"
