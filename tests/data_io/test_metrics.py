"""Metrics. Oracles: scikit-learn and scipy on random inputs, hand-computed values on degenerate ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitpress.data import compute_metrics, get_task, majority_baseline
from bitpress.data.metrics import average_ranks, pearson, spearman

scipy_stats = pytest.importorskip("scipy.stats")
sklearn_metrics = pytest.importorskip("sklearn.metrics")

CLASSIFICATION = get_task("classification")
REGRESSION = get_task("regression")


def one_hot(classes: np.ndarray, count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes]


@pytest.mark.parametrize("num_classes", [2, 3, 7])
@pytest.mark.parametrize("n", [1, 2, 5, 101])
def test_classification_metrics_equal_sklearn(num_classes: int, n: int) -> None:
    rng = np.random.default_rng(100 * num_classes + n)
    logits = rng.normal(size=(n, num_classes)).astype(np.float32)
    labels = rng.integers(0, num_classes, n)
    predicted = logits.argmax(axis=1)
    f1_name, options = ("f1", {}) if num_classes == 2 else ("macro_f1", {"average": "macro"})
    assert compute_metrics(CLASSIFICATION, logits, labels) == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
            f1_name: sklearn_metrics.f1_score(labels, predicted, zero_division=0, **options),
            "matthews": sklearn_metrics.matthews_corrcoef(labels, predicted),
        },
        abs=1e-12,
    )


@pytest.mark.parametrize("constant", [0, 1])
def test_constant_predictions_give_zero_not_nan(constant: int) -> None:
    labels = np.array([0, 1, 1])
    metrics = compute_metrics(CLASSIFICATION, one_hot(np.full(3, constant), 2), labels)
    assert metrics["matthews"] == 0.0
    assert metrics["f1"] == pytest.approx(0.8 if constant else 0.0)


def test_headline_metric_comes_first() -> None:
    logits, labels = one_hot(np.array([0, 1]), 2), np.array([0, 1])
    assert list(compute_metrics(get_task("glue/mrpc"), logits, labels)) == ["f1", "accuracy"]
    assert next(iter(compute_metrics(replace(CLASSIFICATION, metric="matthews"), logits, labels))) == "matthews"


@pytest.mark.parametrize("n", [2, 3, 50])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_correlations_equal_scipy_with_and_without_ties(n: int, levels: int) -> None:
    rng = np.random.default_rng(n * levels)
    x, y = rng.normal(size=n).round(1), rng.integers(0, levels, n) / levels
    x[:2], y[:2] = (0.0, 1.0), (0.5, 0.25)  # never constant
    metrics = compute_metrics(REGRESSION, x[:, None], y)
    assert metrics["pearson"] == pytest.approx(scipy_stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics["spearman"] == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-12)


def test_ranks_equal_scipy() -> None:
    x = np.random.default_rng(0).integers(0, 9, 40).astype(float)
    np.testing.assert_array_equal(average_ranks(x), scipy_stats.rankdata(x))


@pytest.mark.parametrize("constant", [0.1, 1e-300, 1e300, 0.0])
def test_correlation_of_a_constant_is_zero(constant: float) -> None:
    varied = np.linspace(0, 1, 7)
    for correlation in (pearson, spearman):
        assert correlation(np.full(7, constant), varied) == 0.0
        assert correlation(varied, np.full(7, constant)) == 0.0
    assert pearson(np.array([1.0]), np.array([2.0])) == 0.0


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_pearson_neither_underflows_nor_overflows(scale: float) -> None:
    x = np.array([1.0, 2.0, 4.0])
    assert pearson(x * scale, -x) == pytest.approx(-1.0)


def test_majority_baseline() -> None:
    labels = np.array([1, 1, 1, 0])
    assert majority_baseline(CLASSIFICATION, labels) == 0.75
    assert majority_baseline(get_task("glue/mrpc"), labels) == pytest.approx(6 / 7)  # 2·3 / (2·3 + 1)
    assert majority_baseline(get_task("glue/mrpc"), 1 - labels) == 0.0
    assert majority_baseline(get_task("glue/cola"), labels) == 0.0
    assert majority_baseline(REGRESSION, labels.astype(np.float32)) == 0.0
    macro = replace(CLASSIFICATION, metric="f1")
    truth = np.array([2, 2, 0, 1])
    expected = sklearn_metrics.f1_score(truth, np.full(4, 2), average="macro", zero_division=0)
    assert majority_baseline(macro, truth, 3) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, int), "at least one row"),
        (np.zeros((2, 2)), np.zeros(3, int), "cannot score outputs of shape"),
        (np.zeros(2), np.zeros(2, int), "cannot score outputs of shape"),
        (np.full((2, 2), np.nan), np.zeros(2, int), "NaN or infinity"),
        (np.zeros((2, 2)), np.array([0, 2]), "do not fit 2 classes"),
        (np.zeros((2, 2)), np.array([-1, 0]), "do not fit 2 classes"),
    ],
)
def test_inputs_that_cannot_be_scored_are_refused(logits: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_metrics(CLASSIFICATION, logits, labels)
