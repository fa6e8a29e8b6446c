"""``bitpress evaluate``: the score of an artifact (by the engine) or of a teacher (by PyTorch) on labelled text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.bench.models import model_kind
from bitpress.cli import options
from bitpress.cli.output import emit_json, format_metric, only_results_on_stdout, print_table
from bitpress.errors import BitpressError, DataError


def evaluate(
    model: Annotated[Path, typer.Argument(help="An artifact, or a Hugging Face checkpoint (needs PyTorch).")],
    data: Annotated[
        Path,
        typer.Option(help="Labelled text: csv, tsv or jsonl, CoNLL columns for ner, SQuAD's JSON for qa; also .gz."),
    ],
    task: Annotated[
        str | None, typer.Option(help="Layout and metric, such as glue/sst2.", show_default="the model's own")
    ] = None,
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    pooling: options.Pooling = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure the metric of a model on labelled text."""
    with only_results_on_stdout():
        if model_kind(model) == "artifact":
            if pooling is not None:
                raise BitpressError("--pooling is given, but an artifact has its own; leave it out")
            result = evaluate_artifact(model, data, task, text_column, pair_column, label_column, threads)
        else:
            from bitpress.recipes.runner import evaluate_checkpoint

            columns = options.data_options(text_column, pair_column, label_column)
            result = evaluate_checkpoint(model, data, columns=columns, task=task, pooling=pooling)
    if as_json:
        emit_json(result)
        return
    metric = result["metric"]
    rows = [[name, format_metric(name, value)] for name, value in result["metrics"].items()]
    rows.append([f"majority class ({metric})", format_metric(metric, result["majority"])])
    if result.get("unread_words"):
        rows.append(["words not read, as texts are cut", f"{result['unread_words']:,}"])
    if result.get("cut_questions"):
        rows.append(["questions that were cut", f"{result['cut_questions']:,}"])
    print_table([str(model), f"{result['n']:,} rows"], rows)


def evaluate_artifact(
    path: Path,
    data: Path,
    task_name: str | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Runs the engine over ``data``: ``metric``, ``value``, ``n``, ``metrics``, ``majority`` (fractions).

    Raises:
        DataError: the data or its labels do not fit the task or the model.
        ArtifactError: the artifact is malformed.
    """
    import bitpress
    from bitpress.data import get_task, read_dataset
    from bitpress.runtime.evaluation import evaluation_task

    model = bitpress.load(path, threads=threads)
    task = evaluation_task(model.config) if task_name is None else get_task(task_name)
    if task.kind != model.task.kind:
        raise DataError(f"--task {task_name} is {task.kind}, but {path} was trained for {model.task.kind}")
    dataset = read_dataset(
        data,
        task,
        text_column=text_column,
        pair_column=pair_column,
        label_column=label_column,
        label_names=model.labels if task.kind != "regression" else None,
    )
    return model.evaluate(dataset, task=task)
