"""Classifiers of tokens of every family. Oracles: transformers for checkpoints; the engine: test_family_matrix.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from family_models import CASES, batch, make_checkpoint, transformers_logits

from bitpress.encoder import load_classifier, save_classifier

KIND = "TokenClassification"


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
