"""``bitpress finetune``: an encoder and labelled text become a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitpress.cli import options
from bitpress.cli.output import emit_json, format_metric, format_ms, only_results_on_stdout, print_table


def finetune(
    encoder: Annotated[Path, typer.Argument(help="Directory of a pretrained BERT encoder (Hugging Face layout).")],
    train: options.Train,
    dev: options.Dev,
    out: options.Out,
    task: Annotated[
        str,
        typer.Option(
            help="classification, regression, multilabel, ner (entities), qa (questions), embedding, or a GLUE task "
            "such as glue/sst2."
        ),
    ] = "classification",
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    pooling: options.Pooling = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    max_length: options.MaxLength = None,
    assignments: options.Set = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fine-tune an encoder on labelled text; writes a teacher that transformers loads too."""
    overrides = options.parse_overrides(
        assignments, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_length=max_length
    )
    from bitpress.recipes.runner import finetune as run

    with only_results_on_stdout():
        columns = options.data_options(text_column, pair_column, label_column)
        result = run(
            encoder,
            task=task,
            train=train,
            dev=dev,
            out=out,
            columns=columns,
            pooling=pooling,
            overrides=overrides,
            seed=seed,
            quiet=quiet,
        ).as_dict()
    if as_json:
        emit_json(result)
        return
    metric = result["metric"]
    rows = [[name, format_metric(name, value)] for name, value in result["metrics"].items()]
    rows.append([f"majority class ({metric})", format_metric(metric, result["majority"])])
    rows.append(["dev rows", f"{result['n']:,}"])
    rows.append(["time", format_ms(1000 * result["seconds"])])
    print_table(["teacher", str(result["out"])], rows)
