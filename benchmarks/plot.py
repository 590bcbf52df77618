"""Draws the benchmark's medians: CPU and round trip against the number of calls, as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any
from xml.sax.saxutils import escape

__all__ = ["plot"]

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 560, 300, 60, 40, 170, 45
COLOURS = ("#777777", "#b8860b", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#8c564b")
CHARTS = (("CPU per call and second (ms)", "cpu_ms_per_call_s", ""), ("round trip, p99 (ms)", "rtt_ms", "p99"))


def plot(medians: Sequence[dict[str, Any]]) -> str:
    """The medians of a report as two charts, one below the other; the numbers of calls on a logarithmic scale."""
    names = list(dict.fromkeys(row["server"] for row in medians))
    height = HEIGHT * len(CHARTS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (title, key, part) in enumerate(CHARTS):
        lines = {name: _points([row for row in medians if row["server"] == name], key, part) for name in names}
        parts.append(f'<g transform="translate(0 {number * HEIGHT})">{_chart(title, lines)}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _points(rows: list[dict[str, Any]], key: str, part: str) -> list[tuple[float, float]]:
    return sorted((row["calls"], row[key][part] if part else row[key]) for row in rows)


def _chart(title: str, lines: dict[str, list[tuple[float, float]]]) -> str:
    counts = sorted({calls for points in lines.values() for calls, _ in points})
    most = max(value for points in lines.values() for _, value in points) * 1.1
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    span = max(log2(counts[-1] / counts[0]), 0.001)

    def x(calls: float) -> float:
        return LEFT + inner_width * log2(calls / counts[0]) / span

    def y(value: float) -> float:
        return TOP + inner_height * (1 - value / most)

    drawn = [f'<text x="{LEFT}" y="22" font-size="13">{escape(title)}</text>']
    for step in range(5):
        value = most * step / 4
        drawn.append(f'<path d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        drawn.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for calls in counts:
        drawn.append(f'<text x="{x(calls):.1f}" y="{HEIGHT - 25}" text-anchor="middle">{calls:.0f}</text>')
    drawn.append(f'<text x="{LEFT + inner_width / 2}" y="{HEIGHT - 8}" text-anchor="middle">calls</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(calls):.1f},{y(value):.1f}" for calls, value in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn += [f'<circle cx="{x(c):.1f}" cy="{y(v):.1f}" r="3" fill="{colour}"/>' for c, v in points]
        top = TOP + 12 + 16 * number
        drawn.append(f'<text x="{WIDTH - RIGHT + 12}" y="{top}" fill="{colour}">{escape(name)}</text>')
    return "".join(drawn)
