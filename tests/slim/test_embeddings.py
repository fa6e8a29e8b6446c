"""Embeddings taken from a wider teacher. Oracle: least squares from the student's states to the teacher's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_encoder import SMALL
from torch import Tensor

from bitpress.encoder import EncoderConfig, SequenceClassifier
from bitpress.errors import RecipeError
from bitpress.slim import EmbeddingsFrom, StudentShape, fresh_student, take_embeddings

CONFIG = EncoderConfig.from_hf(SMALL | {"vocab_size": 90})


KINDS: tuple[EmbeddingsFrom, ...] = ("teacher", "random")


def teacher(rank: int | None = None) -> SequenceClassifier:
    """Its LayerNorm weighs dimensions unlike; ``rank``: so many directions hold all of its tables."""
    model = SequenceClassifier(CONFIG, seed=5).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        model.embeddings.norm.weight.copy_(torch.rand(24, generator=generator) + 0.5)
        model.embeddings.norm.bias.copy_(torch.randn(24, generator=generator))
        if rank is not None:
            basis = torch.randn(rank, 24, generator=generator)
            for table in (model.embeddings.word, model.embeddings.position, model.embeddings.token_type):
                table.weight.copy_(torch.randn(len(table.weight), rank, generator=generator) @ basis)
    return model


def unexplained(student: SequenceClassifier, source: SequenceClassifier) -> float:
    """The share of the teacher's embedding states that no affine map of the student's gives back."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(90, (64, 16), generator=generator)
    types = torch.randint(2, (64, 16), generator=generator)

    def states(model: SequenceClassifier) -> Tensor:
        return model.embeddings(ids, types).detach().flatten(0, 1).double()

    x, y = states(student), states(source)
    x = torch.cat([x, torch.ones(len(x), 1)], dim=1)
    residual = y - x @ torch.linalg.lstsq(x, y).solution
    return float(residual.square().sum() / (y - y.mean(dim=0)).square().sum())


def test_an_affine_map_gives_back_what_the_directions_hold() -> None:
    """8 of 24 dimensions, and tables that fill 7 of them (LayerNorm's mean costs one more)."""
    source = teacher(rank=7)
    student = fresh_student(source, StudentShape(1, 8), seed=1, embeddings="teacher")
    assert unexplained(student, source) < 0.02  # what the two LayerNorms' divisors differ in
    assert unexplained(fresh_student(source, StudentShape(1, 8), seed=1), source) > 0.5


def test_at_full_width_nothing_is_lost() -> None:
    """Sums before the student's LayerNorm have the inner products of the teacher's after its own, but for bias and
    divisor."""
    source = teacher()
    student = fresh_student(source, StudentShape(1, 24), seed=1, embeddings="teacher")
    ids, positions, types = torch.arange(48) + 7, torch.arange(48) % 16, torch.arange(48) % 2

    def sums(model: SequenceClassifier) -> Tensor:
        tables = model.embeddings
        return (tables.word.weight[ids] + tables.position.weight[positions] + tables.token_type.weight[types]).detach()

    theirs = sums(source)
    norm = source.embeddings.norm
    divisor = (theirs.var(dim=1, correction=0, keepdim=True) + norm.eps).sqrt()
    expected = ((norm(theirs) - norm.bias) * divisor).detach()
    found = sums(student)
    torch.testing.assert_close(found @ found.T, expected @ expected.T, rtol=1e-4, atol=1e-4)


def test_principal_directions_are_better_than_others() -> None:
    source = teacher()
    student = fresh_student(source, StudentShape(1, 12), seed=1, embeddings="teacher")
    found = unexplained(student, source)
    assert found < 0.5
    with torch.no_grad():  # the same tables' first twelve dimensions
        for ours, theirs in (
            (student.embeddings.word, source.embeddings.word),
            (student.embeddings.position, source.embeddings.position),
            (student.embeddings.token_type, source.embeddings.token_type),
        ):
            ours.weight.copy_(theirs.weight[:, :12])
    assert found < 0.9 * unexplained(student, source)


def test_only_the_tables_are_taken() -> None:
    source = teacher()
    taken, fresh = (fresh_student(source, StudentShape(2, 16), 3, kind) for kind in KINDS)
    names = {name for name, tensor in taken.state_dict().items() if not torch.equal(tensor, fresh.state_dict()[name])}
    assert names == {f"embeddings.{table}.weight" for table in ("word", "position", "token_type")}


def test_what_has_no_such_directions() -> None:
    with pytest.raises(RecipeError, match="at most as wide as its teacher; 28 > 24"):
        fresh_student(teacher(), StudentShape(1, 28), embeddings="teacher")
    electra = SequenceClassifier(replace(CONFIG, embedding_size=12))
    with pytest.raises(RecipeError, match="as wide as their hidden states"):
        take_embeddings(electra, teacher())
