"""A model of some of another's attention heads and feed-forward neurons; the hidden size stays.

DynaBERT's width (Hou et al. 2020, arXiv 2004.04037, §2.1), which BinaryBERT halves before it splits ternary weights.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from bitpress.encoder import SequenceClassifier
from bitpress.encoder.layers import Linear
from bitpress.encoder.model import Layer
from bitpress.errors import RecipeError
from bitpress.slim.importance import Importance


@torch.no_grad()
def narrow(model: SequenceClassifier, width: float, importance: Importance) -> list[Tensor]:
    """Keep the most important heads and neurons of every layer, ``width`` of each (rounded, at least one), in their
    order; in place, ``model.config`` included.

    Returns:
        Of each layer the heads that stayed: ascending indices among those there were.

    Raises:
        RecipeError: width is not above 0 and at most 1, or weights are split.
    """
    if not 0 < width <= 1:
        raise RecipeError(f"width is {width!r}; allowed: above 0 and at most 1")
    config = model.config
    head_count = max(1, round(width * config.num_attention_heads))
    neuron_count = max(1, round(width * config.intermediate_size))
    kept = []
    for layer, by_head, by_neuron in zip(model.layers, importance.heads, importance.neurons, strict=True):
        assert isinstance(layer, Layer)
        heads, neurons = _largest(by_head, head_count), _largest(by_neuron, neuron_count)
        attention, ffn = layer.attention, layer.ffn
        size = attention.head_size
        columns = (heads[:, None] * size + torch.arange(size)).flatten()
        for linear in (attention.query, attention.key, attention.value):
            _keep_outputs(linear, columns)
        _keep_inputs(attention.output, columns)
        attention.heads = head_count
        _keep_outputs(ffn.intermediate, neurons)
        _keep_inputs(ffn.output, neurons)
        kept.append(heads)
    model.config = replace(
        config,
        num_attention_heads=head_count,
        attention_head_size=config.head_size,
        intermediate_size=neuron_count,
    )
    return kept


def _largest(values: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest, ascending; of equal ones the first."""
    return values.argsort(descending=True, stable=True)[:count].sort().values


def _keep_outputs(linear: Linear, rows: Tensor) -> None:
    _check_whole(linear)
    linear.weight = nn.Parameter(linear.weight[rows].clone())
    linear.bias = nn.Parameter(linear.bias[rows].clone())
    linear.out_features = len(rows)


def _keep_inputs(linear: Linear, columns: Tensor) -> None:
    _check_whole(linear)
    linear.weight = nn.Parameter(linear.weight[:, columns].clone())
    linear.in_features = len(columns)


def _check_whole(linear: Linear) -> None:
    if linear.second_weight is not None:
        raise RecipeError("a model of split weights cannot be narrowed; narrow it first, then split")
