"""Optimizers. Oracles: BertAdam written out for one scalar at a time, and torch's plain AdamW."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from bitpress.train.optimizer import FusedAdam, is_decayed
from bitpress.train.schedule import Schedule

SHAPES = {"table.weight": (7, 5), "layer.weight": (1, 1), "layer.bias": (3,), "layer.norm.weight": (17,)}


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in SHAPES.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    """Norms above and below 1 occur, for single tensors and for all together."""
    generator = torch.Generator().manual_seed(100 + step)
    return {name: torch.randn(s, generator=generator) * 10 ** (-step / 2) for name, s in SHAPES.items()}


def bertadam_reference(
    weights: list[float], steps: list[list[float]], rates: list[float], decay: float, clip: float | None
) -> list[float]:
    """Slow reference: BertAdam of the papers, one tensor as a list of floats, in double precision."""
    weights, m, v = list(weights), [0.0] * len(weights), [0.0] * len(weights)
    for gradient, rate in zip(steps, rates, strict=True):
        norm = math.sqrt(sum(g * g for g in gradient))
        factor = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
        for i, raw in enumerate(gradient):
            g = raw * factor
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g * g
            update = m[i] / (math.sqrt(v[i]) + 1e-6)
            update += decay * weights[i]
            weights[i] -= rate * update
    return weights


@pytest.mark.parametrize("clip", [1.0, None])
def test_bertadam_equals_the_scalar_reference(clip: float | None) -> None:
    own = parameters()
    initial = {name: p.detach().double().flatten().tolist() for name, p in own.items()}
    schedule = Schedule(learning_rate=1.0, batch_size=1, optimizer="bertadam", weight_decay=0.1, clip_norm=clip)
    optimizer = FusedAdam(own.items(), schedule)
    rates = [0.01, 0.02, 0.03, 0.005, 0.001]
    for step, rate in enumerate(rates):
        for name, gradient in gradients(step).items():
            own[name].grad = gradient
        optimizer.set_learning_rate(rate)
        optimizer.step()
    for name, parameter in own.items():
        decay = 0.1 if name in ("table.weight", "layer.weight") else 0.0
        series = [gradients(step)[name].double().flatten().tolist() for step in range(len(rates))]
        expected = torch.tensor(bertadam_reference(initial[name], series, rates, decay, clip))
        # BertAdam's first update is up to 0.1/√0.001 ≈ 3.2 rates long; 5 fp32 steps keep within some 1e-6 of that.
        torch.testing.assert_close(parameter.detach().flatten(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("clip", [1.0, None])
def test_adamw_equals_torch(clip: float | None) -> None:
    own, theirs = parameters(), parameters()
    optimizer = FusedAdam(own.items(), Schedule(learning_rate=0.01, batch_size=1, weight_decay=0.1, clip_norm=clip))
    oracle = torch.optim.AdamW(
        [
            {"params": [p for name, p in theirs.items() if is_decayed(name)], "weight_decay": 0.1},
            {"params": [p for name, p in theirs.items() if not is_decayed(name)], "weight_decay": 0.0},
        ],
        lr=0.01,
        foreach=False,
    )
    for step in range(5):
        for name, gradient in gradients(step).items():
            own[name].grad, theirs[name].grad = gradient.clone(), gradient.clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(theirs.values(), clip)
        oracle.step()
        optimizer.step()
    for name in own:
        torch.testing.assert_close(own[name], theirs[name], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("kind", ["adamw", "bertadam"])
def test_state_goes_through_its_tensors(kind: str) -> None:
    schedule = Schedule(learning_rate=0.01, batch_size=1, optimizer=kind)  # type: ignore[arg-type]
    one, two = parameters(), parameters()
    first, second = FusedAdam(one.items(), schedule), FusedAdam(two.items(), schedule)
    for step in range(4):
        for name, gradient in gradients(step).items():
            one[name].grad = gradient.clone()
        first.step()
        if step == 2:
            second.load_state_tensors({name: t.clone() for name, t in first.state_tensors().items()})
            for name in one:
                two[name].data.copy_(one[name].data)
    for name, gradient in gradients(3).items():
        two[name].grad = gradient.clone()
    second.step()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_parameters_without_gradient_or_frozen_stay() -> None:
    own = parameters()
    own["layer.bias"].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in own.items()}
    optimizer = FusedAdam(own.items(), Schedule(learning_rate=0.1, batch_size=1))
    optimizer.step()
    own["table.weight"].grad = torch.ones(7, 5)
    optimizer.step()
    changed = {name for name in own if not torch.equal(own[name], before[name])}
    assert changed == {"table.weight"}
    assert not any(key.startswith("layer.bias") for key in optimizer.state_tensors())


@pytest.mark.parametrize(
    ("name", "decayed"),
    [
        ("layers.0.attention.query.weight", True),
        ("layers.0.attention.query.bias", False),
        ("layers.0.attention.norm.weight", False),
        ("bert.embeddings.LayerNorm.weight", False),
        ("embeddings.word.weight", True),
    ],
)
def test_decay_is_for_matrices(name: str, decayed: bool) -> None:
    assert is_decayed(name) is decayed


def test_learned_scales_have_a_rate_of_their_own_and_no_decay() -> None:
    """Oracle: Adam's first step is the rate, whatever the gradient; decay shrinks what it applies to."""
    names = ("layer.weight", "layer.bias", "layer.input_quantizer.scale", "point.quantizer.shift")
    own = {name: nn.Parameter(torch.full((2, 2), 8.0)) for name in names}
    schedule = Schedule(
        learning_rate=0.5, quantizer_learning_rate=0.125, batch_size=1, weight_decay=0.25, clip_norm=None
    )
    optimizer = FusedAdam(own.items(), schedule)
    for parameter in own.values():
        parameter.grad = torch.ones(2, 2)
    optimizer.set_learning_rate(0.25)  # half way: the others' rate is halved too
    optimizer.step()
    moved = {name: 8.0 - parameter.detach()[0, 0].item() for name, parameter in own.items()}
    assert moved["layer.weight"] == pytest.approx(0.25 * (1 + 0.25 * 8), rel=1e-4)
    assert moved["layer.bias"] == pytest.approx(0.25, rel=1e-4)
    assert moved["layer.input_quantizer.scale"] == pytest.approx(0.0625, rel=1e-4)
    assert moved["point.quantizer.shift"] == pytest.approx(0.0625, rel=1e-4)
