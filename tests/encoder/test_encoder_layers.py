"""Quantization points, gradients and dropout. Oracles: plain torch layers, and counting stand-in quantizers."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bitpress.encoder import ActivationPoint, EmbeddingTable, Linear, load_classifier
from bitpress.encoder.layers import dropout
from bitpress.errors import UnsupportedModelError

LAYER_POINTS = {
    "attention.input": "rows",
    "attention.query_states": "head_rows",
    "attention.key_states": "head_rows",
    "attention.probabilities": "probabilities",
    "attention.value_states": "head_block",
    "attention.context": "rows",
    "ffn.input": "rows",
    "ffn.activation": "rows",
}


class RowRound:
    """A row-wise stand-in: each row to its own scale, straight-through."""

    def __init__(self, group="row"):
        self.group = group
        self.rows_are_independent = group == "row"
        self.seen = []

    def __call__(self, weight):
        self.seen.append(tuple(weight.shape))
        scale = weight.detach().abs().amax(-1 if self.group == "row" else None, keepdim=True) + 1e-3
        return weight + ((weight / scale).round() * scale - weight).detach()


class Recorder(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, x, kind, mask):
        self.calls.append((tuple(x.shape), kind, mask))
        return x


def test_modules_bear_the_canonical_names(make_checkpoint):
    model = load_classifier(make_checkpoint(num_labels=3)[0])
    expected = {
        "embeddings.word.weight": (53, 24),
        "embeddings.position.weight": (19, 24),
        "embeddings.token_type.weight": (2, 24),
        "embeddings.norm.weight": (24,),
        "embeddings.norm.bias": (24,),
        "pooler.dense.weight": (24, 24),
        "pooler.dense.bias": (24,),
        "classifier.weight": (3, 24),
        "classifier.bias": (3,),
    }
    for i in range(2):
        for name in ("query", "key", "value", "output"):
            expected[f"layers.{i}.attention.{name}.weight"] = (24, 24)
            expected[f"layers.{i}.attention.{name}.bias"] = (24,)
        for name in ("attention.norm.weight", "attention.norm.bias", "ffn.norm.weight", "ffn.norm.bias"):
            expected[f"layers.{i}.{name}"] = (24,)
        expected[f"layers.{i}.ffn.intermediate.weight"] = (40, 24)
        expected[f"layers.{i}.ffn.intermediate.bias"] = (40,)
        expected[f"layers.{i}.ffn.output.weight"] = (24, 40)
        expected[f"layers.{i}.ffn.output.bias"] = (24,)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected

    points = {name: module.kind for name, module in model.named_modules() if isinstance(module, ActivationPoint)}
    wanted = {f"layers.{i}.{name}": kind for i in range(2) for name, kind in LAYER_POINTS.items()}
    assert points == wanted | {"pooler.input": "rows"}
    assert all(model.get_submodule(name).name == name for name in points)


@pytest.mark.parametrize("collect", [False, True])
def test_each_point_is_visited_once_with_its_shape_and_mask(make_checkpoint, batch, collect):
    model = load_classifier(make_checkpoint()[0])
    recorders = {}
    for name, module in model.named_modules():
        if isinstance(module, ActivationPoint):
            module.quantizer = recorders[name] = Recorder()
    ids, mask, types = batch(3, 7, padded=True)
    plain = load_classifier(make_checkpoint()[0])(ids, mask, types).logits
    torch.testing.assert_close(model(ids, mask, types, collect=collect).logits, plain, rtol=0, atol=1e-5)
    shapes = {
        "attention.input": (3, 7, 24),
        "attention.query_states": (3, 3, 7, 8),
        "attention.key_states": (3, 3, 7, 8),
        "attention.probabilities": (3, 3, 7, 7),
        "attention.value_states": (3, 3, 7, 8),
        "attention.context": (3, 7, 24),
        "ffn.input": (3, 7, 24),
        "ffn.activation": (3, 7, 40),
    }
    for name, recorder in recorders.items():
        ((shape, kind, seen),) = recorder.calls
        short = re.sub(r"^layers\.\d\.", "", name)
        assert shape == shapes.get(short, (3, 24)), name
        assert kind == LAYER_POINTS.get(short, "rows"), name
        if name != "pooler.input":  # the first token is always real
            assert torch.equal(seen, mask.bool()), name


def test_a_quantized_point_changes_the_result(make_checkpoint, batch):
    model = load_classifier(make_checkpoint()[0]).eval()
    before = model(*batch()).logits
    for name, module in model.named_modules():
        if isinstance(module, ActivationPoint):
            module.quantizer = lambda x, kind, mask: x * 0.5
            assert not torch.allclose(model(*batch()).logits, before), name
            module.quantizer = None
    assert torch.equal(model(*batch()).logits, before)


def test_unknown_kind_of_point():
    with pytest.raises(ValueError, match="kind is 'columns'; it must be one of rows, head_rows, head_block, probab"):
        ActivationPoint("x", "columns")


def test_each_weight_is_quantized_once_a_forward(make_checkpoint, batch):
    model = load_classifier(make_checkpoint()[0])
    linears = {name: module for name, module in model.named_modules() if isinstance(module, Linear)}
    assert len(linears) == 2 * 6 + 2
    for module in linears.values():
        module.weight_quantizer = RowRound()
    model.train()
    model(*batch()).logits.sum().backward()
    for name, module in linears.items():
        assert module.weight_quantizer.seen == [tuple(module.weight.shape)], name
        assert module.weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("quantizer", [lambda weight: weight.relu(), nn.ReLU()])
def test_a_quantizer_may_be_a_function_or_a_module_and_be_taken_off_again(quantizer):
    linear, x = Linear(4, 3), torch.randn(2, 4)
    linear.weight_quantizer = quantizer
    assert torch.equal(linear(x), F.linear(x, linear.weight.relu(), linear.bias))
    linear.weight_quantizer = None
    assert torch.equal(linear(x), F.linear(x, linear.weight, linear.bias))


@pytest.mark.parametrize("group", ["row", "matrix"])
@pytest.mark.parametrize("padding_idx", [None, 0])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (0, 4)])
def test_embedding_by_unique_rows_equals_quantizing_the_table(shape, padding_idx, group):
    """Oracle: quantize all rows, then nn.functional.embedding."""
    torch.manual_seed(0)
    embedding = EmbeddingTable(11, 6, padding_idx)
    nn.init.normal_(embedding.weight)
    ids = torch.randint(0, 7, shape)
    upstream = torch.randn(*shape, 6)

    table = embedding.weight.detach().clone().requires_grad_()
    expected = F.embedding(ids, RowRound(group)(table), padding_idx)
    (expected * upstream).sum().backward()
    wanted = table.grad.clone()
    if padding_idx is not None:
        wanted[padding_idx] = 0

    embedding.weight_quantizer = quantizer = RowRound(group)
    found = embedding(ids)
    (found * upstream).sum().backward()
    assert torch.equal(found, expected)
    torch.testing.assert_close(embedding.weight.grad, wanted)
    assert embedding.weight.grad.layout == torch.strided
    rows = len(ids.unique()) if group == "row" else 11
    assert quantizer.seen == [(rows, 6)]


@pytest.mark.parametrize("group", ["row", "matrix"])
def test_the_first_rows_of_a_table_are_those_of_their_ids(group):
    embedding = EmbeddingTable(11, 6)
    nn.init.normal_(embedding.weight)
    assert torch.equal(embedding.first(4), embedding.weight[:4])
    embedding.weight_quantizer = RowRound(group)
    assert torch.equal(embedding.first(4), RowRound(group)(embedding.weight)[:4])
    embedding.first(4).sum().backward()
    assert embedding.weight.grad[:, 0].tolist() == [1] * 4 + [0] * 7


@pytest.mark.parametrize("quantized", [False, True])
def test_padding_row_gets_no_gradient(quantized):
    embedding = EmbeddingTable(5, 3, padding_idx=2)
    embedding.weight_quantizer = RowRound() if quantized else None
    embedding(torch.tensor([[2, 1, 2], [4, 4, 0]])).sum().backward()
    assert embedding.weight.grad[:, 0].tolist() == [1, 1, 0, 0, 2]


@pytest.mark.parametrize("padded", [False, True])
def test_gradients_equal_those_of_transformers(make_checkpoint, batch, padded):
    """Oracle: transformers, dropout off, every parameter."""
    from bitpress.encoder.names import to_hf_name

    directory, theirs = make_checkpoint(num_labels=3)
    ids, mask, types = batch(4, 9, padded, pairs=True)
    labels = torch.tensor([0, 1, 2, 1])
    theirs(input_ids=ids, attention_mask=mask, token_type_ids=types, labels=labels).loss.backward()
    wanted = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for collect in (False, True):
        model = load_classifier(directory)
        F.cross_entropy(model(ids, mask, types, collect=collect).logits, labels).backward()
        for name, parameter in model.named_parameters():
            scale = wanted[to_hf_name(name)].abs().max().item()
            torch.testing.assert_close(parameter.grad, wanted[to_hf_name(name)], rtol=1e-4, atol=1e-5 * (1 + scale))


def test_hidden_states_and_scores_carry_gradients(make_checkpoint, batch):
    model = load_classifier(make_checkpoint()[0]).train()
    output = model(*batch(padded=True), collect=True)
    loss = sum(hidden.square().mean() for hidden in output.hidden_states)
    loss = loss + sum(scores.where(scores > -100, 0.0).square().mean() for scores in output.attention_scores)
    loss.backward()
    for name, parameter in model.named_parameters():
        if name.startswith(("pooler", "classifier")):
            continue
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0 or name.endswith("key.bias"), name  # softmax ignores it but scores do not


def test_dropout_is_off_in_evaluation_and_reproducible_in_training(make_checkpoint, batch):
    model = load_classifier(make_checkpoint()[0])
    assert not model.training
    assert torch.equal(model(*batch()).logits, model(*batch()).logits)
    model.train()
    torch.manual_seed(5)
    one = model(*batch()).logits
    torch.manual_seed(5)
    same = model(*batch()).logits
    other = model(*batch()).logits
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    ("setting", "places"),
    [("hidden_dropout_prob", 1 + 2 * 2), ("attention_probs_dropout_prob", 2), ("classifier_dropout", 1)],
)
def test_dropout_is_where_transformers_has_it(make_checkpoint, batch, monkeypatch, setting, places):
    """Oracle: the number of calls of each nn.Dropout of transformers' BERT with a probability above 0."""
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    model = load_classifier(make_checkpoint(**(off | {setting: 0.25}))[0]).train()
    seen = []
    monkeypatch.setattr(
        "bitpress.encoder.model.dropout", lambda x, p, training: (seen.append(p) if training and p else None, x)[1]
    )
    model(*batch(), collect=True)
    assert seen == [0.25] * places


def test_classifier_dropout_defaults_to_hidden_dropout(make_checkpoint):
    assert load_classifier(make_checkpoint(hidden_dropout_prob=0.3)[0]).classifier_dropout == 0.3


@pytest.mark.parametrize("shape", [(1,), (3,), (7, 5), (0, 3), (2, 3, 5)])
@pytest.mark.parametrize("probability", [0.1, 0.5, 0.999999])
def test_dropout_scales_what_it_keeps(shape, probability):
    x = torch.randn(shape).abs() + 1
    found = dropout(x, probability, True)
    kept = found != 0
    rounded = min(round(probability * 65536), 65535) / 65536
    torch.testing.assert_close(found[kept], x[kept] / (1 - rounded))
    assert torch.equal(dropout(x, probability, False), x)
    assert torch.equal(dropout(x, 0.0, True), x)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropout_frequency(probability):
    """Oracle: the binomial distribution, six standard errors, over the whole and over each of the four lanes."""
    torch.manual_seed(0)
    dropped = dropout(torch.ones(400_000), probability, True) == 0
    for part in (dropped, *(dropped[lane::4] for lane in range(4))):
        error = (probability * (1 - probability) / part.numel()) ** 0.5
        assert abs(part.float().mean().item() - probability) < 6 * error
    # Neighbours share a draw: they must still be independent.
    both = (dropped[0::4] & dropped[1::4]).float().mean().item()
    assert abs(both - probability**2) < 6 * (probability**2 * (1 - probability**2) / 100_000) ** 0.5


def test_dropout_gradient_has_the_same_mask():
    x = torch.randn(31, 7, requires_grad=True)
    found = dropout(x, 0.4, True)
    found.backward(torch.ones_like(found))
    torch.testing.assert_close(x.grad * x, found)


def test_a_student_may_have_another_activation_and_no_dropout(make_checkpoint, batch):
    """Oracle: the same weights under a config that says so, in evaluation mode, which never drops."""
    changed = load_classifier(make_checkpoint()[0]).train()
    changed.set_hidden_act("relu")
    changed.set_dropout(0.0)
    expected = load_classifier(make_checkpoint(hidden_act="relu")[0]).eval()
    assert changed.config == expected.config
    ids, mask, types = batch(padded=True)
    assert torch.equal(changed(ids, mask, types, collect=True).logits, expected(ids, mask, types, collect=True).logits)
    with pytest.raises(UnsupportedModelError, match="hidden_act is 'elu'; allowed: gelu"):
        changed.set_hidden_act("elu")
