"""What the engine is held to (performance_reasons.toml), and whether a run of benchmarks/peers.py shows it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Operations that multiply by weights or in attention; everything else of a pass is overhead.
PRODUCTS = ("query_key_value", "attention_output", "ffn_up", "ffn_down", "head", "attention")


@dataclass(frozen=True)
class Bar:
    """One figure of ``engine`` (without "bitpress ") and the least (or most) it may be.

    what: "faster", times faster than ONNX Runtime int8 in the cell ``cell``; "texts", times the best peer's texts a
    second on the set ``cell``; "threads", times faster with all threads than with one; "overhead", the share of a
    pass that is neither a product nor waiting, where ``at_least`` is the most. ``why``: why it was missed, if it was.
    """

    engine: str
    what: str
    at_least: float
    cell: str = "1 × 128"
    shape: str = "bert-base"
    threads: int = 2
    why: str = ""


def read_bars(file: Path) -> list[Bar]:
    """The bars in their order; an unknown key is an error."""
    return [Bar(**entry) for entry in tomllib.loads(file.read_text(encoding="utf-8"))["bar"]]


def bars_section(
    result: Mapping[str, Any], standings: Sequence[Any], bars: Sequence[Bar], table: Any, ours: str
) -> list[str]:
    """Every bar that this run measured, and why it was missed where it was."""
    rows, reasons = [], []
    for bar in bars:
        found = measured(bar, result, standings, ours)
        if found is None:
            continue
        reached = found <= bar.at_least if bar.what == "overhead" else found >= bar.at_least
        unit = (lambda x: f"{100 * x:.0f} %") if bar.what == "overhead" else (lambda x: f"{x:.2f} ×")
        limit = "at most" if bar.what == "overhead" else "at least"
        described = describe(bar, result)
        rows.append(
            [ours + bar.engine, described, f"{limit} {unit(bar.at_least)}", unit(found), "yes" if reached else "no"]
        )
        if not reached:
            reasons.append(f"- {ours}{bar.engine}, {described}: {bar.why or 'not explained yet.'}")
    if not rows:
        return []
    parts = ["## What the engine is held to", table(["engine", "what", "aim", "measured", "reached"], rows)]
    return parts + (["Missed:\n\n" + "\n".join(reasons)] if reasons else [])


def measured(bar: Bar, result: Mapping[str, Any], standings: Sequence[Any], ours: str) -> float | None:
    """The figure of ``bar`` in this run; None where it was not measured."""
    name = ours + bar.engine
    if bar.what == "threads":
        rows = result.get("scaling", {"rows": []})["rows"]
        return next((row["ms"][0] / row["ms"][-1] for row in rows if row["engine"] == name), None)
    if bar.what == "overhead":
        rows = result.get("explained", {}).get(name, [])
        spent = {row["operation"]: row["share"] for row in rows if row["share"] is not None}
        return 1 - sum(spent.get(key, 0.0) for key in (*PRODUCTS, "waiting")) if spent else None
    wanted = (name, bar.cell, bar.threads)
    for one in standings:
        if (one.engine, one.what, one.threads) == wanted and (bar.what == "texts" or one.shape == bar.shape):
            figure: float | None = one.to_best if bar.what == "texts" else one.to_baseline
            return figure
    return None


def describe(bar: Bar, result: Mapping[str, Any]) -> str:
    """The figure in words."""
    shape = result["shapes"].get(bar.shape, bar.shape)
    if bar.what == "texts":
        return f"texts a second of {bar.cell} against the best peer"
    if bar.what == "threads":
        return f"{shape}, {bar.cell}, all threads against one"
    if bar.what == "overhead":
        return f"{shape}, {bar.cell}, share of time outside products"
    return f"{shape}, {bar.cell}, {bar.threads} threads, against ONNX Runtime int8"
