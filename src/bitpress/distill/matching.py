r"""Which of a teacher's layers, heads and states a student of another shape is compared with (TinyBERT, Jiao et al.
2020, arXiv 1909.10351, §3.2; spec/tinybert.md §2.1).

States are counted from 0, the output of the embeddings, to L, that of the last layer; layer i has state i + 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bitpress.encoder.model import EncoderOutput
from bitpress.errors import RecipeError

LAYER_MAPS = ("uniform", "top", "bottom")
PROJECTIONS = ("auto", "none", "shared", "per_state")


def teacher_states(layer_map: str | Sequence[int], student_layers: int, teacher_layers: int) -> tuple[int, ...]:
    """The teacher's state for each of the student's M + 1.

    Args:
        layer_map: "uniform", every (N/M)-th of the teacher's N layers; "top", its last M; "bottom", its first M; or its
            layers themselves, counted from 1, one a student layer in ascending order. The embeddings always match the
            embeddings.

    Raises:
        RecipeError: the teacher has fewer layers, "uniform" does not divide, or the list is none of that kind.
    """
    if not isinstance(layer_map, str):
        layers = list(layer_map)
        if len(layers) != student_layers or layers != sorted(set(layers) & set(range(1, teacher_layers + 1))):
            raise RecipeError(
                f"layer_map is {layers}; a list names {student_layers} different layers of the teacher in ascending "
                f"order, counted from 1 to {teacher_layers}"
            )
        return (0, *layers)
    if layer_map not in LAYER_MAPS:
        raise RecipeError(f"layer_map is {layer_map!r}; allowed: {', '.join(LAYER_MAPS)}, or a list of layers")
    if student_layers > teacher_layers:
        raise RecipeError(
            f"the student has {student_layers} layers and the teacher {teacher_layers}; it can have at most as many"
        )
    if layer_map == "uniform":
        if teacher_layers % student_layers:
            divisors = [str(m) for m in range(1, teacher_layers + 1) if teacher_layers % m == 0]
            raise RecipeError(
                f"layer_map is 'uniform', but {student_layers} layers do not divide the teacher's {teacher_layers}; "
                f"take a student of {', '.join(divisors)} layers, layer_map=top or bottom, or a list of layers"
            )
        step = teacher_layers // student_layers
        return tuple(m * step for m in range(student_layers + 1))
    skipped = teacher_layers - student_layers if layer_map == "top" else 0
    return (0, *(m + skipped for m in range(1, student_layers + 1)))


class HiddenProjections(nn.Module):
    """Learned maps of a student's hidden states to its teacher's width, for training only: one for all states
    ("shared", as released) or one a state. Weights N(0, 0.02), biases 0.

    Args:
        kind: "shared" or "per_state".
        states: how many; width, teacher_width: of a hidden state.
        seed: of the initial weights.
    """

    def __init__(self, kind: str, states: int, width: int, teacher_width: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.states = states
        self.maps = nn.ModuleList()
        for _ in range(1 if kind == "shared" else states):
            linear = nn.Linear(width, teacher_width)
            with torch.no_grad():
                linear.weight.normal_(0.0, 0.02, generator=generator)
                linear.bias.zero_()
            self.maps.append(linear)

    def tensors(self) -> dict[str, Tensor]:
        """By the names that TinyBERT's checkpoints give them: fit_dense, or fit_denses.i."""
        names = ["fit_dense"] if len(self.maps) == 1 else [f"fit_denses.{i}" for i in range(len(self.maps))]
        return {
            f"{name}.{key}": parameter.detach()
            for name, one in zip(names, self.maps, strict=True)
            for key, parameter in one.named_parameters()
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], states: int) -> HiddenProjections | None:
        """The inverse of :meth:`tensors` for ``states`` hidden states; None where there are none that fit."""
        names = ["fit_dense"] if "fit_dense.weight" in tensors else [f"fit_denses.{i}" for i in range(states)]
        wanted = [f"{name}.{key}" for name in names for key in ("weight", "bias")]
        if tensors.keys() != set(wanted):
            return None
        teacher_width, width = tensors[wanted[0]].shape
        made = cls("shared" if len(names) == 1 else "per_state", states, width, teacher_width)
        for name, one in zip(names, made.maps, strict=True):
            one.load_state_dict({key: tensors[f"{name}.{key}"] for key in ("weight", "bias")})
        return made

    def forward(self, hidden_states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """L + 1 of [B, T, H] → the same of the teacher's width."""
        maps = list(self.maps) * (self.states if len(self.maps) == 1 else 1)
        return tuple(one(state) for one, state in zip(maps, hidden_states, strict=True))


@dataclass(frozen=True)
class Matching:
    """What of the teacher is compared with what of the student.

    states: the teacher's for each of the student's, see :func:`teacher_states`.
    kept_heads: per student layer the indices of those of the teacher's heads that a narrowed student kept; None where
        heads correspond, or groups of heads do (:func:`compatible_heads`).
    """

    states: tuple[int, ...]
    kept_heads: tuple[Tensor, ...] | None = None

    def __call__(
        self, student: EncoderOutput, teacher: EncoderOutput, projections: HiddenProjections | None = None
    ) -> tuple[EncoderOutput, EncoderOutput]:
        """Outputs of one batch, with ``collect=True`` → the same with states, scores and projections that can be
        compared one by one."""
        layers = [state - 1 for state in self.states[1:]]
        teacher = replace(
            teacher,
            hidden_states=tuple(teacher.hidden_states[i] for i in self.states),
            attention_scores=tuple(teacher.attention_scores[i] for i in layers),
            projections=tuple(teacher.projections[i] for i in layers),
        )
        if self.kept_heads is not None:
            teacher = replace(
                teacher,
                attention_scores=tuple(s[:, h] for s, h in zip(teacher.attention_scores, self.kept_heads, strict=True)),
                projections=tuple(
                    (q[:, h], k[:, h], v[:, h])
                    for (q, k, v), h in zip(teacher.projections, self.kept_heads, strict=True)
                ),
            )
        pairs = [_equal_heads(a, b) for a, b in zip(student.attention_scores, teacher.attention_scores, strict=True)]
        teacher = replace(teacher, attention_scores=tuple(b for _, b in pairs))
        hidden = student.hidden_states if projections is None else projections(student.hidden_states)
        return replace(student, hidden_states=hidden, attention_scores=tuple(a for a, _ in pairs)), teacher


def compatible_heads(student: int, teacher: int) -> bool:
    """Whether attention of so many heads can be compared: one number divides the other, and means of groups of the
    larger one are taken."""
    return student % teacher == 0 or teacher % student == 0


def _equal_heads(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """[B, h, T, T] each → both with the smaller h, where it divides the larger; otherwise as they are."""
    fewest = min(a.shape[1], b.shape[1])
    if a.shape[1] == b.shape[1] or not compatible_heads(a.shape[1], b.shape[1]):
        return a, b
    return _grouped(a, fewest), _grouped(b, fewest)


def _grouped(x: Tensor, groups: int) -> Tensor:
    return x if x.shape[1] == groups else x.unflatten(1, (groups, -1)).mean(dim=2)
