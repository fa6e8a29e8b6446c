"""A model of a few hundred parameters with everything a resume can get wrong: dropout, a running buffer, a tied tensor,
a parameter without a gradient, accumulation, a metric that rises and falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from bitpress.train import Batch, EncodedDataset, Schedule, StageResult, run_stage


class TinyModel(nn.Module):
    running: Tensor

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.table = nn.Embedding(23, 6)
        self.norm = nn.LayerNorm(6)
        self.dropout = nn.Dropout(0.3)
        self.head = nn.Linear(6, 2)
        self.tied = self.head
        self.unused = nn.Linear(3, 1)
        self.register_buffer("running", torch.zeros(6))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, batch: Batch) -> Tensor:
        mask = batch.attention_mask[..., None]
        hidden = (self.table(batch.input_ids) * mask).sum(1) / mask.sum(1)
        if self.training:
            self.running.mul_(0.9).add_(hidden.detach().mean(0), alpha=0.1)
        return self.head(self.dropout(self.norm(hidden + self.running)))


def tiny_dataset(count: int = 41) -> EncodedDataset:
    rng = np.random.default_rng(3)
    rows = [rng.integers(1, 23, size=rng.integers(2, 12)).tolist() for _ in range(count)]
    labels = np.array([int(sum(row) % 2) for row in rows], dtype=np.int64)
    return EncodedDataset.from_sequences(rows, None, labels)


def cross_entropy(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    logits = model(batch)
    loss = nn.functional.cross_entropy(logits, batch.labels)
    return loss, {"squared_logits": logits.square().mean()}


def rising_and_falling(model: nn.Module) -> dict[str, float]:
    """Some function of the weights and buffers; the best step is neither the first nor the last."""
    weights = torch.cat([p.reshape(-1) for p in model.parameters()] + [model.running])
    return {"score": float(torch.sin(weights.double().sum() * 40)), "half": 0.5}


SCHEDULE = Schedule(
    learning_rate=0.05, epochs=3, batch_size=6, accumulate=2, evaluate_every=3, checkpoint_seconds=0.0, seed=11
)


def train_tiny(run_dir: Path, **changes: Any) -> tuple[StageResult, TinyModel]:
    model = TinyModel()
    arguments: dict[str, Any] = {
        "name": "tiny",
        "model": model,
        "train": tiny_dataset(),
        "loss_fn": cross_entropy,
        "evaluate": rising_and_falling,
        "metric": "score",
        "schedule": SCHEDULE,
        "run_dir": run_dir,
        "fingerprint": {"encoder": "tiny", "policy": {"weights": "fp32"}},
        "console": Console(quiet=True),
    }
    arguments.update(changes)
    return run_stage(**arguments), arguments["model"]
