"""Compression without a text: a recipe that trains nothing, on a checkpoint whose labelled data is not at hand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitpress.artifact import describe, read_artifact, replace_file
from bitpress.encoder import SequenceClassifier
from bitpress.errors import TrainingError
from bitpress.recipes.agreement import engine_vs_student
from bitpress.recipes.estimate import pack_untrained
from bitpress.recipes.schema import Recipe, load_recipe
from bitpress.runtime.engine import Engine
from bitpress.train import EncodedDataset

# Texts of random tokens on which engine and student are compared, and the longest of them.
CHECKED_TEXTS, LONGEST = 64, 64

_CARD = """Recipe `{name}`: {summary}.

Packed from its checkpoint without a text: how well it answers was not measured. The engine gave the same bits as the
fake-quantized student for {same} of {n} {unit} of random tokens.
"""


@dataclass(frozen=True)
class PackResult:
    """A packed checkpoint: where it is, its bytes, and how engine and fake-quantized student compare on random tokens
    (:func:`bitpress.recipes.agreement.engine_vs_student`)."""

    out: str
    recipe: str
    total_bytes: int
    fp32_bytes: int
    ratio: float
    engine_vs_student: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def pack(
    teacher: str | Path,
    *,
    recipe: str | Path = "int8",
    out: str | Path,
    task: str | None = None,
    pooling: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PackResult:
    """Quantize ``teacher`` by a recipe that trains nothing and write the artifact to ``out``. Nothing is measured on
    text, since there is none: :func:`bitpress.compress` does that, with labelled data.

    Args:
        task, pooling: as for ``compress``.

    Raises:
        TrainingError: the recipe trains, or divides bits by a sensitivity that is to be measured, or the teacher has no
            head.
        RecipeError, UnsupportedModelError, ArtifactError: as for ``compress``.
    """
    parsed = load_recipe(recipe, overrides)
    _check_needs_no_text(parsed)
    student = pack_untrained(teacher, parsed, out, task=task, pooling=pooling, is_complete=True)
    with Engine.from_artifact(read_artifact(out)) as engine:
        check = _compare(student, engine)
    same = {"same": check["identical_logits"], "n": check["n"], "unit": check["unit"]}
    card = _CARD.format(name=parsed.name, summary=parsed.summary, **same)
    replace_file(out, "README.md", card.encode())
    sizes = describe(out)
    return PackResult(str(out), parsed.name, sizes["total_bytes"], sizes["fp32_bytes"], sizes["ratio"], check)


def _check_needs_no_text(recipe: Recipe) -> None:
    if recipe.trains:
        raise TrainingError(
            f"recipe {recipe.name!r} trains the student; give labelled text with --train and --dev, or take a recipe "
            "that trains nothing, such as int8"
        )
    if recipe.widths and recipe.allocation.sensitivity is None:
        raise TrainingError(
            f"bits is {recipe.bits}, which is divided by a sensitivity that is measured on labelled text; name a "
            "finished measurement with --set sensitivity=DIR"
        )


def _compare(student: SequenceClassifier, engine: Engine) -> dict[str, Any]:
    """:func:`engine_vs_student` on random tokens."""
    rng = np.random.default_rng(0)
    longest = min(LONGEST, student.config.max_position_embeddings)
    lengths = rng.integers(1, longest + 1, CHECKED_TEXTS)
    ids = [rng.integers(student.config.vocab_size, size=length).tolist() for length in lengths]
    types = [[0] * len(row) for row in ids]
    dataset = EncodedDataset.from_sequences(ids, types, None, pad_id=0)
    return engine_vs_student(engine.forward(ids, types), student, dataset)
