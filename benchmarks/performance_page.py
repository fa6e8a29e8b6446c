"""docs/performance.md from the JSON of benchmarks/peers.py; nothing on the page is typed by hand but the reasons.

    python benchmarks/performance_page.py build/peers/peers.json --plot docs/performance.svg > docs/performance.md

Every figure in which an engine of ours is not faster (or, for memory, not smaller) than the best peer is marked and
listed. performance_reasons.toml says why, by patterns; what it does not explain is listed as unexplained.
"""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from performance_bars import Bar, bars_section, read_bars

OURS = "bitpress "
BASELINE = "ONNX Runtime int8"
REASONS = Path(__file__).with_name("performance_reasons.toml")
MARK = "✗"
UNEXPLAINED = "Not explained yet."


@dataclass(frozen=True)
class Reason:
    """Why an engine of ours loses where ``engine``, ``shape`` and ``what`` (patterns) match; the first match counts."""

    text: str
    engine: str = "*"
    shape: str = "*"
    what: str = "*"


@dataclass(frozen=True)
class Standing:
    """One figure of an engine of ours beside the peers' same figure."""

    shape: str
    threads: int
    what: str  # "1 × 128", the name of a set of texts, "load time" or "peak memory"
    engine: str
    ours: str  # the figure, with its unit
    best_peer: str
    to_best: float  # how many times better than the best peer
    to_baseline: float | None  # than ONNX Runtime int8; None where it did not run

    @property
    def faster(self) -> bool:
        return self.to_best > 1


def standing(
    shape: str, threads: int, what: str, figures: Mapping[str, float], unit: str, more_is_better: bool = False
) -> list[Standing]:
    """Each engine of ours among ``figures`` (engine -> figure) against the peers among them."""
    peers = {name: value for name, value in figures.items() if not name.startswith(OURS)}
    if not peers:
        return []
    best = (max if more_is_better else min)(peers, key=lambda name: peers[name])

    def times_better(mine: float, theirs: float) -> float:
        return mine / theirs if more_is_better else theirs / mine

    return [
        Standing(
            shape,
            threads,
            what,
            name,
            f"{value:.4g} {unit}",
            best,
            times_better(value, peers[best]),
            times_better(value, peers[BASELINE]) if BASELINE in peers else None,
        )
        for name, value in figures.items()
        if name.startswith(OURS)
    ]


def latencies(result: Mapping[str, Any]) -> dict[tuple[str, int], dict[str, dict[str, float]]]:
    """(shape, threads) -> "batch × length" -> engine -> median milliseconds, all in the order they were measured."""
    found: dict[tuple[str, int], dict[str, dict[str, float]]] = {}
    for cell in result["cells"]:
        grid = found.setdefault((cell["shape"], cell["threads"]), {})
        grid.setdefault(f"{cell['batch']} × {cell['length']}", {})[cell["engine"]] = cell["median_ms"]
    return found


def standings(result: Mapping[str, Any]) -> list[Standing]:
    """Every figure of ours: latency cells, texts a second, load times, memory."""
    found: list[Standing] = []
    for (shape, threads), grid in latencies(result).items():
        for what, figures in grid.items():
            found += standing(shape, threads, what, figures, "ms")
    texts = result["texts"]
    for one in texts["sets"]:
        rates = {row["engine"]: row["texts_per_second"] for row in one["rows"]}
        found += standing(texts["shape"], texts["threads"], one["name"], rates, "texts/s", more_is_better=True)
    shapes = dict.fromkeys((row["shape"], row["threads"]) for row in result["processes"])
    for shape, threads in shapes:
        rows = [row for row in result["processes"] if row["shape"] == shape]
        found += standing(shape, threads, "load time", {row["engine"]: row["load_ms"] for row in rows}, "ms")
        memory = {row["engine"]: row["peak_bytes"] / 2**20 for row in rows}
        found += standing(shape, threads, "peak memory", memory, "MiB")
    return found


def read_reasons(file: Path = REASONS) -> list[Reason]:
    """The hand-written reasons in their order; an unknown key is an error."""
    return [Reason(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8"))["reason"]]


def explain(losses: Iterable[Standing], reasons: Sequence[Reason]) -> dict[str, list[Standing]]:
    """Reason -> what it explains, unexplained ones first."""
    found: dict[str, list[Standing]] = {text: [] for text in (UNEXPLAINED, *(reason.text for reason in reasons))}
    for loss in losses:
        matching = (
            reason.text
            for reason in reasons
            if fnmatchcase(loss.engine, OURS + reason.engine)
            and fnmatchcase(loss.shape, reason.shape)
            and fnmatchcase(loss.what, reason.what)
        )
        found[next(matching, UNEXPLAINED)].append(loss)
    return {text: rows for text, rows in found.items() if rows}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _grid_table(
    grid: Mapping[str, Mapping[str, float]], engines: Iterable[str], cell: Callable[[str, str, float], str]
) -> tuple[list[str], list[list[str]]]:
    rows = [[name, *(cell(name, what, grid[what][name]) for what in grid)] for name in engines]
    return ["", *grid], rows


def latency_section(result: Mapping[str, Any]) -> list[str]:
    """For each shape and number of threads a table of milliseconds and one of ratios."""
    parts = []
    index = {(s.shape, s.threads, s.what, s.engine): s for s in standings(result)}
    for (shape, threads), grid in latencies(result).items():

        def milliseconds(name: str, what: str, value: float, shape: str = shape, threads: int = threads) -> str:
            mine = index.get((shape, threads, what, name))
            text = f"{value:.3g}" if value < 100 else f"{value:.0f}"
            return text if mine is None else f"**{text}**" if mine.faster else f"{text} {MARK}"

        def ratio(name: str, what: str, _: float, shape: str = shape, threads: int = threads) -> str:
            mine = index[shape, threads, what, name]
            baseline = "–" if mine.to_baseline is None else f"{mine.to_baseline:.2f}"
            return f"{baseline} / {mine.to_best:.2f}{'' if mine.faster else f' {MARK}'}"

        engines = list(next(iter(grid.values())))
        ours = [name for name in engines if (shape, threads, next(iter(grid)), name) in index]
        parts += [
            f"### {result['shapes'][shape]}, {threads} {'thread' if threads == 1 else 'threads'}",
            "Median milliseconds:",
            table(*_grid_table(grid, engines, milliseconds)),
        ]
        if ours:
            parts += [f"Times faster than {BASELINE} / than the best peer:", table(*_grid_table(grid, ours, ratio))]
    return parts


def losses_section(result: Mapping[str, Any], reasons: Sequence[Reason]) -> list[str]:
    found = standings(result)
    losses = [one for one in found if not one.faster]
    parts = [
        "## Where bitpress is not (yet) faster",
        f"{len(losses)} of {len(found)} figures of an engine of ours, memory included, are not better than the best "
        f"peer's; marked {MARK} above.",
    ]
    for text, rows in explain(losses, reasons).items():
        head = ["engine", "shape", "threads", "what", "ours", "best peer", "times better"]
        cells = [
            [one.engine, one.shape, str(one.threads), one.what, one.ours, one.best_peer, f"{one.to_best:.2f}"]
            for one in rows
        ]
        parts += [text, table(head, cells)]
    return parts


def texts_section(result: Mapping[str, Any]) -> list[str]:
    texts = result["texts"]
    parts = [
        "## Real texts, tokenization included",
        f"{result['shapes'][texts['shape']]}, {texts['threads']} threads; texts are cut at "
        f"{result['settings']['max_length']} tokens. Peers: tokenized at once, sorted by length, padded batches of 32. "
        "bitpress: `model(list_of_texts)`.",
        *(f"Skipped: {name}: {reason}" for name, reason in texts["skipped"].items()),
    ]
    if not texts["sets"]:
        return parts
    marks = {(one.what, one.engine): one for one in standings(result)}
    heads = [
        f"{one['name']}: {one['texts']} texts, {one['mean_tokens']:.0f} tokens on average, {one['truncated']} cut"
        for one in texts["sets"]
    ]
    rates = [{row["engine"]: row for row in one["rows"]} for one in texts["sets"]]
    rows = []
    for name in rates[0]:
        row = [name]
        for one, rate in zip(texts["sets"], rates, strict=True):
            mine = marks.get((one["name"], name))
            text = f"{rate[name]['texts_per_second']:.1f}"
            row.append(text if mine is None else f"**{text}**" if mine.faster else f"{text} {MARK}")
            row.append(f"{rate[name]['tokens_per_second']:.0f}")
        rows.append(row)
    columns = ["", *(column for one in texts["sets"] for column in (f"{one['name']}, texts/s", "tokens/s"))]
    return [*parts, ". ".join(heads) + ".", table(columns, rows)]


def processes_section(result: Mapping[str, Any]) -> list[str]:
    parts = [
        "## Memory and load time of a fresh process",
        "Interpreter, library, tokenizer, model and one text; medians, warm file cache, without the start of Python.",
    ]
    for shape in dict.fromkeys(row["shape"] for row in result["processes"]):
        rows = [
            [
                row["engine"],
                f"{row['file_bytes'] / 2**20:.1f}",
                f"{row['peak_bytes'] / 2**20:.0f}",
                f"{row['load_ms']:.0f}",
                f"{row['first_ms']:.1f}",
            ]
            for row in result["processes"]
            if row["shape"] == shape
        ]
        columns = [result["shapes"][shape], "weights on disk, MiB", "peak memory, MiB", "load, ms", "first text, ms"]
        parts.append(table(columns, rows))
    return parts


def scaling_section(result: Mapping[str, Any]) -> list[str]:
    """What further threads are worth, where two numbers of them were measured."""
    found = result.get("scaling")
    if found is None:
        return []
    few, many = found["threads"]
    rows = [
        [row["engine"], *(f"{ms:.3g}" for ms in row["ms"]), f"{row['ms'][0] / row['ms'][1]:.2f}"]
        for row in found["rows"]
    ]
    columns = ["engine", f"{few} thread{'s' if few > 1 else ''}, ms", f"{many} threads, ms", "times faster"]
    return [
        f"## {many} threads against {few}",
        f"{result['shapes'][found['shape']]}, 1 × 128 tokens, all in turns, so that a machine that changes its speed "
        "changes both; medians.",
        table(columns, rows),
    ]


def limits_section(result: Mapping[str, Any]) -> list[str]:
    limits = result["limits"]
    processors = limits["processors"]
    rows = [["fp32 multiply-add, GMAC/s", *(f"{value:.1f}" for value in limits["fp32_gmacs"])]]
    for level, found in limits["gbytes"].items():
        rows += [[f"{level} {kind}, GB/s", *(f"{value:.1f}" for value in found[kind])] for kind in ("read", "copy")]
    return [
        "## Limits of the machine, and each kernel's share",
        table(["measured in the same run", "one thread", f"{processors} threads"], rows),
        "`bench_kernels`, one thread:",
        "```\n" + "\n".join(limits["kernels_printed"]) + "\n```",
    ]


def setup_section(result: Mapping[str, Any]) -> list[str]:
    settings, found = result["settings"], result["machine"]
    worst = max(result["busy_elsewhere"].values())
    parts = [
        "## How it was measured",
        f"{found['cpu']}, {found['logical_processors']} logical processors, {found['memory_bytes'] / 2**30:.0f} GiB, "
        f"{found['system']}, Python {found['python']}; {result['date']}; other jobs took at most {100 * worst:.0f} % "
        f"of the processors in any part. {result['minutes']['measuring']:.0f} minutes of measuring.",
        "Random weights of each shape, batches of random tokens without padding. Every engine in a process of its own; "
        f"they take turns in rotating order, {settings['bursts']} turns a cell. A turn is a pause of "
        f"{settings['pause_seconds']} s, warm-up passes, and one to ten measured passes, as many as fill "
        f"{settings['burst_seconds']} s.",
        "\n".join(
            f"- **{name}**: {' '.join(filter(None, (engine['engine'], engine['isa'])))}; {engine['note']}."
            for name, engine in result["engines"].items()
        ),
    ]
    largest: dict[str, float] = {}
    for row in result["agreement"]:
        largest[row["engine"]] = max(largest.get(row["engine"], 0.0), row["largest_difference"])
    if largest:
        listed = ", ".join(f"{name} {value:.1e}" for name, value in largest.items())
        parts.append(f"Largest difference of a logit from PyTorch on a ragged batch: {listed}.")
    if result["skipped"]:
        lines = [f"- {name}: {reason}" for name, reason in result["skipped"].items()]
        parts.append("Not measured:\n\n" + "\n".join(lines))
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return [*parts, f"Versions: {versions}."]


def page(
    result: Mapping[str, Any], reasons: Sequence[Reason], plot: str | None = None, bars: Sequence[Bar] = ()
) -> str:
    """The whole page; ``plot`` is the address of the picture."""
    parts = [
        "# Performance",
        "Generated by `benchmarks/performance_page.py` from one run of `benchmarks/peers.py`; do not edit. "
        f"{result['machine']['cpu']}, kernels {', '.join(_isas(result))} ([isa.md](isa.md)); an older run on a CPU "
        "that has AVX2 and nothing newer is in [performance-avx2.md](performance-avx2.md).",
        f"```\npip install -c constraints.txt '.[peers]'\n{result['command']}\n```",
        *([f"![Latency at 1 × 128 tokens, and speed-up over {BASELINE} by length]({plot})"] if plot else []),
        *bars_section(result, standings(result), bars, table, OURS),
        "## Latency",
        f"Bold: faster than every peer in that cell. {MARK}: not faster than the best peer.",
        *latency_section(result),
        *texts_section(result),
        *processes_section(result),
        *scaling_section(result),
        *losses_section(result, reasons),
        *limits_section(result),
        *setup_section(result),
    ]
    return "\n\n".join(parts) + "\n"


def _isas(result: Mapping[str, Any]) -> list[str]:
    """Those that our engines ran with."""
    engines = result["engines"].items()
    return list(dict.fromkeys(f"`{engine['isa']}`" for name, engine in engines if name.startswith(OURS)))


def plain_text(result: Mapping[str, Any]) -> str:
    """The same tables for a terminal."""
    lines: list[str] = []
    for part in (
        latency_section(result),
        texts_section(result),
        processes_section(result),
        scaling_section(result),
        losses_section(result, []),
        limits_section(result),
    ):
        for block in part:
            lines += ["", *(_aligned(block.splitlines()) if block.startswith("| ") else [block.replace("```\n", "")])]
    return "\n".join(lines).replace("**", "").replace("\n```", "")


def _aligned(lines: Sequence[str]) -> list[str]:
    """The lines of a Markdown table as columns of text."""
    rows = [[cell.replace("**", "").strip() for cell in line.strip("|").split(" | ")] for line in lines]
    del rows[1]  # the rule below the head
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path)
    parser.add_argument("--plot", type=Path, help="also draw the picture, an SVG beside the page")
    options = parser.parse_args()
    result = json.loads(options.json.read_text(encoding="utf-8"))
    if options.plot is not None:
        from performance_plot import draw

        draw(result, options.plot)
    plot = None if options.plot is None else options.plot.name
    sys.stdout.write(page(result, read_reasons(), plot, read_bars(REASONS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
