"""The picture of docs/performance.md: for each shape the milliseconds of one text, and speed-ups over the lengths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from performance_page import BASELINE, OURS, latencies
from plotting import svg_pyplot

BARS = "1 × 128"


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Writes an SVG: a row a shape, at the largest number of threads. The same JSON gives the same bytes."""
    pyplot = svg_pyplot()
    grids = latencies(result)
    threads = max(number for _, number in grids)
    shapes = [shape for shape, number in grids if number == threads]
    engines = list(result["engines"])
    greys, hues = pyplot.get_cmap("Greys"), pyplot.get_cmap("tab20")
    colours = {
        name: hues(i) if name.startswith(OURS) else greys(0.25 + 0.12 * i)
        for group in (True, False)
        for i, name in enumerate(name for name in engines if name.startswith(OURS) == group)
    }
    figure, axes = pyplot.subplots(len(shapes), 2, figsize=(11, 0.9 + 0.26 * len(engines) * len(shapes)), squeeze=False)
    for shape, (left, right) in zip(shapes, axes, strict=True):
        grid = grids[shape, threads]
        title = f"{result['shapes'][shape]}, {threads} threads"
        what = BARS if BARS in grid else next(iter(grid))
        names = [name for name in engines if name in grid[what]][::-1]
        bars = left.barh(names, [grid[what][name] for name in names], color=[colours[name] for name in names])
        left.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        left.set_title(f"{title}: ms at {what} tokens", fontsize=8)
        left.margins(x=0.12)
        left.tick_params(labelsize=7)
        singles = {int(what.split()[-1]): grid[what] for what in grid if what.startswith("1 ×")}
        for name in engines:
            points = [(n, f[BASELINE] / f[name]) for n, f in singles.items() if BASELINE in f and name in f]
            if points and name != BASELINE:
                right.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colours[name], label=name)
        right.axhline(1, color="black", linewidth=0.8)
        right.set_xscale("log", base=2)
        right.set_xticks(list(singles), [str(length) for length in singles])
        right.set_yscale("log", base=2)  # binary is far above the others
        right.yaxis.set_major_formatter("{x:g}")
        right.minorticks_off()
        right.set_xlabel("tokens", fontsize=7)
        right.set_title(f"{title}: times faster than {BASELINE}", fontsize=8)
        right.tick_params(labelsize=7)
        right.legend(fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)
