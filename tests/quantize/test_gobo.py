"""GOBO's quantizer. Oracles: the worked numbers of the paper's specification, the definitions in plain loops over
float64 (assignment, objective, density), scikit-learn's k-means."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bitpress.encoder.layers import Linear
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import GoboQuantizer
from bitpress.quantize.gobo import fit_codebook, outlier_radius, round_table

# One weight of 16 is far out: μ = 0.03, σ = 0.126157.
EXAMPLE = [-0.06, -0.05, -0.045, -0.03, -0.02, -0.01, 0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.5, -0.02]


def heavy_tails() -> np.ndarray[Any, np.dtype[np.float32]]:
    """200,000 numbers of Student's t distribution with 6 degrees of freedom, times 0.035."""
    return (np.random.default_rng(0).standard_t(6, 200_000) * 0.035).astype(np.float32)


def without_outliers(weights: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    radius = outlier_radius(weights, "log_density", -4.0)
    inner: np.ndarray[Any, np.dtype[np.float32]] = weights[np.abs(weights - weights.mean(dtype=float)) <= radius]
    return np.sort(inner)


def matrix(rows: int = 24, cols: int = 50, seed: int = 0, scale: float = 0.04) -> Tensor:
    """Normal weights, and a few far from them."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, scale, (rows, cols))
    weights.flat[rng.choice(weights.size, 7, replace=False)] *= 9
    return torch.tensor(weights, dtype=torch.float32)


def test_the_worked_example_has_one_outlier() -> None:
    quantizer = GoboQuantizer(bits=2)
    encoded = quantizer.encode(torch.tensor(EXAMPLE).view(4, 4))
    assert encoded.positions.tolist() == [14]
    assert encoded.values.tolist() == [0.5]
    assert float(torch.tensor(EXAMPLE).double().std(correction=0)) == pytest.approx(0.126157, abs=1e-6)


def test_the_worked_example_of_a_dictionary() -> None:
    fit = fit_codebook(np.array([0, 0.01, 0.02, 0.03, 0.04, 0.20], np.float32), 1)
    assert fit.history == pytest.approx((0.180, 0.060, 0.060), abs=1e-7)
    assert fit.step == 1
    assert fit.centroids == pytest.approx([0.02, 0.20])


def test_the_large_example() -> None:
    """The published stop wins Σ|w − c| and loses Σ(w − c)² to k-means, which takes fourteen times as many steps."""
    weights = heavy_tails()
    inner = without_outliers(weights)
    assert 100 * (1 - len(inner) / len(weights)) == pytest.approx(0.506, abs=5e-4)
    first = fit_codebook(inner, 3)
    assert first.history[0] == pytest.approx(1297.6, abs=0.05)
    assert (first.step, len(first.history)) == (6, 8)
    assert first.history[6] == pytest.approx(1239.3, abs=0.05)
    second = fit_codebook(inner, 3, "l2")
    assert len(second.history) == 103
    values = inner.astype(np.float64)

    def errors(centroids: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[float, float]:
        distance = np.abs(values[:, None] - centroids).min(axis=1)
        return float(distance.sum()), float((distance**2).sum())

    assert errors(first.centroids) == pytest.approx((1239.3, 14.54), rel=1e-3)
    assert errors(second.centroids) == pytest.approx((1285.9, 12.91), rel=1e-3)
    assert errors(second.centroids)[1] == pytest.approx(second.history[-1], rel=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [20, 331])
def test_steps_are_those_of_the_definition(bits: int, size: int) -> None:
    """Oracle: loops over the numbers, of integers over 64 so that nothing rounds in a sum, with many ties."""
    rng = np.random.default_rng(bits)
    weights = np.sort(rng.integers(-40, 40, size) / 64).astype(np.float32)
    parts = [weights[size * i // 2**bits : size * (i + 1) // 2**bits].astype(float) for i in range(2**bits)]
    centroids = [part.mean() for part in parts]
    history: list[float] = []
    found = fit_codebook(weights, bits)
    steps = []
    while len(history) < 2 or history[-1] < history[-2]:
        steps.append(centroids)
        members: list[list[float]] = [[] for _ in centroids]
        for w in weights.astype(float):
            members[int(np.argmin([abs(w - c) for c in centroids]))].append(w)
        history.append(sum(abs(w - c) for c, bin_ in zip(centroids, members, strict=True) for w in bin_))
        centroids = [np.mean(bin_) if bin_ else c for c, bin_ in zip(centroids, members, strict=True)]
    assert found.history == pytest.approx(history)
    assert found.centroids == pytest.approx(steps[-2])


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("objective", ["l1", "l2"])
def test_the_objective_falls_until_the_step_that_is_returned(bits: int, objective: str) -> None:
    fit = fit_codebook(without_outliers(heavy_tails()), bits, objective)
    history = fit.history[: fit.step + 1]
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(history))
    assert fit.history[fit.step] == min(fit.history)
    assert (np.diff(fit.centroids) > 0).all()


def test_k_means_is_that_of_scikit_learn() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    weights = np.sort(np.random.default_rng(3).normal(0, 1, 904)).astype(np.float32)
    start = weights.astype(float).reshape(8, 113).mean(axis=1)
    kmeans = cluster.KMeans(8, init=start[:, None], n_init=1, tol=0, max_iter=1000, algorithm="lloyd")
    expected = kmeans.fit(weights[:, None].astype(float)).cluster_centers_[:, 0]
    assert np.sort(expected) == pytest.approx(fit_codebook(weights, 3, "l2").centroids, rel=1e-9)


@pytest.mark.parametrize("sigma", [0.02, 0.04, 0.05, 0.1, 0.2])
def test_the_radius_is_where_the_density_crosses_the_threshold(sigma: float) -> None:
    """Oracle: the log-density itself, and the specification's table of |z|."""
    weights = np.array([-sigma, sigma], np.float32)
    sigma = float(np.float32(sigma))
    radius = outlier_radius(weights, "log_density", -4.0)
    density = -((radius / sigma) ** 2) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
    assert density == pytest.approx(-4.0)
    table = {0.02: 3.740, 0.04: 3.550, 0.05: 3.486, 0.1: 3.281, 0.2: 3.063}
    assert radius / sigma == pytest.approx(table[round(sigma, 2)], abs=5e-4)


def test_a_threshold_in_z_does_not_depend_on_the_unit() -> None:
    weights = matrix()
    by_density = [len(GoboQuantizer().encode(weights * factor).positions) for factor in (1.0, 100.0)]
    in_z = GoboQuantizer(outliers="z", threshold=3.0)
    by_z = [len(in_z.encode(weights * factor).positions) for factor in (1.0, 128.0)]
    assert by_density[0] < by_density[1]
    assert by_z[0] == by_z[1] > 0
    none = GoboQuantizer(outliers="none").encode(weights)
    assert len(none.positions) == 0


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("outliers", ["log_density", "z", "none"])
def test_outliers_stay_as_they_are_and_the_others_are_in_the_table(bits: int, outliers: str) -> None:
    quantizer = GoboQuantizer(bits, outliers, 3.0 if outliers == "z" else -4.0)
    weights = matrix()
    encoded = quantizer.encode(weights)
    decoded = quantizer.decode(*encoded)
    assert torch.equal(quantizer(weights), decoded)
    flat, found = weights.view(-1), decoded.view(-1)
    is_outlier = torch.zeros(flat.shape, dtype=torch.bool).index_fill(0, encoded.positions, True)
    assert torch.equal(found[is_outlier], flat[is_outlier])
    values = encoded.table.float() * encoded.scale
    nearest = (flat[~is_outlier, None] - values).abs().min(dim=1).values
    assert torch.equal((flat - found).abs()[~is_outlier], nearest)
    assert encoded.codes.dtype == torch.uint8
    assert encoded.table.shape == (2**bits,)
    assert (encoded.table[1:] >= encoded.table[:-1]).all()
    assert int(encoded.table.abs().max()) == 64
    if outliers == "z":
        z = (flat.double() - flat.double().mean()) / flat.double().std(correction=0)
        assert torch.equal(is_outlier, z.abs() > 3)


def test_the_table_is_the_centroids_within_half_a_step() -> None:
    centroids = np.array([-0.3, -0.1, 0.05, 0.2])
    scale, table = round_table(centroids)
    assert scale == np.float32(0.3) / np.float32(64)
    assert table.tolist() == [-64, -21, 11, 43]
    assert np.abs(table * float(scale) - centroids).max() <= float(scale) / 2


@pytest.mark.parametrize("value", [0.0, 0.25, -3.0])
def test_equal_weights_have_no_outliers_and_one_value(value: float) -> None:
    quantizer = GoboQuantizer(3)
    weights = torch.full((5, 7), value)
    encoded = quantizer.encode(weights)
    assert len(encoded.positions) == 0
    assert len(set(encoded.table.tolist())) == 1
    assert torch.allclose(quantizer(weights), weights, rtol=1e-6)
    assert float(encoded.scale) > 0


def test_fewer_distinct_weights_than_entries_are_the_table() -> None:
    quantizer = GoboQuantizer(3)
    weights = torch.tensor([[0.0, 1.0, -2.0], [1.0, 1.0, 0.0]])
    assert (quantizer(weights) - weights).abs().max() <= quantizer.encode(weights).scale / 2
    fit = fit_codebook(np.sort(weights.numpy(), axis=None), 3)
    assert fit.centroids.tolist() == [-2, 0, 1, 1, 1, 1, 1, 1]


def test_an_empty_bin_keeps_its_centroid() -> None:
    """Bins of 5, 6, 5 and 6 numbers start at 0, 0, 0.2 and 5.05. The second loses its zeros to the first."""
    weights = np.array([0.0] * 15 + [1.0] * 4 + [9.0, 9.1, 9.2], np.float32)
    assert fit_codebook(weights, 2).centroids == pytest.approx([0, 0, 1, 9.1])


def test_weights_too_small_for_a_scale_are_zeros() -> None:
    weights = torch.tensor([[1e-40, -1e-40], [0.0, 3e-40]])
    encoded = GoboQuantizer(2, outliers="none").encode(weights)
    assert encoded.scale.tolist() == [1.0]
    assert not encoded.table.any()


def test_the_gradient_passes_unchanged() -> None:
    weights = matrix().requires_grad_()
    (GoboQuantizer()(weights) * torch.arange(50.0)).sum().backward()
    assert torch.equal(weights.grad, torch.arange(50.0).expand(24, 50))  # type: ignore[arg-type]


def test_codes_are_kept_while_the_weight_stays_the_same() -> None:
    linear = Linear(50, 24)
    linear.weight.data.copy_(matrix())
    quantizer = linear.weight_quantizer = GoboQuantizer()
    first = quantizer.encode(linear.weight)
    assert quantizer.encode(linear.weight) is first
    with torch.no_grad():
        linear.weight[0, 0] = 5.0
    second = quantizer.encode(linear.weight)
    assert second is not first
    assert 0 in second.positions
    assert quantizer.encode(matrix(seed=1)) is not second


def test_sums_over_codes_give_the_product() -> None:
    """What GOBO's hardware does: a sum of activations for each code, times the table, and the outliers' corrections."""
    quantizer, weights = GoboQuantizer(3), matrix()
    encoded = quantizer.encode(weights)
    x = torch.tensor(np.random.default_rng(1).normal(size=50))
    values = encoded.table.double() * encoded.scale.double()
    buckets = torch.zeros(24, 8, dtype=torch.float64).scatter_add_(1, encoded.codes.long(), x.expand(24, 50))
    y = buckets @ values
    rows, cols = encoded.positions // 50, encoded.positions % 50
    y.index_add_(0, rows, x[cols] * (encoded.values.double() - values[encoded.codes[rows, cols].long()]))
    assert torch.allclose(y, quantizer(weights).double() @ x, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits": 8}, "bits is 8; allowed: 4, 3, 2"),
        ({"outliers": "mad"}, "outliers is 'mad'; allowed: log_density, z, none"),
        ({"objective": "linf"}, "objective is 'linf'; allowed: l1, l2"),
        ({"outliers": "z"}, "the threshold is -4.0 where outliers is 'z'; allowed: a number above 0, such as 3.5"),
        ({"threshold": math.nan}, "the threshold is nan where outliers is 'log_density'; allowed: a number, -4 in"),
        ({"threshold": True}, "the threshold is True where outliers is 'log_density'"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        GoboQuantizer(**arguments)


def test_weights_without_a_quantization_are_errors() -> None:
    with pytest.raises(RecipeError, match=r"every weight of a matrix is an outlier .* Set outliers=z"):
        GoboQuantizer().encode(matrix(scale=30.0))
    weights = matrix()
    weights[3, 4] = math.nan
    with pytest.raises(TrainingError, match="a weight is not finite"):
        GoboQuantizer().encode(weights)
    with pytest.raises(ValueError, match=r"takes \[rows, cols\]"):
        GoboQuantizer().encode(torch.zeros(3))
