"""Uniform weights. Oracles: the numeric examples of the Q-BERT and Q8BERT specifications, the formulas written out for
one group in numpy fp32, and the bound on pairs of codes that the engine's 8-bit kernel relies on."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from bitpress.errors import RecipeError
from bitpress.quantize import UniformWeightQuantizer

BITS = (8, 4, 3, 2)
GROUPS = (("matrix", None), ("row", None), ("row_block", 4), ("row_block", 1), ("input", 32), ("input", 64))
ALL = [
    UniformWeightQuantizer(bits, symmetric, group, size, pair_bound, clip)
    for bits, symmetric, (group, size), clip in itertools.product(BITS, (False, True), GROUPS, (None, 0.5))
    for pair_bound in ((False, True) if bits == 8 and symmetric else (False,))
]
BOUNDED = [quantizer for quantizer in ALL if quantizer.pair_bound]

quantizers = st.sampled_from(ALL)
# Few distinct values, so that ties, zeros (both signs) and constant rows are common; denormals and wide ranges beside.
elements = st.one_of(
    st.sampled_from([0.0, -0.0, 0.25, -0.25, 0.5, -0.5, 1.0, 1e-45, -1e-40, 2e-38, 1.5e-36]),
    st.floats(-4, 4, width=32),
    st.floats(-(2.0**60), 2.0**60, width=32),
)
shapes = st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 3, 5, 31, 32, 33, 64, 70]))
matrices = hnp.arrays("float32", shapes, elements=elements)


def group_of(quantizer: UniformWeightQuantizer, row: int, column: int) -> Any:
    size = quantizer.group_size or 1
    places = {"matrix": 0, "row": row, "row_block": row // size, "input": (row, column // size)}
    return places[quantizer.group]


def slow_scale(values: dict[tuple[int, int], np.float32], q: UniformWeightQuantizer) -> tuple[np.float32, np.float32]:
    """(scale, offset) of one group, given as {(row, column): w'}, in numpy fp32."""
    low, high = min(values.values()), max(values.values())
    if not q.symmetric:
        scale = (high - low) / np.float32(2**q.bits - 1)
    elif q.pair_bound:
        zero = np.float32(0)
        pairs = [
            abs(values[row, column]) + abs(values.get((row, column + 1), zero))
            for row, column in values
            if column % 2 == 0
        ]
        scale = max(pairs) / np.float32(127)
    else:
        scale = max(abs(low), abs(high)) / np.float32(2 ** (q.bits - 1) - 1)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1)
    return scale, low


def slow(weight: Tensor, q: UniformWeightQuantizer) -> tuple[np.ndarray, np.ndarray]:
    """(codes, q(w)) by the docstring's formulas, one weight at a time."""
    values = weight.numpy().astype(np.float32)
    if q.clip is not None:
        values = np.clip(values, np.float32(-q.clip), np.float32(q.clip))
    groups: dict[Any, dict[tuple[int, int], np.float32]] = {}
    for row, column in np.ndindex(values.shape):
        groups.setdefault(group_of(q, row, column), {})[row, column] = values[row, column]
    codes, out = np.empty(values.shape, np.int64), np.empty(values.shape, np.float32)
    for members in groups.values():
        scale, offset = slow_scale(members, q)
        for place, value in members.items():
            if q.symmetric:
                largest = 2 ** (q.bits - 1) - 1
                level = np.clip(np.rint(value / scale), -largest, largest)
                codes[place], out[place] = int(level) + largest + 1, scale * level
            else:
                codes[place] = int(np.clip(np.rint((value - offset) / scale), 0, 2**q.bits - 1))
                out[place] = scale * np.float32(codes[place]) + offset
    return codes, out


def bits_of(x: Tensor) -> Tensor:
    """Bit patterns: −0 differs from +0."""
    return x.contiguous().view(torch.int32)


def test_vector_of_qbert() -> None:
    """spec/qbert.md §1: asymmetric 2 bits, one group and two."""
    weight = torch.tensor([[-0.40, -0.10, 0.05, 0.32, 0.80, -0.35]])
    quantizer = UniformWeightQuantizer(2, symmetric=False, group="matrix")
    codes, scale, offset = quantizer.encode(weight)
    assert offset is not None
    assert codes.tolist() == [[0, 1, 1, 2, 3, 0]]
    torch.testing.assert_close((scale, offset), (torch.tensor([0.4]), torch.tensor([-0.4])))
    assert float((quantizer(weight) - weight).square().mean()) == pytest.approx(0.003567, abs=1e-6)
    codes, scale, _ = UniformWeightQuantizer(2, symmetric=False, group="row").encode(weight.reshape(2, 3))
    assert codes.tolist() == [[0, 2, 3], [2, 3, 0]]
    torch.testing.assert_close(scale, torch.tensor([0.15, 1.15 / 3]))


def test_vector_of_q8bert() -> None:
    """spec/q8bert.md §5, example 1: one scale a matrix, 1/100."""
    weight = torch.tensor([[0.52, -1.27, 0.03], [0.10, 0.64, -0.33]])
    codes, scale, offset = UniformWeightQuantizer(8, group="matrix").encode(weight)
    assert (codes.int() - 128).tolist() == [[52, -127, 3], [10, 64, -33]]
    assert float(scale) == pytest.approx(0.01)
    assert offset is None


def test_vector_pair_bound() -> None:
    """Pairs (0.5, 0.77), (−1, 0.27), last column alone: the widest is 1.27, so the scale is 1/100."""
    weight = torch.tensor([[0.50, 0.77, -1.0, 0.27, 0.9]])
    codes, scale, _ = UniformWeightQuantizer(pair_bound=True).encode(weight)
    assert float(scale) == pytest.approx(0.01)
    assert (codes.int() - 128).tolist() == [[50, 77, -100, 27, 90]]


@settings(max_examples=150, deadline=None)
@given(matrices, quantizers)
def test_equals_the_formulas(weight: Any, quantizer: UniformWeightQuantizer) -> None:
    tensor = torch.from_numpy(weight)
    expected_codes, expected = slow(tensor, quantizer)
    codes, _, _ = quantizer.encode(tensor)
    np.testing.assert_array_equal(codes.numpy(), expected_codes)
    np.testing.assert_array_equal(quantizer(tensor).numpy(), expected)


@settings(max_examples=300, deadline=None)
@given(matrices, quantizers)
def test_fake_quantize_is_decode_of_encode(weight: Any, quantizer: UniformWeightQuantizer) -> None:
    tensor = torch.from_numpy(weight)
    rows, cols = tensor.shape
    codes, scale, offset = quantizer.encode(tensor)
    assert codes.dtype == torch.uint8
    size = quantizer.group_size or 1
    groups = {"matrix": (1,), "row": (rows,), "row_block": (-(-rows // size),), "input": (rows, -(-cols // size))}
    assert tuple(scale.shape) == groups[quantizer.group]
    assert bool((scale > 0).all())
    assert bool(scale.isfinite().all())
    assert (offset is None) == quantizer.symmetric
    low, high = int(codes.min()), int(codes.max())
    assert (1 if quantizer.symmetric else 0) <= low <= high < 2**quantizer.bits
    assert torch.equal(bits_of(quantizer.decode(codes, scale, offset)), bits_of(quantizer.fake_quantize(tensor)))


@settings(max_examples=500, deadline=None)
@given(matrices, st.sampled_from(BOUNDED))
def test_neighbouring_codes_add_up_to_at_most_128(weight: Any, quantizer: UniformWeightQuantizer) -> None:
    """What the docstring proves: no pair of products of the 8-bit kernel can saturate."""
    codes, _, _ = quantizer.encode(torch.from_numpy(weight))
    assert_pairs_bounded(codes)


def assert_pairs_bounded(codes: Tensor) -> None:
    size = (codes.int() - 128).abs()
    size = torch.nn.functional.pad(size, (0, size.shape[1] % 2))
    assert int((size[:, 0::2] + size[:, 1::2]).max()) <= 128


@pytest.mark.parametrize("group", ["row", "matrix"])
def test_the_bound_on_pairs_is_reached_and_never_passed(group: str) -> None:
    """Pairs whose quotients both end in one half, where rounding adds the most, at many scales; and random ones."""
    quantizer = UniformWeightQuantizer(group=group, pair_bound=True)
    halves = torch.arange(127, dtype=torch.float64) + 0.5
    pairs = torch.stack([halves, 127 - halves], dim=1)
    reached = 0
    for scale in torch.logspace(-30, 30, 601, dtype=torch.float64):
        codes, _, _ = quantizer.encode((pairs * scale).float())
        assert_pairs_bounded(codes)
        size = (codes.int() - 128).abs()
        reached = max(reached, int((size[:, 0] + size[:, 1]).max()))
    assert reached == 128
    for seed in range(20):
        weight = torch.randn(64, 257, generator=torch.Generator().manual_seed(seed))
        assert_pairs_bounded(quantizer.encode(weight)[0])
    assert int((UniformWeightQuantizer().encode(weight)[0].int() - 128).abs().max()) == 127  # and plain ones pass it


def test_pair_bound_costs_a_factor_of_1_to_2_in_the_step() -> None:
    weight = torch.randn(300, 384, generator=torch.Generator().manual_seed(1))
    plain, bounded = (UniformWeightQuantizer(pair_bound=bound).encode(weight)[1] for bound in (False, True))
    assert 1 <= float((bounded / plain).min()) <= float((bounded / plain).max()) <= 2
    assert float((bounded / plain).mean()) == pytest.approx(1.4, abs=0.1)


@pytest.mark.parametrize("quantizer", ALL)
def test_error_is_at_most_half_a_step(quantizer: UniformWeightQuantizer) -> None:
    """q(w) is the nearest level, and the range has room for every weight: |q(w) − w'| ≤ scale/2, up to rounding."""
    weight = torch.randn(13, 70, generator=torch.Generator().manual_seed(2))
    clipped = weight if quantizer.clip is None else weight.clamp(-quantizer.clip, quantizer.clip)
    codes, scale, _ = quantizer.encode(weight)
    # A few roundings of numbers up to 4: 2⁻²⁴·4·4 < 1e-6.
    assert bool(((quantizer(weight) - clipped).abs() <= quantizer._spread(scale, codes) / 2 + 1e-6).all())


@pytest.mark.parametrize("quantizer", [q for q in ALL if q.rows_are_independent])
def test_rows_do_not_depend_on_their_neighbours(quantizer: UniformWeightQuantizer) -> None:
    """What lets the word embedding quantize only the rows it looks up."""
    weight = torch.randn(50, 70, generator=torch.Generator().manual_seed(4))
    ids = torch.tensor([3, 3, 49, 0])
    assert torch.equal(quantizer(weight)[ids], quantizer(weight[ids]))
    assert quantizer(weight[:0]).shape == (0, 70)


@pytest.mark.parametrize("quantizer", ALL)
def test_constant_groups_keep_what_their_formula_can_hold(quantizer: UniformWeightQuantizer) -> None:
    zero = torch.zeros(5, 70, requires_grad=True)
    codes, scale, _ = quantizer.encode(zero)
    assert bool((scale == 1).all())
    assert bool((codes == (2 ** (quantizer.bits - 1) if quantizer.symmetric else 0)).all())
    assert torch.equal(bits_of(quantizer(zero)), bits_of(torch.zeros(5, 70)))
    quantizer(zero).sum().backward()
    assert zero.grad is not None
    assert bool((zero.grad == 1).all())
    if not quantizer.symmetric:
        constant = torch.full((5, 70), 0.3)
        assert torch.equal(quantizer(constant), constant)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("quantizer", [q for q in ALL if q.clip is None])
def test_a_diverged_weight_shows(bad: float, quantizer: UniformWeightQuantizer) -> None:
    weight = torch.randn(6, 70, generator=torch.Generator().manual_seed(3))
    weight[2, 3] = bad
    assert bool(quantizer(weight)[2, :32].isnan().all())
    _, scale, _ = quantizer.encode(weight)
    assert not bool(scale.isfinite().all())  # which no artifact takes


@pytest.mark.parametrize("quantizer", ALL)
def test_gradient_is_straight_through(quantizer: UniformWeightQuantizer) -> None:
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(7, 35, generator=generator, requires_grad=True)
    upstream = torch.randn(7, 35, generator=generator)
    quantizer(weight).backward(upstream)
    inside = torch.ones_like(weight) if quantizer.clip is None else (weight.abs() < quantizer.clip).float()
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream * inside)


def test_weight_is_left_alone() -> None:
    weight = torch.randn(4, 40, generator=torch.Generator().manual_seed(6))
    before = weight.clone()
    for quantizer in ALL:
        quantizer(weight)
        assert torch.equal(weight, before)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits": 5}, "bits is 5; allowed: 8, 4, 3, 2"),
        ({"group": "column"}, "group is 'column'; allowed: matrix, row, row_block, input"),
        ({"group": "row_block"}, "group_size is None; allowed with group 'row_block': an integer up to 65536"),
        ({"group": "input", "group_size": 48}, "group_size is 48; allowed with group 'input': a multiple of 32"),
        ({"pair_bound": True, "bits": 4}, "pair_bound is True; allowed with bits 8 and symmetric only"),
        ({"pair_bound": True, "symmetric": False}, "pair_bound is True"),
        ({"clip": 0.0}, "clip is 0.0; allowed: a number above 0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        UniformWeightQuantizer(**arguments)


def test_shape_is_checked() -> None:
    with pytest.raises(ValueError, match=r"shape \(3,\); the uniform weight quantizer takes \[rows, cols\]"):
        UniformWeightQuantizer()(torch.ones(3))
