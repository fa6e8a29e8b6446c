"""The student of a recipe: how it is made of its teacher, and how it enters a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bitpress.distill import HiddenProjections
from bitpress.encoder import SequenceClassifier, load_classifier, load_extra_tensors, model_loss
from bitpress.encoder.config import reads
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import AppliedPolicy, Policy, apply_policy, split_ternary
from bitpress.recipes.schema import Stage, StudentChanges
from bitpress.runtime.tokenization import Tokenizer
from bitpress.slim import Importance, StudentShape, fresh_student, from_layers, importance, narrow
from bitpress.train import Batch, EncodedDataset, collate

# Training texts on which the importance of heads and neurons is measured, and how many a batch.
MEASURED_TEXTS = 1024
_BATCH = 32


def make_student(
    changes: StudentChanges,
    teacher: str | Path,
    labels: Sequence[str] | None,
    seed: int,
    pooling: str | None = None,
) -> SequenceClassifier:
    """The student as it starts, but for its width, which takes data to decide; in eval mode.

    Args:
        teacher: the directory of a fine-tuned checkpoint.
        labels: names for the head; None: those of the checkpoint.
        seed: of weights that start fresh.
        pooling: of an encoder of sentences, one of ``POOLINGS``, else None.

    Raises:
        RecipeError: ``changes.init`` is neither a directory nor a shape, ``changes.layers`` are not the teacher's, or
            a student that is not made of a shape is to have its teacher's embeddings.
        TrainingError: the directory's model reads other tokens than the teacher.
        UnsupportedModelError: one of the directories is no checkpoint that bitpress runs.
    """
    model = load_classifier(teacher, id2label=labels, head=pooling)
    if changes.embeddings == "teacher" and (changes.init is None or init_directory(changes) is not None):
        raise RecipeError(
            "student.embeddings is 'teacher', which is for a student.init of a shape such as 4x312; "
            f"student.init is {changes.init}"
        )
    if changes.layers is not None:
        half = max(1, model.config.num_hidden_layers // 2)
        model = from_layers(model, half if changes.layers == "half" else changes.layers)
    elif changes.init is not None and init_directory(changes) is None:
        model = fresh_student(model, StudentShape.parse(changes.init), seed, changes.embeddings)
    elif changes.init is not None:
        config = model.config
        model = load_classifier(
            changes.init,
            id2label=config.id2label or None,
            problem_type=config.problem_type if config.is_regression or config.is_multilabel else None,
            head=reads(config.head),
            seed=seed,
        )
        model.config = replace(model.config, normalizes=config.normalizes)
        _check_same_tokens(changes.init, model, teacher, config.vocab_size)
    changes.apply(model)
    return model


def init_directory(changes: StudentChanges) -> Path | None:
    """The directory that the student's weights come from, if they come from one."""
    return Path(changes.init) if changes.init is not None and Path(changes.init).is_dir() else None


def init_projections(changes: StudentChanges, student: SequenceClassifier) -> HiddenProjections | None:
    """The projections that a general distillation left beside its student's weights, if there are any that fit."""
    directory = init_directory(changes)
    if directory is None:
        return None
    tensors = load_extra_tensors(directory, "fit_dense")
    return HiddenProjections.from_tensors(tensors, student.config.num_hidden_layers + 1)


def _check_same_tokens(init: str, student: SequenceClassifier, teacher: str | Path, vocabulary: int) -> None:
    ours, theirs = Tokenizer.from_directory(init), Tokenizer.from_directory(teacher)
    if student.config.vocab_size == vocabulary and ours.same_tokens(theirs):
        return
    raise TrainingError(
        f"{init} and {teacher} do not read the same tokens ({student.config.vocab_size} and {vocabulary} rows of their "
        "word embeddings); a student learns from a teacher with its own vocabulary"
    )


def narrow_student(student: SequenceClassifier, width: float, train: EncodedDataset | None) -> list[Tensor] | None:
    """Take away all but ``width`` of the student's heads and neurons, the least important to its loss on ``train``.

    Args:
        train: labelled; None: whichever come last, where only the shapes matter.

    Returns:
        Of each layer the indices of the heads that stayed; None where all did.
    """
    if width == 1:
        return None
    if train is None:
        config = student.config
        count = config.num_hidden_layers
        heads, neurons = torch.zeros(config.num_attention_heads), torch.zeros(config.intermediate_size)
        return narrow(student, width, Importance((heads,) * count, (neurons,) * count))
    return narrow(student, width, importance(student, _measured(train), _task_loss))


def enter_stage(student: SequenceClassifier, stage: Stage) -> AppliedPolicy:
    """Split ternary weights where the stage says so, and set its quantizers."""
    if stage.split:
        split_ternary(student)
    return apply_policy(student, stage.quantize)


@torch.no_grad()
def start_from_random_tokens(student: SequenceClassifier, policy: Policy) -> None:
    """Give ranges and learned scales that start from data any value, where bytes and speed matter only: in place."""
    if policy.activations.starts_from_data:
        shape = (4, min(32, student.config.max_position_embeddings))
        ids = torch.randint(student.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
        student.train()  # running ranges move in training mode only
        student(ids)
        student.eval()


def _measured(train: EncodedDataset) -> Iterator[Batch]:
    """At most MEASURED_TEXTS, spread over the data, shortest first so that there is little padding."""
    chosen = np.unique(np.linspace(0, len(train) - 1, min(len(train), MEASURED_TEXTS)).astype(np.int64))
    chosen = chosen[np.argsort(train.lengths[chosen], kind="stable")]
    for start in range(0, len(chosen), _BATCH):
        yield collate(train, chosen[start : start + _BATCH])


def _task_loss(model: SequenceClassifier, batch: Batch) -> Tensor:
    logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
    return model_loss(model.config, logits, batch.labels, batch.attention_mask)
