"""Distillation losses. Oracles: slow loops over single positions in Python, written from the formulas; autograd of the
plain expression for gradients."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from bitpress.distill import (
    LossWeights,
    attention_score_loss,
    distillation_loss,
    hidden_cosine_loss,
    hidden_state_loss,
    regression_loss,
    soft_cross_entropy,
)
from bitpress.distill.losses import REDUCTIONS, soft_binary_cross_entropy, vector_loss
from bitpress.encoder.model import EncoderOutput
from bitpress.errors import RecipeError

MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]], dtype=torch.bool)
FULL = torch.ones_like(MASK)


def scores(seed: int, mask: Tensor, layers: int = 2, heads: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(mask), heads, mask.shape[1], mask.shape[1])
    bias = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None, None, :]
    return [torch.randn(shape, generator=generator) * 3 + bias for _ in range(layers)]


def hidden(seed: int, mask: Tensor, layers: int = 3, size: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*mask.shape, size, generator=generator) for _ in range(layers)]


def slow_attention(student: list[Tensor], teacher: list[Tensor], mask: Tensor, padding: str) -> float:
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        squares = []
        batch, heads, length, _ = a.shape
        for i in range(batch):
            for head in range(heads):
                for query in range(length):
                    for key in range(length):
                        if padding == "exclude" and not (mask[i, query] and mask[i, key]):
                            continue
                        x, y = float(a[i, head, query, key]), float(b[i, head, query, key])
                        squares.append(((0.0 if x <= -100 else x) - (0.0 if y <= -100 else y)) ** 2)
        total += sum(squares) / len(squares)
    return total


def slow_hidden(student: list[Tensor], teacher: list[Tensor], mask: Tensor, padding: str) -> float:
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        squares = []
        for i, t in ((i, t) for i in range(a.shape[0]) for t in range(a.shape[1])):
            if padding == "include" or mask[i, t]:
                squares += [(x - y) ** 2 for x, y in zip(a[i, t].tolist(), b[i, t].tolist(), strict=True)]
        total += sum(squares) / len(squares)
    return total


@pytest.mark.parametrize("padding", ["exclude", "include"])
@pytest.mark.parametrize("mask", [MASK, FULL], ids=["padded", "unpadded"])
def test_attention_loss_equals_the_loop(padding: str, mask: Tensor) -> None:
    student, teacher = scores(0, mask), scores(1, mask)
    loss = attention_score_loss(student, teacher, mask, padding=padding)
    assert float(loss) == pytest.approx(slow_attention(student, teacher, mask, padding), rel=1e-5)


@pytest.mark.parametrize("padding", ["exclude", "include"])
@pytest.mark.parametrize("mask", [MASK, FULL], ids=["padded", "unpadded"])
def test_hidden_loss_equals_the_loop(padding: str, mask: Tensor) -> None:
    student, teacher = hidden(0, mask), hidden(1, mask)
    loss = hidden_state_loss(student, teacher, mask, padding=padding)
    assert float(loss) == pytest.approx(slow_hidden(student, teacher, mask, padding), rel=1e-5)


def test_without_a_mask_everything_is_real() -> None:
    student, teacher = scores(0, FULL), scores(1, FULL)
    assert attention_score_loss(student, teacher) == attention_score_loss(student, teacher, padding="include")
    student, teacher = hidden(0, FULL), hidden(1, FULL)
    assert hidden_state_loss(student, teacher) == hidden_state_loss(student, teacher, padding="include")


def test_scores_at_the_threshold_count_as_masked() -> None:
    student = [torch.tensor([[[[-100.0, -99.0], [1.0, 2.0]]]], requires_grad=True)]
    teacher = [torch.tensor([[[[5.0, 0.0], [-200.0, 2.0]]]])]
    loss = attention_score_loss(student, teacher)
    assert float(loss.detach()) == pytest.approx((5**2 + 99**2 + 1**2 + 0) / 4)
    loss.backward()
    # d/dx of the mean of four squares; none for the masked entry.
    assert student[0].grad is not None
    assert student[0].grad.flatten().tolist() == pytest.approx([0, -99 / 2, 1 / 2, 0])


@pytest.mark.parametrize("padding", ["exclude", "include"])
def test_gradients_are_those_of_the_plain_expression(padding: str) -> None:
    student, teacher = scores(0, MASK, layers=1), scores(1, MASK, layers=1)
    states, targets = hidden(2, MASK, layers=1), hidden(3, MASK, layers=1)
    pairs = (MASK[:, None, :, None] & MASK[:, None, None, :]).expand_as(student[0])
    tokens = MASK[:, :, None].expand_as(states[0])
    if padding == "include":
        pairs, tokens = torch.ones_like(pairs), torch.ones_like(tokens)

    fast = [student[0].clone().requires_grad_(), states[0].clone().requires_grad_()]
    loss = attention_score_loss(fast[:1], teacher, MASK, padding=padding)
    (3 * loss + hidden_state_loss(fast[1:], targets, MASK, padding=padding)).backward()

    plain = [student[0].clone().requires_grad_(), states[0].clone().requires_grad_()]
    zeroed = [x.masked_fill(x <= -100, 0) for x in (plain[0], teacher[0])]
    (3 * (zeroed[0] - zeroed[1])[pairs].square().mean() + (plain[1] - targets[0])[tokens].square().mean()).backward()
    for a, b in zip(fast, plain, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad)


def test_excluded_padding_has_no_weight() -> None:
    """More padding, whatever its values: the same loss up to fp32 summation order, and no gradient there."""
    student, teacher = hidden(0, MASK), hidden(1, MASK)
    junk = torch.full((len(MASK), 3, 5), 50.0)
    wide = [torch.cat([x, junk], dim=1).requires_grad_() for x in student]
    wide_mask = torch.cat([MASK, torch.zeros(len(MASK), 3, dtype=torch.bool)], dim=1)
    loss = hidden_state_loss(wide, [torch.cat([x, -junk], dim=1) for x in teacher], wide_mask)
    torch.testing.assert_close(loss, hidden_state_loss(student, teacher, MASK))
    loss.backward()
    for x in wide:
        assert x.grad is not None
        assert not x.grad[~wide_mask].any()
        assert bool(x.grad[wide_mask].all())


def test_a_batch_of_padding_only_is_zero() -> None:
    nothing = torch.zeros_like(MASK)
    assert float(hidden_state_loss(hidden(0, MASK), hidden(1, MASK), nothing)) == 0
    assert float(attention_score_loss(scores(0, nothing), scores(1, nothing), nothing)) == 0


def slow_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        s, t = [x / temperature for x in s], [x / temperature for x in t]
        log_norm, norm = math.log(sum(map(math.exp, s))), sum(map(math.exp, t))
        rows.append(-sum(math.exp(y) / norm * (x - log_norm) for x, y in zip(s, t, strict=True)))
    return rows


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("shape", [(1, 2), (5, 3)])
def test_soft_cross_entropy_equals_the_loop(temperature: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    student, teacher = torch.randn(shape, generator=generator) * 3, torch.randn(shape, generator=generator) * 3
    rows = slow_cross_entropy(student, teacher, temperature)
    batch = soft_cross_entropy(student, teacher, temperature, reduction="batch")
    both = soft_cross_entropy(student, teacher, temperature, reduction="batch_and_class")
    assert float(batch) == pytest.approx(sum(rows) / len(rows), rel=1e-5)
    assert float(both) == pytest.approx(sum(rows) / len(rows) / shape[1], rel=1e-5)


def test_soft_cross_entropy_is_least_at_the_teacher() -> None:
    teacher = torch.tensor([[2.0, -1.0, 0.5]])
    student = teacher.clone().requires_grad_()
    soft_cross_entropy(student, teacher, reduction="batch").backward()
    assert student.grad is not None
    torch.testing.assert_close(student.grad, torch.zeros(1, 3), rtol=0, atol=1e-6)


def test_regression_is_mean_squared_error_to_the_teacher() -> None:
    student, teacher = torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [3.0]])
    assert float(regression_loss(student, teacher)) == pytest.approx(2.5)


def output(seed: int, labels: int = 3) -> EncoderOutput:
    generator = torch.Generator().manual_seed(seed + 10)
    logits = torch.randn(len(MASK), labels, generator=generator)
    return EncoderOutput(logits, tuple(hidden(seed, MASK)), tuple(scores(seed, MASK)))


def test_total_is_the_weighted_sum_of_the_terms() -> None:
    student, teacher = output(0), output(1)
    total, scalars = distillation_loss(
        student, teacher, MASK, LossWeights(2.0, 0.5, 3.0), temperature=2.0, reduction="batch_and_class"
    )
    attention = attention_score_loss(student.attention_scores, teacher.attention_scores, MASK)
    states = hidden_state_loss(student.hidden_states, teacher.hidden_states, MASK)
    prediction = soft_cross_entropy(student.logits, teacher.logits, 2.0, reduction="batch_and_class")
    torch.testing.assert_close(total, 2 * attention + 0.5 * states + 3 * prediction)
    assert scalars == {"attention": attention, "hidden": states, "prediction": prediction, "total": total}


def test_padding_reaches_both_terms() -> None:
    student, teacher = output(0), output(1)
    _, scalars = distillation_loss(student, teacher, MASK, padding="include")
    assert scalars["attention"] == attention_score_loss(
        student.attention_scores, teacher.attention_scores, MASK, padding="include"
    )
    assert scalars["hidden"] == hidden_state_loss(student.hidden_states, teacher.hidden_states, MASK, padding="include")


def test_one_label_regresses() -> None:
    student, teacher = output(0, labels=1), output(1, labels=1)
    total, scalars = distillation_loss(student, teacher, MASK, LossWeights(0, 0, 1))
    assert set(scalars) == {"prediction", "total"}
    assert total == regression_loss(student.logits, teacher.logits)


def test_scalars_are_detached_and_the_teacher_gets_no_gradient() -> None:
    student, teacher = output(0), output(1)
    for side in (student, teacher):
        for tensor in (side.logits, *side.hidden_states, *side.attention_scores):
            tensor.requires_grad_()
    total, scalars = distillation_loss(student, teacher, MASK)
    assert total.requires_grad
    assert not any(value.requires_grad for value in scalars.values())
    assert all(value.shape == () for value in scalars.values())
    total.backward()
    assert all(x.grad is not None for x in (student.logits, *student.hidden_states, *student.attention_scores))
    assert all(x.grad is None for x in (teacher.logits, *teacher.hidden_states, *teacher.attention_scores))


def test_terms_without_weight_need_no_collecting() -> None:
    student, teacher = output(0), output(1)
    bare = (EncoderOutput(student.logits), EncoderOutput(teacher.logits))
    assert "prediction" in distillation_loss(*bare, MASK, LossWeights(0, 0, 1))[1]
    with pytest.raises(ValueError, match="no attention scores: run student and teacher with collect=True"):
        distillation_loss(*bare, MASK)


def test_other_layers_or_labels_are_refused() -> None:
    student, teacher = output(0), output(1)
    fewer = EncoderOutput(teacher.logits, teacher.hidden_states[:-1], teacher.attention_scores)
    with pytest.raises(ValueError, match="hidden states of the student have shapes"):
        distillation_loss(student, fewer, MASK)
    with pytest.raises(ValueError, match=re.escape("logits (3, 3) of the student, (3, 2) of the teacher")):
        distillation_loss(student, output(1, labels=2), MASK)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"padding": "drop"}, "padding is 'drop'; allowed: exclude, include"),
        ({"reduction": "mean"}, "reduction is 'mean'; allowed: batch, batch_and_class"),
        ({"temperature": 0.0}, "temperature is 0.0; allowed: a number above 0"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(text)):
        distillation_loss(output(0), output(1), MASK, **arguments)


def test_weights_are_checked() -> None:
    with pytest.raises(RecipeError, match="hidden is -1; allowed: a factor of 0 or more"):
        LossWeights(hidden=-1)
    with pytest.raises(RecipeError, match="all 0; at least one must be above 0"):
        LossWeights(0, 0, 0)


@pytest.mark.parametrize("padding", ["exclude", "include"])
def test_cosine_of_the_last_hidden_states(padding: str) -> None:
    student, teacher = hidden(1, MASK), hidden(2, MASK)
    expected = []
    for i in range(len(MASK)):
        for t in range(MASK.shape[1]):
            if padding == "include" or MASK[i, t]:
                a, b = student[-1][i, t], teacher[-1][i, t]
                expected.append(1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)))
    found = hidden_cosine_loss(student, teacher, MASK, padding=padding)
    assert float(found) == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert float(hidden_cosine_loss(teacher, teacher, MASK, padding=padding)) == pytest.approx(0.0, abs=1e-6)


def test_vectors_of_the_same_width_are_compared_and_always_their_cosines():
    torch.manual_seed(5)
    student, teacher = torch.randn(6, 4), 3 * torch.randn(6, 4)
    cosines = [torch.tensor([[a @ b / a.norm() / b.norm() for b in x] for a in x]) for x in (student, teacher)]
    similarities = ((cosines[0] - cosines[1]) ** 2).mean()
    relative = torch.stack([((s - t) ** 2).sum() / (t**2).sum() for s, t in zip(student, teacher, strict=True)]).mean()
    torch.testing.assert_close(vector_loss(student, teacher), relative + similarities)
    narrow = torch.randn(6, 3)
    own = torch.tensor([[a @ b / a.norm() / b.norm() for b in narrow] for a in narrow])
    torch.testing.assert_close(vector_loss(narrow, teacher), ((own - cosines[1]) ** 2).mean())
    assert float(vector_loss(teacher, teacher)) == pytest.approx(0, abs=1e-12)
    assert bool(torch.isfinite(vector_loss(student, torch.zeros(6, 4))))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_soft_labels_that_go_together(reduction):
    torch.manual_seed(6)
    student, teacher = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    p, q = torch.sigmoid(teacher / 2), torch.sigmoid(student / 2)
    products = -(p * q.log() + (1 - p) * (1 - q).log())
    expected = products.sum(-1).mean() if reduction == "batch" else products.mean()
    torch.testing.assert_close(soft_binary_cross_entropy(student, teacher, 2.0, reduction=reduction), expected)


def test_unknown_kind_of_answer():
    output = EncoderOutput(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="answer is 'words'; allowed: class, labels, vector"):
        distillation_loss(output, output, weights=LossWeights(0, 0, 1), answer="words")
