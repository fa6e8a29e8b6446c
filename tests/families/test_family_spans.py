"""Checkpoints of models of question answering of every family. Oracle: transformers. Engine: test_family_matrix.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from family_models import CASES, batch, make_checkpoint, span_logits
from safetensors.torch import load_file

from bitpress.encoder import load_classifier, save_classifier

KIND = "QuestionAnswering"


@pytest.mark.parametrize("case", CASES)
def test_logits_there_and_back(case: str, tmp_path: Path) -> None:
    theirs = make_checkpoint(case, tmp_path / "model", kind=KIND)
    model = load_classifier(tmp_path / "model")
    assert model.config.head == "spans"
    assert model.fresh_tensors == ()
    ids, mask, types = batch(4, 9, padded=True, pad_id=model.config.pad_token_id or 0)
    expected = span_logits(theirs, ids, mask, types)
    with torch.no_grad():
        found = model(ids, mask, types).logits
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real], rtol=0, atol=1e-5)
    save_classifier(model, tmp_path / "out")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == theirs.state_dict().keys() - {
        name for name in theirs.state_dict() if name.endswith(("position_ids", "token_type_ids"))
    }
    again = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out").eval()
    assert type(again).__name__ == f"{CASES[case][0]}For{KIND}"
    torch.testing.assert_close(span_logits(again, ids, mask, types)[real], expected[real], rtol=0, atol=0)


@pytest.mark.parametrize("case", CASES)
def test_a_head_of_another_kind_starts_fresh(case: str, tmp_path: Path) -> None:
    for kind in ("SequenceClassification", "TokenClassification"):
        make_checkpoint(case, tmp_path / kind, kind=kind, num_labels=2)
        spans = load_classifier(tmp_path / kind, num_labels=2, head="spans")
        assert spans.fresh_tensors == ("classifier.weight", "classifier.bias")
