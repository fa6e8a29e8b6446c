"""One-bit weights and activations. Oracles: the worked examples of the BiBERT specification (made with the released
classes), and a plain fp64 loop over each row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.encoder.layers import Linear, keep_signs
from bitpress.errors import RecipeError
from bitpress.quantize import (
    ActivationPolicy,
    AllAttention,
    BinaryQuantizer,
    BooleanAttention,
    CentredSignQuantizer,
    EmbeddingPolicy,
    Policy,
    SignQuantizer,
    WeightPolicy,
    apply_policy,
    fold_centres,
    has_centres,
)

WEIGHT = torch.tensor([[0.5, -0.1, 0.2, -0.2], [0.3, 0.14, 0.4, -0.44]])
BINARY = Policy(WeightPolicy("binary", group="row"), EmbeddingPolicy("binary"), ActivationPolicy("binary"))

# Few distinct values, so that ties with the mean, zeros (both signs) and constant rows are common.
elements = st.one_of(
    st.sampled_from([0.0, -0.0, 0.25, -0.25, 0.5, -0.5, 1.0, 1e-45, -1e-40]),
    st.floats(-4, 4, width=32),
    st.floats(-(2.0**60), 2.0**60, width=32),
)
matrices = hnp.arrays("float32", hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=elements)


def bits(x: Tensor) -> Tensor:
    """Bit patterns: −0 differs from +0."""
    return x.contiguous().view(torch.int32)


# --- weights ---


def test_worked_example() -> None:
    codes, scale = BinaryQuantizer().encode(WEIGHT)
    assert codes.tolist() == [[1, -1, 1, -1], [1, 1, 1, -1]]
    torch.testing.assert_close(scale, torch.tensor([0.25, 0.32]))


@pytest.mark.parametrize("as_one_product", [False, True])
def test_worked_example_of_a_linear_layer_with_its_gradients(as_one_product: bool) -> None:
    """Both ways to multiply: by q(w), and as the layer does."""
    quantizer, sign = BinaryQuantizer(), SignQuantizer()
    weight, x = WEIGHT.clone().requires_grad_(), torch.tensor([[0.7, -1.2, 0.1, 0.3]], requires_grad=True)
    bias = torch.zeros(2, requires_grad=True)
    binary = sign(x, "rows")
    y = quantizer.linear(binary, weight, bias) if as_one_product else binary @ quantizer(weight).t() + bias
    y.sum().backward()
    torch.testing.assert_close(y, torch.tensor([[0.5, 0.0]]))
    assert x.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor([[0.57, 0.0, 0.57, -0.57]]))
    torch.testing.assert_close(weight.grad, torch.tensor([[0.5, -1.5, 0.5, 0.5]] * 2))
    assert bias.grad is not None
    assert bias.grad.tolist() == [1, 1]


def test_worked_example_of_bit() -> None:
    """One scale and one mean a matrix, and a gradient that passes unchanged (spec/bit.md A3)."""
    quantizer = BinaryQuantizer(group="matrix", centre="matrix", gradient_range=None)
    weight = (20 * WEIGHT).requires_grad_()
    quantized = quantizer(weight)
    signs = [[1, -1, 1, -1], [1, 1, 1, -1]]
    torch.testing.assert_close(quantized, 20 * 0.285 * torch.tensor(signs))
    upstream = torch.arange(8.0).view(2, 4)
    quantized.backward(upstream)
    assert weight.grad is not None
    assert torch.equal(weight.grad, upstream)


@pytest.mark.parametrize("centre", ["none", "row", "matrix"])
def test_gradient_of_every_centre_is_that_of_autograd(centre: str) -> None:
    """Oracle: clamp(w − mean(w)) in autograd, whose gradient stops beyond ±1 and passes through the mean."""
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    upstream = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    BinaryQuantizer(centre=centre)(weight).backward(upstream)
    found, weight.grad = weight.grad, None
    mean = {"none": 0.0, "row": weight.mean(1, keepdim=True), "matrix": weight.mean()}[centre]
    (weight - mean).clamp(-1, 1).backward(upstream)
    torch.testing.assert_close(found, weight.grad)


@pytest.mark.parametrize("group", ["row", "matrix"])
@pytest.mark.parametrize("centre", ["none", "row", "matrix"])
def test_every_choice_is_decode_of_encode(group: str, centre: str) -> None:
    quantizer = BinaryQuantizer(group=group, centre=centre)
    codes, scale = quantizer.encode(WEIGHT)
    assert scale.shape == ((2,) if group == "row" else (1,))
    assert torch.equal(quantizer.decode(codes, scale), quantizer(WEIGHT))
    mean = {"none": 0.0, "row": WEIGHT.mean(1, keepdim=True), "matrix": WEIGHT.mean()}[centre]
    assert torch.equal(codes > 0, mean <= WEIGHT)


def test_scales_in_half_precision() -> None:
    rows = torch.cat([WEIGHT, torch.zeros(1, 4)])
    codes, scale = BinaryQuantizer(scale_bits=16).encode(rows)
    assert scale.tolist() == [0.25, float(np.float16(0.32)), 2.0**-24]
    assert torch.equal(scale.half().float(), scale)
    assert torch.equal(BinaryQuantizer(scale_bits=16)(rows), BinaryQuantizer.decode(codes, scale))


def test_gradient_stops_where_a_centred_weight_is_beyond_one() -> None:
    weight = torch.tensor([[3.0, -1.0, -1.0, -1.0]], requires_grad=True)  # centred: 3, −1, −1, −1
    gradient = torch.tensor([[8.0, 1.0, 2.0, 3.0]])
    (BinaryQuantizer()(weight) * gradient).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [[-1.5, -0.5, 0.5, 1.5]]


@settings(max_examples=300, deadline=None)
@given(matrices)
def test_against_a_loop_over_each_row(weight: np.ndarray) -> None:
    codes, scale = BinaryQuantizer().encode(torch.from_numpy(weight))
    for row, b, alpha in zip(weight.astype(np.float64), codes.numpy(), scale.numpy(), strict=True):
        mean = np.float32(math.fsum(row) / len(row))
        # fp64 sums differ by their order only; where that decides about a bit, the weight equals the mean.
        near = np.abs(row - mean) <= 4e-16 * len(row) * np.abs(row).sum() + np.spacing(abs(mean))
        assert np.array_equal((b > 0)[~near], (row >= mean)[~near])
        expected = max(math.fsum(np.abs(row)) / len(row), np.finfo(np.float32).tiny)
        assert alpha == pytest.approx(expected, rel=1e-6)


@settings(max_examples=300, deadline=None)
@given(matrices)
def test_what_is_stored_is_what_training_saw(array: np.ndarray) -> None:
    weight, quantizer = torch.from_numpy(array), BinaryQuantizer()
    quantized = quantizer.fake_quantize(weight)
    assert torch.equal(bits(quantizer.decode(*quantizer.encode(weight))), bits(quantized))
    assert quantizer.rows_are_independent
    alone = torch.cat([quantizer.fake_quantize(row[None]) for row in weight])
    assert torch.equal(bits(alone), bits(quantized))


@settings(max_examples=300, deadline=None)
@given(matrices)
def test_quantizing_twice_changes_nothing(array: np.ndarray) -> None:
    once = BinaryQuantizer().fake_quantize(torch.from_numpy(array))
    assert torch.equal(bits(BinaryQuantizer().fake_quantize(once)), bits(once))


def test_rows_of_zeros_and_of_equal_numbers() -> None:
    codes, scale = BinaryQuantizer().encode(torch.tensor([[0.0, -0.0, 0.0], [-0.3, -0.3, -0.3]]))
    assert codes.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert scale.tolist() == [torch.finfo(torch.float32).tiny, pytest.approx(0.3)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_row_cannot_pass_as_a_good_one(bad: float) -> None:
    weight = torch.tensor([[0.1, bad, -0.2], [0.1, 0.3, -0.2]])
    quantized = BinaryQuantizer()(weight)
    assert quantized[0].isnan().all()
    assert quantized[1].isfinite().all()


def test_a_tie_of_a_linear_layer_is_exactly_zero() -> None:
    """0.1 is no fp32 number: half of 64 terms +0.1 and half −0.1 add up to 0 in few orders of addition only."""
    generator = torch.Generator().manual_seed(0)
    layer = Linear(64, 256)
    layer.weight_quantizer = BinaryQuantizer()
    with torch.no_grad():
        layer.bias.zero_()
        for row in layer.weight:
            row.copy_(torch.tensor([0.1, -0.1]).repeat(32)[torch.randperm(64, generator=generator)])
    x = torch.randint(0, 2, (50, 64), generator=generator) * 2.0 - 1
    exact = x @ layer.weight.sign().t()
    assert (exact == 0).any()
    assert torch.equal(layer(x) >= 0, exact >= 0)


# --- activations ---


def test_signs_and_their_gradient() -> None:
    x = torch.tensor([-1.5, -1.0, -0.2, -0.0, 0.0, 1.0, 1.1], requires_grad=True)
    y = SignQuantizer()(x, "rows")
    y.sum().backward()
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


def test_centred_signs_follow_the_mean_of_the_real_tokens_of_training() -> None:
    """Oracle: the running mean written out, of two batches of which the second has padding."""
    quantizer = CentredSignQuantizer(4).train()
    first, second = torch.randn(2, 3, 2, 5, 2, generator=torch.Generator().manual_seed(1)).add(3).unbind()
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()

    def tokens(x: Tensor) -> Tensor:  # [B, h, T, d] → [B, T, channels]
        return torch.stack([torch.cat([x[b, 0], x[b, 1]], dim=-1) for b in range(3)])

    quantizer(first, "head_rows")
    torch.testing.assert_close(quantizer.mean, tokens(first).mean(dim=(0, 1)))
    real = torch.cat([tokens(second)[0], tokens(second)[1, :2], tokens(second)[2, :1]])
    wanted = 0.9 * quantizer.mean + 0.1 * real.mean(dim=0)
    quantizer(second, "head_rows", mask)
    torch.testing.assert_close(quantizer.mean, wanted)
    quantizer(second, "head_rows", torch.zeros_like(mask))  # nothing but padding
    quantizer.eval()(second + 7, "head_rows", mask)
    torch.testing.assert_close(quantizer.mean, wanted)


def test_gradient_of_centred_signs_is_that_of_signs_about_the_mean() -> None:
    quantizer = CentredSignQuantizer(1).eval()
    quantizer.mean.fill_(3.0)
    x = torch.tensor([1.9, 2.0, 2.9, 3.0, 4.0, 4.1]).view(1, 1, 6, 1).requires_grad_()
    y = quantizer(x, "head_rows")
    y.sum().backward()
    assert y.flatten().tolist() == [-1, -1, -1, 1, 1, 1]
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 1, 1, 1, 1, 0]


def test_boolean_attention_and_its_gradient() -> None:
    scores = torch.tensor([torch.finfo(torch.float32).min, -1.0, -0.1, 0.0, 1.0, 1.2], requires_grad=True)
    weights = BooleanAttention()(scores)
    weights.sum().backward()
    assert weights.tolist() == [0, 0, 0, 1, 1, 1]
    assert scores.grad is not None
    assert scores.grad.tolist() == [0, 1, 1, 1, 1, 0]


def test_attention_of_the_baseline_and_its_gradient() -> None:
    """Every real key, no padded one; the gradient is that of the softmax."""
    masked = torch.finfo(torch.float32).min
    scores = torch.tensor([[3.0, -500.0, 0.0, masked]], requires_grad=True)
    weights = AllAttention()(scores)
    assert weights.tolist() == [[1, 1, 1, 0]]
    upstream = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    weights.backward(upstream)
    found, scores.grad = scores.grad, None
    scores.softmax(-1).backward(upstream)
    assert torch.equal(found, scores.grad)


def test_worked_example_of_bi_attention() -> None:
    attended = torch.tensor([[1.0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    values = torch.tensor([[1.0, -1], [1, 1], [-1, -1], [1, -1]])
    context = attended @ values
    assert context.tolist() == [[1, -3], [0, 0], [2, -2]]
    assert SignQuantizer()(context, "rows").tolist() == [[1, -1], [1, 1], [1, -1]]


def test_a_tenth_of_the_scores_are_ties() -> None:
    """C(64, 32) / 2^64 = 0.0993 of fair bits."""
    generator = torch.Generator().manual_seed(0)
    bit = torch.randint(0, 2, (2, 1500, 64), generator=generator) * 2.0 - 1
    scores = bit[0] @ bit[1].t()
    assert (scores == 0).double().mean() == pytest.approx(0.0993, abs=0.003)
    attended = BooleanAttention()(scores).mean().item()
    entropy = -sum(p * math.log2(p) for p in (attended, 1 - attended))
    assert entropy == pytest.approx(0.993, abs=0.002)


@pytest.mark.parametrize("name", ["gelu", "gelu_new", "silu"])
def test_activation_functions_keep_the_sign(name: str) -> None:
    """Also far below, where they underflow to −0 in fp32, whose sign would be +1."""
    from bitpress.encoder.activations import ACTIVATIONS

    x = torch.cat([torch.linspace(-200, 200, 40001), torch.tensor([0.0, -0.0, -1e-45, 1e-45, -1e30])])
    kept = keep_signs(ACTIVATIONS[name](x), x)
    assert torch.equal(SignQuantizer()(kept, "rows"), SignQuantizer()(x, "rows"))


# --- an encoder ---


def tiny(**changes: object) -> SequenceClassifier:
    config = {
        "model_type": "bert",
        "vocab_size": 40,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 44,
        "max_position_embeddings": 20,
        "type_vocab_size": 2,
        "initializer_range": 0.2,
    }
    model = SequenceClassifier(EncoderConfig.from_hf(config | changes))
    apply_policy(model, BINARY)
    return model


def test_padding_is_never_attended() -> None:
    """Oracle: the same texts alone. Dropout of attention weights must not switch a padded pair on either."""
    model = tiny().eval()
    ids = torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    alone = torch.cat([model(ids[:1]).logits, model(ids[1:, :4]).logits])
    torch.testing.assert_close(model(ids, mask).logits, alone, atol=1e-5, rtol=0)
    attention = model.layers[0].attention.train()
    seen = []
    attention.probabilities.register_forward_hook(lambda _, inputs, output: seen.append(output))
    bias = torch.zeros(2, 1, 1, 9).masked_fill(mask[:, None, None, :] == 0, torch.finfo(torch.float32).min)
    attention(torch.randn(2, 9, 24), bias, mask.bool(), False)
    assert (seen[0][1, :, :, 4:] == 0).all()
    assert (seen[0][0] > 0).any()


def test_means_of_queries_and_keys_are_a_part_of_biases_in_the_end() -> None:
    torch.manual_seed(0)
    model = tiny()
    centred = Policy(
        WeightPolicy("binary", group="row"),
        EmbeddingPolicy("binary"),
        ActivationPolicy("binary", attention_centre="running"),
    )
    apply_policy(model, centred)
    ids = torch.randint(1, 40, (4, 12), generator=torch.Generator().manual_seed(1))
    for layer in model.layers:  # far from even, as a trained student's are
        torch.nn.init.uniform_(layer.attention.query.bias, 3, 4)
        torch.nn.init.uniform_(layer.attention.key.bias, 3, 4)
    assert not has_centres(model)
    model.train()(ids)
    model.eval()
    for module in model.modules():  # off what few multiples of a scale can sum up to, where rounding would decide
        if isinstance(module, CentredSignQuantizer):
            module.mean += 0.0123 * torch.rand(len(module.mean))
    attention = model.layers[1].attention
    attended: list[Tensor] = []
    attention.observe = lambda weights, _: attended.append(weights)
    before, biases = model(ids).logits, attention.query.bias.detach().clone()
    assert has_centres(model)
    means = attention.query_states.quantizer.mean.clone()
    fold_centres(model)
    assert not has_centres(model)
    torch.testing.assert_close(model(ids).logits, before)
    assert torch.equal(attention.query.bias, biases - means)
    share = attended[0].mean()
    assert torch.equal(*attended)
    assert 0.3 < share < 0.7, "about their means"
    apply_policy(model, BINARY)
    torch.testing.assert_close(model(ids).logits, before)


def test_report_of_a_binary_policy() -> None:
    rows = apply_policy(tiny(), BINARY).report()
    found = {(row.kind, row.scheme, row.bits, row.group) for row in rows if row.scheme != "fp32"}
    assert found == {("weight", "binary", 1, "row"), ("activation", "binary", 1, "")}


def test_another_policy_brings_softmax_back() -> None:
    model = tiny().eval()
    plain = tiny().eval()
    apply_policy(model, Policy(WeightPolicy("fp32"), EmbeddingPolicy("fp32"), ActivationPolicy("fp32")))
    ids = torch.arange(7)[None]
    assert all(layer.attention.weigh is None for layer in model.layers)
    assert not torch.equal(model(ids).logits, plain(ids).logits)


def test_gradients_reach_every_parameter() -> None:
    model = tiny(attention_probs_dropout_prob=0.1).train()
    model(torch.randint(1, 40, (4, 12), generator=torch.Generator().manual_seed(1))).logits.square().sum().backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []


@pytest.mark.parametrize(
    ("key", "value"), [("group", "row_block"), ("clip", 2.5), ("centre", "column"), ("gradient_range", 0)]
)
def test_policies_that_binary_weights_do_not_have(key: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"weights\.{key} is"):
        WeightPolicy(**({"scheme": "binary", "group": "row"} | {key: value}))  # type: ignore[arg-type]
