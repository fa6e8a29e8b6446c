"""The loss around a model: on a plane through one block's weights, along its two steepest directions (Q-BERT, Shen et
al. 2020, §3 and figure 2).

    z(e1, e2) = L(W + e1·u1 + e2·u2)    u1, u2 the eigenvectors of H of largest |λ|, of length 1; other blocks fixed

A bowl is a minimum; a saddle shows where an eigenvalue is negative.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bitpress.encoder import SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.sensitivity.blocks import Block, block_tensors
from bitpress.sensitivity.hessian import BlockHessians, Eigenpair, power_iteration, random_normal
from bitpress.sensitivity.losses import Loss, sample_batches, sample_hessians, sample_indices, summed_loss
from bitpress.sensitivity.measure import check_full_precision
from bitpress.sensitivity.report import SensitivitySettings
from bitpress.train import Batch, EncodedDataset
from bitpress.train.schedule import derive_seed

# One point of the grid is a forward pass over the sample, of which a grid of 21 by 21 has 441.
TEXTS = 64
ITERATIONS, TOLERANCE = 20, 1e-3


@dataclass(frozen=True)
class Landscape:
    """``loss[i][j]`` is the mean loss of ``texts`` texts at the distances ``steps[i]`` along the first eigenvector and
    ``steps[j]`` along the second."""

    block: str
    texts: int
    eigenvalues: tuple[float, float]
    converged: tuple[bool, bool]
    steps: tuple[float, ...]
    loss: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    def as_csv(self) -> str:
        """A header and a line a point: e1,e2,loss."""
        points = [
            f"{e1!r},{e2!r},{self.loss[i][j]!r}" for i, e1 in enumerate(self.steps) for j, e2 in enumerate(self.steps)
        ]
        return "\n".join(["e1,e2,loss", *points]) + "\n"


def check_grid(grid: int, span: float) -> None:
    """RecipeError where :func:`landscape` could not draw on such a grid."""
    if type(grid) is not int or grid < 3 or grid % 2 == 0:
        raise RecipeError(
            f"grid is {grid!r}; allowed: an odd integer of at least 3, so that the model is in the middle"
        )
    if not 0 < span < float("inf"):
        raise RecipeError(f"span is {span!r}; allowed: a number above 0")


def landscape(
    model: SequenceClassifier,
    data: EncodedDataset,
    block: Block,
    *,
    grid: int = 21,
    span: float = 0.5,
    texts: int = TEXTS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Landscape:
    """The loss on a grid of ``grid`` by ``grid`` points, from −span to span in both directions, on one sample of
    ``data``: the same for the eigenvectors and for every point.

    Args:
        model: fp32, without quantizers; put in eval mode, its weights afterwards as before, bit for bit.
        progress: (points done, points in all).

    Raises:
        RecipeError: a grid that is even or below 3, a span that is not positive.
    """
    check_full_precision(model)
    check_grid(grid, span)
    model.eval()
    indices = sample_indices(data.lengths, 0, SensitivitySettings(share=1.0, texts=texts, seed=seed))
    batches = sample_batches(data, indices, next(model.parameters()).device)
    loss = summed_loss(model.config)
    first, second = _eigenpairs(sample_hessians(model, [block], batches), model, block, seed)
    steps = np.linspace(-span, span, grid).tolist()
    values = _grid(model, block, batches, loss, len(indices), (first, second), steps, progress)
    return Landscape(
        block=block.name,
        texts=len(indices),
        eigenvalues=(first.value, second.value),
        converged=(first.converged, second.converged),
        steps=tuple(steps),
        loss=tuple(map(tuple, values)),
    )


def _eigenpairs(
    hessians: BlockHessians[Batch], model: nn.Module, block: Block, seed: int
) -> tuple[Eigenpair, Eigenpair]:
    size = sum(tensor.numel() for tensor in block_tensors(model, block))
    device = next(model.parameters()).device
    found: list[Eigenpair] = []
    for number in range(2):
        start = random_normal(size, derive_seed(seed, "landscape", number, block.name)).to(device)
        known = {block.name: [pair.vector for pair in found]}
        pairs = power_iteration(hessians, {block.name: start}, {block.name: ITERATIONS}, TOLERANCE, known)
        found.append(pairs[block.name])
    return found[0], found[1]


def _grid(
    model: nn.Module,
    block: Block,
    batches: list[Batch],
    loss: Loss,
    count: int,
    pairs: tuple[Eigenpair, Eigenpair],
    steps: list[float],
    progress: Callable[[int, int], None],
) -> list[list[float]]:
    tensors = block_tensors(model, block)
    kept = [tensor.detach().clone() for tensor in tensors]
    sizes = [tensor.numel() for tensor in tensors]
    directions = [pair.vector.split(sizes) for pair in pairs]
    values: list[list[float]] = []
    try:
        # Not inference mode: it would mark the parameters that are written.
        with torch.no_grad():
            for e1 in steps:
                values.append([])
                for e2 in steps:
                    for tensor, original, u1, u2 in zip(tensors, kept, *directions, strict=True):
                        tensor.copy_(original + (e1 * u1 + e2 * u2).view_as(original))
                    values[-1].append(float(sum(loss(model, batch).double() for batch in batches)) / count)
                    progress(sum(map(len, values)), len(steps) ** 2)
    finally:
        with torch.no_grad():
            for tensor, original in zip(tensors, kept, strict=True):
                tensor.copy_(original)
    return values
