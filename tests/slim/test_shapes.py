"""Students of other shapes. Oracles: the published parameter counts, and the teacher's own tensors."""

from __future__ import annotations

import pytest
import torch
from small_encoder import SMALL

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.slim import StudentShape, fresh_student, from_layers

BERT_BASE = EncoderConfig()


@pytest.mark.parametrize(
    ("shape", "parameters", "intermediate"),
    [("4x312", 14_350_248, 1200), ("6x768", 66_955_008, 3072), ("12x768", 109_482_240, 3072)],
)
def test_published_sizes(shape: str, parameters: int, intermediate: int) -> None:
    """spec/tinybert.md §1: encoder and pooler, without the classifier."""
    config = StudentShape.parse(shape).config(BERT_BASE)
    assert (config.num_attention_heads, config.intermediate_size) == (12, intermediate)
    with torch.device("meta"):
        student = SequenceClassifier(config)
    counted = sum(p.numel() for name, p in student.named_parameters() if not name.startswith("classifier."))
    assert counted == parameters


def teacher() -> SequenceClassifier:
    config = SMALL | {"num_hidden_layers": 4, "id2label": {"0": "no", "1": "yes", "2": "perhaps"}}
    return SequenceClassifier(EncoderConfig.from_hf(config), seed=5).eval()


def test_a_fresh_student_keeps_what_is_not_its_shape() -> None:
    one, same, other = (fresh_student(teacher(), StudentShape(2, 16), seed) for seed in (1, 1, 2))
    assert one.config.id2label == teacher().config.id2label
    assert (one.config.vocab_size, one.config.intermediate_size, one.config.head_size) == (40, 64, 4)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not torch.equal(one.layers[0].ffn.output.weight, other.layers[0].ffn.output.weight)


@pytest.mark.parametrize(
    ("layers", "total", "chosen"),
    [(6, 12, [1, 3, 5, 8, 10, 12]), (4, 12, [1, 5, 8, 12]), (1, 4, [4]), (2, 4, [1, 4]), (4, 4, [1, 2, 3, 4])],
)
def test_layers_at_equal_distances(layers: int, total: int, chosen: list[int]) -> None:
    """6 of 12 are DistilBERT's 0, 2, 4, 7, 9, 11 (spec/tinybert.md §10)."""
    from bitpress.slim.shapes import _spread

    assert _spread(layers, total) == chosen


def test_a_student_of_the_teachers_layers() -> None:
    source = teacher()
    student = from_layers(source, [2, 3])
    assert student.config.num_hidden_layers == 2
    expected = source.state_dict()
    for name, tensor in student.state_dict().items():
        name = name.replace("layers.1.", "layers.2.") if "layers.1." in name else name.replace("layers.0.", "layers.1.")
        assert torch.equal(tensor, expected[name])
    with torch.no_grad():
        student.layers[0].ffn.output.weight.zero_()
    assert bool(source.layers[1].ffn.output.weight.any()), "the student has copies"
    ids = torch.arange(2, 11)[None]
    assert torch.equal(from_layers(source, 4)(ids).logits, source(ids).logits)


@pytest.mark.parametrize("layers", [0, 5, [], [3, 2], [1, 1], [0, 1], [4, 5]])
def test_layers_that_there_are_not(layers: int | list[int]) -> None:
    with pytest.raises(RecipeError, match=r"student.layers is .*; allowed: a number up to the teacher's 4"):
        from_layers(teacher(), layers)


@pytest.mark.parametrize("text", ["4", "4x", "x312", "4X312", "0x312", "4x0", "4x312x2", "-4x312", "four"])
def test_what_is_no_shape(text: str) -> None:
    with pytest.raises(RecipeError, match="is no shape of a student; expected LAYERSxHIDDEN"):
        StudentShape.parse(text)


def test_a_hidden_size_that_the_heads_do_not_divide() -> None:
    with pytest.raises(RecipeError, match=r"take a multiple of 12, for example 4x300"):
        StudentShape(4, 302).config(BERT_BASE)
