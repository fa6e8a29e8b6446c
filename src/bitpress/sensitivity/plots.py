"""Plots as SVG, written by hand: three kinds of picture need no library, and the same numbers give the same file."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

_STYLE = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12"'
_BAR, _LINE, _GRID, _TEXT = "#4c78a8", "#222222", "#dddddd", "#222222"
# Of a perceptually even ramp (viridis at 0, 1/4, 1/2, 3/4 and 1), between which colours are mixed.
_RAMP = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def bar_chart(
    title: str,
    labels: Sequence[str],
    values: Sequence[float],
    errors: Sequence[float | None],
    notes: Sequence[str] = (),
) -> str:
    """Horizontal bars from 0, each with its error to both sides and a note behind it.

    Args:
        values: at least 0, one a label; errors: None where there is none.
    """
    left, width, row, top = 10 + 7 * max(map(len, labels), default=0), 420, 24, 40
    furthest = max([v + (e or 0.0) for v, e in zip(values, errors, strict=True)], default=0.0) or 1.0
    height = top + row * len(labels) + 30
    parts = [_text(10, 20, title, weight="bold")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = left + width * share
        parts.append(_line(x, top - 6, x, height - 26, _GRID))
        parts.append(_text(x, height - 10, f"{furthest * share:.3g}", anchor="middle"))
    for i, (label, value, error) in enumerate(zip(labels, values, errors, strict=True)):
        y, end = top + row * i, left + width * value / furthest
        parts.append(_text(left - 6, y + 13, label, anchor="end"))
        parts.append(f'<rect x="{left:.1f}" y="{y}" width="{end - left:.1f}" height="{row - 8}" fill="{_BAR}"/>')
        reach = width * (error or 0.0) / furthest
        if error is not None:
            low, high, middle = max(left, end - reach), end + reach, y + (row - 8) / 2
            parts.append(_line(low, middle, high, middle, _LINE))
            parts += [_line(x, middle - 4, x, middle + 4, _LINE) for x in (low, high)]
        if i < len(notes):
            parts.append(_text(end + reach + 6, y + 13, notes[i]))
    return _svg(max(left + width + 170, _width(title)), height, parts)


def heat_map(
    title: str, values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], levels: int = 0
) -> str:
    """A cell a value, dark where it is low, with the scale beside it; rows from top to bottom.

    Args:
        rows, columns: what the axes say at each cell; empty texts are left out.
        levels: so many contour lines, at equal distances between the lowest and the highest value.
    """
    flat = [value for line in values for value in line]
    low, high = min(flat), max(flat)
    cell = max(12, min(28, 420 // max(len(values), len(values[0]))))
    left, top = 20 + 7 * max(map(len, rows), default=0), 40
    right, bottom = left + cell * len(values[0]), top + cell * len(values)
    parts = [_text(10, 20, title, weight="bold")]
    for i, line in enumerate(values):
        parts.append(_text(left - 6, top + cell * i + cell / 2 + 4, rows[i], anchor="end"))
        for j, value in enumerate(line):
            place = f'x="{left + cell * j}" y="{top + cell * i}" width="{cell}" height="{cell}"'
            parts.append(f'<rect {place} fill="{_colour(_share(value, low, high))}"/>')
    for j, column in enumerate(columns):
        parts.append(_text(left + cell * j + cell / 2, bottom + 16, column, anchor="middle"))
    for k in range(levels):
        level = low + (high - low) * (k + 1) / (levels + 1)
        for (y1, x1), (y2, x2) in contour(values, level):
            xs, ys = [left + cell * (x + 0.5) for x in (x1, x2)], [top + cell * (y + 0.5) for y in (y1, y2)]
            parts.append(_line(xs[0], ys[0], xs[1], ys[1], "#ffffff"))
    parts += _scale(right + 24, top, bottom, low, high)
    return _svg(max(right + 114, _width(title)), bottom + 30, parts)


def surface(title: str, values: Sequence[Sequence[float]], axes: tuple[str, str], ends: tuple[str, str]) -> str:
    """The values as heights over their grid, seen from above the corner of the last row and column; the nearer faces
    are drawn over the farther ones. A face has the colour of its corners' mean, with the scale beside it.

    Args:
        axes: what rows and columns are; ends: what the first and the last of each are.
    """
    flat = [value for line in values for value in line]
    low, high = min(flat), max(flat)
    rows, columns, across, depth, tall = len(values) - 1, len(values[0]) - 1, 260.0, 120.0, 170.0

    def place(i: float, j: float, height: float) -> tuple[float, float]:
        u, v = i / rows, j / columns
        return 40 + across * (1 + v - u), 50 + tall + depth * (u + v) - tall * height

    parts = [_text(10, 20, title, weight="bold")]
    floor = [place(*corner, 0.0) for corner in ((0, 0), (0, columns), (rows, columns), (rows, 0))]
    parts += [_line(*a, *b, _GRID) for a, b in zip(floor, floor[1:] + floor[:1], strict=True)]
    faces = sorted(((i, j) for i in range(rows) for j in range(columns)), key=lambda face: (sum(face), face))
    for i, j in faces:
        corners = ((i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j))
        heights = [_share(values[a][b], low, high) for a, b in corners]
        outline = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (place(a, b, h) for (a, b), h in zip(corners, heights, strict=True))
        )
        parts.append(
            f'<polygon points="{outline}" fill="{_colour(sum(heights) / 4)}" stroke="#ffffff" stroke-width="0.4"/>'
        )
    # Along the near edges: to the left of the nearest corner only the column changes, to its right only the row.
    (rows_name, columns_name), (first, last) = axes, ends
    near = floor[2]
    for name, far in ((columns_name, floor[3]), (rows_name, floor[1])):
        parts.append(_text((near[0] + far[0]) / 2, (near[1] + far[1]) / 2 + 34, name, anchor="middle"))
        parts.append(_text(far[0], far[1] + 18, first, anchor="middle"))
    parts.append(_text(near[0], near[1] + 18, last, anchor="middle"))
    right, top, bottom = 2 * across + 70, 50.0, 50 + tall + 2 * depth
    parts += _scale(right, top, bottom - 40, low, high)
    return _svg(max(right + 90, _width(title)), bottom + 40, parts)


Point = tuple[float, float]


def contour(values: Sequence[Sequence[float]], level: float) -> list[tuple[Point, Point]]:
    """Pieces of the line where linearly interpolated ``values`` are ``level``, in (row, column); marching squares."""
    pieces = []
    for i in range(len(values) - 1):
        for j in range(len(values[0]) - 1):
            corners = [(i, j), (i, j + 1), (i + 1, j + 1), (i + 1, j)]
            crossings: list[Point] = []
            for (y1, x1), (y2, x2) in zip(corners, corners[1:] + corners[:1], strict=True):
                a, b = values[y1][x1], values[y2][x2]
                if (a < level) != (b < level):
                    t = (level - a) / (b - a)
                    crossings.append((y1 + t * (y2 - y1), x1 + t * (x2 - x1)))
            # Two crossings, or four in a saddle, which are joined in the order they are met.
            pieces += [(crossings[k], crossings[k + 1]) for k in range(0, len(crossings), 2)]
    return pieces


def _scale(x: float, top: float, bottom: float, low: float, high: float) -> list[str]:
    """Which colour is which value, from ``top`` to ``bottom``."""
    steps, parts = 32, []
    for k in range(steps):
        y, tall = top + (bottom - top) * k / steps, (bottom - top) / steps + 0.5
        colour = _colour(1 - (k + 0.5) / steps)
        parts.append(f'<rect x="{x}" y="{y:.1f}" width="14" height="{tall:.1f}" fill="{colour}"/>')
    return [*parts, _text(x + 20, top + 10, f"{high:.4g}"), _text(x + 20, bottom, f"{low:.4g}")]


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0


def _colour(share: float) -> str:
    place = min(max(share, 0.0), 1.0) * (len(_RAMP) - 1)
    k = min(int(place), len(_RAMP) - 2)
    mixed = (round(a + (place - k) * (b - a)) for a, b in zip(_RAMP[k], _RAMP[k + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def _width(title: str) -> float:
    """Room for a title: at 12 pixels a bold letter is about 7.5 wide."""
    return 20 + 7.5 * len(title)


def _text(x: float, y: float, text: str, anchor: str = "start", weight: str = "normal") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}" fill="{_TEXT}"'
    return f"<text {place}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([f"<svg {_STYLE} {size}>", ground, *parts, "</svg>"]) + "\n"
