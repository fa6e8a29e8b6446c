"""Ternary weight splitting. Oracle: what it promises, that the two binary weights sum up to the ternary one."""

from __future__ import annotations

import pytest
import torch

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import TrainingError
from bitpress.quantize import (
    ActivationPolicy,
    BinaryQuantizer,
    EmbeddingPolicy,
    Policy,
    TernaryQuantizer,
    WeightPolicy,
    apply_policy,
    encode_weights,
    split_ternary,
)
from bitpress.quantize.splitting import split_weight

TERNARY = Policy(activations=ActivationPolicy(scheme="fp32"))
BINARY = Policy(
    weights=WeightPolicy(scheme="binary", group="matrix", centre="none", gradient_range=None),
    word_embedding=EmbeddingPolicy(scheme="binary", group="row", centre="none", gradient_range=None),
    activations=ActivationPolicy(scheme="fp32"),
)


@pytest.mark.parametrize("group", ["matrix", "row"])
@pytest.mark.parametrize("seed", range(5))
def test_the_two_binary_weights_sum_up_to_the_ternary_one(group: str, seed: int) -> None:
    weight = torch.randn(12, 40, generator=torch.Generator().manual_seed(seed)) * 0.1 + 0.01 * seed
    ternary = TernaryQuantizer(group)
    first, second = split_weight(weight, ternary)
    binary = BinaryQuantizer(group, "none", None)
    (_, alpha), (_, one), (_, two) = ternary.encode(weight), binary.encode(first), binary.encode(second)
    torch.testing.assert_close(one, alpha / 2)
    torch.testing.assert_close(two, alpha / 2)
    torch.testing.assert_close(binary(first) + binary(second), ternary(weight), rtol=1e-5, atol=1e-8)
    # What the formulas keep: where a weight is not split evenly it is moved, but the sum of both stays the weight.
    torch.testing.assert_close(first + second, weight, rtol=1e-4, atol=1e-6)


def test_worked_example() -> None:
    """w = (.9, −.6, .3, −.1): Δ = .7·.475 = .3325, so t = (+, −, 0, 0), α = .75. b = (3 − 1.9)/4 = .275 and
    a = (1.5 − .2)/3 = .43333; both means come out as .375."""
    first, second = split_weight(torch.tensor([[0.9, -0.6, 0.3, -0.1]]), TernaryQuantizer())
    torch.testing.assert_close(first, torch.tensor([[0.39, -0.26, 0.575, 0.275]]))
    torch.testing.assert_close(second, torch.tensor([[0.51, -0.34, -0.275, -0.375]]))
    assert first.abs().mean().item() == pytest.approx(0.375)
    assert second.abs().mean().item() == pytest.approx(0.375)


def test_rows_of_zeros_and_rows_without_them() -> None:
    weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 1.0, -1.0]])
    ternary, binary = TernaryQuantizer("row"), BinaryQuantizer("row", "none", None)
    first, second = split_weight(weight, ternary)
    assert torch.equal(binary(first) + binary(second), ternary(weight))


def test_what_cannot_be_split_evenly() -> None:
    weight = torch.cat([torch.tensor([1.0]), torch.full((40,), 0.3)])[None]
    assert int((TernaryQuantizer().encode(weight)[0] != 0).sum()) > 1, "an even threshold keeps all of these"
    weight = torch.cat([torch.tensor([1.0]), torch.full((40,), 0.05)])[None]
    with pytest.raises(ValueError, match="no even split"):
        split_weight(weight, TernaryQuantizer())


def model() -> SequenceClassifier:
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
    }
    return SequenceClassifier(EncoderConfig.from_hf(config)).eval()


IDS = torch.arange(2, 20).view(2, 9)


def test_a_model_computes_the_same_before_and_after() -> None:
    student = model()
    apply_policy(student, TERNARY)
    before = student(IDS).logits
    assert split_ternary(student) == 2 * 6 + 1 + 1
    applied = apply_policy(student, BINARY)
    torch.testing.assert_close(student(IDS).logits, before, rtol=1e-4, atol=1e-5)
    assert {row.scheme for row in applied.report() if row.name.endswith("second_weight")} == {"binary"}
    student(IDS).logits.sum().backward()
    assert all(p.grad is not None for p in student.parameters())


def test_both_parts_are_encoded() -> None:
    student = model()
    apply_policy(student, TERNARY)
    split_ternary(student)
    apply_policy(student, BINARY)
    encoded = encode_weights(student)
    codes, scale = encoded["layers.1.ffn.output.weight"]
    assert codes is not None
    assert scale is not None
    assert (codes.shape, scale.shape) == ((2, 24, 36), (2,))
    codes, scale = encoded["embeddings.word.weight"]
    assert codes is not None
    assert scale is not None
    assert (codes.shape, scale.shape) == ((2, 40, 24), (2, 40))
    values = (codes.float() * scale[:, :, None]).sum(dim=0)
    assert torch.equal(student.embeddings.word(torch.arange(40)), values)


def test_refusals() -> None:
    student = model()
    with pytest.raises(TrainingError, match="nothing to split"):
        split_ternary(student)
    apply_policy(student, TERNARY)
    split_ternary(student)
    with pytest.raises(TrainingError, match="split already"):
        split_ternary(student)
