"""Classifiers of tokens of every family. Oracles: transformers for checkpoints, the replayed student for the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from family_models import CASES, POSITIONS, batch, make_checkpoint, transformers_logits
from test_family_artifacts import POLICIES, pairs

from bitpress.artifact import TaskSpec, read_artifact, verify
from bitpress.encoder import load_classifier, save_classifier
from bitpress.freeze import freeze
from bitpress.quantize import apply_policy
from bitpress.recipes.replay import replay_logits
from bitpress.runtime.engine import Engine
from bitpress.train import EncodedDataset

KIND = "TokenClassification"
LENGTHS = [1, POSITIONS, 7, 2]


@pytest.mark.parametrize("case", CASES)
def test_logits_there_and_back(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model", kind=KIND, num_labels=5)
    model = load_classifier(tmp_path / "model")
    assert model.config.head == "tokens"
    assert model.fresh_tensors == ()
    ids, mask, types = batch(4, 9, padded=True, pad_id=model.config.pad_token_id or 0)
    expected = transformers_logits(theirs, ids, mask, types)
    with torch.no_grad():
        found = model(ids, mask, types).logits
    assert found.shape == (4, 9, 5)
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-5)
    save_classifier(model, tmp_path / "out")
    again = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    assert type(again).__name__ == f"{CASES[case][0]}For{KIND}"
    torch.testing.assert_close(transformers_logits(again, ids, mask, types)[real], expected[real], rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_head_of_the_other_kind_starts_fresh(case: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "texts", num_labels=3)
    tokens = load_classifier(tmp_path / "texts", num_labels=3, head="tokens")
    assert tokens.fresh_tensors == ("classifier.weight", "classifier.bias")
    make_checkpoint(case, tmp_path / "tokens", kind=KIND, num_labels=3)
    texts = load_classifier(tmp_path / "tokens", num_labels=3, head="texts")
    assert set(texts.fresh_tensors) == {
        f"{part}.{leaf}" for part in ("pooler.dense", "classifier") for leaf in ("weight", "bias")
    }
    assert texts.config.head == texts.config.family.default_head


@pytest.mark.parametrize("scheme", POLICIES)
@pytest.mark.parametrize("case", CASES)
def test_engine_and_student_agree_bit_for_bit(case: str, scheme: str, tmp_path: Path) -> None:
    make_checkpoint(case, tmp_path / "model", kind=KIND, id2label={0: "O", 1: "B-x", 2: "I-x"})
    model = load_classifier(tmp_path / "model")
    apply_policy(model, POLICIES[scheme])
    ids, types = pairs(LENGTHS)
    dataset = EncodedDataset.from_sequences(ids, types, np.zeros(len(ids), np.int64), pad_id=0)
    expected = replay_logits(model, dataset, np.arange(len(ids)))
    freeze(
        model,
        POLICIES[scheme],
        tmp_path / "artifact",
        recipe="test",
        packing="2bit",
        task=TaskSpec("token_classification", "f1", False),
        max_length=POSITIONS,
        tokenizer_files={"tokenizer.json": b"{}"},
        card="",
        provenance={},
    )
    assert verify(tmp_path / "artifact")["ok"]
    with Engine.from_artifact(read_artifact(tmp_path / "artifact")) as engine:
        found = engine.forward(ids, types)
    assert found.shape == (sum(LENGTHS), 3)
    assert np.array_equal(found, expected)
