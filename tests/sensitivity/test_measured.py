"""Blocks alone at low bits. Oracles: the quantizer itself, a loss written out, scipy's rank correlation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import tiny_curves
import torch
from torch import nn

from bitpress.errors import RecipeError
from bitpress.quantize import UniformWeightQuantizer
from bitpress.sensitivity import (
    BlockDrop,
    BlockSensitivity,
    SampleMeasurement,
    SensitivityReport,
    SensitivitySettings,
    encoder_blocks,
    find_block,
    group_wise,
    measure_drop,
    quantized,
    rank_agreement,
)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(
    ("rows", "groups", "size"), [(768, 128, 6), (384, 128, 3), (8, 128, 1), (312, 128, 3), (8, 1, 8)]
)
def test_groups_are_blocks_of_rows(rows: int, groups: int, size: int) -> None:
    quantizer = group_wise(3, groups)(torch.zeros(rows, 4))
    assert quantizer == UniformWeightQuantizer(bits=3, symmetric=False, group="row_block", group_size=size)
    with pytest.raises(RecipeError, match="groups is 0; allowed: an integer of at least 1"):
        group_wise(3, 0)


def test_only_the_matrices_of_the_block_are_quantized_and_only_for_a_while() -> None:
    model = tiny_curves.encoder()
    before = state(model)
    block = find_block(encoder_blocks(model, "module", "all"), "layers.1.ffn")
    with quantized(model, [block], group_wise(2, 4)) as error:
        during = state(model)
        changed = {name for name in before if not torch.equal(before[name], during[name])}
        assert changed == {"layers.1.ffn.intermediate.weight", "layers.1.ffn.output.weight"}
        expected = 0.0
        for name in changed:
            wanted = group_wise(2, 4)(before[name]).fake_quantize(before[name])
            assert torch.equal(during[name], wanted)
            expected += float((before[name].double() - wanted.double()).square().sum())
        assert error == pytest.approx(expected, rel=1e-6)
    after = state(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(KeyboardInterrupt), quantized(model, [block], group_wise(2)):
        raise KeyboardInterrupt
    assert all(torch.equal(before[name], tensor) for name, tensor in state(model).items())


def test_a_drop_is_a_difference_of_scores() -> None:
    model = tiny_curves.encoder()
    block = encoder_blocks(model)[0]
    weight = model.layers[0].ffn.output.weight

    def evaluate(model: nn.Module) -> dict[str, float]:
        return {"accuracy": weight[0, 0].item(), "loss": weight[0, 1].item(), "f1": 0.5}

    baseline = evaluate(model)
    found = measure_drop(model, block, 3, evaluate, baseline, "accuracy")
    rounded = group_wise(3)(weight)(weight).detach()
    assert found.scores == {"accuracy": float(rounded[0, 0]), "loss": float(rounded[0, 1]), "f1": 0.5}
    assert (found.block, found.bits) == ("layers.0", 3)
    assert found.drop == pytest.approx(weight[0, 0].item() - rounded[0, 0].item())
    assert found.rise == pytest.approx(rounded[0, 1].item() - weight[0, 1].item())


def test_fewer_bits_and_fewer_groups_move_weights_more() -> None:
    model = tiny_curves.encoder(hidden_size=16, intermediate_size=32)
    blocks = encoder_blocks(model)
    # Halving the levels or joining groups widens every step, and the error with it on average.
    errors = []
    for bits, groups in ((8, 16), (4, 16), (4, 1), (3, 1), (2, 1)):
        with quantized(model, blocks, group_wise(bits, groups)) as error:
            errors.append(error)
    assert errors == sorted(errors)
    assert errors[0] < errors[-1] / 100


def test_rank_agreement_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    count = 8
    eigenvalues, traces = rng.normal(size=count).round(1), rng.normal(size=count)
    blocks = tuple(
        BlockSensitivity(
            f"b{i}",
            ("w",),
            10 + i,
            (SampleMeasurement(float(eigenvalues[i]), 0.0, True, 2, (float(traces[i]),), 3),),
        )
        for i in range(count)
    )
    report = SensitivityReport(SensitivitySettings(samples=1, probes=1), "", "", 1, 1, blocks, 0.0)
    drops = [
        BlockDrop(f"b{i}", bits, float(rng.random()), {}, float(rng.integers(3)), float(rng.normal()))
        for bits in (2, 4)
        for i in rng.permutation(count)
    ]
    found = rank_agreement(report, drops[:-1])
    assert [(one.bits, one.proxy) for one in found] == [(2, "omega"), (2, "trace_error")], "4 bits are incomplete"
    at = {drop.block: drop for drop in drops if drop.bits == 2}
    mine = [at[block.name] for block in blocks]
    proxies = [
        np.abs(eigenvalues),
        np.array([t / (10 + i) * d.error for i, (t, d) in enumerate(zip(traces, mine, strict=True))]),
    ]
    for one, proxy in zip(found, proxies, strict=True):
        for key in ("drop", "rise"):
            values = [getattr(drop, key) for drop in mine]
            assert getattr(one, key) == pytest.approx(scipy.stats.spearmanr(proxy, values).statistic)
    assert len(rank_agreement(report, drops)) == 4
