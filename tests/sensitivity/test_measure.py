"""The whole measurement. Oracles: the explicit Hessian of each sample, an uninterrupted run, and counting."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_curves
import torch

from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import Policy, apply_policy
from bitpress.sensitivity import (
    SensitivityProgress,
    SensitivityReport,
    SensitivitySettings,
    encoder_blocks,
    find_block,
    measure_sensitivity,
)
from bitpress.sensitivity.losses import sample_batches, sample_indices, summed_loss

FEW = SensitivitySettings(samples=4, share=0.25, max_products=30, probes=3)


def timeless(report: SensitivityReport) -> SensitivityReport:
    return dataclasses.replace(report, seconds=0.0)


def measure(settings: SensitivitySettings = FEW, **options: Any) -> SensitivityReport:
    model = tiny_curves.encoder()
    return measure_sensitivity(model, tiny_curves.texts(40), encoder_blocks(model), settings, **options)


def test_eigenvalues_of_every_sample_are_those_of_its_explicit_hessian() -> None:
    model, data = tiny_curves.encoder(), tiny_curves.texts(12)
    blocks = (find_block(encoder_blocks(model, "matrix"), "layers.1.attention.query"),)
    settings = SensitivitySettings(samples=2, share=0.5, max_products=400, probes=0, tolerance=1e-5)
    found = measure_sensitivity(model, data, blocks, settings).blocks[0]
    for number, sample in enumerate(found.samples):
        indices = sample_indices(data.lengths, number, settings)
        loss = sum(summed_loss(model.config)(model, batch) for batch in sample_batches(data, indices)) / len(indices)
        values = np.linalg.eigvalsh(tiny_curves.explicit_hessian(model, blocks[0], loss).double().numpy())
        top = values[np.abs(values).argmax()]
        assert sample.converged
        assert sample.eigenvalue == pytest.approx(top, rel=5e-3)
    assert found.samples[1].traces == ()


def test_the_same_arguments_give_the_same_report() -> None:
    first = measure()
    assert timeless(measure()) == timeless(first)
    other = measure(dataclasses.replace(FEW, seed=1))
    assert other.blocks[0].eigenvalues != first.blocks[0].eigenvalues


def test_products_are_limited_counted_and_told() -> None:
    told: list[SensitivityProgress] = []
    report = measure(progress=told.append)
    counted = sum(block.products for block in report.blocks)
    assert (told[-1].products, told[-1].most) == (counted, 60)
    assert [event.products for event in told] == sorted(event.products for event in told)
    for block in report.blocks:
        assert block.products == sum(sample.iterations + len(sample.traces) for sample in block.samples) <= 30
        assert sum(len(sample.traces) for sample in block.samples) == 3
        assert all(sample.iterations >= 2 for sample in block.samples)
        assert block.size == 4 * 64 + 2 * 96
    # Two iterations a sample and the probes are the least it can be; a tolerance that nothing meets needs them all.
    strict = measure(dataclasses.replace(FEW, tolerance=1e-12, max_products=11))
    assert {block.products for block in strict.blocks} == {11}
    assert {block.converged for block in strict.blocks} == {0}


def test_a_later_sample_starts_from_the_vector_of_the_one_before() -> None:
    settings = SensitivitySettings(samples=2, share=1.0, max_products=200, probes=0, tolerance=1e-3)
    for block in measure(settings).blocks:  # the same texts twice, in another order
        assert block.samples[1].iterations == 2
        assert block.samples[0].iterations > 2
        assert block.eigenvalues[0] == pytest.approx(block.eigenvalues[1], rel=1e-2)


class Killed(BaseException):
    """What no one catches."""


@pytest.mark.parametrize("survived", [0, 1, 3])
def test_an_interrupted_measurement_goes_on_to_the_same_numbers(survived: int, tmp_path: Path) -> None:
    whole = measure()

    def kill(event: SensitivityProgress) -> None:
        if event.sample == survived:
            raise Killed

    with pytest.raises(Killed):
        measure(progress=kill, resume=tmp_path / "samples")
    samples: list[int] = []
    resumed = measure(progress=lambda event: samples.append(event.sample), resume=tmp_path / "samples")
    assert timeless(resumed) == timeless(whole)
    assert min(samples) == survived, "finished samples are not measured again"
    again = measure(progress=kill, resume=tmp_path / "samples")
    assert again == resumed, "a finished measurement measures nothing"


def test_a_directory_of_other_arguments_is_refused(tmp_path: Path) -> None:
    measure(resume=tmp_path)
    with pytest.raises(TrainingError, match=r"settings\.seed: found 5, expected 0"):
        measure(dataclasses.replace(FEW, seed=5), resume=tmp_path)


def test_regression_is_measured_by_squared_errors() -> None:
    model = tiny_curves.encoder(labels=1, problem_type="regression")
    data = tiny_curves.texts(10, labels=1)
    block = find_block(encoder_blocks(model, "matrix", "all"), "classifier")
    settings = SensitivitySettings(samples=1, share=1.0, max_products=60, probes=0, tolerance=1e-6)
    found = measure_sensitivity(model, data, (block,), settings).blocks[0]
    # The loss is a quadratic function of the head: H = 2·mean of x·xᵀ, x the pooled state with a 1.
    rows = []
    for batch in sample_batches(data, np.arange(len(data))):
        with torch.no_grad():
            hidden, _, _ = model.encode(batch.input_ids, batch.attention_mask)
            pooled = model.pooler(hidden)
        rows.append(torch.cat([pooled, torch.ones(len(pooled), 1)], dim=1))
    x = torch.cat(rows).double().numpy()
    assert found.eigenvalues[0] == pytest.approx(np.linalg.eigvalsh(2 * x.T @ x / len(x))[-1], rel=1e-4)


def test_samples_are_disjoint_until_the_data_is_used_up() -> None:
    lengths = np.full(41, 5)
    settings = SensitivitySettings(samples=10, share=0.25)
    samples = [sample_indices(lengths, i, settings) for i in range(8)]
    assert [len(sample) for sample in samples] == [10] * 8
    for group in (samples[:4], samples[4:]):
        assert len(set(np.concatenate(group).tolist())) == 40
    assert samples[0].tolist() != samples[4].tolist()
    few = sample_indices(lengths, 0, dataclasses.replace(settings, texts=3))
    assert few.tolist() == samples[0][:3].tolist()
    by_tokens = [len(sample_indices(lengths, 0, dataclasses.replace(settings, tokens=t))) for t in (1, 5, 14, 15, 1000)]
    assert by_tokens == [1, 1, 2, 3, 10]
    assert len(sample_indices(lengths[:3], 0, SensitivitySettings(share=0.01))) == 1


def test_what_cannot_be_measured() -> None:
    model, data = tiny_curves.encoder(), tiny_curves.texts(4)
    blocks = encoder_blocks(model)
    with pytest.raises(RecipeError, match="no blocks"):
        measure_sensitivity(model, data, (), FEW)
    with pytest.raises(TrainingError, match="no texts"):
        measure_sensitivity(model, tiny_curves.texts(0), blocks, FEW)
    with pytest.raises(TrainingError, match="no labels"):
        measure_sensitivity(model, dataclasses.replace(data, labels=None), blocks, FEW)
    with pytest.raises(RecipeError, match=r"embeddings\.word\.weight is bfloat16; second derivatives need float32"):
        measure_sensitivity(tiny_curves.encoder().bfloat16(), data, blocks, FEW)
    apply_policy(model, Policy())
    with pytest.raises(RecipeError, match="has a quantizer; measure the sensitivity of the full-precision model"):
        measure_sensitivity(model, data, blocks, FEW)
