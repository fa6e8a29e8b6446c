"""The student of a recipe: how it is made of its teacher, and how it enters a stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.encoder import EncoderOutput, SequenceClassifier
from bitpress.quantize import AppliedPolicy, apply_policy, split_ternary
from bitpress.recipes.schema import Stage
from bitpress.slim import Importance, importance, narrow
from bitpress.train import Batch, EncodedDataset, collate

# Training texts on which the importance of heads and neurons is measured, and how many a batch.
MEASURED_TEXTS = 1024
_BATCH = 32


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


def of_heads(output: EncoderOutput, kept: list[Tensor] | None) -> EncoderOutput:
    """A teacher's output with the attention of those of its heads that a narrower student kept; None: of all."""
    if kept is None:
        return output
    return replace(
        output,
        attention_scores=tuple(s[:, h] for s, h in zip(output.attention_scores, kept, strict=True)),
        projections=tuple((q[:, h], k[:, h], v[:, h]) for (q, k, v), h in zip(output.projections, kept, strict=True)),
    )


def enter_stage(student: SequenceClassifier, stage: Stage) -> AppliedPolicy:
    """Split ternary weights where the stage says so, and set its quantizers."""
    if stage.split:
        split_ternary(student)
    return apply_policy(student, stage.quantize)


def _measured(train: EncodedDataset) -> Iterator[Batch]:
    """At most MEASURED_TEXTS, spread over the data, shortest first so that there is little padding."""
    chosen = np.unique(np.linspace(0, len(train) - 1, min(len(train), MEASURED_TEXTS)).astype(np.int64))
    chosen = chosen[np.argsort(train.lengths[chosen], kind="stable")]
    for start in range(0, len(chosen), _BATCH):
        yield collate(train, chosen[start : start + _BATCH])


def _task_loss(model: SequenceClassifier, batch: Batch) -> Tensor:
    assert batch.labels is not None, "training data has labels"
    logits = model(batch.input_ids, batch.attention_mask, batch.token_type_ids).logits
    if model.config.is_regression:
        return F.mse_loss(logits.squeeze(-1), batch.labels.to(logits.dtype))
    return F.cross_entropy(logits, batch.labels)
