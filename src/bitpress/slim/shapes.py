"""Students of other depth and width: fresh ones of a given shape, and those made of some of a teacher's layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.slim.embeddings import take_embeddings

EmbeddingsFrom = Literal["random", "teacher"]

# Published shapes whose intermediate size is not 4·H: TinyBERT-4 (arXiv 1909.10351, §4.2).
INTERMEDIATE = {(4, 312): 1200}
_SHAPE = re.compile(r"(\d{1,3})x(\d{1,5})")


@dataclass(frozen=True)
class StudentShape:
    """Layers and hidden size; heads and intermediate size default to the teacher's heads and 4·H."""

    layers: int
    hidden_size: int

    @classmethod
    def parse(cls, text: str) -> StudentShape:
        """``"4x312"`` → 4 layers of hidden size 312.

        Raises:
            RecipeError: it does not look like that, or a number is 0.
        """
        found = _SHAPE.fullmatch(text)
        layers, hidden_size = (int(found[1]), int(found[2])) if found else (0, 0)
        if not layers or not hidden_size:
            raise RecipeError(f"{text!r} is no shape of a student; expected LAYERSxHIDDEN, for example 4x312")
        return cls(layers, hidden_size)

    def config(self, teacher: EncoderConfig) -> EncoderConfig:
        """The teacher's configuration in this shape.

        Raises:
            RecipeError: the hidden size is no multiple of the teacher's heads, which the student has too.
        """
        heads = teacher.num_attention_heads
        if self.hidden_size % heads:
            near = max(1, round(self.hidden_size / heads)) * heads
            raise RecipeError(
                f"a student of hidden size {self.hidden_size} cannot have the teacher's {heads} heads of equal width; "
                f"take a multiple of {heads}, for example {self.layers}x{near}"
            )
        return replace(
            teacher,
            num_hidden_layers=self.layers,
            hidden_size=self.hidden_size,
            intermediate_size=INTERMEDIATE.get((self.layers, self.hidden_size), 4 * self.hidden_size),
            attention_head_size=None,
        )


def fresh_student(
    teacher: SequenceClassifier, shape: StudentShape, seed: int = 0, embeddings: EmbeddingsFrom = "random"
) -> SequenceClassifier:
    """A student of that shape with random weights, a function of ``seed``, but for its embeddings where those are to be
    the teacher's (:func:`take_embeddings`); eval mode. Raises RecipeError."""
    student = SequenceClassifier(shape.config(teacher.config), seed).eval()
    if embeddings == "teacher":
        take_embeddings(student, teacher)
    return student


def from_layers(teacher: SequenceClassifier, layers: int | Sequence[int]) -> SequenceClassifier:
    """A student of the teacher's width with copies of some of its layers, and of everything else it has.

    Args:
        layers: how many, or which (counted from 1, ascending). A number takes them at equal distances, the first and
            the last among them: 6 of 12 are 1, 3, 5, 8, 10, 12, DistilBERT's choice (Sanh et al. 2019, arXiv
            1910.01108; its extraction script).

    Raises:
        RecipeError: there are no such layers.
    """
    count = teacher.config.num_hidden_layers
    if isinstance(layers, int):
        chosen = _spread(layers, count) if 1 <= layers <= count else []
    else:
        chosen = list(layers)
    if not chosen or chosen != sorted(set(chosen) & set(range(1, count + 1))):
        raise RecipeError(
            f"student.layers is {layers!r}; allowed: a number up to the teacher's {count}, or a list of its layers in "
            f"ascending order, counted from 1"
        )
    student = SequenceClassifier(replace(teacher.config, num_hidden_layers=len(chosen)))
    weights = teacher.state_dict()
    taken = {name: tensor for name, tensor in weights.items() if not name.startswith("layers.")}
    for new, old in enumerate(chosen):
        prefix = f"layers.{old - 1}."
        taken |= {
            f"layers.{new}.{name.removeprefix(prefix)}": tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
    student.load_state_dict({name: tensor.clone() for name, tensor in taken.items()}, assign=True)
    student.fresh_tensors = teacher.fresh_tensors
    return student.eval()


def _spread(count: int, total: int) -> list[int]:
    """``count`` of 1…total at equal distances, ends included."""
    if count == 1:
        return [total]
    return [1 + round(i * (total - 1) / (count - 1)) for i in range(count)]
