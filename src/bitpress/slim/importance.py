r"""How much a loss depends on each attention head and feed-forward neuron: first-order Taylor, as in DynaBERT (Hou et
al. 2020, arXiv 2004.04037, §2.1; spec/dynabert.md §2).

    head i of a layer     Σ over batches |∂L/∂ξ_i|   with ξ_i = 1 a factor on the head's output
    neuron j of a layer   Σ over batches |W₁[j]·∂L/∂W₁[j] + b₁[j]·∂L/∂b₁[j]| + |W₂[:, j]·∂L/∂W₂[:, j]|

W₁, b₁ lead to the neuron and W₂ away from it. The released code never zeroes gradients between batches, so that each
batch counts again in all later ones; here every batch counts once. It takes them from the development set; here it is
the caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.model import Attention, Layer

T = TypeVar("T")


@dataclass(frozen=True)
class Importance:
    """L vectors each, fp64 and at least 0: of heads [h] and of feed-forward neurons [I]."""

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def importance(
    model: SequenceClassifier, batches: Iterable[T], loss: Callable[[SequenceClassifier, T], Tensor]
) -> Importance:
    """Importance of heads and neurons of ``model``, which is left in eval mode, its gradients as they were.

    Args:
        batches: what to sum over; at least one.
        loss: (model, batch) → a scalar that depends on every layer.

    Raises:
        ValueError: no batches.
    """
    model.eval()
    layers = [(layer.attention, layer.ffn) for layer in model.layers if isinstance(layer, Layer)]
    factors = [torch.ones(attention.heads, requires_grad=True) for attention, _ in layers]
    wanted = [(ffn.intermediate.weight, ffn.intermediate.bias, ffn.output.weight) for _, ffn in layers]
    heads = [torch.zeros(attention.heads, dtype=torch.float64) for attention, _ in layers]
    neurons = [torch.zeros(ffn.intermediate.out_features, dtype=torch.float64) for _, ffn in layers]
    hooks = [_scale_heads(attention, factor) for (attention, _), factor in zip(layers, factors, strict=True)]
    count = 0
    try:
        for batch in batches:
            count += 1
            parameters = [p for part in wanted for p in part]
            gradients = torch.autograd.grad(loss(model, batch), [*factors, *parameters])
            for i, ((w1, b1, w2), factor) in enumerate(zip(wanted, gradients[: len(factors)], strict=True)):
                heads[i] += factor.abs()
                by_w1, by_b1, by_w2 = gradients[len(factors) + 3 * i : len(factors) + 3 * i + 3]
                entering = (w1 * by_w1).sum(dim=1, dtype=torch.float64) + b1 * by_b1
                neurons[i] += entering.abs() + (w2 * by_w2).sum(dim=0, dtype=torch.float64).abs()
    finally:
        for hook in hooks:
            hook.remove()
    if not count:
        raise ValueError("no batches to measure importance on")
    return Importance(tuple(h.detach() for h in heads), tuple(n.detach() for n in neurons))


def _scale_heads(attention: Attention, factor: Tensor) -> torch.utils.hooks.RemovableHandle:
    """Multiply the input of the attention output by a factor a head: what a factor on its probabilities does."""

    def scale(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        context = inputs[0]
        return (context * factor.repeat_interleave(attention.head_size),)

    return attention.output.register_forward_pre_hook(scale)
