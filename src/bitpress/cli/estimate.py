"""``bitpress estimate``: before any training, how small and how fast each recipe would be on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from bitpress.bench.models import model_kind, weight_bytes
from bitpress.cli import options
from bitpress.cli.output import (
    emit_json,
    format_bytes,
    format_ms,
    format_ratio,
    note,
    only_results_on_stdout,
    print_table,
)
from bitpress.errors import BitpressError, RecipeError

TEACHER = "teacher (PyTorch fp32)"


def estimate(
    teacher: Annotated[Path, typer.Argument(help="Directory of a teacher, or of any BERT encoder.")],
    recipe: Annotated[
        list[str] | None, typer.Option(help="A recipe to estimate; repeatable.", show_default="every recipe")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Texts a batch.")] = 1,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens a text.", show_default="128, or what the model takes")
    ] = None,
    assignments: options.Set = None,
    threads: options.Threads = None,
    repeats: Annotated[int, typer.Option(min=1, help="Measured passes of each.")] = 20,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Pack the teacher with each recipe without training; measure bytes and latency here. Accuracy is not estimated."""
    if model_kind(teacher) != "checkpoint":
        raise BitpressError(f"{teacher}: this is an artifact already; estimate takes the teacher it came from")
    from bitpress.bench.latency import most_tokens
    from bitpress.recipes.schema import list_recipes

    overrides = options.parse_overrides(assignments)
    length = length or min(128, most_tokens([teacher]))
    names = recipe or [known.name for known in list_recipes()]
    with only_results_on_stdout():
        result = measure_recipes(
            teacher, names, batch, length, threads, repeats, quiet, skip=recipe is None, overrides=overrides
        )
    if as_json:
        emit_json(result)
        return
    from bitpress.bench.report import busy_warning

    rows = [
        [
            row["recipe"],
            format_bytes(row["bytes"]),
            format_ratio(row["ratio"]),
            "" if row["paper"] is None else f"{row['paper']['mib']:.2f} MiB, {format_ratio(row['paper']['ratio'])}",
            format_ms(row["median_ms"]),
        ]
        for row in result["rows"]
    ]
    title = f"{batch} × {length} tokens, {result['rows'][0]['threads']} threads"
    print_table([title, "weights", "smaller", "as papers count", "median"], rows)
    note(result["note"])
    if (warning := busy_warning(result["busy_elsewhere"])) is not None:
        note(warning)


def measure_recipes(
    teacher: Path,
    recipes: list[str],
    batch: int,
    length: int,
    threads: int | None,
    repeats: int,
    quiet: bool,
    skip: bool = False,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Rows for the teacher and each recipe: ``recipe``, ``bytes``, ``ratio``, ``paper``, ``median_ms``, ``batch``,
    ``length``, ``threads``. Sizes are those of the weights file on disk; ``ratio`` is the teacher's over the recipe's;
    ``paper`` has the size as the recipe's paper counts it (label, mib, ratio), the teacher none. With ``skip``, recipes
    that do not suit the teacher or the ``overrides`` are left out with a note; otherwise they are errors."""
    from bitpress.bench.latency import Cell, measure
    from bitpress.recipes.runner import post_training_artifact

    with tempfile.TemporaryDirectory(prefix="bitpress-estimate-") as folder:
        models: dict[str, str | Path] = {TEACHER: teacher}
        papers: dict[str, dict[str, Any]] = {}
        for i, name in enumerate(dict.fromkeys(recipes)):
            note(f"packing with {name}", quiet)
            path = Path(folder) / f"{i}"
            try:
                post_training_artifact(teacher, name, path, overrides)
            except RecipeError as error:
                if not skip:
                    raise
                note(f"{name} is left out: {error}", quiet)
                continue
            models[name] = path
            papers[name] = _as_papers_count(path)
        note(f"measuring {batch} × {length} tokens", quiet)
        measured = measure(models, [Cell(batch, length)], threads=threads, repeats=repeats)
        sizes = {name: weight_bytes(path) for name, path in models.items()}
    rows = []
    for row in measured["rows"]:
        name = row.pop("model")
        rows.append(
            {
                "recipe": name,
                "bytes": sizes[name],
                "ratio": sizes[TEACHER] / sizes[name],
                "paper": papers.get(name),
                **row,
            }
        )
    return {
        "rows": rows,
        "machine": measured["machine"],
        "busy_elsewhere": measured["busy_elsewhere"],
        "note": "Bytes and latency were measured on weights packed without training. Accuracy is not estimated: "
        "`bitpress compress` trains, where the recipe does, and measures it.",
    }


def _as_papers_count(artifact: Path) -> dict[str, Any]:
    from bitpress.artifact import describe

    described = describe(artifact)
    others = ("qbert_accounting", "gobo_accounting", "binary_accounting")
    own = next((key for key in others if key in described), "paper_accounting")
    return {key: described[own][key] for key in ("label", "mib", "ratio")}
