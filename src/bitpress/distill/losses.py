"""What the student is asked to match (TernaryBERT §3.3, after TinyBERT, arXiv 1909.10351, §3; BiBERT §3.3):

    L = w_att · L_att + w_sim · L_sim + w_hid · L_hid + w_pred · L_pred + w_lab · L_lab

Shapes: B texts, T tokens (padded), H hidden size, h heads, d features of a head, L layers, C labels. Of a classifier of
tokens logits and labels are those of the words of the B texts, so as many rows as there are words; of question
answering those of 2·B choices among T positions (:func:`bitpress.encoder.position_logits`); of sentence embeddings
logits are vectors, [B, H], or [2B, H] of pairs of texts. The teacher's tensors carry no gradient. A padded position has
no meaning, so by default (padding="exclude") it has no weight; padding="include" is the published mean over every
position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bitpress.distill.directions import hidden_direction_loss, similarity_direction_loss
from bitpress.distill.padding import excludes
from bitpress.encoder.losses import pair_loss, task_loss
from bitpress.encoder.model import EncoderOutput
from bitpress.errors import RecipeError

REDUCTIONS = ("batch", "batch_and_class")
HIDDEN_DISTANCES = ("mse", "direction", "cosine")
# What the logits of a model are: of one class among several (of one label: a value), of labels that go together, or a
# vector.
ANSWERS = ("class", "labels", "vector")

# A score at or below this is a masked one and counts as 0 on either side: the published rule. Real scores are tens.
MASKED_SCORE = -100.0


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms; a term with factor 0 is not computed. TernaryBERT: attention, hidden and prediction 1.

    Raises:
        RecipeError: a factor is negative, or all are 0.
    """

    attention: float = 1.0
    hidden: float = 1.0
    prediction: float = 1.0
    similarity: float = 0.0
    labels: float = 0.0

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if not value >= 0:
                raise RecipeError(f"{key} is {value!r}; allowed: a factor of 0 or more")
        if not any(vars(self).values()):
            raise RecipeError(f"{', '.join(vars(self))} are all 0; at least one must be above 0")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with a teacher."""
        return bool(self.compares_layers or self.prediction)

    @property
    def compares_layers(self) -> bool:
        """Whether any term needs what ``collect=True`` returns."""
        return bool(self.attention or self.similarity or self.hidden)


def distillation_loss(
    student: EncoderOutput,
    teacher: EncoderOutput | None,
    mask: Tensor | None = None,
    weights: LossWeights | None = None,
    *,
    labels: Tensor | None = None,
    hidden_distance: str = "mse",
    temperature: float = 1.0,
    reduction: str = "batch",
    padding: str = "exclude",
    answer: str = "class",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the terms.

    Args:
        student, teacher: outputs of the same batch, with ``collect=True`` where ``weights.compares_layers``; the
            teacher's may be None where nothing is compared with it.
        mask: bool [B, T], True at real tokens; None: no padding.
        weights: factors; None: those of TernaryBERT.
        labels: int64 [B] class ids, where labels have weight; cross-entropy. A model with one label regresses on the
            teacher's value and takes none, as published; where the teacher's value has no weight it regresses on them,
            fp32 [B]. Of "labels" fp32 [B, C], of "vector" scores of pairs, fp32 [B], or None (:func:`pair_loss`).
        hidden_distance: "mse" (:func:`hidden_state_loss`), "direction" (:func:`hidden_direction_loss`) or "cosine"
            (:func:`hidden_cosine_loss`).
        temperature, reduction: of :func:`soft_cross_entropy`.
        padding: "exclude" or "include".
        answer: what logits are, one of ``ANSWERS``. Predictions are compared by :func:`soft_cross_entropy`,
            :func:`soft_binary_cross_entropy` or :func:`vector_loss`.

    Returns:
        The total (a scalar with gradient) and every term before its factor, and "total", as detached 0-d tensors: they
        are not brought to the host here.

    Raises:
        RecipeError: a reduction, padding, distance or temperature that is not allowed.
        ValueError: student and teacher differ in layers or labels, or a tensor was not collected.
    """
    weights = LossWeights() if weights is None else weights
    if hidden_distance not in HIDDEN_DISTANCES:
        raise RecipeError(f"hidden_distance is {hidden_distance!r}; allowed: {', '.join(HIDDEN_DISTANCES)}")
    if answer not in ANSWERS:
        raise ValueError(f"answer is {answer!r}; allowed: {', '.join(ANSWERS)}")
    regresses = answer == "class" and student.logits.shape[-1] == 1
    terms: dict[str, tuple[float, Tensor]] = {}
    if teacher is None:
        if weights.needs_teacher:
            raise ValueError("there is no teacher, but terms that compare with one have weight")
        teacher = student
    if weights.attention:
        loss = attention_score_loss(student.attention_scores, teacher.attention_scores, mask, padding=padding)
        terms["attention"] = (weights.attention, loss)
    if weights.similarity:
        _check_collected(student.projections, teacher.projections, "projections")
        loss = similarity_direction_loss(student.projections, teacher.projections, mask, padding=padding)
        terms["similarity"] = (weights.similarity, loss)
    if weights.hidden:
        _check_pairs(student.hidden_states, teacher.hidden_states, "hidden states")
        distances = {"mse": hidden_state_loss, "direction": hidden_direction_loss, "cosine": hidden_cosine_loss}
        loss = distances[hidden_distance](student.hidden_states, teacher.hidden_states, mask, padding=padding)
        terms["hidden"] = (weights.hidden, loss)
    if weights.prediction:
        if student.logits.shape != teacher.logits.shape and answer != "vector":
            raise ValueError(
                f"logits {tuple(student.logits.shape)} of the student, {tuple(teacher.logits.shape)} of the teacher"
            )
        if regresses:
            loss = regression_loss(student.logits, teacher.logits)
        elif answer == "vector":
            loss = vector_loss(student.logits, teacher.logits)
        else:
            soft = soft_cross_entropy if answer == "class" else soft_binary_cross_entropy
            loss = soft(student.logits, teacher.logits, temperature, reduction=reduction)
        terms["prediction"] = (weights.prediction, loss)
    if weights.labels and not (regresses and weights.prediction):
        if answer == "vector":
            loss = pair_loss(student.logits, labels)
        elif labels is None:
            raise ValueError("labels have weight, but none are given")
        else:
            loss = task_loss(student.logits, labels, regresses)
        terms["labels"] = (weights.labels, loss)
    total = torch.stack([factor * loss for factor, loss in terms.values()]).sum()
    scalars = {name: loss.detach() for name, (_, loss) in terms.items()}
    return total, {**scalars, "total": total.detach()}


def attention_score_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None, *, padding: str = "exclude"
) -> Tensor:
    """Σ over layers of mean (A_S − A_T)² on masked scores before softmax, entries ≤ −100 set to 0 on both sides.

    The mean is over real query × real key pairs and heads, or over everything with padding="include".

    Args:
        student, teacher: L × [B, h, T, T].
        mask: bool [B, T], True at real tokens; None: all are real.
        padding: "exclude" or "include".
    """
    _check_pairs(student, teacher, "attention scores")
    pairs, count = None, None
    if excludes(padding, mask):
        real = mask.to(student[0].dtype)  # type: ignore[union-attr]  # excludes is False for None
        pairs = real[:, None, :, None] * real[:, None, None, :]
        count = pairs.sum() * student[0].shape[1]
    losses = [
        _mean_square(F.threshold(a, MASKED_SCORE, 0.0), F.threshold(b, MASKED_SCORE, 0.0), pairs, count)
        for a, b in zip(student, teacher, strict=True)
    ]
    return torch.stack(losses).sum()


def hidden_state_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None, *, padding: str = "exclude"
) -> Tensor:
    """Σ over the embedding output and every layer of mean (H_S − H_T)²; no projection.

    The mean is over real positions × H, or over everything with padding="include".

    Args:
        student, teacher: L + 1 of [B, T, H].
        mask: bool [B, T], True at real tokens; None: all are real.
        padding: "exclude" or "include".
    """
    _check_pairs(student, teacher, "hidden states")
    positions, count = None, None
    if excludes(padding, mask):
        positions = mask[:, :, None].to(student[0].dtype)  # type: ignore[index]  # excludes is False for None
        count = positions.sum() * student[0].shape[2]
    return torch.stack([_mean_square(a, b, positions, count) for a, b in zip(student, teacher, strict=True)]).sum()


def hidden_cosine_loss(
    student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None, *, padding: str = "exclude"
) -> Tensor:
    """Mean over positions of 1 − cos(h_S, h_T) of the last hidden states only, as DistilBERT compares them (Sanh et al.
    2019, arXiv 1910.01108, §3). Arguments as :func:`hidden_state_loss`."""
    _check_pairs(student[-1:], teacher[-1:], "hidden states")
    distance = 1 - F.cosine_similarity(student[-1], teacher[-1].detach(), dim=-1)
    if not excludes(padding, mask):
        return distance.mean()
    real = mask.to(distance.dtype)  # type: ignore[union-attr]  # excludes is False for None
    return (distance * real).sum() / real.sum().clamp(min=1)


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0, *, reduction: str) -> Tensor:
    """−Σ_c softmax(z_T / τ)_c · log softmax(z_S / τ)_c, over logits [B, C]; no factor τ² (published: τ = 1).

    reduction: "batch", the mean over texts; "batch_and_class", the mean over texts and classes as published, which is
    the former divided by C.

    Raises:
        RecipeError: another reduction, or a temperature not above 0.
    """
    _check_softening(temperature, reduction)
    targets = (teacher.detach() / temperature).softmax(dim=-1)
    products = targets * (student / temperature).log_softmax(dim=-1)
    return -(products.sum(dim=-1).mean() if reduction == "batch" else products.mean())


def soft_binary_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 1.0, *, reduction: str) -> Tensor:
    """−Σ_c [p_c · log σ(z_S / τ)_c + (1 − p_c) · log(1 − σ(z_S / τ)_c)] with p = σ(z_T / τ), of labels that go
    together, logits [B, C]; arguments and errors as :func:`soft_cross_entropy`."""
    _check_softening(temperature, reduction)
    targets = torch.sigmoid(teacher.detach() / temperature)
    losses = F.binary_cross_entropy_with_logits(student / temperature, targets, reduction="none")
    return losses.sum(dim=-1).mean() if reduction == "batch" else losses.mean()


def vector_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """How far vectors, and how far the cosines between all texts of the batch, are from the teacher's:

        mean over texts of ‖v_S − v_T‖² / ‖v_T‖²  +  mean over pairs of texts of (cos_S − cos_T)²

    The first is 2 − 2·cos(v_S, v_T) of vectors of length 1 (Reimers & Gurevych 2020, arXiv 2004.09813, §2, compare
    vectors by their mean square); the second is what similarity search reads (Passalis & Tefas 2018, arXiv 1803.10837).
    Vectors of different widths are compared by the second alone.

    Args:
        student, teacher: [B, H].
    """
    teacher = teacher.detach()
    ours, theirs = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    similarities = F.mse_loss(ours @ ours.T, theirs @ theirs.T)
    if student.shape != teacher.shape:
        return similarities
    lengths = teacher.square().sum(dim=-1).clamp(min=1e-24)  # 1e-12 squared, where F.normalize stops, too
    return ((student - teacher).square().sum(dim=-1) / lengths).mean() + similarities


def regression_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean (z_S − z_T)² over logits [B, 1]; the teacher's may be the data's own values."""
    return F.mse_loss(student, teacher.detach())


def _check_softening(temperature: float, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise RecipeError(f"reduction is {reduction!r}; allowed: {', '.join(REDUCTIONS)}")
    if not temperature > 0:
        raise RecipeError(f"temperature is {temperature!r}; allowed: a number above 0")


class _MeanSquare(torch.autograd.Function):
    """Σ weight·(a − b)² / count for weights 0 or 1. Keeps the weighted difference only, not a and b."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, weight: Tensor | None, count: Tensor) -> Tensor:
        difference = a - b
        if weight is not None:
            difference.mul_(weight)
        ctx.save_for_backward(difference, count)
        return difference.square().sum() / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        difference, count = ctx.saved_tensors
        return difference * (2 * grads[0] / count), None, None, None


def _mean_square(a: Tensor, b: Tensor, weight: Tensor | None, count: Tensor | None) -> Tensor:
    """Mean of (a − b)² over all elements, or over the ``count`` elements where the broadcast weight is 1."""
    if count is None:
        count = torch.tensor(float(a.numel()), device=a.device)
    loss: Tensor = _MeanSquare.apply(a, b.detach(), weight, count.clamp(min=1))
    return loss


def _check_pairs(student: Sequence[Tensor], teacher: Sequence[Tensor], what: str) -> None:
    """Distillation here is layer by layer, so both sides must have the same layers and shapes."""
    _check_collected(student, teacher, what)
    shapes = [tuple(tensor.shape) for tensor in student], [tuple(tensor.shape) for tensor in teacher]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{what} of the student have shapes {shapes[0]}, of the teacher {shapes[1]}; they must be equal"
        )


def _check_collected(student: Sequence[Any], teacher: Sequence[Any], what: str) -> None:
    if not student or not teacher:
        raise ValueError(f"no {what}: run student and teacher with collect=True")
