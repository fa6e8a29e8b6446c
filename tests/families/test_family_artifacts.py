"""Artifacts of every family in the engine. Oracles: transformers for fp32, and the student replayed in the engine's
arithmetic, bit for bit, for codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from family_models import CASES, POSITIONS, batch, make_checkpoint, transformers_logits

from bitpress.artifact import TaskSpec, read_artifact, verify
from bitpress.encoder import SequenceClassifier, load_classifier
from bitpress.freeze import check_freezable, freeze
from bitpress.quantize import ActivationPolicy, EmbeddingPolicy, Policy, WeightPolicy, apply_policy
from bitpress.recipes.replay import replay_logits, replayable
from bitpress.runtime.engine import Engine
from bitpress.train import EncodedDataset

POLICIES = {
    "int8": Policy(
        WeightPolicy("uniform", bits=8, group="row"), EmbeddingPolicy("uniform", bits=8), ActivationPolicy()
    ),
    "ternary": Policy(WeightPolicy("ternary"), EmbeddingPolicy("ternary"), ActivationPolicy()),
    "binary": Policy(WeightPolicy("binary", group="row"), EmbeddingPolicy("binary"), ActivationPolicy("binary")),
}
FP32 = Policy(WeightPolicy("fp32"), EmbeddingPolicy("fp32"), ActivationPolicy("fp32"))
LENGTHS = [1, POSITIONS, 7, 13, 2, 7]


def frozen(model: SequenceClassifier, policy: Policy, out: Path, side_data: str = "fp32") -> Engine:
    check_freezable(model, policy)
    freeze(
        model,
        policy,
        out,
        recipe="test",
        packing="2bit",
        side_data=side_data,
        task=TaskSpec("classification", "accuracy", True),
        max_length=POSITIONS,
        tokenizer_files={"tokenizer.json": b"{}"},
        card="",
        provenance={},
    )
    assert verify(out)["ok"]
    return Engine.from_artifact(read_artifact(out))


def pairs(lengths: list[int]) -> tuple[list[list[int]], list[list[int]]]:
    """Ids, and types of which the second half is 1, whether the family has such or not."""
    made = [batch(1, length) for length in lengths]
    return [ids[0].tolist() for ids, _, _ in made], [types[0].tolist() for _, _, types in made]


@pytest.mark.parametrize("case", CASES)
def test_fp32_artifact(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model", num_labels=3)
    model = load_classifier(tmp_path / "model")
    apply_policy(model, FP32)
    engine = frozen(model, FP32, tmp_path / "artifact")
    ids, types = pairs(LENGTHS)
    tensors = [[torch.tensor([row]) for row in rows] for rows in (ids, types)]
    expected = torch.cat([transformers_logits(theirs, i, torch.ones_like(i), t) for i, t in zip(*tensors, strict=True)])
    np.testing.assert_allclose(engine.forward(ids, types), expected.numpy(), rtol=0, atol=1e-5)
    assert read_artifact(tmp_path / "artifact").config.max_position_embeddings == POSITIONS


@pytest.mark.parametrize("scheme", POLICIES)
@pytest.mark.parametrize("case", CASES)
def test_engine_and_student_agree_bit_for_bit(case: str, scheme: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model", num_labels=3)
    model = load_classifier(tmp_path / "model")
    apply_policy(model, POLICIES[scheme])
    assert replayable(model)
    ids, types = pairs(LENGTHS)
    dataset = EncodedDataset.from_sequences(ids, types, np.zeros(len(ids), np.int64), pad_id=0)
    expected = replay_logits(model, dataset, np.arange(len(ids)))
    found = frozen(model, POLICIES[scheme], tmp_path / "artifact").forward(ids, types)
    assert np.array_equal(found, expected)
    assert np.ptp(found, axis=0).max() > 0.1  # texts are told apart
