"""``bitpress pretrain``: raw text and an encoder become a smaller general student."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from bitpress.cli import options
from bitpress.cli.output import emit_json, format_ms, only_results_on_stdout, print_table


def pretrain(
    encoder: Annotated[Path, typer.Argument(help="Directory of a pretrained BERT encoder (Hugging Face layout).")],
    corpus: Annotated[
        list[str], typer.Option(help="Text files or globs, a text a line, also .gz; repeatable.", show_default=False)
    ],
    out: options.Out,
    task: Annotated[
        str, typer.Option(help="distill: a smaller general student; mlm: a masked-language-model head, for augment.")
    ] = "distill",
    student: Annotated[
        str | None,
        typer.Option(
            help="Shape of the student, such as 4x312, or how many of the encoder's own layers it has.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where tokenized text is kept.", show_default="beside the output")
    ] = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    batch_size: options.BatchSize = None,
    max_length: options.MaxLength = None,
    assignments: options.Set = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Learn from raw text: a smaller general student, which `compress --student` starts from, or a head for masks."""
    overrides = options.parse_overrides(
        assignments, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size, max_length=max_length
    )
    from bitpress.recipes.runner import pretrain as run

    with only_results_on_stdout():
        result = run(
            encoder,
            corpus=corpus,
            out=out,
            task=task,
            student=student,
            overrides=overrides,
            cache=cache,
            seed=seed,
            quiet=quiet,
        ).as_dict()
    if os.environ.get("RANK", "0") != "0":
        return  # of several processes (accelerate launch) the first one speaks
    if as_json:
        emit_json(result)
        return
    rows = [["trained parameters" if task == "mlm" else "parameters", f"{result['parameters']:,}"]]
    rows += [[f"held out: {name}", f"{value:.4f}"] for name, value in result["metrics"].items()]
    rows += [["tokens", f"{result['tokens']:,}"], ["time", format_ms(1000 * result["seconds"])]]
    print_table([result["model"], str(result["out"])], rows)
