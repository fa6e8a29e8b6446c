"""Embeddings of a narrower student that start as its teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

from bitpress.encoder import SequenceClassifier
from bitpress.errors import RecipeError


@torch.no_grad()
def take_embeddings(student: SequenceClassifier, teacher: SequenceClassifier) -> None:
    """Start ``student``'s tables as the teacher's, seen along as many of their principal directions as it is wide.

    A state after the teacher's embeddings is LayerNorm(word + position + type): an affine map of the sum's deviation
    from its mean over the width. The student gets the coordinates of that in the directions along which such sums vary
    most (words, positions and types equally likely), so one linear projection gives the teacher's states back as well
    as this width allows. In place; everything else of the student stays as it is.

    Raises:
        RecipeError: the student is wider, or its embeddings are not its hidden states (ELECTRA's projection).
    """
    size, width = student.config.hidden_size, teacher.config.hidden_size
    ours, theirs = student.embeddings, teacher.embeddings
    if ours.projection is not None or theirs.projection is not None:
        raise RecipeError("embeddings: teacher is for encoders whose embeddings are as wide as their hidden states")
    if size > width:
        raise RecipeError(f"embeddings: teacher needs a student at most as wide as its teacher; {size} > {width}")
    scale = theirs.norm.weight.double()
    pairs = [
        (ours.word.weight, _deviation(theirs.word.weight, scale)),
        (ours.position.weight, _deviation(theirs.position.weight, scale)),
        (ours.token_type.weight, _deviation(theirs.token_type.weight, scale)),
    ]
    spread = sum((torch.cov(table.T, correction=0) for _, table in pairs), torch.zeros(width, width).double())
    directions = torch.linalg.eigh(spread).eigenvectors[:, -size:]  # ascending
    for target, table in pairs:
        target.copy_(table @ directions)


def _deviation(table: Tensor, scale: Tensor) -> Tensor:
    """[n, d] → float64 [n, d]: each row's deviation from its mean over d, as LayerNorm's weights scale it."""
    rows = table.detach().double()
    return (rows - rows.mean(dim=1, keepdim=True)) * scale
