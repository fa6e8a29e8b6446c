"""Hessian-vector products, power iteration, trace. Oracles: Hessians written down by torch.autograd.functional.hessian
and by hand, numpy's eigvalsh, finite differences of gradients, curvlinops."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import tiny_curves
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bitpress.encoder.activations import ACTIVATIONS
from bitpress.errors import TrainingError
from bitpress.sensitivity import Block, encoder_blocks
from bitpress.sensitivity.blocks import block_tensors
from bitpress.sensitivity.hessian import (
    BlockHessians,
    Products,
    power_iteration,
    rademacher_traces,
    random_normal,
    random_signs,
)
from bitpress.sensitivity.losses import sample_batches, summed_loss
from bitpress.train import EncodedDataset


def matrices(**given: list[list[float]]) -> Products:
    """Products with Hessians that are written out."""
    tensors = {name: torch.tensor(rows, dtype=torch.float32) for name, rows in given.items()}
    return lambda vectors: {name: tensors[name] @ vector for name, vector in vectors.items()}


def size_of(model: nn.Module, block: Block) -> int:
    return sum(parameter.numel() for parameter in block_tensors(model, block))


def starts(model: nn.Module, blocks: tuple[Block, ...], seed: int = 0) -> dict[str, Tensor]:
    return {block.name: random_normal(size_of(model, block), seed + i) for i, block in enumerate(blocks)}


def mean_loss(model: nn.Module, data: EncodedDataset) -> Tensor:
    return sum(summed_loss(model.config)(model, batch) for batch in sample_batches(data, np.arange(len(data)))) / len(
        data
    )


def differences(model: nn.Module, block: Block, data: EncodedDataset, v: Tensor) -> Tensor:
    """(g(W + h·v) − g(W − h·v)) / 2h of a model in fp64."""
    parameters = block_tensors(model, block)

    def gradient_at(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, part in zip(parameters, v.split([p.numel() for p in parameters]), strict=True):
                parameter += step * part.view_as(parameter)
        gradients = torch.autograd.grad(mean_loss(model, data), parameters)
        return torch.cat([gradient.reshape(-1) for gradient in gradients])

    h = 1e-5
    up = gradient_at(h)
    down = gradient_at(-2 * h)
    gradient_at(h)  # back to where it was
    return (up - down) / (2 * h)


def test_the_worked_example() -> None:
    seen: list[float] = []
    hessian = matrices(block=[[3, 1], [1, 2]])

    def products(vectors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = hessian(vectors)
        seen.append(float(vectors["block"] @ found["block"]))
        return found

    pair = power_iteration(products, {"block": torch.tensor([1.0, 0.0])}, {"block": 100}, 1e-3)["block"]
    assert seen == pytest.approx([3, 3.499998, 3.599998, 3.615383, 3.617645], abs=3e-6)
    assert pair.value == pytest.approx(3.617645, abs=1e-5)
    assert (pair.converged, pair.iterations) == (True, 5)
    assert pair.change == pytest.approx(6.3e-4, rel=0.02)
    exact = np.linalg.eigvalsh([[3.0, 1.0], [1.0, 2.0]])[-1]
    assert pair.value == pytest.approx(exact, rel=2e-4)


@pytest.mark.parametrize("start", [(1.0, 1.0), (2.0, 1.0), (1.0, 6.0)])
def test_two_eigenvalues_of_one_size_and_both_signs_are_reported_as_not_converged(start: tuple[float, float]) -> None:
    hessian = matrices(block=[[4, 0], [0, -4]])
    pair = power_iteration(hessian, {"block": torch.tensor(start)}, {"block": 50}, 1e-3)["block"]
    assert (pair.converged, pair.iterations) == (False, 50)
    assert abs(pair.value) < 3.9  # not an eigenvalue, though it no longer changes
    assert pair.change == pytest.approx(0, abs=1e-6)


def test_a_negative_eigenvalue_keeps_its_sign() -> None:
    hessian = matrices(low=[[-5, 1], [1, 2]], high=[[5, 1], [1, -2]])
    start = {"low": torch.tensor([1.0, 1.0]), "high": torch.tensor([1.0, 1.0])}
    pairs = power_iteration(hessian, start, {"low": 100, "high": 100}, 1e-6)
    assert pairs["low"].value == pytest.approx(np.linalg.eigvalsh([[-5, 1], [1, 2]])[0], rel=1e-4)
    assert pairs["high"].value == pytest.approx(np.linalg.eigvalsh([[5, 1], [1, -2]])[1], rel=1e-4)


def test_limits_and_convergence_are_each_blocks_own() -> None:
    hessian = matrices(easy=[[9, 0], [0, 0.1]], hard=[[1, 0], [0, 0.99]], flat=[[0, 0], [0, 0]])
    start = {name: torch.tensor([0.6, 0.8]) for name in ("easy", "hard", "flat")}
    pairs = power_iteration(hessian, start, {"easy": 30, "hard": 7, "flat": 30}, 1e-6)
    assert (pairs["easy"].converged, pairs["hard"].converged) == (True, False)
    assert (pairs["easy"].iterations < 6, pairs["hard"].iterations) == (True, 7)
    assert (pairs["flat"].value, pairs["flat"].converged, pairs["flat"].iterations) == (0.0, True, 1)
    assert list(pairs) == list(start)


def test_what_is_not_finite_is_an_error() -> None:
    with pytest.raises(TrainingError, match="block 'x': the product of Hessian and vector is not finite"):
        power_iteration(matrices(x=[[float("nan")]]), {"x": torch.ones(1)}, {"x": 3}, 1e-3)


@pytest.mark.parametrize("name", ["first.weight", "second.weight", "second.bias", "both"])
def test_eigenvalues_of_an_mlp(name: str) -> None:
    model = tiny_curves.Mlp()
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(12, 4, generator=generator), torch.randint(0, 3, (12,), generator=generator)
    names = ("first.weight", "second.weight") if name == "both" else (name,)
    block = Block(name, names)
    own = dict(model.named_parameters())
    shapes = [own[n].shape for n in names]

    def loss_of(flat: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes])
        replaced = {n: part.view(shape) for n, part, shape in zip(names, parts, shapes, strict=True)}
        return F.cross_entropy(functional_call(model, replaced, (x,)), y)

    point = torch.cat([own[n].detach().reshape(-1) for n in names])
    exact = torch.autograd.functional.hessian(loss_of, point)
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]

    def summed(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1], reduction="sum")

    hessians = BlockHessians(model, [block], batches, summed, len(x))
    products = torch.stack([hessians({name: unit})[name] for unit in torch.eye(len(point))])
    torch.testing.assert_close(products, exact, rtol=1e-4, atol=1e-6)
    values = np.linalg.eigvalsh(exact.double().numpy())
    order = np.argsort(-np.abs(values))
    first = power_iteration(hessians, {name: random_normal(len(point), 0)}, {name: 500}, 1e-5)[name]
    assert first.value == pytest.approx(values[order[0]], rel=1e-3)
    known = {name: (first.vector,)}
    second = power_iteration(hessians, {name: random_normal(len(point), 1)}, {name: 500}, 1e-5, known)[name]
    assert second.value == pytest.approx(values[order[1]], rel=2e-2)
    assert abs(float(first.vector @ second.vector)) < 1e-5


def test_blocks_of_an_encoder_against_the_explicit_hessian() -> None:
    model, data = tiny_curves.encoder(), tiny_curves.texts(4)
    blocks = encoder_blocks(model, "matrix")
    wanted = tuple(b for b in blocks if b.name in ("layers.0.attention.key", "layers.1.ffn.output"))
    hessians = tiny_curves.hessians(model, wanted, data)
    first = power_iteration(hessians, starts(model, wanted), {b.name: 60 for b in wanted}, 1e-4)
    signs = [{b.name: random_signs(size_of(model, b), 100 * k + i) for i, b in enumerate(wanted)} for k in range(12)]
    traces = rademacher_traces(hessians, signs)
    loss = mean_loss(model, data)
    for block in wanted:
        exact = tiny_curves.explicit_hessian(model, block, loss)
        torch.testing.assert_close(exact, exact.T, rtol=1e-3, atol=1e-5)
        values = np.linalg.eigvalsh(exact.double().numpy())
        top = values[np.abs(values).argmax()]
        assert first[block.name].value == pytest.approx(top, rel=1e-3)
        assert float(first[block.name].vector @ exact @ first[block.name].vector) == pytest.approx(top, rel=1e-3)
        # Hutchinson's variance, and four of its standard errors.
        variance = 2 * float(exact.square().sum() - exact.diagonal().square().sum())
        error = float(np.mean(traces[block.name])) - float(exact.trace())
        assert abs(error) < 4 * np.sqrt(variance / len(signs))


def test_hessian_products_against_curvlinops() -> None:
    curvlinops = pytest.importorskip("curvlinops")
    model, data = tiny_curves.encoder(), tiny_curves.texts(8)
    blocks = encoder_blocks(model, "layer")
    own = dict(model.named_parameters())
    # curvlinops takes a model of one tensor; a batch with no padding needs no mask.
    ids = torch.from_numpy(np.random.default_rng(3).integers(1, 20, (8, 5)))
    labels = torch.from_numpy(data.labels)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = model(x, collect=True).logits
            return logits

    same = EncodedDataset.from_sequences(ids.tolist(), None, data.labels)
    hessians = tiny_curves.hessians(model, blocks, same)
    for i, block in enumerate(blocks):
        parameters = [own[name] for name in block.parameters]
        operator = curvlinops.HessianLinearOperator(
            Logits(), nn.CrossEntropyLoss(), parameters, [(ids, labels)], check_deterministic=False
        )
        v = random_normal(size_of(model, block), i)
        found = hessians({block.name: v})[block.name]
        torch.testing.assert_close(found, operator @ v, rtol=1e-3, atol=1e-4 * float(found.abs().max()))


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_products_against_finite_differences(name: str) -> None:
    """Of every activation function: each needs a second derivative of its own."""
    model, data = tiny_curves.encoder(hidden_act=name).double(), tiny_curves.texts(3)
    block = encoder_blocks(model, "layer")[0]
    v = random_normal(size_of(model, block), 0).double()
    product = tiny_curves.hessians(model, [block], data)({block.name: v})[block.name]
    expected = differences(model, block, data, v)
    torch.testing.assert_close(product, expected, rtol=1e-4, atol=1e-6 * float(product.abs().max()))


def test_padding_and_the_cut_into_batches_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = tiny_curves.encoder(), tiny_curves.texts(11)
    blocks = encoder_blocks(model, "module")
    vectors = starts(model, blocks)
    together = tiny_curves.hessians(model, blocks, data)
    assert len(together._batches) == 1
    whole = together(vectors)
    monkeypatch.setattr("bitpress.sensitivity.losses.BATCH_TOKENS", 20)
    cut = tiny_curves.hessians(model, blocks, data)
    assert len(cut._batches) > 3
    monkeypatch.setattr("bitpress.sensitivity.losses.KEPT_TOKENS", 20)
    rebuilt = tiny_curves.hessians(model, blocks, data)
    parts = cut(vectors)
    for name, product in parts.items():
        torch.testing.assert_close(product, whole[name], rtol=1e-3, atol=1e-5 * float(whole[name].abs().max()))
    for hessians, expected in ((together, whole), (cut, parts), (rebuilt, parts), (rebuilt, parts)):
        again = hessians(vectors)
        assert all(torch.equal(again[name], expected[name]) for name in expected), "kept or built again: the same"
    assert (len(cut._kept), len(rebuilt._kept)) == (len(cut._batches), 0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_parameter_without_influence_has_no_curvature() -> None:
    model, data = tiny_curves.encoder(), tiny_curves.texts(4)
    with torch.no_grad():
        model.classifier.weight.zero_()  # then nothing below it matters
    block = encoder_blocks(model, "layer")[0]
    product = tiny_curves.hessians(model, [block], data)({block.name: torch.ones(size_of(model, block))})
    assert not product[block.name].any()
    unused = Block("unused", ("classifier.bias",))
    linear = BlockHessians(model, [unused], [1], lambda m, _: model.classifier.bias.sum(), 1)
    assert not linear({"unused": torch.ones(3)})["unused"].any(), "a linear loss has no second derivative"
    elsewhere = BlockHessians(model, [block], [1], lambda m, _: model.classifier.bias.exp().sum(), 1)
    assert not elsewhere({block.name: torch.ones(size_of(model, block))})[block.name].any()


def test_random_vectors_are_functions_of_their_seed() -> None:
    signs = random_signs(1000, 5)
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 0.13  # four standard errors
    assert torch.equal(signs, random_signs(1000, 5))
    assert not torch.equal(signs, random_signs(1000, 6))
    assert torch.equal(random_normal(7, 1), random_normal(7, 1))
