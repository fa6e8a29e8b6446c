"""``bitpress sensitivity``: which layers and modules of a teacher need bits, and with what confidence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.cli import options
from bitpress.cli.output import emit_json, format_metric, format_ms, note, only_results_on_stdout, print_table

BAR = 16  # cells of the longest bar


def sensitivity(
    teacher: Annotated[Path, typer.Argument(help="Directory of a teacher (Hugging Face layout).")],
    train: options.Train,
    out: options.Out,
    dev: Annotated[
        Path | None,
        typer.Option(help="Labelled data to score each block alone at low bits on.", show_default="not measured"),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Layout of the data, such as glue/sst2.", show_default="the teacher's own")
    ] = None,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    by: Annotated[
        str, typer.Option(help="What a block is: layer, module (attention, ffn, word embedding, pooler) or matrix.")
    ] = "layer",
    include: Annotated[
        str, typer.Option(help="matrices: what is quantized; all: also biases, LayerNorm, classifier, other tables.")
    ] = "matrices",
    samples: Annotated[int, typer.Option(help="Random samples of the training data.")] = 10,
    share: Annotated[float, typer.Option(help="Size of a sample, a share of the data.")] = 0.1,
    texts: Annotated[int, typer.Option(help="Texts a sample at most.")] = 256,
    tokens: Annotated[int, typer.Option(help="Tokens a sample at most; time and memory are in proportion.")] = 2048,
    max_products: Annotated[int, typer.Option(help="Hessian-vector products a block at most, all samples.")] = 40,
    trace_probes: Annotated[int, typer.Option(help="Of these, for the trace.")] = 7,
    tolerance: Annotated[float, typer.Option(help="Relative change at which an eigenvalue has converged.")] = 0.05,
    measure: Annotated[
        bool | None,
        typer.Option("--measure/--no-measure", help="Score each block alone at low bits.", show_default="with --dev"),
    ] = None,
    bits: Annotated[
        list[int] | None, typer.Option(help="Bits at which it is scored; repeatable.", show_default="4, 3, 2")
    ] = None,
    groups: Annotated[int, typer.Option(help="Ranges a matrix of such weights, in blocks of outputs.")] = 128,
    landscape: Annotated[
        str | None, typer.Option(metavar="BLOCK", help="Draw the loss around a block, such as layers.3.")
    ] = None,
    grid: Annotated[int, typer.Option(help="Points a side of that picture, odd.")] = 21,
    span: Annotated[float, typer.Option(help="How far it reaches from the model, in each direction.")] = 0.5,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL|BITS",
            help="Compare attention by head with a checkpoint's, or with the teacher's layers at 8, 4, 3 or 2 bits.",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank a teacher's blocks by how much its loss depends on them; writes what bits are allocated by, and plots."""
    from bitpress.recipes.runner import Probes, SensitivitySettings
    from bitpress.recipes.runner import sensitivity as run

    settings = SensitivitySettings(samples, share, texts, tokens, max_products, trace_probes, tolerance, seed)
    wanted = Probes(measure, tuple(bits or (4, 3, 2)), groups, landscape, grid, span, compare)
    with only_results_on_stdout():
        result = run(
            teacher,
            train=train,
            out=out,
            dev=dev,
            task=task,
            columns=options.data_options(text_column, pair_column, label_column),
            by=by,
            include=include,
            settings=settings,
            probes=wanted,
            quiet=quiet,
        ).as_dict()
    if as_json:
        emit_json(result)
        return
    print_result(result, quiet)


def print_result(result: Mapping[str, Any], quiet: bool) -> None:
    """The blocks, highest Ω first, then what else was asked for."""
    measured = result["measured"]
    bits = sorted({drop["bits"] for drop in measured["drops"]}, reverse=True) if measured else []
    rows = _rows(result, bits)
    count = result["settings"]["samples"]
    print_table(
        ["block", "Ω", "±", "", "mean λ", "signs", "trace", "±", "weights", *[f"loss at {b} bits" for b in bits]], rows
    )
    notes = [f"Ω = |mean λ| + std of λ, the largest eigenvalue of each of {count} samples; ± is one standard error"]
    products = sum(block["products"] for block in result["blocks"])
    converged = sum(block["converged"] for block in result["blocks"])
    notes.append(
        f"{result['texts']:,} texts, {result['tokens']:,} tokens, {products:,} Hessian-vector products, "
        f"{format_ms(1000 * result['seconds'])}; {converged} of {count * len(result['blocks'])} eigenvalues converged"
    )
    negative = sum(block["negative"] for block in result["blocks"])
    if negative:
        notes.append(f"{negative} eigenvalues are negative: there the teacher is at a saddle, not at a minimum")
    notes += _measured_notes(measured) if measured else []
    if shape := result["landscape"]:
        notes.append(f"loss around {shape['block']}: eigenvalues {_list(shape['eigenvalues'])}")
    if attention := result["attention_kl"]:
        layers = [sum(heads) / len(heads) for heads in attention["layers"]]
        with_what = attention["compared"] if attention["groups"] is None else f"{attention['compared']} bits"
        notes.append(f"attention of {with_what}, KL by layer in nats: {_list(layers)}")
    for text in [*notes, f"written: {', '.join(result['files'])}"]:
        note(text, quiet)


def _rows(result: Mapping[str, Any], bits: list[int]) -> list[list[str]]:
    blocks = {block["name"]: block for block in result["blocks"]}
    longest = max(block["omega"] for block in blocks.values()) or 1.0
    rises = {(d["block"], d["bits"]): d["rise"] for d in result["measured"]["drops"]} if bits else {}
    rows = []
    for name in result["ranking"]:
        block = blocks[name]
        values = [sample["eigenvalue"] for sample in block["samples"]]
        rows.append(
            [
                name,
                f"{block['omega']:.3g}",
                _error(block["omega_error"]),
                "█" * round(BAR * block["omega"] / longest),
                f"{sum(values) / len(values):.3g}",
                f"{block['positive']}+ {block['negative']}−",
                f"{block['trace']:.3g}",
                _error(block["trace_error"]),
                f"{block['size']:,}",
                *[f"{rises[name, number]:+.3f}" if (name, number) in rises else "" for number in bits],
            ]
        )
    return rows


def _measured_notes(measured: Mapping[str, Any]) -> list[str]:
    metric, baseline = measured["metric"], measured["baseline"]
    notes = [
        f"dev in fp32: {metric} {format_metric(metric, baseline[metric])}, loss {baseline['loss']:.4f} on "
        f"{measured['n']:,} texts; the last columns say how much the loss rises with that block alone at low bits"
    ]
    names = {"omega": "Ω", "trace_error": "trace·error"}
    for one in measured["agreement"]:
        notes.append(
            f"rank agreement at {one['bits']} bits (Spearman) of {names[one['proxy']]}: "
            f"{one['rise']:+.2f} with the loss, {one['drop']:+.2f} with {metric}"
        )
    return notes


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _list(values: list[float]) -> str:
    return ", ".join(f"{value:.3g}" for value in values)
