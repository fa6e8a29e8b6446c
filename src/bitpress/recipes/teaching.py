"""What a stage's student learns, and from whom: the loss that the training loop minimises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bitpress.distill import (
    HiddenProjections,
    LossWeights,
    Matching,
    compatible_heads,
    distillation_loss,
    teacher_states,
)
from bitpress.encoder import EncoderConfig, SequenceClassifier, position_labels, position_logits
from bitpress.errors import RecipeError
from bitpress.recipes.schema import Distillation
from bitpress.train import UNLABELLED, Batch

# The student's attribute that holds projections while it trains, so that they are trained and travel in checkpoints.
PROJECTIONS = "hidden_projections"


class Teaching:
    """The loss of a stage: (student, batch) → (loss, its parts). While it lasts, the student has the projections that
    its hidden states need to be compared with wider ones; :meth:`end` takes them away.

    Args:
        teacher: in eval mode; it is moved to where the batches are.
        kept_heads: of each layer the indices of those of the teacher's heads that a narrowed student kept; None: all,
            or the teacher is the student of an earlier stage.
        projections: to go on with, from an earlier stage or a general distillation; None: fresh ones, from ``seed``.
        warn: is told of what cannot be compared.

    Raises:
        RecipeError: layers or widths that cannot be matched as ``distill`` says; the text says how they can.
    """

    def __init__(
        self,
        distill: Distillation,
        student: SequenceClassifier,
        teacher: SequenceClassifier,
        *,
        kept_heads: Sequence[Tensor] | None = None,
        projections: HiddenProjections | None = None,
        seed: int = 0,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.distill, self.student, self.teacher = distill, student, teacher
        plan = plan_teaching(distill, student.config, teacher.config, kept_heads is not None, warn)
        self.weights, self.matching = plan.weights, None
        if plan.states is None:
            return
        self.matching = Matching(plan.states, None if kept_heads is None else tuple(kept_heads))
        if plan.projection is not None:
            widths = student.config.hidden_size, teacher.config.hidden_size
            fresh = HiddenProjections(plan.projection, len(plan.states), *widths, seed)
            student.add_module(PROJECTIONS, projections if _same_shapes(projections, fresh) else fresh)

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        arguments = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        collect = self.weights.compares_layers
        target = None
        if self.weights.needs_teacher:
            self.teacher.to(batch.input_ids.device)  # where the loop has brought the student; nothing once it is there
            with torch.no_grad():
                target = self.teacher(*arguments, collect=collect)
        output, labels = model(*arguments, collect=collect), batch.labels
        if self.student.config.answers_questions:
            # Two distributions over a window's tokens are compared, as published (TernaryBERT, quant_task_squad.py).
            mask = batch.attention_mask
            output = replace(output, logits=position_logits(output.logits, mask))
            target = None if target is None else replace(target, logits=position_logits(target.logits, mask))
            labels = None if labels is None else position_labels(labels)
        elif self.student.config.classifies_tokens and labels is not None:
            # Logits are compared where words have labels: one row a word, whatever text it is in.
            rows = labels != UNLABELLED
            output, labels = replace(output, logits=output.logits[rows]), labels[rows]
            target = None if target is None else replace(target, logits=target.logits[rows])
        if self.student.config.normalizes:  # vectors are compared as they are used
            output = replace(output, logits=F.normalize(output.logits, dim=-1))
            target = None if target is None else replace(target, logits=F.normalize(target.logits, dim=-1))
        if self.matching is not None:
            assert target is not None, "only layers that are compared are matched"
            output, target = self.matching(output, target, self.projections)
        return distillation_loss(
            output,
            target,
            batch.attention_mask,
            self.weights,
            labels=labels if self.weights.labels else None,
            hidden_distance=self.distill.hidden_distance,
            temperature=self.distill.temperature,
            reduction=self.distill.reduction,
            padding=self.distill.padding,
            answer=_answer(self.student.config),
        )

    @property
    def projections(self) -> HiddenProjections | None:
        """Those that the student has."""
        found = getattr(self.student, PROJECTIONS, None)
        assert found is None or isinstance(found, HiddenProjections)
        return found

    def end(self) -> HiddenProjections | None:
        """Take the projections from the student and give them back, for a stage that goes on with them."""
        projections = self.projections
        if projections is not None:
            delattr(self.student, PROJECTIONS)
        return projections


@dataclass(frozen=True)
class TeachingPlan:
    """What of a teacher a student can be compared with: the factors of the terms that the two have in common, the
    teacher's states (None: only logits count) and the kind of projection (None: hidden states are compared as they
    are)."""

    weights: LossWeights
    states: tuple[int, ...] | None
    projection: str | None


def plan_teaching(
    distill: Distillation,
    student: EncoderConfig,
    teacher: EncoderConfig,
    heads_are_known: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> TeachingPlan:
    """How ``distill`` compares models of these shapes; see :class:`Teaching`.

    Args:
        heads_are_known: which of the teacher's heads each of the student's is.

    Raises:
        RecipeError: layers, heads or widths that cannot be matched so; the text says how they can.
    """
    weights = distill.weights()
    if not weights.compares_layers:
        return TeachingPlan(weights, None, None)
    heads = student.num_attention_heads, teacher.num_attention_heads
    if not heads_are_known and heads[0] != heads[1]:
        if weights.similarity:
            raise RecipeError(
                f"distill.similarity compares head by head, but the student has {heads[0]} and the teacher {heads[1]}; "
                "set similarity=0"
            )
        if weights.attention and not compatible_heads(*heads):
            warn(
                f"attention scores are not compared: the student has {heads[0]} heads and the teacher {heads[1]}, and "
                "neither number divides the other"
            )
            weights = replace(weights, attention=0.0)
    states = teacher_states(distill.layer_map, student.num_hidden_layers, teacher.num_hidden_layers)
    widths = student.hidden_size, teacher.hidden_size
    projection = distill.projection
    if projection == "auto":
        projection = "none" if widths[0] == widths[1] else "shared"
    if weights.hidden and projection == "none" and widths[0] != widths[1]:
        raise RecipeError(
            f"distill.projection is 'none', but hidden states have {widths[0]} columns in the student and {widths[1]} "
            "in the teacher; use shared or per_state, or hidden_states=0"
        )
    return TeachingPlan(weights, states, None if projection == "none" or not weights.hidden else projection)


def _answer(config: EncoderConfig) -> str:
    """What the logits of such a model are, as :func:`distillation_loss` takes it."""
    return "vector" if config.gives_vectors else "labels" if config.is_multilabel else "class"


def _same_shapes(one: HiddenProjections | None, other: HiddenProjections) -> bool:
    if one is None:
        return False
    return [p.shape for p in one.parameters()] == [p.shape for p in other.parameters()]
