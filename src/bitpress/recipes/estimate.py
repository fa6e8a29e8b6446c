"""A teacher packed as it is: what recipes that train nothing are for, and what others would cost in bytes and
milliseconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitpress.encoder import SequenceClassifier
from bitpress.errors import TrainingError
from bitpress.freeze import freeze, round_side_data
from bitpress.recipes.mixed_precision import Division
from bitpress.recipes.schema import Recipe, load_recipe
from bitpress.recipes.student import enter_stage, make_student, narrow_student, start_from_random_tokens
from bitpress.recipes.teacher_task import teacher_task
from bitpress.runtime.tokenization import Tokenizer
from bitpress.sensitivity import load_sensitivity


def post_training_artifact(
    teacher: str | Path, recipe: str | Path, out: str | Path, overrides: Mapping[str, Any] | None = None
) -> None:
    """Quantize ``teacher`` by the policy of ``recipe`` without training and write the artifact to ``out``.

    Where the recipe trains, bytes and speed are those of the trained artifact, whose codes differ and whose shapes do
    not. The accuracy is not: low-bit weights need training, static ranges and learned scales come from random tokens
    here, and bits are divided among blocks as if all were equally sensitive. Where it does not, this is the artifact
    that ``compress`` would write, not measured.

    Raises:
        RecipeError, UnsupportedModelError, ArtifactError: as for ``compress``.
    """
    pack_untrained(teacher, load_recipe(recipe, overrides), out)


def pack_untrained(
    teacher: str | Path,
    parsed: Recipe,
    out: str | Path,
    *,
    task: str | None = None,
    pooling: str | None = None,
    is_complete: bool = False,
) -> SequenceClassifier:
    """:func:`post_training_artifact`, of a recipe that is read; the fake-quantized student that was packed.

    Args:
        task, pooling: see :func:`bitpress.recipes.teacher_task.teacher_task`.
        is_complete: refuse a teacher that lacks its head, with a TrainingError.
    """
    known = teacher_task(teacher, task, pooling)
    model = make_student(parsed.student, teacher, None, 0, known.pooling)
    if is_complete and model.fresh_tensors:
        raise TrainingError(
            f"{teacher} lacks {', '.join(sorted(model.fresh_tensors))}, so it answers nothing yet. Fine-tune it first "
            "(bitpress finetune), or make sentence embeddings of it with --task embedding"
        )
    narrow_student(model, parsed.student.width, None)
    for number in range(len(parsed.stages)):
        if parsed.widths and number == parsed.allocated_stage:
            parsed = parsed.with_bits(_unmeasured(parsed, model))
        enter_stage(model, parsed.stages[number])
    start_from_random_tokens(model, parsed.policy)
    if parsed.side_data == "fp16":
        round_side_data(model)
    freeze(
        model,
        parsed.policy,
        out,
        recipe=parsed.name,
        packing=parsed.packing,
        side_data=parsed.side_data,
        task=known.artifact_task(known.task.metric, known.spans is not None or known.task.pair_column is not None),
        max_length=known.max_length,
        tokenizer_files=Tokenizer.files(teacher),
        card="Packed without training, to estimate bytes and speed. Its predictions were not measured.\n",
        provenance={"recipe": parsed.as_dict(), "trained": False},
    )
    return model


def _unmeasured(recipe: Recipe, student: SequenceClassifier) -> dict[str, int]:
    """Bits of the blocks by a finished measurement if the recipe names one; else as if all were equally sensitive."""
    finished = recipe.allocation.sensitivity
    report = None if finished is None else load_sensitivity(finished)
    return Division(recipe, student).divide(report).bits
