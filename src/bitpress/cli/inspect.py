"""``bitpress inspect``: what an artifact consists of, down to the bytes of each tensor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.bench.models import require_artifact
from bitpress.cli import options
from bitpress.cli.output import emit_json, format_bytes, format_ratio, print_table


def inspect(
    artifact: Annotated[Path, typer.Argument(help="An artifact.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Also re-encode every tensor and compare, and check the checksum.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show scheme, bits, shape and bytes of every tensor, and the totals."""
    require_artifact(artifact, "inspect")
    from bitpress import artifact as artifacts

    description = artifacts.describe(artifact)
    if verify:
        description["verify"] = artifacts.verify(artifact)
    if as_json:
        emit_json(description)
    else:
        _print(artifact, description)


def _print(path: Path, description: dict[str, Any]) -> None:
    rows = [
        [
            tensor["name"],
            tensor["scheme"],
            f"{tensor['bits']:g}",
            "×".join(map(str, tensor["shape"])),
            format_bytes(tensor["bytes"]),
        ]
        for tensor in description["tensors"]
    ]
    print_table(["tensor", "scheme", "bits", "shape", "bytes"], rows, words=2)
    activations, task = description["activations"], description["task"]
    kind = activations["scheme"]
    if kind == "uniform":
        kind += f", {activations['bits']} bits, {'symmetric' if activations['symmetric'] else 'asymmetric'}"
        kind += f", range per {activations['range']}" if activations["range"] == "token" else ", static ranges"
    answers = "one number" if task["kind"] == "regression" else ", ".join(task["labels"])
    paper = description["paper_accounting"]
    summary = [
        ["recipe", description["recipe"]],
        ["task", f"{task['kind']}, {task['metric']}: {answers}"],
        ["activations", kind],
        ["parameters", f"{description['parameters']:,}"],
        ["the same in fp32", f"{format_bytes(description['fp32_bytes'])}  ({description['fp32_bytes']:,} bytes)"],
        ["weights on disk", f"{format_bytes(description['total_bytes'])}  ({description['total_bytes']:,} bytes)"],
        ["ratio", format_ratio(description["ratio"])],
        ["by the paper's accounting", f"{paper['mib']:.2f} MiB, {format_ratio(paper['ratio'])}"],
    ]
    print_table([str(path), ""], summary, words=2)
    if "verify" in description:
        checks = [[check["check"], f"{check['count']:,}"] for check in description["verify"]["checks"]]
        print_table(["verified", "how many"], checks)
