"""A policy on a real encoder of tiny size. Oracles: the published list of what is quantized, the encoder's own
parameter list, and the weights that the forward pass used."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from bitpress.encoder.config import EncoderConfig
from bitpress.encoder.layers import ActivationPoint, Linear
from bitpress.encoder.model import SequenceClassifier
from bitpress.errors import RecipeError, TrainingError
from bitpress.quantize import (
    ActivationPolicy,
    ActivationQuantizer,
    EmbeddingPolicy,
    Policy,
    TernaryQuantizer,
    UniformWeightQuantizer,
    WeightPolicy,
    activation_ranges,
    apply_policy,
    encode_weights,
)

LAYERS = 2
POINTS = (
    "attention.input",
    "attention.query_states",
    "attention.key_states",
    "attention.probabilities",
    "attention.value_states",
    "attention.context",
    "ffn.input",
    "ffn.activation",
)
LINEARS = (
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "ffn.intermediate",
    "ffn.output",
)
MATRICES = {f"layers.{i}.{name}.weight" for i in range(LAYERS) for name in LINEARS} | {"pooler.dense.weight"}
ALL_POINTS = {f"layers.{i}.{name}" for i in range(LAYERS) for name in POINTS} | {"pooler.input"}
STATIC = Policy(activations=ActivationPolicy(range="static"))

IDS = torch.tensor([[2, 7, 9, 3], [2, 5, 3, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])


def tiny(seed: int = 0) -> SequenceClassifier:
    hf = {
        "model_type": "bert",
        "architectures": ["BertForSequenceClassification"],
        "vocab_size": 23,
        "hidden_size": 12,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "max_position_embeddings": 11,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.1,
        "position_embedding_type": "absolute",
        "pad_token_id": 0,
        "id2label": {"0": "a", "1": "b", "2": "c"},
        "label2id": {"a": 0, "b": 1, "c": 2},
    }
    return SequenceClassifier(EncoderConfig.from_hf(hf), seed=seed)


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(IDS, MASK).logits
    return out


def test_what_is_quantized_is_what_was_published() -> None:
    model = tiny()
    applied = apply_policy(model, Policy())
    rows = {row.name: row for row in applied.report()}
    ternary = {name for name, row in rows.items() if row.scheme == "ternary"}
    assert ternary == MATRICES | {"embeddings.word.weight"}
    assert {row.group for row in rows.values() if row.name in MATRICES} == {"matrix"}
    assert rows["embeddings.word.weight"].group == "row"
    assert rows["pooler.dense.weight"].bits == 2
    assert {name for name, row in rows.items() if row.kind == "activation"} == ALL_POINTS
    assert {rows[name].scheme for name in ALL_POINTS} == {"uniform"}
    assert rows["layers.1.attention.value_states"].group == "text and head"
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            assert isinstance(module.weight_quantizer, TernaryQuantizer) == (name != "classifier")
        if isinstance(module, ActivationPoint):
            assert isinstance(module.quantizer, ActivationQuantizer)


def test_report_has_every_parameter_once() -> None:
    model = tiny()
    applied = apply_policy(model, Policy())
    weights = [(row.name, row.parameters) for row in applied.report() if row.kind == "weight"]
    assert weights == [(name, parameter.numel()) for name, parameter in model.named_parameters()]
    left = {row.name: row.parameters for row in applied.left_fp32()}
    assert left == {name: size for name, size in weights if name not in MATRICES | {"embeddings.word.weight"}}


def test_left_fp32_says_why() -> None:
    reasons = {row.name: row.reason for row in apply_policy(tiny(), Policy()).left_fp32()}
    assert "task head" in reasons["classifier.weight"]
    assert "task head" in reasons["classifier.bias"]
    assert "bias" in reasons["layers.0.ffn.output.bias"]
    assert "LayerNorm" in reasons["layers.1.attention.norm.bias"]
    assert "LayerNorm" in reasons["embeddings.norm.weight"]
    assert "embedding table" in reasons["embeddings.position.weight"]
    assert "embedding table" in reasons["embeddings.token_type.weight"]


def test_ternary_weights_with_fp32_activations() -> None:
    model = tiny()
    applied = apply_policy(model, Policy(activations=ActivationPolicy(scheme="fp32")))
    assert all(point.quantizer is None for point in model.modules() if isinstance(point, ActivationPoint))
    left = {row.name: row for row in applied.left_fp32()}
    assert set(left) >= ALL_POINTS
    assert left["pooler.input"].reason == "the policy keeps activations in fp32"
    model(IDS, MASK, collect=True).logits.sum().backward()
    gradient = model.get_parameter("layers.0.attention.query.weight").grad
    assert gradient is not None
    assert bool(gradient.any())


def test_fp32_policy_is_the_plain_model_and_undoes_another() -> None:
    model = tiny().eval()
    before = logits(model)
    apply_policy(model, Policy())
    assert not torch.equal(logits(model), before)
    fp32 = Policy(WeightPolicy(scheme="fp32"), EmbeddingPolicy(scheme="fp32"), ActivationPolicy(scheme="fp32"))
    applied = apply_policy(model, fp32)
    assert torch.equal(logits(model), before)
    assert {row.scheme for row in applied.report()} == {"fp32"}
    assert encode_weights(model) == {}
    reasons = {row.name: row.reason for row in applied.left_fp32()}
    assert reasons["embeddings.word.weight"] == "the policy keeps it in fp32"


@pytest.mark.parametrize("group", ["row", "matrix"])
def test_encoded_weights_are_those_of_the_forward_pass(group: str) -> None:
    """Writing the decoded codes into a plain model gives the same logits, bit for bit."""
    model = tiny(seed=1).eval()
    policy = Policy(WeightPolicy(), EmbeddingPolicy(group=group), ActivationPolicy(scheme="fp32"))
    apply_policy(model, policy)
    encoded = encode_weights(model)
    assert set(encoded) == MATRICES | {"embeddings.word.weight"}
    plain = tiny(seed=1).eval()
    with torch.no_grad():
        for name, (codes, scale) in encoded.items():
            plain.get_parameter(name).copy_(TernaryQuantizer.decode(codes, scale))
    assert torch.equal(logits(plain), logits(model))


@pytest.mark.parametrize(
    ("weights", "embedding"),
    [
        (WeightPolicy(scheme="uniform", group="row"), EmbeddingPolicy(scheme="uniform")),
        (
            WeightPolicy(scheme="uniform", bits=3, symmetric=False, group="input", group_size=32),
            EmbeddingPolicy(scheme="uniform", bits=4, group="input", group_size=32),
        ),
        (
            WeightPolicy(scheme="uniform", bits=4, group="row_block", group_size=5),
            EmbeddingPolicy(scheme="uniform", bits=2, symmetric=False, group="row_block", group_size=5),
        ),
    ],
)
def test_encoded_uniform_weights_are_those_of_the_forward_pass(
    weights: WeightPolicy, embedding: EmbeddingPolicy
) -> None:
    """As above, and the report says bits and groups."""
    model = tiny(seed=1).eval()
    applied = apply_policy(model, Policy(weights, embedding, ActivationPolicy(scheme="fp32")))
    rows = {row.name: row for row in applied.report()}
    assert {(rows[name].scheme, rows[name].bits, rows[name].group) for name in MATRICES} == {
        ("uniform", weights.bits, weights.shares_scale)
    }
    encoded = encode_weights(model)
    assert set(encoded) == MATRICES | {"embeddings.word.weight"}
    plain = tiny(seed=1).eval()
    with torch.no_grad():
        for name, (codes, scale, offset) in encoded.items():
            quantizer = (embedding if name == "embeddings.word.weight" else weights).quantizer(32)
            assert isinstance(quantizer, UniformWeightQuantizer)
            assert codes is not None
            assert scale is not None
            plain.get_parameter(name).copy_(quantizer.decode(codes, scale, offset))
    assert torch.equal(logits(plain), logits(model))


def test_static_ranges_are_read_back_by_name() -> None:
    model = tiny().train()
    apply_policy(model, STATIC)
    with pytest.raises(TrainingError, match="has not seen a batch"):
        activation_ranges(model)
    model(IDS, MASK, collect=True)
    ranges = activation_ranges(model)
    assert set(ranges) == ALL_POINTS
    assert ranges["layers.0.attention.probabilities"][1] == 0.0
    assert all(scale > 0 for scale, _ in ranges.values())
    assert activation_ranges(tiny()) == {}


def test_quantizers_follow_the_mode_of_the_model() -> None:
    """A policy put on a model in eval mode must not collect ranges there."""
    model = tiny().eval()
    apply_policy(model, STATIC)
    with pytest.raises(TrainingError, match="has not seen a batch"):
        logits(model)


def test_only_static_ranges_add_state() -> None:
    names = set(tiny().state_dict())
    model = tiny()
    apply_policy(model, Policy())
    assert set(model.state_dict()) == names
    apply_policy(model, STATIC)
    added = {f"{point}.quantizer.{end}" for point in ALL_POINTS for end in ("running_min", "running_max")}
    assert set(model.state_dict()) == names | added


@pytest.mark.parametrize("symmetric", [False, True])
def test_what_stands_in_the_padding_changes_no_bit(symmetric: bool) -> None:
    """The mask reaches the one range that runs over tokens (value states), and padded keys have probability 0.

    Same shapes on both sides, so torch's own matrix products are bit-stable."""
    model = tiny(seed=2).eval()
    apply_policy(model, Policy(activations=ActivationPolicy(symmetric=symmetric)))
    other = IDS.clone()
    other[1, 3] = 17
    with torch.no_grad():
        model.embeddings.word.weight[17] *= 50  # would widen every range that it had a part in
        assert torch.equal(model(IDS, MASK).logits, model(other, MASK).logits)
        assert not torch.equal(model(IDS).logits[1], model(other).logits[1])


MIXED = Policy(
    WeightPolicy(scheme="uniform", bits=2, symmetric=False, group="row_block", groups=4),
    EmbeddingPolicy(scheme="uniform", bits=4),
    blocks={"layers.1": 4, "layers.1.ffn": {"bits": 3, "group": "matrix"}, "pooler": {"bits": 8, "groups": 12}},
)


def test_blocks_have_bits_of_their_own() -> None:
    model = tiny()
    applied = apply_policy(model, MIXED)
    found = {row.name: (row.bits, row.group) for row in applied.report() if row.scheme == "uniform"}
    assert found["layers.0.attention.query.weight"] == (2, "block of 3 rows")
    assert found["layers.0.ffn.intermediate.weight"] == (2, "block of 5 rows")
    assert found["layers.1.attention.query.weight"] == (4, "block of 3 rows")
    assert found["layers.1.ffn.output.weight"] == (3, "matrix")
    assert found["pooler.dense.weight"] == (8, "row")
    assert found["embeddings.word.weight"] == (4, "row")
    for name, (codes, _, _) in encode_weights(model).items():
        assert int(codes.max()) < 2 ** found[name][0]


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (Policy(blocks={"layers.2": {"bits": 4}}), "blocks has 'layers.2', which the model does not have; allowed: "),
        (Policy(blocks={"classifier": 4}), r"embeddings, embeddings.word, embeddings.position, layers, layers.0…1, "),
        (Policy(blocks={"layers.1.ff": 4}), r"layers.0…1.ffn.output, pooler, pooler.dense$"),
        (
            replace(MIXED, blocks={"layers.1.attention.key": {"groups": 5}}),
            "layers.1.attention.key.weight: groups is 5",
        ),
    ],
)
def test_blocks_that_the_model_does_not_have(policy: Policy, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        apply_policy(tiny(), policy)
