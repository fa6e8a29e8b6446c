"""What commands print: JSON for machines, tables for people, and the units both use."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """Prints ``value`` on stdout as one JSON document; NaN and infinities, which JSON lacks, become null."""
    print(json.dumps(_plain(value), indent=indent, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextmanager
def only_results_on_stdout() -> Iterator[None]:
    """While a command works, what libraries print goes to stderr; stdout is left to the result."""
    with redirect_stdout(sys.stderr):
        yield


def console() -> Console:
    """A rich console on stdout that neither highlights numbers nor reads markup in users' texts and paths."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def note(message: str, quiet: bool = False) -> None:
    """A line for people, on stderr, so that it never mixes with a result."""
    if not quiet:
        print(message, file=sys.stderr)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> None:
    """Prints a plain table on stdout: ``words`` columns of text, then figures, which align right; long cells fold."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def format_bytes(count: float) -> str:
    """Bytes in binary units: ``417.7 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def format_ms(milliseconds: float) -> str:
    """Milliseconds with three significant digits; seconds from one second on."""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    digits = 0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2
    return f"{milliseconds:.{digits}f} ms"


def format_ratio(ratio: float) -> str:
    """How many times: ``15.2×``."""
    return f"{ratio:.1f}×" if ratio >= 10 else f"{ratio:.2f}×"


def format_metric(name: str, value: float) -> str:
    """Accuracy, exact match and F1 as percentages, correlations (Pearson, Spearman, Matthews) in -1..1 times 100, as
    papers do; a threshold as it is."""
    if name.endswith("threshold"):
        return f"{value:.4g}"
    return f"{100 * value:.2f}" + (" %" if name == "accuracy" or "f1" in name or "exact_match" in name else "")
