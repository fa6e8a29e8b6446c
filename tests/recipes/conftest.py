"""A tiny encoder, its data, and a teacher fine-tuned on it once a session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import tiny_task
import torch

from bitpress.recipes.runner import finetune


@dataclass(frozen=True)
class Tiny:
    """Paths of the tiny task."""

    encoder: Path
    train: Path
    dev: Path
    teacher: Path


@pytest.fixture(autouse=True)
def _single_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and shared machines lose by them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    encoder = tiny_task.write_encoder(folder / "encoder")
    train = tiny_task.write_sentiment(folder / "train.tsv", 400, seed=1)
    dev = tiny_task.write_sentiment(folder / "dev.tsv", 120, seed=2)
    finetune(encoder, train=train, dev=dev, out=folder / "teacher", overrides=tiny_task.FAST, quiet=True)
    return Tiny(encoder, train, dev, folder / "teacher")
