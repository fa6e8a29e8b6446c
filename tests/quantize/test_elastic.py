"""Elastic quantizers. Oracles: the worked examples of the BiT specification (made with the released classes), and the
formulas in a loop over elements."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import (
    ActivationPolicy,
    ElasticQuantizer,
    EmbeddingPolicy,
    Policy,
    WeightPolicy,
    apply_policy,
    elastic_quantizers,
)

SIGNED = torch.tensor([0.3, -0.8, 1.5, -0.1])
UNSIGNED = torch.tensor([0.0, 0.2, 0.5, 0.9, 2.0])


def gradients(quantizer: ElasticQuantizer, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, float]:
    """(q(x), ∂L/∂x, ∂L/∂α)"""
    x = x.clone().requires_grad_()
    y = quantizer(x)
    y.backward(upstream)
    assert x.grad is not None
    assert quantizer.scale.grad is not None
    return y.detach(), x.grad, quantizer.scale.grad.item()


def test_worked_example_of_signs() -> None:
    y, by_x, by_scale = gradients(ElasticQuantizer(), SIGNED, torch.tensor([1.0, 2.0, 3.0, 4.0]))
    torch.testing.assert_close(y, torch.tensor([1.35, -1.35, 1.35, -1.35]))  # α starts at 2·mean|x|
    assert by_x.tolist() == [1, 2, 0, 4]
    assert by_scale == pytest.approx(-1.0)


def test_worked_example_of_zeros_and_ones() -> None:
    quantizer = ElasticQuantizer(signed=False)
    torch.testing.assert_close(quantizer(UNSIGNED), torch.tensor([0.0, 0.0, 0.0, 0.0, 2.88]))  # 4·mean|x|
    with torch.no_grad():
        quantizer.scale.fill_(0.8)
    y, by_x, by_scale = gradients(quantizer, UNSIGNED, torch.ones(5))
    torch.testing.assert_close(y, torch.tensor([0.0, 0.0, 0.8, 0.8, 0.8]))
    assert by_x.tolist() == [1, 1, 1, 0, 0]
    assert by_scale == pytest.approx(0.95033, abs=1e-5)


def test_worked_example_of_two_bits() -> None:
    y = ElasticQuantizer(bits=2)(torch.tensor([0.3, -0.8, 1.5, -0.1, -2.0]))
    torch.testing.assert_close(y, torch.tensor([0.0, 0.0, 1.88, 0.0, -1.88]))


def slow(x: float, alpha: float, bits: int, signed: bool) -> tuple[int, float, float]:
    """(code, ∂q/∂x, ∂q/∂α before its factor)"""
    u = float(np.float32(x) / np.float32(alpha))
    if bits == 1 and signed:
        code = 1 if x >= 0 else -1
        return code, float(-1 <= u <= 1), float(code)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    code = (1 if u >= 0.5 else 0) if bits == 1 else min(max(round(u), low), high)
    by_alpha = low if u < low else high if u >= high else code - u
    return code, float(low <= u <= high), by_alpha


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    bits=st.sampled_from([1, 2, 4]),
    signed=st.booleans(),
    alpha=st.sampled_from([0.25, 0.7, 2.0]),
)
def test_equals_the_formulas(seed: int, bits: int, signed: bool, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Multiples of an eighth: ties and both bounds of the gradient occur.
    x = torch.randint(-32 if signed else 0, 33, (3, 5), generator=generator) / 8
    quantizer = ElasticQuantizer(bits, signed, 5, threshold="channel")
    quantizer(x)
    with torch.no_grad():
        quantizer.scale.fill_(alpha)
        assert quantizer.shift is not None
        quantizer.shift.copy_(torch.arange(5) / 4)
    y, by_x, by_scale = gradients(quantizer, x, torch.ones_like(x))
    alpha = quantizer.step.item()
    expected = [slow(v.item(), alpha, bits, signed) for v in (x + quantizer.shift.detach()).flatten()]
    codes = torch.tensor([code for code, _, _ in expected]).view(3, 5)
    assert torch.equal(quantizer.encode(x), codes.to(torch.int8))
    assert torch.equal(y, codes * torch.tensor(alpha))
    assert by_x.flatten().tolist() == [slope for _, slope, _ in expected]
    assert quantizer.shift.grad is not None
    assert quantizer.shift.grad.tolist() == by_x.sum(0).tolist()
    total = sum(slope for _, _, slope in expected) / math.sqrt(15 * quantizer.highest)
    assert by_scale == pytest.approx(total, abs=1e-4)


def test_a_tie_is_one() -> None:
    quantizer = ElasticQuantizer(signed=False)
    quantizer(UNSIGNED)
    with torch.no_grad():
        quantizer.scale.fill_(0.5)
    assert quantizer.encode(torch.tensor([0.25, 0.2499])).tolist() == [1, 0]
    assert ElasticQuantizer()(torch.tensor([0.0, -0.0])).sign().tolist() == [1, 1]


def test_one_threshold_for_all() -> None:
    quantizer = ElasticQuantizer(threshold="scalar")
    x = SIGNED.clone().requires_grad_()
    quantizer(x).sum().backward()
    assert quantizer.shift is not None
    assert quantizer.shift.grad is not None
    assert quantizer.shift.grad.tolist() == [3]  # 1.5 is beyond the scale


def test_a_static_scale_stays() -> None:
    quantizer = ElasticQuantizer(scale="static")
    x = SIGNED.clone().requires_grad_()
    quantizer(x).sum().backward()
    assert not quantizer.scale.requires_grad
    assert quantizer.scale.grad is None
    assert quantizer.step.item() == pytest.approx(1.35)


def test_a_scale_never_falls_to_zero() -> None:
    quantizer = ElasticQuantizer()
    assert quantizer(torch.zeros(4)).tolist() == [1, 1, 1, 1]  # a batch of zeros: any positive scale
    with torch.no_grad():
        quantizer.scale.fill_(-3.0)
    y, _, by_scale = gradients(quantizer, SIGNED, torch.ones(4))
    assert y.unique().tolist() == pytest.approx([-1e-5, 1e-5])
    assert by_scale == 0  # two signs each way: a gradient that reaches the parameter, and could raise it


def test_codes_before_any_batch_are_refused() -> None:
    with pytest.raises(TrainingError, match="has not seen a batch"):
        ElasticQuantizer().encode(SIGNED)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"bits": 3}, r"bits is 3; allowed: 1, 2, 4"),
        ({"scale": "none"}, r"scale is 'none'; allowed: learned, static"),
        ({"threshold": "row"}, r"threshold is 'row'; allowed: channel, scalar, none"),
        ({"threshold": "channel"}, r"needs the number of channels"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        ElasticQuantizer(**arguments)  # type: ignore[arg-type]


# --- in an encoder ---


def policy(bits: int = 1) -> Policy:
    weights = {"scheme": "binary", "centre": "matrix", "gradient_range": None}
    return Policy(
        WeightPolicy(**weights, group="matrix"),
        EmbeddingPolicy(**weights, group="row"),
        ActivationPolicy("elastic", bits=bits),
    )


def tiny() -> SequenceClassifier:
    config = {
        "model_type": "bert",
        "vocab_size": 40,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 36,
        "max_position_embeddings": 16,
        "type_vocab_size": 2,
        "initializer_range": 0.3,
        "hidden_act": "relu",
    }
    return SequenceClassifier(EncoderConfig.from_hf(config))


IDS = torch.arange(2, 20).view(2, 9)


def test_every_linear_has_its_own_and_every_parameter_a_gradient() -> None:
    model = tiny()
    applied = apply_policy(model, policy())
    model.set_dropout(0.0)
    model.train()(IDS).logits.square().sum().backward()
    found = elastic_quantizers(model)
    linears = ["query", "key", "value", "output"]
    states = ["query_states", "key_states", "value_states", "probabilities"]
    expected = {"pooler.dense.input"}
    for i in range(2):
        expected |= {f"layers.{i}.attention.{part}.input" for part in linears}
        expected |= {f"layers.{i}.attention.{part}" for part in states}
        expected |= {f"layers.{i}.ffn.{part}.input" for part in ("intermediate", "output")}
    assert found.keys() == expected
    unsigned = {name for name, quantizer in found.items() if not quantizer.signed}
    assert unsigned == {
        f"layers.{i}.{part}" for i in range(2) for part in ("attention.probabilities", "ffn.output.input")
    }
    assert all(p.grad is not None for name, p in model.named_parameters())
    assert {row.name for row in applied.report() if row.kind == "activation"} == expected
    assert not any("quantizer" in row.name for row in applied.report())


def test_a_later_stage_continues_with_scales_and_thresholds() -> None:
    model = tiny()
    apply_policy(model, policy(2))
    model(IDS)
    before = elastic_quantizers(model)
    with torch.no_grad():
        for quantizer in before.values():
            if quantizer.shift is not None:
                quantizer.shift.normal_()
    apply_policy(model, policy(1))
    after = elastic_quantizers(model)
    for name, quantizer in after.items():
        assert quantizer is not before[name]
        assert quantizer.bits == 1
        assert torch.equal(quantizer.scale, before[name].scale)
        assert bool(quantizer.started)
        if quantizer.shift is not None:
            assert before[name].shift is not None
            assert torch.equal(quantizer.shift, before[name].shift)
    apply_policy(model, Policy())
    assert not elastic_quantizers(model)


def test_the_state_travels() -> None:
    model = tiny()
    apply_policy(model, policy())
    model(IDS)
    other = tiny()
    apply_policy(other, policy())
    other.load_state_dict(model.state_dict())
    model.eval()
    other.eval()
    assert torch.equal(model(IDS).logits, other(IDS).logits)


def test_rows_of_a_table_are_quantized_as_the_whole_table_is() -> None:
    """The word embedding centres by the mean of all rows, though it looks up a few."""
    model = tiny()
    apply_policy(model, policy())
    embedding = model.embeddings.word
    assert embedding.weight_quantizer is not None
    assert torch.equal(embedding(IDS), embedding.weight_quantizer(embedding.weight)[IDS])
