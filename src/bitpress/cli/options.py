"""Options that several commands share, and the reading of ``--set``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitpress.errors import RecipeError

if TYPE_CHECKING:
    from bitpress.recipes.runner import DataOptions

Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout, everything else on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; results and errors only.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of the engine.", show_default="all")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Train = Annotated[
    Path,
    typer.Option(
        help="Labelled training data: csv, tsv or jsonl, CoNLL columns for ner, SQuAD's JSON for qa, also .gz; a saved "
        "dataset, or hub:NAME:SPLIT."
    ),
]
Dev = Annotated[Path, typer.Option(help="Labelled data that chooses the best epoch and gives the reported score.")]
Out = Annotated[Path, typer.Option(help="Directory to write; an unfinished run in it is resumed.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe or schedule; repeatable."),
]
# Shorthands of --set for what is changed most; None leaves the default of the recipe.
Epochs = Annotated[float | None, typer.Option(help="Passes over the training data.", show_default=False)]
LearningRate = Annotated[float | None, typer.Option(help="Peak learning rate.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option(help="Texts a step, instead of tokens a step.", show_default=False)]
MaxLength = Annotated[
    int | None, typer.Option(help="Tokens a text, special ones included; longer texts are cut.", show_default=False)
]
TextColumn = Annotated[
    str | None, typer.Option(help="Column of the text; of CoNLL columns a number.", show_default="by common names")
]
PairColumn = Annotated[str | None, typer.Option(help="Column of the second text of a pair.", show_default=False)]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the label, or a,b,c of 0 and 1 a label; of CoNLL columns a number.",
        show_default="by common names",
    ),
]
Pooling = Annotated[
    str | None,
    typer.Option(
        help="Of sentence embeddings (--task embedding): mean, cls or max.",
        show_default="as modules.json says, else mean",
    ),
]


def parse_overrides(assignments: Sequence[str] | None, **shorthands: Any) -> dict[str, Any]:
    """``["epochs=3", "activations.range=static"]`` -> ``{"epochs": 3, "activations.range": "static"}``.

    A value that is valid JSON is taken as such (numbers, true, false, null, lists), anything else as a string.

    Args:
        shorthands: values of the options of the same name (``--max-length``: ``max_length``); None where not given.

    Raises:
        RecipeError: no ``=``, an empty key, or a key given twice.
    """
    overrides = {key: value for key, value in shorthands.items() if value is not None}
    for assignment in assignments or []:
        key, separator, text = assignment.partition("=")
        key = key.strip()
        if not separator or not key:
            raise RecipeError(f"--set {assignment!r}: expected KEY=VALUE, for example --set epochs=3")
        if key in overrides:
            other = f", also as --{key.replace('_', '-')}" if key in shorthands else ""
            raise RecipeError(f"--set {key}: given twice{other}; give one value")
        try:
            overrides[key] = json.loads(text)
        except json.JSONDecodeError:
            overrides[key] = text
    return overrides


def data_options(text: str | None, pair: str | None, label: str | None) -> DataOptions:
    """The column options as the recipes take them (imports torch's side of bitpress)."""
    from bitpress.recipes.runner import DataOptions

    return DataOptions(text_column=text, pair_column=pair, label_column=label)
