"""``bitpress compress``: a teacher becomes an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.cli import options
from bitpress.cli.output import (
    emit_json,
    format_bytes,
    format_metric,
    format_ratio,
    note,
    only_results_on_stdout,
    print_table,
)
from bitpress.errors import BitpressError

EXIT_DROP_EXCEEDED = 3


def compress(
    teacher: Annotated[Path, typer.Argument(help="Directory of a fine-tuned teacher (Hugging Face layout).")],
    out: options.Out,
    dev: Annotated[
        Path | None,
        typer.Option(
            help="Labelled data that gives the reported score, and of training chooses the best epoch. Without it a "
            "recipe that trains nothing is packed, unmeasured.",
            show_default=False,
        ),
    ] = None,
    train: Annotated[
        Path | None,
        typer.Option(
            help="Labelled training data: csv, tsv or jsonl, also .gz. Not needed by a recipe that trains nothing.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[str, typer.Option(help="Name of a recipe (`bitpress recipes`) or a YAML file.")] = "ternarybert",
    student: Annotated[
        str | None,
        typer.Option(
            help="Directory of a general student (`bitpress pretrain`), or a shape such as 4x312.",
            show_default="the recipe's own",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Layout and metric, such as glue/sst2; embedding makes one of a bare encoder.",
            show_default="the teacher's own",
        ),
    ] = None,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    pooling: options.Pooling = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    max_length: options.MaxLength = None,
    assignments: options.Set = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            min=0, help="Exit with status 3 if the artifact loses more points than this.", show_default="no limit"
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compress a fine-tuned teacher; writes packed weights that run without PyTorch, and measures what it wrote."""
    overrides = options.parse_overrides(
        assignments, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_length=max_length
    )
    if student is not None:
        overrides["student.init"] = student
    if dev is None:
        from bitpress.data import EMBEDDING, get_task

        is_of_data = task is not None and get_task(task).kind != EMBEDDING  # that one says what head there is, too
        about_data = {
            **{"--train": train, "--max-drop": max_drop, "--task": task if is_of_data else None},
            **{"--text-column": text_column, "--pair-column": pair_column, "--label-column": label_column},
        }
        if given := [option for option, value in about_data.items() if value is not None]:
            raise BitpressError(f"{given[0]} is given without --dev; give both")
        _pack(teacher, recipe, out, task, pooling, overrides, as_json)
        return
    from bitpress.recipes.runner import compress as run

    with only_results_on_stdout():
        columns = options.data_options(text_column, pair_column, label_column)
        result = run(
            teacher,
            recipe=recipe,
            train=train,
            dev=dev,
            out=out,
            columns=columns,
            task=task,
            pooling=pooling,
            overrides=overrides,
            max_drop=max_drop,
            seed=seed,
            quiet=quiet,
        ).as_dict()
    if as_json:
        emit_json(result)
    else:
        print_result(result)
    if result["within_max_drop"] is False:
        note(f"error: {result['drop_points']:.2f} points are lost, more than --max-drop {max_drop:g} allows")
        raise typer.Exit(EXIT_DROP_EXCEEDED)


def _pack(
    teacher: Path,
    recipe: str,
    out: Path,
    task: str | None,
    pooling: str | None,
    overrides: dict[str, Any],
    as_json: bool,
) -> None:
    from bitpress.recipes.runner import pack

    with only_results_on_stdout():
        result = pack(teacher, recipe=recipe, out=out, task=task, pooling=pooling, overrides=overrides).as_dict()
    if as_json:
        emit_json(result)
        return
    sizes = [format_bytes(result[key]) for key in ("fp32_bytes", "total_bytes")]
    rows = [["weights", *sizes, f"{format_ratio(result['ratio'])} smaller"]]
    print_table([result["recipe"], "teacher", f"artifact {result['out']}", "difference"], rows)
    check = result["engine_vs_student"]
    note(
        f"nothing was measured on text, for want of --dev; of {check['n']} {check['unit']} of random tokens "
        f"{check['identical_logits']} have the same bits by the engine as by the quantized teacher"
    )


def print_result(result: dict[str, Any]) -> None:
    """Teacher beside artifact; or beside the student, where the recipe says ``freeze: false``."""
    metric, teacher, artifact = result["metric"], result["teacher"], result["artifact"]
    small = artifact or result["student"]
    scores = [format_metric(metric, side["value"]) for side in (teacher, small)]
    rows = [[metric, *scores, f"{-result['drop_points']:+.2f} points"]]
    if artifact:
        sizes = [format_bytes(artifact[key]) for key in ("fp32_bytes", "total_bytes")]
        rows.append(["weights", *sizes, f"{format_ratio(artifact['ratio'])} smaller"])
    name = f"artifact {result['out']}" if artifact else "student, not packed"
    print_table([result["recipe"], "teacher", name, "difference"], rows)
    note(
        f"{'the artifact was measured by the engine' if artifact else 'measured by torch'} on {small['n']:,} dev rows; "
        f"always answering the majority class: {format_metric(metric, small['majority'])}"
    )
