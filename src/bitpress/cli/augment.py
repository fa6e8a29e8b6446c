"""``bitpress augment``: labelled text and variants of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitpress.cli import options
from bitpress.cli.output import emit_json, only_results_on_stdout, print_table


def augment(
    train: options.Train,
    out: Annotated[Path, typer.Option(help="File to write, JSON lines; an unfinished one is continued.")],
    mlm: Annotated[
        Path | None,
        typer.Option(
            help="Encoder with a masked-language-model head (`bitpress pretrain --task mlm`).", show_default=False
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(help="Word vectors: .txt, .gz or .npz, for words of several pieces.", show_default=False),
    ] = None,
    task: Annotated[str, typer.Option(help="Layout of the data, such as glue/sst2.")] = "classification",
    text_column: options.TextColumn = None,
    pair_column: options.PairColumn = None,
    label_column: options.LabelColumn = None,
    copies: Annotated[int, typer.Option(min=0, help="Variants of a text to try.")] = 20,
    probability: Annotated[float, typer.Option(min=0, max=1, help="Share of words that are replaced.")] = 0.4,
    candidates: Annotated[int, typer.Option(min=1, help="What a word may become.")] = 15,
    masks_per_input: Annotated[
        int, typer.Option(min=1, help="Words hidden at once; 1 is the published way, and slower.")
    ] = 4,
    stop_words: Annotated[
        str, typer.Option(help="Words that stay: english, none, or a file with one a line.")
    ] = "english",
    tokenizer: Annotated[
        Path | None, typer.Option(help="Directory whose tokenizer finds words.", show_default="that of --mlm")
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Multiply training text: words become what a masked language model or word vectors suggest."""
    from bitpress.recipes.runner import Variation
    from bitpress.recipes.runner import augment as run

    with only_results_on_stdout():
        result = run(
            train,
            out=out,
            mlm=mlm,
            vectors=vectors,
            task=task,
            columns=options.data_options(text_column, pair_column, label_column),
            variation=Variation(copies, probability),
            candidates=candidates,
            masks_per_input=masks_per_input,
            stop=stop_words,
            tokenizer=tokenizer,
            seed=seed,
            quiet=quiet,
        ).as_dict()
    if as_json:
        emit_json(result)
        return
    rows = [["rows read", f"{result['rows']:,}"], ["rows written", f"{result['written']:,}"]]
    print_table(["augmented", result["out"]], rows)
