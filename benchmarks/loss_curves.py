"""Losses over training, from RUN/scalars.jsonl of `bitpress pretrain`, `finetune` or `compress`.

    pip install -c constraints.txt '.[peers]'        # matplotlib
    python benchmarks/loss_curves.py general.run --plot docs/general_distillation.svg

Prints each component of the loss along the run, and what evaluations found; the picture has every record, on a
logarithmic scale, and held-out losses as dots.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from plotting import svg_pyplot

ROWS = 12
Curves = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def read_run(path: Path) -> Curves:
    """(records of losses, records of evaluations), with ``step`` counted over all stages. Of a run that was resumed
    the last record of a step counts."""
    losses: dict[int, dict[str, Any]] = {}
    evaluations: dict[int, dict[str, Any]] = {}
    before, last, seen = 0, None, 0
    for line in (path / "scalars.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["stage"] != last:  # steps of a later stage continue those of the one before
            before, last = (seen if last is not None else 0), record["stage"]
        step = before + record["step"]
        seen = max(seen, step)
        kind = losses if "loss" in record else evaluations if "metrics" in record else {}
        kind[step] = record | {"step": step}
    if not losses:
        raise SystemExit(f"{path} has no losses: nothing was trained")
    return [losses[step] for step in sorted(losses)], [evaluations[step] for step in sorted(evaluations)]


def parts(record: dict[str, Any]) -> dict[str, float]:
    """What the loss of a record is the sum of; of a loss without parts, itself."""
    return {name: value for name, value in record["components"].items() if name != "total"} or {"loss": record["loss"]}


def draw(runs: dict[str, Curves], file: Path) -> None:
    pyplot = svg_pyplot()
    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    for run, (losses, evaluations) in runs.items():
        for name in dict.fromkeys(name for record in losses for name in parts(record)):
            points = [(record["step"], parts(record)[name]) for record in losses if name in parts(record)]
            (line,) = axes.plot(*zip(*points, strict=True), linewidth=1, label=f"{run}: {name}")
            held_out = [
                (record["step"], record["metrics"][name]) for record in evaluations if name in record["metrics"]
            ]
            axes.plot([step for step, _ in held_out], [loss for _, loss in held_out], "o", color=line.get_color())
    axes.set(xlabel="steps", ylabel="loss of a batch", yscale="log")
    axes.legend(fontsize=8)
    figure.savefig(file, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory")
    parser.add_argument("--plot", type=Path, help="also draw the picture, an SVG")
    options = parser.parse_args()
    runs = {}
    for path in options.runs:
        losses, evaluations = read_run(path)
        runs[path.name.removesuffix(".run")] = losses, evaluations
        print(path)
        for index in sorted({round(i * (len(losses) - 1) / (ROWS - 1)) for i in range(ROWS)}):
            found = (f"{name} {value:.4f}" for name, value in parts(losses[index]).items())
            print(f"{losses[index]['step']:8} " + ", ".join(found))
        for record in evaluations:
            found = (f"{name} {value:.4f}" for name, value in record["metrics"].items())
            print(f"{record['step']:8} evaluated: " + ", ".join(found))
    if options.plot is not None:
        draw(runs, options.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
