"""Tables of measurements as rows of text; printing them is the command line's business."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from bitpress.bench.latency import BUSY_LIMIT


def bench_rows(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Column names and rows for a result of ``latency.measure``, cell by cell, models beside each other.

    The last column, where there are several models, is the median as a multiple of the first model's.
    """
    rows = result["rows"]
    names = short_names([row["model"] for row in rows])
    ratio = {(r["vs"], r["batch"], r["length"]): r["ratio"] for r in result["ratios"]}
    columns = ["model", "batch × length", "median ms", "min ms", "p95 ms"]
    table = []
    for row in rows:
        cells = [names[row["model"]], f"{row['batch']} × {row['length']}"]
        cells += [f"{row[key]:.2f}" for key in ("median_ms", "min_ms", "p95_ms")]
        if ratio:
            found = ratio.get((row["model"], row["batch"], row["length"]), 1.0)
            cells.append(f"{found:.2f}")
        table.append(cells)
    return columns + (["times the first"] if ratio else []), table


def explain_tables(result: Mapping[str, Any]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Column names and rows of one table a cell, for a result of ``explain.explain``."""
    for cell in dict.fromkeys((row["batch"], row["length"]) for row in result["rows"]):
        columns = [f"{cell[0]} × {cell[1]} tokens", "kernel", "ms", "share", "× fp32 peak"]
        rows = []
        for row in result["rows"]:
            if (row["batch"], row["length"]) != cell:
                continue
            share = "" if row["share"] is None else f"{100 * row['share']:.1f} %"
            rate = f"{row['of_fp32_peak']:.2f}" if "of_fp32_peak" in row else ""
            rows.append([row["operation"].replace("_", " "), row.get("kernel", ""), f"{row['ms']:.3f}", share, rate])
        yield columns, rows


def engine_lines(result: Mapping[str, Any]) -> list[str]:
    """One line a model: which engine ran it."""
    names = short_names([row["model"] for row in result["rows"]])
    return [f"{names[m]}: {engine}, {isa}" for m, engine, isa in _distinct(result["rows"])]


def machine_line(result: Mapping[str, Any]) -> str:
    """One line that says where and how it was measured."""
    machine, row = result["machine"], result["rows"][0]
    what = "random token ids" if "mean_tokens" not in row else f"real texts, {row['mean_tokens']:.0f} tokens on average"
    return (
        f"{machine['cpu']}, {row['threads']} of {machine['logical_processors']} threads; {what}; "
        f"{row['repeats']} passes a cell, {row['warmup']} warm-up passes a burst, models in turns"
    )


def busy_warning(busy_elsewhere: float) -> str | None:
    """What to say where other jobs ran at the same time; None where they did not."""
    if busy_elsewhere <= BUSY_LIMIT:
        return None
    return (
        f"warning: other jobs took {100 * busy_elsewhere:.0f} % of the processors while this was measured; "
        "neither times nor ratios can be trusted. Measure again on an idle machine"
    )


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Each model's path by its last part, or whole where two would be called the same."""
    distinct = list(dict.fromkeys(models))
    last = {model: PurePath(model).name or model for model in distinct}
    names = list(last.values())
    return {model: last[model] if names.count(last[model]) == 1 else model for model in distinct}


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return list(dict.fromkeys((row["model"], row["engine"], row["isa"]) for row in rows))
