"""Ternary weights. Oracles: the numeric vectors of the TernaryBERT specification (made with the released classes), a
plain fp64 loop over each group, and brute force over all sign patterns for the exact method."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from bitpress.errors import RecipeError
from bitpress.quantize import TernaryQuantizer

EXAMPLE = torch.tensor([[0.9, -0.4, 0.05, -1.2, 0.3, 0.6, -0.1, -0.75]])
ALL = [
    TernaryQuantizer(group, method, clip)
    for group in ("matrix", "row")
    for method in ("twn", "twn-exact")
    for clip in (None, 0.5)
]

quantizers = st.sampled_from(ALL)
# Few distinct values, so that ties, zeros (both signs) and constant rows are common; denormals and wide ranges beside.
elements = st.one_of(
    st.sampled_from([0.0, -0.0, 0.25, -0.25, 0.5, -0.5, 1.0, 1e-45, -1e-40]),
    st.floats(-4, 4, width=32),
    st.floats(-(2.0**60), 2.0**60, width=32),
)
matrices = hnp.arrays("float32", hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=elements)


def slow(weight: Tensor, quantizer: TernaryQuantizer) -> Tensor:
    """q(w) of the approximate method by the book: one weight at a time, in Python's fp64."""
    groups = weight.tolist() if quantizer.group == "row" else [weight.flatten().tolist()]
    out = []
    for group in groups:
        clip = math.inf if quantizer.clip is None else quantizer.clip
        clipped = [min(max(value, -clip), clip) for value in group]
        threshold = 0.7 * sum(map(abs, clipped)) / len(clipped)
        support = [abs(value) for value in clipped if abs(value) > threshold]
        alpha = sum(support) / len(support) if support else 1.0
        out.append([math.copysign(alpha, value) if abs(value) > threshold else 0.0 for value in clipped])
    return torch.tensor(out).reshape(weight.shape)


def bits(x: Tensor) -> Tensor:
    """Bit patterns: −0 differs from +0."""
    return x.contiguous().view(torch.int32)


def test_vector_approximate() -> None:
    quantized = TernaryQuantizer().fake_quantize(EXAMPLE)
    expected = torch.tensor([[0.77, -0.77, 0, -0.77, 0, 0.77, 0, -0.77]])
    torch.testing.assert_close(quantized, expected)
    assert float((quantized - EXAMPLE).square().sum()) == pytest.approx(0.4705, abs=1e-6)


def test_vector_exact() -> None:
    quantized = TernaryQuantizer(method="twn-exact").fake_quantize(EXAMPLE)
    torch.testing.assert_close(quantized, torch.tensor([[0.8625, 0, 0, -0.8625, 0, 0.8625, 0, -0.8625]]))
    assert float((quantized - EXAMPLE).square().sum()) == pytest.approx(0.459375, abs=1e-6)


def test_vector_row_against_matrix() -> None:
    weight = torch.tensor([[0.8, -0.2, 0.1, -0.5], [0.02, -0.05, 0.03, 0.01]])
    third = 0.1 / 3
    rows = torch.tensor([[0.65, 0, 0, -0.65], [third, -third, third, 0]])
    matrix = torch.tensor([[0.5, -0.5, 0, -0.5], [0, 0, 0, 0]])
    torch.testing.assert_close(TernaryQuantizer("row")(weight), rows)
    torch.testing.assert_close(TernaryQuantizer("matrix")(weight), matrix)


def test_vector_straight_through_mask_is_inclusive() -> None:
    weight = torch.tensor([[-3, -2.5, -1, 2.5, 2.6, 1]], requires_grad=True)
    TernaryQuantizer(clip=2.5)(weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[0, 0, 1, 0, 0, 1]]


def test_vector_density_of_a_normal_matrix() -> None:
    weight = torch.randn(500, 401, generator=torch.Generator().manual_seed(0))
    codes, _ = TernaryQuantizer().encode(weight)
    # P(|x| > 0.7·E|x|) = 0.5765; the standard error of 200,500 draws is 0.0011.
    assert float(codes.abs().float().mean()) == pytest.approx(0.5765, abs=0.005)


def test_threshold_is_strict() -> None:
    # mean |w| = 5/7, so Δ = 0.7 · 5/7 rounds to 0.5 in fp32: the four 0.5 lie on it.
    weight = torch.tensor([[0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0]])
    assert (weight.double().mean() * 0.7).float() == 0.5
    codes, scale = TernaryQuantizer().encode(weight)
    assert codes.tolist() == [[0, 0, 0, 0, 1, 1, 1]]
    assert scale.tolist() == [1.0]


@pytest.mark.parametrize("group", ["matrix", "row"])
@pytest.mark.parametrize("clip", [None, 0.6])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (13, 17), (33, 129)])
def test_equals_the_plain_loop(group: str, clip: float | None, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    quantizer = TernaryQuantizer(group, clip=clip)
    # One rounding of α to fp32 on either side.
    torch.testing.assert_close(quantizer(weight), slow(weight, quantizer), rtol=2**-23, atol=0)


@settings(max_examples=200, deadline=None)
@given(matrices, quantizers)
def test_fake_quantize_is_decode_of_encode(weight: object, quantizer: TernaryQuantizer) -> None:
    tensor = torch.from_numpy(weight)
    codes, scale = quantizer.encode(tensor)
    assert codes.dtype == torch.int8
    assert scale.dtype == torch.float32
    assert scale.shape == (len(tensor) if quantizer.group == "row" else 1,)
    assert bool((scale > 0).all())
    assert bool(scale.isfinite().all())
    assert torch.equal(bits(quantizer.decode(codes, scale)), bits(quantizer.fake_quantize(tensor)))


@settings(max_examples=200, deadline=None)
@given(matrices, quantizers)
def test_idempotent(weight: object, quantizer: TernaryQuantizer) -> None:
    codes, scale = quantizer.encode(torch.from_numpy(weight))
    again_codes, again_scale = quantizer.encode(quantizer.decode(codes, scale))
    assert torch.equal(codes, again_codes)
    assert torch.equal(scale, again_scale)


def test_idempotent_at_full_size() -> None:
    """900 × 1200 equal magnitudes summed in fp32 would not average to themselves."""
    weight = torch.randn(900, 1200, generator=torch.Generator().manual_seed(2)) * 0.04
    for quantizer in (TernaryQuantizer(), TernaryQuantizer(method="twn-exact")):
        once = quantizer(weight)
        assert torch.equal(quantizer(once), once)


# Multiples of 1/4 make every sum and square exact in fp64, and ties frequent.
quarters = st.lists(st.integers(-12, 12).map(lambda i: i / 4), min_size=1, max_size=7)


@settings(max_examples=100, deadline=None)
@given(quarters)
def test_exact_method_is_optimal(values: list[float]) -> None:
    weight = torch.tensor([values])
    codes, scale = TernaryQuantizer(method="twn-exact").encode(weight)
    squares = sum(v * v for v in values)
    best = squares
    for pattern in itertools.product((-1, 0, 1), repeat=len(values)):
        dot, size = sum(b * v for b, v in zip(pattern, values, strict=True)), sum(map(abs, pattern))
        if size and dot > 0:
            best = min(best, squares - dot * dot / size)
    found = sum((v - float(scale) * b) ** 2 for v, b in zip(values, codes[0].tolist(), strict=True))
    # α is rounded to fp32: its error enters squared, k·(2⁻²⁴·α)² ≤ 7·(2⁻²⁴·3)² < 1e-12.
    assert found == pytest.approx(best, abs=1e-11)


def test_exact_method_solves_each_row() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(3))
    by_row = TernaryQuantizer("row", "twn-exact")(weight)
    alone = torch.cat([TernaryQuantizer("matrix", "twn-exact")(row[None]) for row in weight])
    assert torch.equal(by_row, alone)


@pytest.mark.parametrize("method", ["twn", "twn-exact"])
def test_rows_do_not_depend_on_their_neighbours(method: str) -> None:
    """What lets the word embedding quantize only the rows it looks up."""
    quantizer = TernaryQuantizer("row", method)
    weight = torch.randn(50, 33, generator=torch.Generator().manual_seed(4))
    ids = torch.tensor([3, 3, 49, 0])
    assert torch.equal(quantizer(weight)[ids], quantizer(weight[ids]))
    assert quantizer(weight[:0]).shape == (0, 33)


@pytest.mark.parametrize("quantizer", ALL)
def test_zero_groups_give_zeros_and_a_scale_of_one(quantizer: TernaryQuantizer) -> None:
    zero = torch.zeros(3, 5, requires_grad=True)
    codes, scale = quantizer.encode(zero)
    assert not codes.any()
    assert bool((scale == 1).all())
    quantizer(zero).sum().backward()
    assert zero.grad is not None
    assert bool((zero.grad == 1).all())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("method", ["twn", "twn-exact"])
def test_a_diverged_weight_shows(bad: float, method: str) -> None:
    weight = EXAMPLE.clone()
    weight[0, 2] = bad
    assert bool(TernaryQuantizer(method=method)(weight).isnan().any())


@pytest.mark.parametrize("quantizer", ALL)
def test_gradient_is_straight_through(quantizer: TernaryQuantizer) -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(7, 11, generator=generator, requires_grad=True)
    upstream = torch.randn(7, 11, generator=generator)
    quantizer(weight).backward(upstream)
    inside = torch.ones_like(weight) if quantizer.clip is None else (weight.abs() < quantizer.clip).float()
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream * inside)


def test_scale_does_not_depend_on_the_number_of_threads() -> None:
    weight = torch.randn(600, 700, generator=torch.Generator().manual_seed(6))
    threads, scales = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            scales.append(TernaryQuantizer().encode(weight)[1])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(scales[0], scales[1])
    assert torch.equal(scales[0], scales[2])


def test_weight_is_left_alone() -> None:
    weight = EXAMPLE.clone()
    TernaryQuantizer(clip=0.5)(weight)
    assert torch.equal(weight, EXAMPLE)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"group": "column"}, "group is 'column'; allowed: matrix, row"),
        ({"method": "lat"}, "method is 'lat'; allowed: twn, twn-exact"),
        ({"clip": 0.0}, "clip is 0.0; allowed: a number above 0"),
        ({"clip": math.nan}, "clip is nan; allowed: a number above 0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        TernaryQuantizer(**arguments)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); the ternary quantizer takes \[rows, cols\]"):
        TernaryQuantizer()(torch.ones(3))
