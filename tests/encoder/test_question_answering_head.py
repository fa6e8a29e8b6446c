"""Models of question answering as Hugging Face checkpoints, and what they learn by. Oracles: transformers'
BertForQuestionAnswering and its loss; the definition of cross-entropy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bitpress.encoder import (
    EncoderConfig,
    load_classifier,
    model_loss,
    position_labels,
    position_logits,
    save_classifier,
    save_encoder,
    task_loss,
)
from bitpress.errors import UnsupportedModelError

SIZES = {
    **{"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 40, "max_position_embeddings": 32},
}


def make(path: Path, kind: Any = transformers.BertForQuestionAnswering, **config: Any) -> Any:
    torch.manual_seed(1)
    model = kind(transformers.BertConfig(**SIZES, **{"initializer_range": 0.2, **config})).eval()
    model.save_pretrained(path)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 60, (3, 11), generator=torch.Generator().manual_seed(2))
    return ids, torch.arange(11) < torch.tensor([11, 4, 1])[:, None]


def test_the_head_and_what_is_saved_of_it(tmp_path: Path) -> None:
    theirs = make(tmp_path / "theirs")
    model = load_classifier(tmp_path / "theirs")
    assert (model.config.head, model.config.num_labels, model.pooler) == ("spans", 2, None)
    assert model.config.classifies_tokens
    assert model.config.answers_questions
    assert model.fresh_tensors == ()
    assert model.classifier_dropout == 0  # as theirs, which has none before its outputs
    save_classifier(model, tmp_path / "ours")
    again, loading = transformers.AutoModelForQuestionAnswering.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    ids, mask = inputs()
    with torch.no_grad():
        expected, saved, found = theirs(ids, mask), again.eval()(ids, mask), model(ids, mask).logits
    assert torch.equal(saved.start_logits[mask], expected.start_logits[mask])
    # fp32 sums of a few dozen terms of size about 1, in another order.
    torch.testing.assert_close(found[..., 0][mask], expected.start_logits[mask], rtol=0, atol=1e-5)
    torch.testing.assert_close(found[..., 1][mask], expected.end_logits[mask], rtol=0, atol=1e-5)


def test_artifacts_say_tokens(tmp_path: Path) -> None:
    make(tmp_path)
    config = load_classifier(tmp_path).config
    assert config.to_hf()["head"] == "spans"
    artifact = config.to_artifact()
    assert (artifact["head"], artifact["architectures"]) == ("tokens", ["BertForQuestionAnswering"])


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
def test_heads_of_other_kinds_start_fresh(kind: str, tmp_path: Path) -> None:
    make(tmp_path / "other", getattr(transformers, f"BertFor{kind}"), num_labels=2)
    model = load_classifier(tmp_path / "other", id2label=["start", "end"], head="spans", seed=3)
    assert model.fresh_tensors == ("classifier.weight", "classifier.bias")
    save_classifier(model, tmp_path / "spans")
    assert "head" in json.loads((tmp_path / "spans" / "config.json").read_text())
    assert load_classifier(tmp_path / "spans").fresh_tensors == ()
    tokens = load_classifier(tmp_path / "spans", num_labels=2, head="tokens")
    assert tokens.fresh_tensors == ("classifier.weight", "classifier.bias")
    texts = load_classifier(tmp_path / "spans", num_labels=2, head="texts")
    assert {name.split(".")[0] for name in texts.fresh_tensors} == {"pooler", "classifier"}
    same = load_classifier(tmp_path / "spans", id2label=["a", "b"], head="spans")
    assert torch.equal(same.classifier.weight, model.classifier.weight)


def test_an_encoder_alone_forgets_its_head(tmp_path: Path) -> None:
    make(tmp_path / "spans")
    save_encoder(load_classifier(tmp_path / "spans"), tmp_path / "encoder")
    assert load_classifier(tmp_path / "encoder").config.head == "linear"


def test_other_numbers_of_outputs_are_refused(tmp_path: Path) -> None:
    make(tmp_path)
    config = load_classifier(tmp_path).config.to_hf() | {"id2label": {"0": "a", "1": "b", "2": "c"}}
    with pytest.raises(
        UnsupportedModelError, match="3 labels with a head of question answering, which has two outputs, "
    ):
        EncoderConfig.from_hf(config)


def test_the_loss_is_transformers_own(tmp_path: Path) -> None:
    theirs = make(tmp_path)
    model = load_classifier(tmp_path)
    ids, _ = inputs()
    labels = torch.tensor([[3, 5], [0, 0], [10, 10]])
    with torch.no_grad():
        expected = theirs(ids, start_positions=labels[:, 0], end_positions=labels[:, 1]).loss
        found = model_loss(model.config, model(ids).logits, labels, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_padding_is_no_part_of_the_loss(tmp_path: Path) -> None:
    make(tmp_path)
    config = load_classifier(tmp_path).config
    logits = torch.randn(3, 11, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    _, mask = inputs()
    labels = torch.tensor([[3, 5], [1, 3], [0, 0]])
    terms = []
    for row, length in enumerate((11, 4, 1)):
        for output in (0, 1):
            terms.append(-logits[row, :length, output].log_softmax(0)[labels[row, output]])
    found = model_loss(config, logits, labels, mask)
    torch.testing.assert_close(found, torch.stack(terms).mean())
    summed = model_loss(config, logits, labels, mask, reduction="sum")
    torch.testing.assert_close(summed, torch.stack(terms).sum() / 2)
    found.backward()
    assert logits.grad is not None
    assert bool((logits.grad[~mask] == 0).all())
    assert bool((logits.grad[mask][:11] != 0).any())


def test_positions_are_choices() -> None:
    logits = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    rows = position_logits(logits, mask)
    assert rows.shape == (4, 3)
    assert rows[:, 0].tolist() == [0, 6, 1, 7]
    assert rows.softmax(-1)[1].tolist() == [1, 0, 0]
    assert bool((rows.softmax(-1) * rows.log_softmax(-1)).isfinite().all())
    assert position_labels(torch.tensor([[1, 2], [0, 0]])).tolist() == [1, 0, 2, 0]


def test_other_heads_learn_as_before(tmp_path: Path) -> None:
    make(tmp_path, transformers.BertForTokenClassification, num_labels=3)
    config = load_classifier(tmp_path).config
    logits = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, -100, 2], [0, -100, -100]])
    found = model_loss(config, logits, labels, torch.ones(2, 3, dtype=torch.bool))
    assert torch.equal(found, task_loss(logits, labels, False))
