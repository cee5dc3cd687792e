"""Line charts as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from evaluation.page import render

Points = list[tuple[float, float]]

# Pixels.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 460, 230, 54, 26, 10, 10


def _ticks(low: float, high: float) -> list[float]:
    """About four round numbers between two bounds."""
    step = 10 ** math.floor(math.log10((high - low) / 3))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= 5)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of round numbers between two logarithms: powers of ten, plus 2 and 5 times them if there are few."""
    step = max(1, math.ceil((high - low) / 8))
    exponents = range(math.floor(low), math.ceil(high) + 1, step)
    ticks = [math.log10(m) + e for e in exponents for m in ((1, 2, 5) if high - low < 2 else (1,))]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks if len(ticks) > 1 else [math.log10(tick) for tick in _ticks(10**low, 10**high) if tick > 0]


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart(title: str, series: dict[str, Points], log: bool = False) -> Markup:
    """Lines over a common horizontal axis, as an HTML figure; empty if there is nothing to draw.

    Args:
        series: points (x, y) with increasing x, by name.
        log: whether the vertical axis is logarithmic; values that are not positive are left out.
    """
    laid = _laid_out(series, log, log_x=False)
    return Markup() if laid is None else render("chart.html", title=title, **laid)


def log_charts(charts: dict[str, dict[str, Points]]) -> str:
    """Charts side by side as a file in SVG, with two logarithmic axes each.

    Args:
        charts: series by title (see ``chart``); all values are positive.
    """
    laid = {title: _laid_out(series, log=True, log_x=True) for title, series in charts.items()}
    return str(render("charts.svg", charts={title: one for title, one in laid.items() if one is not None}))


def _laid_out(series: dict[str, Points], log: bool, log_x: bool) -> dict[str, Any] | None:
    """What the templates need to draw a chart; None if there is nothing to draw."""
    kept = {name: [(x, y) for x, y in points if y > 0 or not log] for name, points in series.items()}
    kept = {name: points for name, points in kept.items() if points}
    if not kept:
        return None
    scale: Callable[[float], float] = math.log10 if log else float
    scale_x: Callable[[float], float] = math.log10 if log_x else float
    xs = [scale_x(x) for points in kept.values() for x, _ in points]
    ys = [scale(y) for points in kept.values() for _, y in points]
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    x1, pad = max(x1, x0 + 1), max(0.05 * (y1 - y0), 1e-9 + 1e-3 * abs(y1))
    y0, y1 = y0 - pad, y1 + pad

    def column(x: float) -> float:
        return round(_LEFT + (x - x0) / (x1 - x0) * (_WIDTH - _LEFT - _RIGHT), 1)

    def row(y: float) -> float:
        return round(_TOP + (y1 - y) / (y1 - y0) * (_HEIGHT - _TOP - _BOTTOM), 1)

    ticks = _log_ticks(y0, y1) if log else _ticks(y0, y1)
    along = [(tick, f"{10**tick:,.10g}") for tick in _log_ticks(x0, x1)] if log_x else None
    along = along or [(tick, f"{tick:,.10g}") for tick in _ticks(x0, x1)]
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "rows": [(row(tick), f"{10**tick:.3g}" if log else f"{tick:,.10g}") for tick in ticks],
        "columns": [(column(tick), label) for tick, label in along],
        "lines": [
            (name, " ".join(f"{column(scale_x(x))},{row(scale(y))}" for x, y in points), _short(points[-1][1]))
            for name, points in kept.items()
        ],
    }
