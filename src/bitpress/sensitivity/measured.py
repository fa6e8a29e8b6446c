"""Sensitivity measured the slow way, as ground truth: quantize one block alone, leave the others in fp32, score.

The proxies that are computed from the Hessian are compared with it by rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitpress.data.metrics import spearman
from bitpress.errors import RecipeError
from bitpress.quantize import UniformWeightQuantizer
from bitpress.sensitivity.blocks import Block, block_tensors
from bitpress.sensitivity.report import SensitivityReport

# Q-BERT's experiments (§4): 128 groups of neighbouring outputs a matrix.
GROUPS = 128

QuantizerOf = Callable[[Tensor], Callable[[Tensor], Tensor]]
Scores = Mapping[str, float]


@dataclass(frozen=True)
class BlockDrop:
    """One block alone at ``bits`` bits.

    error   ‖W − Q(W)‖², summed over the block's matrices
    scores  as the evaluation gave them, the loss among them
    drop    of the metric, as a fraction: above 0 is worse than fp32
    rise    of the loss
    """

    block: str
    bits: int
    error: float
    scores: dict[str, float]
    drop: float
    rise: float

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)


def group_wise(bits: int, groups: int = GROUPS) -> QuantizerOf:
    """Q-BERT's quantizer of a matrix: asymmetric, at most ``groups`` blocks of neighbouring outputs; where their number
    does not divide the outputs, blocks are one larger and the last is smaller."""
    if type(groups) is not int or groups < 1:
        raise RecipeError(f"groups is {groups!r}; allowed: an integer of at least 1")

    def quantizer(weight: Tensor) -> UniformWeightQuantizer:
        rows = -(-weight.shape[0] // groups)
        return UniformWeightQuantizer(bits=bits, symmetric=False, group="row_block", group_size=rows)

    return quantizer


def quantize_in_place(model: nn.Module, blocks: Sequence[Block], quantizer_of: QuantizerOf) -> float:
    """Make the matrices of ``blocks`` what their quantizers make of them; ‖W − Q(W)‖².

    Vectors of a block (biases, LayerNorm) stay as they are: no policy quantizes them.
    """
    error = 0.0
    with torch.no_grad():
        for tensor in _matrices(model, blocks):
            original = tensor.clone()
            tensor.copy_(quantizer_of(original)(original))
            error += float((tensor - original).double().square().sum())
    return error


@contextmanager
def quantized(model: nn.Module, blocks: Sequence[Block], quantizer_of: QuantizerOf) -> Iterator[float]:
    """:func:`quantize_in_place` while it lasts; afterwards the weights are as before, bit for bit."""
    tensors = _matrices(model, blocks)
    kept = [tensor.detach().clone() for tensor in tensors]
    try:
        yield quantize_in_place(model, blocks, quantizer_of)
    finally:
        with torch.no_grad():
            for tensor, original in zip(tensors, kept, strict=True):
                tensor.copy_(original)


def _matrices(model: nn.Module, blocks: Sequence[Block]) -> list[Tensor]:
    return [tensor for block in blocks for tensor in block_tensors(model, block) if tensor.dim() == 2]


def measure_drop(
    model: nn.Module,
    block: Block,
    bits: int,
    evaluate: Callable[[nn.Module], Scores],
    baseline: Scores,
    metric: str,
    quantizer_of: QuantizerOf | None = None,
) -> BlockDrop:
    """Score ``model`` with ``block`` alone at ``bits`` bits.

    Args:
        evaluate: model → scores, "loss" and ``metric`` among them.
        baseline: what it gives of the model as it is.
        quantizer_of: matrix → its quantizer; None: :func:`group_wise`.
    """
    with quantized(model, [block], quantizer_of or group_wise(bits)) as error:
        scores = dict(evaluate(model))
    return BlockDrop(
        block.name, bits, error, scores, baseline[metric] - scores[metric], scores["loss"] - baseline["loss"]
    )


@dataclass(frozen=True)
class Agreement:
    """Rank correlation (Spearman, ties share a rank) over blocks at ``bits`` bits, of a proxy ("omega", "trace_error")
    with what was measured: the drop of the metric and the rise of the loss."""

    bits: int
    proxy: str
    drop: float
    rise: float


def rank_agreement(report: SensitivityReport, drops: Sequence[BlockDrop]) -> tuple[Agreement, ...]:
    """How well Ω and mean trace · ‖W − Q(W)‖² (HAWQ-V2, Dong et al. 2020, arXiv 1911.03852: trace over parameters) rank
    the blocks of ``report``; for every number of bits at which all of them were measured."""
    found = []
    for bits in sorted({drop.bits for drop in drops}, reverse=True):
        by_name = {drop.block: drop for drop in drops if drop.bits == bits}
        if any(block.name not in by_name for block in report.blocks):
            continue
        mine = [by_name[block.name] for block in report.blocks]
        proxies = {
            "omega": [block.omega for block in report.blocks],
            "trace_error": [
                block.trace / block.size * drop.error for block, drop in zip(report.blocks, mine, strict=True)
            ],
        }
        lost, risen = (np.array([getattr(drop, key) for drop in mine]) for key in ("drop", "rise"))
        for proxy, values in proxies.items():
            ranked = np.array(values)
            found.append(Agreement(bits, proxy, spearman(ranked, lost), spearman(ranked, risen)))
    return tuple(found)
