"""Groups by count, and ranges of uniform weights narrower than min to max. Oracles: the worked examples of the Q-BERT
specification (§1), numpy's sorting, a brute-force search over intervals, and the half-step bound of nested groups."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitpress.errors import RecipeError
from bitpress.quantize import UniformWeightQuantizer
from bitpress.quantize.groups import Groups, row_groups
from bitpress.quantize.weight_ranges import default_percentile

EXAMPLE = torch.tensor([[-0.40, -0.10, 0.05, 0.32, 0.80, -0.35]])
KINDS = (("matrix", None), ("row", None), ("row_block", 4), ("input", 32))
NARROW = [
    UniformWeightQuantizer(bits, symmetric, group, size, bounds=bounds, percentile=90)
    for bits in (8, 3, 2)
    for symmetric in (False, True)
    for group, size in KINDS
    for bounds in ("percentile", "mse")
]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def squared_error(weight: Tensor, quantizer: UniformWeightQuantizer) -> float:
    return float((quantizer(weight) - weight).double().square().sum())


def test_vector_two_groups() -> None:
    """§1: the second of two groups of three is −.35, Δ .38333, codes 2, 3, 0; 44 % of the error of one group."""
    weight = EXAMPLE.reshape(2, 3)
    quantizer = UniformWeightQuantizer(2, symmetric=False, group="row")
    codes, scale, offset = quantizer.encode(weight)
    assert offset is not None
    assert codes.tolist() == [[0, 2, 3], [2, 3, 0]]
    torch.testing.assert_close(scale, torch.tensor([0.15, 1.15 / 3]))
    torch.testing.assert_close(offset, torch.tensor([-0.4, -0.35]))
    torch.testing.assert_close(quantizer(weight)[1], torch.tensor([1.25 / 3, 0.8, -0.35]))
    assert float((quantizer(weight) - weight)[1].square().mean()) == pytest.approx(0.003115, abs=1e-6)
    one = UniformWeightQuantizer(2, symmetric=False, group="matrix")
    assert squared_error(weight, quantizer) / squared_error(weight, one) == pytest.approx(0.44, abs=0.005)


def test_vector_of_a_clamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """§1: clamped to [−.4, .5], Δ .3, codes 0, 1, 2, 2, 3, 0; the gradient is 0 for .80 alone."""
    ends = torch.tensor([-0.4]), torch.tensor([0.5])
    monkeypatch.setattr(UniformWeightQuantizer, "_interval", lambda self, weight: ends)
    quantizer = UniformWeightQuantizer(2, symmetric=False, group="matrix", bounds="percentile")
    weight = EXAMPLE.clone().requires_grad_()
    codes, scale, _ = quantizer.encode(weight)
    assert codes.tolist() == [[0, 1, 2, 2, 3, 0]]
    torch.testing.assert_close(scale, torch.tensor([0.3]))
    quantized = quantizer(weight)
    torch.testing.assert_close(quantized, torch.tensor([[-0.4, -0.1, 0.2, 0.2, 0.5, -0.4]]))
    quantized.sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[1, 1, 1, 1, 0, 1]]


@pytest.mark.parametrize("rows", [768, 3072, 384, 1536])
def test_128_groups_as_in_the_paper(rows: int) -> None:
    """§2: contiguous blocks of rows / 128 rows, whatever the heads."""
    assert row_groups(rows, 128) == Groups("row_block", rows // 128)
    assert row_groups(rows, 1) == Groups("matrix")
    assert row_groups(rows, rows) == Groups("row")


def test_a_count_that_does_not_divide() -> None:
    with pytest.raises(RecipeError, match="groups is 128, which does not divide 312 rows; allowed: 1, 2, 3, 4, 6, 8, "):
        row_groups(312, 128)
    assert row_groups(312, 128, "below") == Groups("row_block", 3)  # 104 groups
    assert row_groups(1200, 128, "below") == Groups("row_block", 10)  # 120 groups
    assert row_groups(32, 128, "below") == Groups("row")
    assert row_groups(13, 5, "below") == Groups("matrix")
    assert row_groups(768, 128, "below") == row_groups(768, 128)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(1, 2, 4, 128), (1, 12, 24), (1, 12, 384)]),
    st.sampled_from([8, 4, 3, 2]),
    st.booleans(),
    st.integers(0, 999),
)
def test_the_half_step_bound_never_grows_when_groups_are_split(
    counts: tuple[int, ...], bits: int, symmetric: bool, seed: int
) -> None:
    """T2: with nested groups a step, and with it the bound on the error, never grows, row by row."""
    rows = 384
    weight = normal(rows, 5, seed=seed) * torch.logspace(-1, 1, rows)[torch.randperm(rows)].unsqueeze(1)
    before = torch.full((rows, 1), math.inf)
    for count in counts:
        groups = row_groups(rows, count)
        quantizer = UniformWeightQuantizer(bits, symmetric, groups.kind, groups.size)
        _, scale, _ = quantizer.encode(weight)
        assert len(scale) == count
        step = groups.spread(scale, weight).expand(rows, 1)
        assert bool((step <= before).all())
        # Two roundings of numbers up to 50.
        assert bool(((quantizer(weight) - weight).abs() <= step / 2 + 50 * 2**-23).all())
        before = step


def test_more_groups_have_less_error_on_average() -> None:
    """12 and 128 groups are not nested, so only the mean says something."""
    errors = []
    for count in (12, 128):
        groups = row_groups(768, count, "below")
        quantizer = UniformWeightQuantizer(4, False, groups.kind, groups.size)
        errors.append(np.mean([squared_error(normal(768, 24, seed=seed), quantizer) for seed in range(5)]))
    assert errors[1] < errors[0]


@pytest.mark.parametrize("quantizer", NARROW)
@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (9, 70), (8, 64)])
def test_fake_quantize_is_decode_of_encode(quantizer: UniformWeightQuantizer, shape: tuple[int, int]) -> None:
    weight = normal(*shape, seed=1)
    codes, scale, offset = quantizer.encode(weight)
    assert int(codes.max()) < 2**quantizer.bits
    assert bool((scale > 0).all())
    assert torch.equal(quantizer.decode(codes, scale, offset), quantizer(weight))


@pytest.mark.parametrize("quantizer", [q for q in NARROW if q.bounds == "percentile"])
def test_percentiles_are_those_of_sorting(quantizer: UniformWeightQuantizer) -> None:
    weight = normal(9, 70, seed=2)
    low, high = quantizer._interval(weight)
    values = (weight.abs() if quantizer.symmetric else weight).numpy()
    rows = {"matrix": [values], "row": list(values), "row_block": np.split(values, [4, 8]), "input": None}
    groups = rows[quantizer.group] or [row[a:b] for row in values for a, b in ((0, 32), (32, 64), (64, 70))]
    for g, members in enumerate(groups):
        ordered = np.sort(members, axis=None)
        if quantizer.symmetric:
            assert float(high.flatten()[g]) == ordered[len(ordered) - 1 - int(0.1 * len(ordered))]
        else:
            cut = int(0.05 * len(ordered))
            assert low is not None
            assert float(low.flatten()[g]) == ordered[cut]
            assert float(high.flatten()[g]) == ordered[len(ordered) - 1 - cut]


def test_a_percentile_is_the_decimal_that_was_written() -> None:
    """0.1 % of 20,000 are 20, ten at either end; in binary floating point 100 − 99.9 is less than 0.1."""
    weight = torch.arange(20_000, dtype=torch.float32).unsqueeze(0)
    low, high = UniformWeightQuantizer(8, False, "row", bounds="percentile", percentile=99.9)._interval(weight)
    assert low is not None
    assert (float(low), float(high)) == (10, 19_989)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_without_a_percentile_normal_weights_have_the_least_squared_error(bits: int, symmetric: bool) -> None:
    """No percentile that leaves a tenth more or less of the weights outside is better."""
    weight = torch.distributions.Normal(0, 1).icdf((torch.arange(40_000) + 0.5) / 40_000).unsqueeze(0)
    default = default_percentile(bits, symmetric)
    assert (
        UniformWeightQuantizer(bits, symmetric, "matrix", bounds="percentile")._interval(weight)[1]
        == (
            UniformWeightQuantizer(bits, symmetric, "matrix", bounds="percentile", percentile=default)._interval(
                weight
            )[1]
        )
    )
    least, *others = (
        squared_error(
            weight,
            UniformWeightQuantizer(bits, symmetric, "matrix", bounds="percentile", percentile=100 - outside),
        )
        for outside in ((100 - default) * factor for factor in (1, 0.9, 1.1, 0.5, 2))
    )
    # 8 bits cut off 2 of 40,000 at either end, and 40,000 quantiles are no continuum.
    assert least <= min(others) * (1.01 if bits == 8 else 1)


@pytest.mark.parametrize("quantizer", [q for q in NARROW if q.bounds == "mse"])
def test_the_search_is_never_worse_than_min_and_max_in_any_group(quantizer: UniformWeightQuantizer) -> None:
    weight = normal(9, 70, seed=3) ** 3  # heavy tails
    groups = quantizer._groups
    plain = UniformWeightQuantizer(quantizer.bits, quantizer.symmetric, quantizer.group, quantizer.group_size)
    found, before = (groups.sum((q(weight) - weight).square()) for q in (quantizer, plain))
    assert bool((found <= before).all())
    if quantizer.bits == 2:
        assert float(found.sum()) < 0.8 * float(before.sum())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_the_search_comes_near_the_best_interval(symmetric: bool, skew: float) -> None:
    """Brute force over all pairs of ends on a grid twice as fine. Outliers at one end only, where shrinking both ends
    alike would not help."""
    weight = normal(1, 300, seed=4)
    weight[0, :3] += 12 * skew
    quantizer = UniformWeightQuantizer(2, symmetric, "matrix", bounds="mse")
    low, high = float(weight.min()), float(weight.abs().max() if symmetric else weight.max())
    best = math.inf
    steps = torch.linspace(0, 1, 65)[:-1]
    for a in [0.0] if symmetric else steps.tolist():
        for b in steps.tolist():
            ends = low + a * (high - low), high - b * (high if symmetric else high - low)
            if symmetric or ends[0] < ends[1]:
                interval = None if symmetric else torch.tensor([ends[0]]), torch.tensor([ends[1]])
                fitted = quantizer._decode_(*quantizer._within(weight, *interval))
                best = min(best, float((fitted - weight).square().sum()))
    assert squared_error(weight, quantizer) <= 1.1 * best


@pytest.mark.parametrize("quantizer", NARROW)
def test_the_gradient_is_0_outside_the_interval_only(quantizer: UniformWeightQuantizer) -> None:
    weight = normal(9, 70, seed=5).requires_grad_()
    upstream = normal(9, 70, seed=6)
    quantizer(weight).backward(upstream)
    low, high = quantizer._interval(weight.detach())
    top = quantizer._spread(high, weight)
    bottom = -top if low is None else quantizer._spread(low, weight)
    inside = (weight >= bottom) & (weight <= top)
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream * inside)
    if quantizer.bits == 2 or quantizer.bounds == "percentile":
        assert 0.2 < float(inside.float().mean()) < 1


@pytest.mark.parametrize("quantizer", NARROW)
def test_constant_and_diverged_groups(quantizer: UniformWeightQuantizer) -> None:
    zero = torch.zeros(5, 70, requires_grad=True)
    assert torch.equal(quantizer(zero), torch.zeros(5, 70))
    quantizer(zero).sum().backward()
    assert zero.grad is not None
    assert bool((zero.grad == 1).all())
    for bad in (math.nan, math.inf):
        weight = normal(6, 70, seed=7)
        weight[2, 3] = bad
        assert not bool(quantizer.encode(weight)[1].isfinite().all())  # which no artifact takes


@pytest.mark.parametrize("quantizer", [q for q in NARROW if q.rows_are_independent])
def test_rows_do_not_depend_on_their_neighbours(quantizer: UniformWeightQuantizer) -> None:
    weight = normal(50, 70, seed=8)
    ids = torch.tensor([3, 3, 49, 0])
    assert torch.equal(quantizer(weight)[ids], quantizer(weight[ids]))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bounds": "kl"}, "bounds is 'kl'; allowed: minmax, percentile, mse"),
        ({"percentile": 50}, "percentile is 50; allowed: a number above 50 and at most 100"),
        ({"percentile": True}, "percentile is True; allowed"),
        ({"bounds": "mse", "pair_bound": True}, "pair_bound is True with bounds 'mse'; allowed with bounds minmax"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        UniformWeightQuantizer(**arguments)
