"""General distillation (TinyBERT, Jiao et al. 2020, arXiv 1909.10351, §3.3): a student of another shape learns the
attention scores and hidden states of an encoder that was not fine-tuned, on raw text and without masking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitpress.encoder import SequenceClassifier, head_parameters, save_encoder
from bitpress.errors import RecipeError
from bitpress.recipes.schema import Distillation
from bitpress.recipes.teaching import Teaching
from bitpress.slim import EmbeddingsFrom, StudentShape, fresh_student, from_layers
from bitpress.train import Batch, EncodedDataset, collate


class GeneralDistillation:
    """The objective of ``pretrain --task distill``.

    Args:
        student: a shape such as "4x312", of random weights; or a number, so many of the teacher's own layers.
        embeddings: of a shape, whether they start "random" or as the "teacher"'s.

    Raises:
        RecipeError: a shape or a number that cannot be, or models that cannot be compared as ``distill`` says.
    """

    metric = "minus_held_out_loss"  # higher is better

    def __init__(
        self,
        teacher: SequenceClassifier,
        student: str,
        distill: Distillation,
        seed: int,
        embeddings: EmbeddingsFrom = "random",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        if student.isdecimal():
            if embeddings == "teacher":
                raise RecipeError("embeddings: teacher is for a shape; a student of the encoder's own layers has them")
            self.model = from_layers(teacher, int(student))
        else:
            self.model = fresh_student(teacher, StudentShape.parse(student), seed, embeddings)
        # What no loss reaches would be carried through the optimizer and checkpoints for nothing.
        for parameter in head_parameters(self.model):
            parameter.requires_grad_(False)
        self._teaching = Teaching(distill, self.model, teacher, seed=seed, warn=warn)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """As :func:`bitpress.train.run_stage` takes it."""
        return self._teaching(model, batch)

    @torch.no_grad()
    def evaluate(self, model: nn.Module, held_out: EncodedDataset) -> dict[str, float]:
        """Means over the held-out sequences of the loss and its parts."""
        sums: dict[str, float] = {}
        device = next(model.parameters()).device
        for indices in np.array_split(np.arange(len(held_out)), -(-len(held_out) // 32)):
            _, parts = self._teaching(model, collate(held_out, indices, device))
            for key, value in parts.items():
                sums[key] = sums.get(key, 0.0) + float(value) * len(indices) / len(held_out)
        return {**sums, self.metric: -sums["total"]}

    def write(self, out: str | Path, encoder: str | Path) -> None:
        """The student as a checkpoint, with the projections it was compared through: ``compress --student`` goes on
        with both."""
        projections = self._teaching.end()
        save_encoder(self.model, out, tokenizer_from=encoder, extra=projections.tensors() if projections else None)

    def describe(self) -> dict[str, Any]:
        """What was made."""
        config = self.model.config
        body = [p for n, p in self.model.named_parameters() if not n.startswith(("pooler.", "classifier.", "hidden_"))]
        return {
            "model": f"student {config.num_hidden_layers}x{config.hidden_size}",
            "parameters": sum(p.numel() for p in body),
        }
