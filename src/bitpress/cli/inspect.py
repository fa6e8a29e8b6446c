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
    if kind == "binary":
        kind += {
            "bool": ", signs; a query attends to scores of at least 0 (BiBERT)",
            "all": ", signs; a query attends to every key",
            "softmax": ", elastic bits; a query attends where softmax passes a learned threshold (BiT)",
        }[activations["attention"]]
    answers = {"regression": "one number", "embedding": "a vector"}.get(task["kind"]) or ", ".join(task["labels"])
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
        [f"operations, {description['operations']['tokens']} tokens", f"{description['operations']['giga']:.2f} G"],
    ]
    if "qbert_accounting" in description:
        paper = description["qbert_accounting"]
        encoder = f"{paper['encoder_mib']:.2f} MiB, {format_ratio(paper['encoder_ratio'])}"
        summary += [
            ["by Q-BERT's accounting", f"{paper['mib']:.2f} MiB, {format_ratio(paper['ratio'])}"],
            ["… of its layers alone", encoder],
        ]
    if "gobo_accounting" in description:
        paper = description["gobo_accounting"]
        summary += [
            ["outliers", f"{paper['outliers']:,}  ({100 * paper['share']:.2f} % of the weights)"],
            ["by GOBO's accounting", f"{paper['mib']:.2f} MiB, {format_ratio(paper['ratio'])}"],
        ]
    if "binary_accounting" in description:
        paper, work = description["binary_accounting"], description["binary_operations"]
        summary += [
            ["by the binary papers' accounting", f"{paper['mib']:.2f} MiB, {format_ratio(paper['ratio'])}"],
            [
                f"operations, {work['tokens']} tokens, in theory",
                f"{work['fp32']:.2f} G in fp32, {work['binary']:.3f} G as 64-bit words, {format_ratio(work['ratio'])}",
            ],
        ]
    print_table([str(path), ""], summary, words=2)
    if "verify" in description:
        checks = [[check["check"], f"{check['count']:,}"] for check in description["verify"]["checks"]]
        print_table(["verified", "how many"], checks)
