"""What of a teacher a student of another shape is compared with. Oracle: the tables of spec/tinybert.md §2.1."""

from __future__ import annotations

import pytest
import torch

from bitpress.distill import HiddenProjections, Matching, compatible_heads, teacher_states
from bitpress.encoder.model import EncoderOutput
from bitpress.errors import RecipeError


@pytest.mark.parametrize(
    ("layer_map", "layers", "total", "expected"),
    [
        ("uniform", 4, 12, (0, 3, 6, 9, 12)),
        ("uniform", 6, 12, (0, 2, 4, 6, 8, 10, 12)),
        ("top", 4, 12, (0, 9, 10, 11, 12)),
        ("bottom", 4, 12, (0, 1, 2, 3, 4)),
        ([1, 5, 12], 3, 12, (0, 1, 5, 12)),
        ("uniform", 6, 6, (0, 1, 2, 3, 4, 5, 6)),
    ],
)
def test_layer_maps(layer_map: str | list[int], layers: int, total: int, expected: tuple[int, ...]) -> None:
    assert teacher_states(layer_map, layers, total) == expected


@pytest.mark.parametrize(
    ("layer_map", "layers", "text"),
    [
        ("uniform", 5, "5 layers do not divide the teacher's 12; take a student of 1, 2, 3, 4, 6, 12 layers"),
        ("top", 13, "the student has 13 layers and the teacher 12"),
        ("middle", 4, "layer_map is 'middle'; allowed: uniform, top, bottom, or a list"),
        ([1, 2], 3, "a list names 3 different layers"),
        ([0, 1, 2], 3, "counted from 1 to 12"),
        ([2, 1, 3], 3, "in ascending order"),
        ([2, 2, 3], 3, "different layers"),
        ([11, 12, 13], 3, "counted from 1 to 12"),
    ],
)
def test_maps_that_there_are_not(layer_map: str | list[int], layers: int, text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        teacher_states(layer_map, layers, 12)


def output(layers: int, heads: int, width: int, seed: int) -> EncoderOutput:
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return EncoderOutput(
        some(2, 3),
        tuple(some(2, 5, width) for _ in range(layers + 1)),
        tuple(some(2, heads, 5, 5) for _ in range(layers)),
        tuple((some(2, heads, 5, 4), some(2, heads, 5, 4), some(2, heads, 5, 4)) for _ in range(layers)),
    )


def test_states_and_layers_are_those_of_the_map() -> None:
    student, teacher = output(2, 4, 8, 0), output(6, 4, 8, 1)
    ours, theirs = Matching(teacher_states("uniform", 2, 6))(student, teacher)
    assert ours == student
    assert [id(x) for x in theirs.hidden_states] == [id(teacher.hidden_states[i]) for i in (0, 3, 6)]
    assert [id(x) for x in theirs.attention_scores] == [id(teacher.attention_scores[i]) for i in (2, 5)]
    assert theirs.projections == (teacher.projections[2], teacher.projections[5])


def test_groups_of_heads() -> None:
    student, teacher = output(1, 2, 8, 0), output(1, 6, 8, 1)
    _, theirs = Matching((0, 1))(student, teacher)
    expected = torch.stack([teacher.attention_scores[0][:, :3].mean(1), teacher.attention_scores[0][:, 3:].mean(1)], 1)
    torch.testing.assert_close(theirs.attention_scores[0], expected)
    ours, theirs = Matching((0, 1))(teacher, student)
    torch.testing.assert_close(ours.attention_scores[0], expected)
    assert theirs.attention_scores[0] is student.attention_scores[0]
    assert compatible_heads(2, 6)
    assert compatible_heads(6, 2)
    assert not compatible_heads(4, 6)


def test_heads_that_a_narrowed_student_kept() -> None:
    student, teacher = output(2, 2, 8, 0), output(2, 4, 8, 1)
    kept = (torch.tensor([0, 3]), torch.tensor([1, 2]))
    _, theirs = Matching((0, 1, 2), kept)(student, teacher)
    assert torch.equal(theirs.attention_scores[1], teacher.attention_scores[1][:, [1, 2]])
    assert torch.equal(theirs.projections[0][2], teacher.projections[0][2][:, [0, 3]])


@pytest.mark.parametrize(("kind", "count"), [("shared", 1), ("per_state", 3)])
def test_projections(kind: str, count: int) -> None:
    projections = HiddenProjections(kind, 3, 4, 8, seed=3)
    assert len(projections.maps) == count
    hidden = output(2, 2, 4, 0).hidden_states
    wide = projections(hidden)
    for i, (x, y) in enumerate(zip(hidden, wide, strict=True)):
        one = projections.maps[0 if kind == "shared" else i]
        torch.testing.assert_close(y, x @ one.weight.T + one.bias)
    again = HiddenProjections.from_tensors(projections.tensors(), 3)
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), projections.parameters(), strict=True))
    assert HiddenProjections.from_tensors(projections.tensors(), 4) is None or kind == "shared"
    assert HiddenProjections.from_tensors({}, 3) is None
    student, teacher = output(2, 2, 4, 0), output(2, 2, 8, 1)
    ours, _ = Matching((0, 1, 2))(student, teacher, projections)
    assert torch.equal(ours.hidden_states[2], wide[2])
