"""Direction matching. Oracles: the specification's worked example, and loops over texts, heads and pairs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bitpress.distill import LossWeights, distillation_loss, hidden_direction_loss, similarity_direction_loss
from bitpress.encoder.model import EncoderOutput
from bitpress.errors import RecipeError

MASK = torch.tensor([[True, True, True, False], [True, True, True, True]])
Projections = tuple[Tensor, Tensor, Tensor]


def projections(seed: int, layers: int = 2) -> list[Projections]:
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randn(2, 3, 4, 5, generator=generator) for _ in range(3)) for _ in range(layers)]  # type: ignore[misc]


def as_projections(x: Tensor) -> list[Projections]:
    """One layer whose key and value match in any case."""
    one = torch.ones_like(x)
    return [(x, one, one)]


def slow_similarity(x: Tensor, mask: Tensor, padding: str) -> list[float]:
    found = []
    for b in range(x.shape[0]):
        for head in range(x.shape[1]):
            for i in range(x.shape[2]):
                for j in range(x.shape[2]):
                    value = sum(float(x[b, head, i, c]) * float(x[b, head, j, c]) for c in range(x.shape[3]))
                    if padding == "exclude":
                        found.append(value if mask[b, i] and mask[b, j] else 0.0)
                    else:
                        found.append(value if value / math.sqrt(x.shape[3]) > -100 else 0.0)
    return found


def slow_distance(x: list[float], y: list[float]) -> float:
    a, b = math.hypot(*x), math.hypot(*y)
    return math.sqrt(sum((p / a - q / b) ** 2 for p, q in zip(x, y, strict=True)))


def test_worked_example() -> None:
    student = torch.tensor([[[[1.0, 0.0], [1.0, 1.0]]]])
    teacher = torch.tensor([[[[2.0, 0.0], [0.0, 2.0]]]])
    loss = similarity_direction_loss(as_projections(student), as_projections(teacher))
    assert loss.item() == pytest.approx(0.62963, abs=1e-5)


@pytest.mark.parametrize("padding", ["exclude", "include"])
def test_equals_the_loop(padding: str) -> None:
    student, teacher = projections(1), projections(2)
    student[0][0][1, 0, 0] *= 40  # makes entries below −100
    found = similarity_direction_loss(student, teacher, MASK, padding=padding).item()
    expected = sum(
        slow_distance(slow_similarity(x, MASK, padding), slow_similarity(y, MASK, padding))
        for ours, theirs in zip(student, teacher, strict=True)
        for x, y in zip(ours, theirs, strict=True)
    )
    assert found == pytest.approx(expected, rel=1e-5)


def test_lengths_do_not_matter_and_the_range_is_zero_to_two() -> None:
    student, teacher = projections(1), projections(2)
    scaled = [tuple(3.5 * x for x in layer) for layer in student]
    plain = similarity_direction_loss(student, teacher, MASK)
    torch.testing.assert_close(similarity_direction_loss(scaled, teacher, MASK), plain)  # type: ignore[arg-type]
    assert 0 < plain < 2 * 6
    assert similarity_direction_loss(student, student, MASK) == 0
    states = [torch.randn(2, 4, 6)]
    opposite = hidden_direction_loss(states, [-x for x in states], MASK)
    torch.testing.assert_close(opposite, torch.tensor(2.0))


def test_what_stands_in_the_padding_does_not_matter() -> None:
    student, teacher = projections(1), projections(2)
    before = similarity_direction_loss(student, teacher, MASK)
    hidden = [torch.randn(2, 4, 6) for _ in range(2)], [torch.randn(2, 4, 6) for _ in range(2)]
    hidden_before = hidden_direction_loss(*hidden, MASK)
    for layer in (*student, *teacher):
        for x in layer:
            x[0, :, 3] = 1e4
    for x in (*hidden[0], *hidden[1]):
        x[0, 3] = 1e4
    assert torch.equal(similarity_direction_loss(student, teacher, MASK), before)
    assert torch.equal(hidden_direction_loss(*hidden, MASK), hidden_before)


def test_gradients_are_finite_also_where_nothing_differs() -> None:
    states = [torch.zeros(2, 4, 6, requires_grad=True), torch.ones(2, 4, 6, requires_grad=True)]
    hidden_direction_loss(states, [torch.ones(2, 4, 6), torch.ones(2, 4, 6)], MASK).backward()
    for x in states:
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


def output(seed: int) -> EncoderOutput:
    generator = torch.Generator().manual_seed(seed)
    states = tuple(torch.randn(2, 4, 6, generator=generator) for _ in range(3))
    return EncoderOutput(torch.randn(2, 3, generator=generator), states, (), tuple(projections(seed)))


def test_bibert_in_one_sum() -> None:
    student, teacher, labels = output(1), output(2), torch.tensor([2, 0])
    weights = LossWeights(attention=0, similarity=1, hidden=1, prediction=1, labels=0.5)
    total, parts = distillation_loss(
        student,
        teacher,
        MASK,
        weights,
        labels=labels,
        hidden_distance="direction",
        reduction="batch_and_class",
    )
    similarity = similarity_direction_loss(student.projections, teacher.projections, MASK)
    hidden = hidden_direction_loss(student.hidden_states, teacher.hidden_states, MASK)
    assert parts.keys() == {"similarity", "hidden", "prediction", "labels", "total"}
    torch.testing.assert_close(parts["similarity"], similarity)
    torch.testing.assert_close(parts["hidden"], hidden)
    torch.testing.assert_close(total, similarity + hidden + parts["prediction"] + 0.5 * parts["labels"])


def test_worked_example_of_the_logits() -> None:
    """Soft cross-entropy over texts and classes, plus half the cross-entropy with the label."""
    student, teacher = EncoderOutput(torch.tensor([[0.2, -0.1]])), EncoderOutput(torch.tensor([[2.0, -1.0]]))
    weights = LossWeights(attention=0, hidden=0, prediction=1, labels=0.5)
    total, parts = distillation_loss(
        student, teacher, None, weights, labels=torch.tensor([0]), reduction="batch_and_class"
    )
    assert parts["prediction"].item() == pytest.approx(0.28429, abs=1e-5)
    assert parts["labels"].item() == pytest.approx(0.55436, abs=1e-5)
    assert total.item() == pytest.approx(0.56147, abs=1e-5)


def test_regression_takes_labels_only_without_a_teacher() -> None:
    student, teacher = EncoderOutput(torch.tensor([[0.2]])), EncoderOutput(torch.tensor([[1.2]]))
    _, parts = distillation_loss(student, teacher, None, LossWeights(0, 0, 1, labels=0.5))
    assert parts.keys() == {"prediction", "total"}
    alone = LossWeights(0, 0, 0, labels=0.5)
    assert not alone.needs_teacher
    total, parts = distillation_loss(student, None, None, alone, labels=torch.tensor([0.5]))
    assert parts.keys() == {"labels", "total"}
    assert float(total) == pytest.approx(0.5 * 0.3**2)
    with pytest.raises(ValueError, match="there is no teacher, but terms that compare with one have weight"):
        distillation_loss(student, None, None, LossWeights(0, 0, 1))


def test_arguments_are_checked() -> None:
    with pytest.raises(RecipeError, match="hidden_distance is 'angle'; allowed: mse, direction, cosine"):
        distillation_loss(output(1), output(2), MASK, hidden_distance="angle")
    with pytest.raises(ValueError, match="labels have weight, but none are given"):
        distillation_loss(output(1), output(2), MASK, LossWeights(0, 0, 1, labels=0.5))
    with pytest.raises(ValueError, match="no projections: run student and teacher with collect=True"):
        distillation_loss(EncoderOutput(torch.zeros(2, 3)), output(2), MASK, LossWeights(0, 0, 0, similarity=1))
