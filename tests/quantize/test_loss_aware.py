"""Loss-aware ternary weights. Oracles: the worked numbers of the TernaryBERT specification (§5.3), brute force over all
sign patterns, the authors' alternation written out one weight at a time, and TWN where the loss is curved alike."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitpress.encoder.layers import EmbeddingTable, Linear
from bitpress.errors import RecipeError
from bitpress.quantize import LossAwareTernaryQuantizer, TernaryQuantizer, WeightPolicy

EXAMPLE = torch.tensor([[0.9, -0.4, 0.05, -1.2, 0.3, 0.6, -0.1, -0.75]])
CURVATURE = torch.tensor([[1, 4, 1, 0.25, 2, 1, 1, 1.0]])
KINDS = [(group, method) for group in ("matrix", "row") for method in ("lat", "lat-exact")]


def quantizer(
    curvature: Tensor | None, group: str = "matrix", method: str = "lat-exact", clip: float | None = None
) -> LossAwareTernaryQuantizer:
    """With d [rows, cols]; None: no second moment. In train mode, as new modules are."""
    rows = 1 if curvature is None else len(curvature)
    made = LossAwareTernaryQuantizer(rows, group, method, clip)
    made.second_moment = None if curvature is None else curvature.double().square().float()
    return made


def weighted_error(weight: Tensor, quantized: Tensor, curvature: Tensor) -> float:
    return float((curvature.double() * (weight - quantized).double().square()).sum())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["lat", "lat-exact"])
def test_vector_of_the_specification(method: str) -> None:
    """§5.3: both methods end at k = 6, α = .5135135, weighted error .485811; TWN's weights have .832525."""
    made = quantizer(CURVATURE, method=method)
    codes, scale = made.encode(EXAMPLE)
    assert codes.tolist() == [[1, -1, 0, -1, 1, 1, 0, -1]]
    assert float(scale) == pytest.approx(0.5135135, abs=1e-7)
    assert weighted_error(EXAMPLE, made(EXAMPLE), CURVATURE) == pytest.approx(0.485811, abs=1e-6)
    assert weighted_error(EXAMPLE, TernaryQuantizer()(EXAMPLE), CURVATURE) == pytest.approx(0.832525, abs=1e-6)


def test_vector_of_the_first_alternation(monkeypatch: pytest.MonkeyPatch) -> None:
    """§5.3: α of TWN's support is .572414."""
    monkeypatch.setattr("bitpress.quantize.loss_aware.ALTERNATIONS", 1)
    assert float(quantizer(CURVATURE, method="lat").encode(EXAMPLE)[1]) == pytest.approx(0.572414, abs=1e-6)


# Multiples of 1/4 make sums and products exact in fp64, and ties of magnitudes frequent.
problems = st.integers(1, 7).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(-12, 12).map(lambda i: i / 4), min_size=n, max_size=n),
        st.lists(st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0, 64.0]), min_size=n, max_size=n),
    )
)


@settings(max_examples=150, deadline=None)
@given(problems)
def test_the_exact_method_is_optimal(problem: tuple[list[float], list[float]]) -> None:
    values, curvature = problem
    weight, d = torch.tensor([values]), torch.tensor([curvature])
    codes, scale = quantizer(d).encode(weight)
    squares = sum(c * v * v for c, v in zip(curvature, values, strict=True))
    best = squares
    for pattern in itertools.product((-1, 0, 1), repeat=len(values)):
        dot = sum(c * b * v for c, b, v in zip(curvature, pattern, values, strict=True))
        mass = sum(c * abs(b) for c, b in zip(curvature, pattern, strict=True))
        if mass and dot > 0:
            best = min(best, squares - dot * dot / mass)
    fitted = [float(scale) * b for b in codes[0].tolist()]
    found = sum(c * (v - f) ** 2 for c, v, f in zip(curvature, values, fitted, strict=True))
    # √(d²) + 1e-8 is d in fp32 but for its last bit, and α is rounded to fp32: some 2⁻²³ of Σ d·w² ≤ 7·64·9.
    assert found == pytest.approx(best, abs=2**-22 * 7 * 64 * 9)


def slow_alternation(values: list[float], curvature: list[float]) -> list[float]:
    """The authors' method from TWN's support, in Python's fp64."""
    threshold, alpha = 0.7 * sum(map(abs, values)) / len(values), math.inf
    for _ in range(10):
        on = [(c, abs(v)) for c, v in zip(curvature, values, strict=True) if abs(v) > threshold]
        if not on:
            return [0.0] * len(values)
        before, alpha = alpha, sum(c * v for c, v in on) / sum(c for c, _ in on)
        threshold = alpha / 2
        if abs(alpha - before) < 1e-6:
            break
    return [math.copysign(alpha, v) if abs(v) > threshold else 0.0 for v in values]


@pytest.mark.parametrize("group", ["matrix", "row"])
@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (7, 13), (3, 300)])
def test_the_approximate_method_is_the_authors_alternation(group: str, shape: tuple[int, int]) -> None:
    weight, d = random(*shape, seed=1), random(*shape, seed=2).exp()
    made = quantizer(d, group, "lat")
    rows = zip(weight.tolist(), d.tolist(), strict=True)
    if group == "matrix":
        rows = zip([weight.flatten().tolist()], [d.flatten().tolist()], strict=True)
    expected = torch.tensor([slow_alternation(values, curvature) for values, curvature in rows]).reshape(shape)
    torch.testing.assert_close(made(weight), expected, rtol=1e-6, atol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["matrix", "row"]), st.floats(1e-7, 1e7))
def test_where_the_loss_is_curved_alike_it_is_twn_exact(seed: int, group: str, curvature: float) -> None:
    """D constant ⇒ LAT = exact TWN, bit for bit, whatever the constant; also without any second moment."""
    weight = random(6, 11, seed=seed)
    expected = TernaryQuantizer(group, "twn-exact")(weight)
    assert torch.equal(quantizer(torch.full_like(weight, curvature), group)(weight), expected)
    unknown = LossAwareTernaryQuantizer(6, group, "lat-exact")
    assert torch.equal(unknown(weight), expected)
    unknown.second_moment = torch.zeros_like(weight)  # before the first step
    assert torch.equal(unknown(weight), expected)


def test_neither_method_is_worse_than_what_it_starts_from() -> None:
    weight, d = random(64, 96, seed=3), random(64, 96, seed=4).exp()
    twn = weighted_error(weight, TernaryQuantizer()(weight), d)
    approximate, exact = (weighted_error(weight, quantizer(d, method=m)(weight), d) for m in ("lat", "lat-exact"))
    assert exact <= approximate * (1 + 1e-6)
    assert approximate < twn


@pytest.mark.parametrize(("group", "method"), KINDS)
def test_what_is_settled_is_what_evaluation_and_file_have(group: str, method: str) -> None:
    """The contract of codes: what eval mode multiplies is what ``encode`` gives, whatever the moments do later."""
    weight, moment = random(9, 17, seed=5), random(9, 17, seed=6).square()
    made = quantizer(moment, group, method, clip=1.5)
    assert made.second_moment is not None
    trained = made(weight)
    made.settle(weight)
    made.eval()
    codes, scale = made.encode(weight)
    settled = made(weight)
    assert torch.equal(settled, made.decode(codes, scale))
    assert torch.equal(settled, trained)
    made.second_moment.mul_(random(9, 17, seed=7).square())
    assert torch.equal(made(weight), settled)
    assert torch.equal(made.encode(weight)[0], codes)
    made.train()
    assert not torch.equal(made(weight), settled)
    assert torch.equal(made(weight), made.decode(*made.encode(weight)))
    # What travels with the weights is enough.
    other = LossAwareTernaryQuantizer(9, group, method, clip=1.5).eval()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(weight), settled)
    assert "second_moment" not in made.state_dict()


@pytest.mark.parametrize("method", ["lat", "lat-exact"])
@pytest.mark.parametrize("mode", ["train", "settled", "unsettled"])
def test_an_embedding_quantizes_the_rows_it_looks_up_as_the_table(method: str, mode: str) -> None:
    """Each row with the second moments and scale of its own, also where ids repeat."""
    embedding = EmbeddingTable(50, 33)
    embedding.weight.data = random(50, 33, seed=8)
    made = quantizer(random(50, 33, seed=9).exp(), "row", method)
    embedding.weight_quantizer = made
    if mode == "settled":
        made.settle(embedding.weight)
    made.train(mode == "train")
    ids = torch.tensor([[3, 49, 3], [0, 7, 1]])
    assert torch.equal(embedding(ids), made(embedding.weight)[ids])
    embedding(ids).sum().backward()
    assert embedding.weight.grad is not None
    assert embedding.weight.grad[3].tolist() == [2.0] * 33
    assert not embedding.weight.grad[2].any()


def test_a_row_is_done_when_it_is_done() -> None:
    """Rows that alternate longer change nothing in the others."""
    weight, d = random(40, 25, seed=10), (2 * random(40, 25, seed=11)).exp()
    together = quantizer(d, "row", "lat")(weight)
    alone = torch.cat([quantizer(d[i : i + 1], "row", "lat")(weight[i : i + 1]) for i in range(40)])
    assert torch.equal(together, alone)


@pytest.mark.parametrize(("group", "method"), KINDS)
@pytest.mark.parametrize("clip", [None, 0.6])
def test_gradient_is_straight_through(group: str, method: str, clip: float | None) -> None:
    weight = random(7, 11, seed=12).requires_grad_()
    upstream = random(7, 11, seed=13)
    quantizer(random(7, 11, seed=14).exp(), group, method, clip)(weight).backward(upstream)
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream * (1.0 if clip is None else (weight.abs() < clip).float()))


@pytest.mark.parametrize(("group", "method"), KINDS)
def test_zero_and_diverged_weights(group: str, method: str) -> None:
    made = quantizer(torch.ones(3, 5), group, method)
    codes, scale = made.encode(torch.zeros(3, 5))
    assert not codes.any()
    assert bool((scale == 1).all())
    for bad in (math.nan, math.inf):
        weight = torch.ones(3, 5)
        weight[1, 2] = bad
        assert bool(made(weight).isnan().any())
        assert made.second_moment is not None
        diverged = quantizer(torch.ones(3, 5), group, method)
        diverged.second_moment = weight
        assert not bool(diverged.encode(random(3, 5))[1].isfinite().all())


def test_scale_does_not_depend_on_the_number_of_threads() -> None:
    weight, d = random(600, 700, seed=15), random(600, 700, seed=16).exp()
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append([quantizer(d, method=method)(weight) for method in ("lat", "lat-exact")])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_it_takes_the_place_of_other_quantizers_and_they_its() -> None:
    linear = Linear(4, 3)
    linear.weight_quantizer = WeightPolicy(method="lat", clip=2.5).quantizer(3)
    assert isinstance(linear.weight_quantizer, LossAwareTernaryQuantizer)
    assert set(linear.state_dict()) == {"weight", "bias", "weight_quantizer.threshold", "weight_quantizer.scale"}
    assert (linear.weight_quantizer.method, linear.weight_quantizer.clip) == ("lat", 2.5)
    assert copy.deepcopy(linear)(random(2, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"group": "column"}, "group is 'column'; allowed: matrix, row"),
        ({"method": "twn"}, "method is 'twn'; allowed: lat, lat-exact"),
        ({"clip": 0.0}, "clip is 0.0; allowed: a number above 0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        LossAwareTernaryQuantizer(3, **arguments)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); the ternary quantizer takes \[rows, cols\]"):
        LossAwareTernaryQuantizer(3)(torch.ones(3))
