"""Bar and line charts as SVG, written by hand: no library, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 720
COLOURS: Final = ("#2f6f9f", "#c8553d", "#588157", "#8a5a9e", "#b08900", "#5c677d")
_BAR: Final = 26
_LEFT: Final = 150
_STYLE: Final = "text{font:13px system-ui,sans-serif;fill:#777}.t{font-weight:600}line{stroke:#9994}"


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """Horizontal bars on a logarithmic scale, smallest first; every bar carries its value."""
    ordered = sorted((value, name) for name, value in values.items() if value > 0)
    if not ordered:
        return ""
    low = math.log10(ordered[0][0]) - 0.3
    span = max(math.log10(ordered[-1][0]) - low, 0.3)
    parts: list[str] = []
    for place, (value, name) in enumerate(ordered):
        y = 40 + place * _BAR
        width = (math.log10(value) - low) / span * (WIDTH - _LEFT - 130)
        colour = COLOURS[1] if name.startswith("counterfoil") else COLOURS[0]
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 8}" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 14}">{_number(value)} {escape(unit)}</text>')
    return _page(f"{title} (logarithmic)", 50 + len(ordered) * _BAR, parts)


def lines(title: str, x_name: str, xs: Sequence[float], series: Mapping[str, Sequence[float | None]]) -> str:
    """Lines over a logarithmic x axis from zero upwards; a missing value leaves a gap in the points, not a zero."""
    drawn = {name: [(x, y) for x, y in zip(xs, ys, strict=True) if y is not None] for name, ys in series.items()}
    top = max((y for points in drawn.values() for _, y in points), default=0.0)
    if not top or len(xs) < 2:
        return ""
    low, span = math.log10(xs[0]), math.log10(xs[-1]) - math.log10(xs[0])

    def place(x: float, y: float) -> tuple[float, float]:
        return 70 + (math.log10(x) - low) / span * (WIDTH - 100), 240 - y / top * 190

    parts = [f'<text x="62" y="{place(xs[0], y)[1] + 4:.1f}" text-anchor="end">{_number(y)}</text>' for y in (0.0, top)]
    parts += [f'<text x="{place(x, 0)[0]:.1f}" y="258" text-anchor="middle">{_number(x)}</text>' for x in xs]
    parts.append(f'<line x1="70" y1="240" x2="{WIDTH - 30}" y2="240"/>')
    parts.append(f'<text x="{WIDTH / 2}" y="280" text-anchor="middle">{escape(x_name)}</text>')
    for number, (name, points) in enumerate(drawn.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{90 + number * 170}" y="44" style="fill:{colour}">{escape(name)}</text>')
    return _page(title, 292, parts)


def _page(title: str, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    named = f'<title>{escape(title)}</title><style>{_STYLE}</style><text class="t" x="12" y="22">{escape(title)}</text>'
    return "\n".join([head, named, *parts, "</svg>"]) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"
