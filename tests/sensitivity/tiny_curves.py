"""Models small enough to write their Hessians down, and texts for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.sensitivity import Block
from bitpress.sensitivity.blocks import block_tensors
from bitpress.sensitivity.hessian import BlockHessians
from bitpress.sensitivity.losses import sample_batches, sample_hessians
from bitpress.train import EncodedDataset


def encoder(labels: int = 3, **changes: object) -> SequenceClassifier:
    """Two layers of 8 columns, wide initial weights, so that curvature is far from rounding errors."""
    config = {
        "model_type": "bert",
        "vocab_size": 20,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 12,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "initializer_range": 0.5,
        "pad_token_id": 0,
        "id2label": {str(i): f"label {i}" for i in range(labels)},
    }
    return SequenceClassifier(EncoderConfig.from_hf(config | changes)).eval()


def texts(count: int, seed: int = 0, labels: int = 3) -> EncodedDataset:
    """Random texts of 2 to 9 tokens with random labels; with ``labels`` 1 random scores."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(1, 20, rng.integers(2, 10)).tolist() for _ in range(count)]
    targets = rng.normal(size=count).astype(np.float32) if labels == 1 else rng.integers(0, labels, count)
    return EncodedDataset.from_sequences(rows, None, targets)


def hessians(model: SequenceClassifier, blocks: Sequence[Block], data: EncodedDataset) -> BlockHessians:
    """Of the mean loss over all of ``data``."""
    return sample_hessians(model, blocks, sample_batches(data, np.arange(len(data))))


def explicit_hessian(model: nn.Module, block: Block, loss: Tensor) -> Tensor:
    """Slow reference: ∂²loss/∂W² [size, size], a row at a time; loss must be a graph over the model's parameters."""
    parameters = block_tensors(model, block)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters, create_graph=True)])
    rows = []
    for entry in gradient:
        row = torch.autograd.grad(entry, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([part.reshape(-1) for part in row]))
    return torch.stack(rows).detach()


class Mlp(nn.Module):
    """One hidden layer with tanh: 4 inputs, 5 units, 3 outputs."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Linear(4, 5)
        self.second = nn.Linear(5, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(0, 0.8, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """[N, 4] → [N, 3]."""
        y: Tensor = self.second(torch.tanh(self.first(x)))
        return y
