"""``bitpress bench``: latency of a model, beside others if asked, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.bench.models import model_kind
from bitpress.cli import options
from bitpress.cli.output import emit_json, note, only_results_on_stdout, print_table
from bitpress.errors import BitpressError


def bench(
    model: Annotated[Path, typer.Argument(help="An artifact (run by the engine) or a checkpoint (run by PyTorch).")],
    vs: Annotated[
        list[Path] | None, typer.Option("--vs", help="Another model to run beside it, turn by turn; repeatable.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Texts a batch; repeatable.", show_default="1")] = None,
    length: Annotated[
        list[int] | None, typer.Option(min=1, help="Tokens a text; repeatable.", show_default="16 and 128")
    ] = None,
    threads: options.Threads = None,
    warmup: Annotated[int, typer.Option(min=0, help="Unmeasured passes before each burst.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Measured passes of each model and cell.")] = 20,
    texts: Annotated[
        Path | None,
        typer.Option(help="Real texts (text, csv, tsv, jsonl), cut at LENGTH tokens.", show_default="random token ids"),
    ] = None,
    text_column: options.TextColumn = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also show where MODEL's time goes, operation by operation.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure median, minimum and 95th percentile over a grid of batch sizes and lengths.

    Without --batch and --length the grid is 1 × 16, 1 × 128 and 8 × 128; with either, every combination. Lengths that
    are not given are cut to what the models take.
    """
    from bitpress.bench.latency import Cell, default_grid, measure

    models: dict[str, str | Path] = {}
    for path in [model, *(vs or [])]:
        model_kind(path)  # a wrong path is refused before any worker starts
        if explain and path == model and model_kind(path) != "artifact":
            raise BitpressError(f"--explain profiles bitpress's own engine; {path} is a checkpoint, not an artifact")
        if str(path) in models:
            raise BitpressError(f"{path} is given twice; name each model once")
        models[str(path)] = path
    grid = default_grid(models.values())
    if batch or length:
        lengths = length or dict.fromkeys(cell.length for cell in grid)
        grid = tuple(Cell(b, n) for b in batch or [1] for n in lengths)
    lines = None if texts is None else _read_texts(texts, text_column)
    with only_results_on_stdout():
        result = measure(
            models,
            grid,
            threads=threads,
            warmup=warmup,
            repeats=repeats,
            texts=lines,
            progress=lambda cell: note(f"measuring {cell}", quiet),
        )
        if explain:
            from bitpress.bench.explain import explain as explain_model

            note("profiling", quiet)
            result["explain"] = explain_model(model, grid, threads, repeats)
    if as_json:
        emit_json(result)
    else:
        print_result(result)


def _read_texts(path: Path, text_column: str | None) -> list[str]:
    from bitpress.data import iter_texts

    items = iter_texts(path, text_column=text_column)
    return [item if isinstance(item, str) else item[0] for item in items]


def print_result(result: dict[str, Any]) -> None:
    """The table of ``bench``: one row a model and cell; the last column is a multiple of the first model's median."""
    from bitpress.bench.report import (
        bench_rows,
        busy_warning,
        engine_lines,
        explain_tables,
        machine_line,
    )

    columns, rows = bench_rows(result)
    print_table(columns, rows)
    for line in (*engine_lines(result), machine_line(result), busy_warning(result["busy_elsewhere"])):
        if line is not None:
            note(line)
    if "explain" not in result:
        return
    profile = result["explain"]
    for columns, rows in explain_tables(profile):
        print_table(columns, rows, words=2)
    peak = f"{profile['fp32_peak'] / 1e9:.1f} billion a second as measured now"
    note(
        f"ISA {profile['isa']}, {profile['isa_reason']}; 1.00 is the fp32 multiply-add peak of a thread, {peak}. "
        "Operations add up to the pass; tokenization comes before it"
    )
