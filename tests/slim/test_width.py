"""Importance and narrowing. Oracles: finite differences of a factor on a head, and models that cannot tell."""

from __future__ import annotations

import pytest
import torch
from small_encoder import SMALL
from torch import Tensor

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.slim import Importance, importance, narrow

IDS = [torch.arange(2, 20).view(2, 9), torch.arange(20, 34).view(2, 7)]


def model(**changes: object) -> SequenceClassifier:
    return SequenceClassifier(EncoderConfig.from_hf(SMALL | changes)).eval()


def loss(student: SequenceClassifier, ids: Tensor) -> Tensor:
    return student(ids).logits[:, 0].sum()


def test_importance_of_a_head_is_the_slope_of_a_factor_on_its_output() -> None:
    student = model()
    found = importance(student, IDS, loss)
    size = student.layers[0].attention.head_size
    for layer, head in ((0, 0), (0, 3), (1, 1), (1, 2)):
        weight = student.layers[layer].attention.output.weight  # a factor on these columns is one on the head
        columns = slice(head * size, (head + 1) * size)
        expected = 0.0
        for ids in IDS:
            values = []
            for factor in (1 + 1e-2, 1 - 1e-2):
                kept = weight.detach().clone()
                with torch.no_grad():
                    weight[:, columns] *= factor
                    values.append(float(loss(student, ids)))
                    weight.copy_(kept)
            expected += abs(values[0] - values[1]) / 2e-2
        assert float(found.heads[layer][head]) == pytest.approx(expected, rel=2e-2, abs=1e-3)


def test_importance_of_neurons_is_the_formula() -> None:
    student = model()
    found = importance(student, IDS, loss)
    ffn = student.layers[1].ffn
    expected = torch.zeros(36, dtype=torch.float64)
    for ids in IDS:
        student.zero_grad()
        loss(student, ids).backward()
        w1, b1, w2 = ffn.intermediate.weight, ffn.intermediate.bias, ffn.output.weight
        into = (w1 * w1.grad).sum(1) + b1 * b1.grad
        expected += into.abs().double() + (w2 * w2.grad).sum(0).abs().double()
    torch.testing.assert_close(found.neurons[1], expected.detach(), rtol=1e-4, atol=1e-6)


def test_nothing_of_importance_remains_on_the_model() -> None:
    student = model()
    before = student(IDS[0]).logits
    importance(student, IDS, loss)
    assert all(p.grad is None for p in student.parameters())
    assert torch.equal(student(IDS[0]).logits, before)
    with pytest.raises(ValueError, match="no batches"):
        importance(student, [], loss)


def test_heads_and_neurons_that_do_nothing_can_go() -> None:
    student = model()
    dead_heads, dead_neurons = [1, 2], list(range(0, 36, 2))
    with torch.no_grad():
        for layer in student.layers:
            columns = torch.cat([torch.arange(6 * h, 6 * h + 6) for h in dead_heads])
            layer.attention.output.weight[:, columns] = 0.0
            layer.ffn.output.weight[:, dead_neurons] = 0.0
            layer.ffn.intermediate.weight[dead_neurons] = 0.0
            layer.ffn.intermediate.bias[dead_neurons] = 0.0
    before = student(IDS[0], collect=True)
    kept = narrow(student, 0.5, importance(student, IDS, loss))
    assert [k.tolist() for k in kept] == [[0, 3], [0, 3]]
    after = student(IDS[0], collect=True)
    torch.testing.assert_close(after.logits, before.logits)
    assert after.attention_scores[0].shape == (2, 2, 9, 9)
    torch.testing.assert_close(after.attention_scores[1], before.attention_scores[1][:, [0, 3]])
    config = student.config
    assert (config.num_attention_heads, config.head_size, config.intermediate_size) == (2, 6, 18)
    assert EncoderConfig.from_hf(config.to_hf()) == config, "it can be written down"
    same_shapes = SequenceClassifier(config).state_dict()
    assert {n: t.shape for n, t in same_shapes.items()} == {n: t.shape for n, t in student.state_dict().items()}


def test_the_whole_width_changes_nothing() -> None:
    student = model()
    before = student(IDS[0]).logits
    kept = narrow(student, 1.0, importance(student, IDS, loss))
    assert [k.tolist() for k in kept] == [[0, 1, 2, 3]] * 2
    assert torch.equal(student(IDS[0]).logits, before)


@pytest.mark.parametrize("width", [0.0, 1.5, -1.0])
def test_a_width_out_of_range(width: float) -> None:
    equal = Importance((torch.zeros(4),) * 2, (torch.zeros(36),) * 2)
    with pytest.raises(RecipeError, match="width is"):
        narrow(model(), width, equal)


def test_a_head_size_of_its_own_is_checked() -> None:
    assert model(attention_head_size=5).layers[0].attention.query.weight.shape == (20, 24)
    with pytest.raises(Exception, match="attention_head_size is 0"):
        model(attention_head_size=0)
