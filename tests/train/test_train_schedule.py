"""Schedules. Oracle: values computed by hand."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from bitpress.errors import TrainingError
from bitpress.train import Schedule
from bitpress.train.schedule import derive_seed, learning_rate_at


@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [
        ("linear", 0.0, [1.0, 0.8, 0.6, 0.4, 0.2]),
        ("linear", 0.4, [1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3]),
        ("constant", 0.2, [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("cosine", 0.2, [0.5, 1.0, 0.8535533906, 0.5, 0.1464466094]),
    ],
)
def test_rates(decay: str, warmup: float, expected: list[float]) -> None:
    schedule = Schedule(learning_rate=2.0, batch_size=1, decay=decay, warmup=warmup)  # type: ignore[arg-type]
    assert [learning_rate_at(schedule, s, 5) / 2.0 for s in range(5)] == pytest.approx(expected)


def test_single_step_runs_at_the_full_rate() -> None:
    assert learning_rate_at(Schedule(learning_rate=2.0, batch_size=1), 0, 1) == 2.0


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"learning_rate": 0}, "learning_rate is 0; allowed: a positive number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; allowed: adamw, bertadam"),
        ({"decay": "step"}, "decay is 'step'; allowed: linear, constant, cosine"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0; allowed: a positive number, or null"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"batch_tokens": 64}, "batch_tokens is 64 and batch_size is 1; exactly one"),
        ({"batch_size": None}, "batch_tokens is None and batch_size is None; exactly one"),
    ],
)
def test_values_out_of_range(changes: dict, text: str) -> None:
    with pytest.raises(TrainingError) as error:
        Schedule(**{"learning_rate": 1.0, "batch_size": 1, **changes})
    assert text in str(error.value)


def test_epsilon_is_the_optimizers_own_unless_given() -> None:
    assert Schedule(learning_rate=1.0, batch_size=1).epsilon == 1e-8
    assert Schedule(learning_rate=1.0, batch_size=1, optimizer="bertadam").epsilon == 1e-6
    assert Schedule(learning_rate=1.0, batch_size=1, optimizer="bertadam", eps=1e-3).epsilon == 1e-3


def test_seeds_differ_and_stay() -> None:
    seeds = {derive_seed(*parts) for parts in [(0, "a", 1), (0, "a", 2), (0, "b", 1), (1, "a", 1), (0, "a", "1")]}
    assert len(seeds) == 5
    # Checkpoints of earlier releases count on it: the value must never change.
    assert derive_seed(0, "stage", 1) == 2950750218588743024
