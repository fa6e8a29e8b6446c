"""Entropy of one-bit attention over training, from the probes that `bitpress compress` writes to RUN/scalars.jsonl.

    pip install -c constraints.txt '.[peers]'        # matplotlib
    python benchmarks/attention_entropy.py BiBERT=bin.run baseline=baseline.run --plot docs/attention_entropy.svg

A weight that is 0 or 1 carries at most one bit; sgn(softmax) carries none. Prints, for every evaluation of each run,
the mean of all heads, that of the lowest layer, the lowest and the highest head, and the share of queries that attend
to nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from plotting import svg_pyplot


def read_run(path: Path) -> list[dict[str, Any]]:
    """The evaluations of a run directory that have probes: step (over all stages), entropy [L, h], empty rows [L]."""
    found, before, last = [], 0, None
    for line in (path / "scalars.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["stage"] != last:  # steps of a later stage continue those of the one before
            before, last = (found[-1]["step"] if found else 0), record["stage"]
        if "probes" in record:
            probes = record["probes"]
            entropy, empty = np.array(probes["attention_entropy"]), np.array(probes["attention_empty_rows"])
            found.append({"step": before + record["step"], "entropy": entropy, "empty": empty})
    if not found:
        raise SystemExit(f"{path} has no attention probes: its students' activations have 8 bits or more")
    return found


def draw(runs: dict[str, list[dict[str, Any]]], file: Path) -> None:
    figure, axes = svg_pyplot().subplots(figsize=(7, 3.5), layout="constrained")
    for name, records in runs.items():
        steps = [record["step"] for record in records]
        (line,) = axes.plot(steps, [record["entropy"].mean() for record in records], marker=".", label=name)
        low, high = ([extreme(record["entropy"]) for record in records] for extreme in (np.min, np.max))
        axes.fill_between(steps, low, high, alpha=0.15, color=line.get_color())
    axes.set(
        xlabel="steps", ylabel="bits", ylim=(-0.03, 1.05), title="Entropy of attention weights: mean and range of heads"
    )
    figure.legend(loc="outside lower center", ncols=len(runs))
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="name in the picture, and a run directory")
    parser.add_argument("--plot", type=Path, help="also draw the picture, an SVG")
    options = parser.parse_args()
    runs = {}
    for given in options.runs:
        name, separator, path = given.partition("=")
        if not separator:
            parser.error(f"{given!r} is not NAME=RUN")
        runs[name] = read_run(Path(path))
    print(f"{'run':16} {'step':>6} {'mean':>6} {'lowest layer':>13} {'head':>6} {'highest':>8} {'empty rows':>11}")
    for name, records in runs.items():
        for record in records:
            entropy = record["entropy"]
            print(
                f"{name:16} {record['step']:6} {entropy.mean():6.3f} {entropy.mean(axis=1).min():13.3f} "
                f"{entropy.min():6.3f} {entropy.max():8.3f} "
                f"{100 * record['empty'].mean():9.2f} %"
            )
    if options.plot is not None:
        draw(runs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
