"""Activations of few bits on a learned scale. Oracles: the formulas in numpy, and :class:`ElasticQuantizer`, whose
gradients are checked against worked numbers in test_elastic.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import (
    ActivationPolicy,
    ElasticQuantizer,
    LearnedRangeQuantizer,
    Policy,
    activation_ranges,
    apply_policy,
)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_decoded_is_what_the_forward_pass_used(bits: int, signed: bool) -> None:
    quantizer = LearnedRangeQuantizer(bits, signed)
    x = torch.randn(50, 33, generator=torch.Generator().manual_seed(bits))
    x = x if signed else x.relu()
    y = quantizer(x)
    codes, scale, offset = quantizer.encode(x)
    assert torch.equal(codes.float() * scale + offset, y)
    expected = np.clip(np.rint((x.numpy() - offset.numpy()) / scale.numpy()), 0, 2**bits - 1)
    np.testing.assert_array_equal(codes.numpy(), expected)
    assert (float(scale), float(offset)) == quantizer.static_range()
    highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    start = (2 if signed else 4) * x.abs().mean() / highest**0.5
    torch.testing.assert_close(scale, start)
    assert float(offset) == (-(2.0 ** (bits - 1)) * float(scale) if signed else 0.0)


@pytest.mark.parametrize("signed", [True, False])
def test_gradients_are_those_of_the_elastic_form(signed: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 20, generator=generator)
    upstream = torch.randn(40, 20, generator=generator)
    results = []
    for quantizer in (LearnedRangeQuantizer(4, signed), ElasticQuantizer(4, signed)):
        leaf = x.clone().requires_grad_()
        (quantizer(leaf) * upstream).sum().backward()
        results.append((leaf.grad, quantizer.scale.grad))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1])


def tiny(hidden_act: str) -> SequenceClassifier:
    config = {
        "model_type": "bert",
        "vocab_size": 40,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 36,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "hidden_act": hidden_act,
    }
    return SequenceClassifier(EncoderConfig.from_hf(config))


@pytest.mark.parametrize(("act", "unsigned"), [("relu", {"probabilities", "activation"}), ("gelu", {"probabilities"})])
def test_every_point_has_a_range_and_what_is_never_negative_starts_at_0(act: str, unsigned: set[str]) -> None:
    model = tiny(act)
    policy = Policy(activations=ActivationPolicy(bits=4, range="learned"))
    apply_policy(model, policy)
    model(torch.arange(2, 20).view(2, 9)).logits.sum().backward()
    ranges = activation_ranges(model)
    assert len(ranges) == 2 * 8 + 1
    assert {name.rpartition(".")[2] for name, (_, offset) in ranges.items() if offset == 0} == unsigned
    assert all(offset in (0.0, -8 * scale) for scale, offset in ranges.values())
    apply_policy(model, policy)
    assert activation_ranges(model) == ranges, "a later stage goes on with the scales"


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="bits is 2; allowed: 4, 8"):
        LearnedRangeQuantizer(2)
    with pytest.raises(TrainingError, match="has not seen a batch"):
        LearnedRangeQuantizer(4).static_range()
