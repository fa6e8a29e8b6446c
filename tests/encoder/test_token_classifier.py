"""Classifiers of tokens as Hugging Face checkpoints. Oracle: transformers' BertForTokenClassification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bitpress.encoder import EncoderConfig, head_parameters, load_classifier, save_classifier, save_encoder, task_loss
from bitpress.errors import UnsupportedModelError

SIZES = {
    **{"vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3},
    **{"intermediate_size": 40, "max_position_embeddings": 32},
}
# fp32 sums of a few dozen terms of size about 1, in another order.
TOLERANCE = 1e-5


def make(path: Path, kind: Any = transformers.BertForTokenClassification, **config: Any) -> Any:
    torch.manual_seed(1)
    model = kind(transformers.BertConfig(**SIZES, **{"initializer_range": 0.2, **config})).eval()
    model.save_pretrained(path)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 60, (3, 11), generator=torch.Generator().manual_seed(2))
    lengths = torch.tensor([11, 4, 1])
    return ids, (torch.arange(11) < lengths[:, None]).long()


def test_logits_of_every_token(tmp_path: Path) -> None:
    theirs = make(tmp_path, id2label={0: "O", 1: "B-a", 2: "I-a"}, label2id={"O": 0, "B-a": 1, "I-a": 2})
    ids, mask = inputs()
    model = load_classifier(tmp_path)
    assert model.config.head == "tokens"
    assert model.config.classifies_tokens
    assert not model.config.is_regression
    assert model.pooler is None
    assert model.fresh_tensors == ()
    assert model.config.id2label == {0: "O", 1: "B-a", 2: "I-a"}
    with torch.no_grad():
        found, expected = model(ids, mask).logits, theirs(ids, mask).logits
    assert found.shape == (3, 11, 3)
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=0, atol=TOLERANCE)


def test_what_is_saved_is_a_token_classifier_there_too(tmp_path: Path) -> None:
    make(tmp_path / "theirs", num_labels=5)
    model = load_classifier(tmp_path / "theirs")
    save_classifier(model, tmp_path / "ours")
    again, loading = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    ids, mask = inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            again.eval()(ids, mask).logits[mask.bool()], model(ids, mask).logits[mask.bool()], rtol=0, atol=TOLERANCE
        )
        assert torch.equal(load_classifier(tmp_path / "ours")(ids, mask).logits, model(ids, mask).logits)


@pytest.mark.parametrize("num_labels", [2, 1])
def test_from_texts_to_tokens_and_back_the_head_starts_fresh(num_labels: int, tmp_path: Path) -> None:
    make(tmp_path / "texts", transformers.BertForSequenceClassification, num_labels=num_labels)
    model = load_classifier(tmp_path / "texts", id2label=["O", "B-a"], head="tokens", seed=4)
    assert model.fresh_tensors == ("classifier.weight", "classifier.bias")
    assert model.config.problem_type is None
    assert load_classifier(tmp_path / "texts").config.head == "linear"
    save_classifier(model, tmp_path / "tokens")
    back = load_classifier(tmp_path / "tokens", num_labels=1, problem_type="regression", head="texts")
    assert {name.split(".")[0] for name in back.fresh_tensors} == {"pooler", "classifier"}
    assert (back.config.head, back.config.is_regression) == ("linear", True)
    assert torch.equal(back.layers[1].ffn.output.weight, model.layers[1].ffn.output.weight)


def test_a_pooler_is_not_needed_and_not_read(tmp_path: Path) -> None:
    make(tmp_path / "encoder", transformers.BertModel)
    model = load_classifier(tmp_path / "encoder", num_labels=3, head="tokens")
    assert model.fresh_tensors == ("classifier.weight", "classifier.bias")
    assert [tuple(p.shape) for p in head_parameters(model)] == [(3, 24), (3,)]


def test_an_encoder_alone_forgets_its_head(tmp_path: Path) -> None:
    make(tmp_path / "tokens", num_labels=3)
    save_encoder(load_classifier(tmp_path / "tokens"), tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert "head" not in config
    assert config["architectures"] == ["BertModel"]
    assert load_classifier(tmp_path / "encoder").config.head == "linear"


def test_what_a_token_classifier_cannot_be(tmp_path: Path) -> None:
    make(tmp_path, num_labels=3)
    model = load_classifier(tmp_path)
    with pytest.raises(
        UnsupportedModelError,
        match="the head 'tokens' cannot become 'relu'; allowed: linear, relu, dense_relu, dense_gelu in a",
    ):
        model.set_head("relu")
    config = model.config.to_hf() | {"id2label": {"0": "O"}, "label2id": {"O": 0}}
    with pytest.raises(UnsupportedModelError, match=r"None with 1 label\(s\); regression has exactly one"):
        EncoderConfig.from_hf(config)


def test_unlabelled_tokens_are_no_part_of_the_loss() -> None:
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[1, -100, 3], [-100, -100, 0]])
    picked = logits.log_softmax(-1)[[0, 0, 1], [0, 2, 2], [1, 3, 0]]
    torch.testing.assert_close(task_loss(logits, labels, False), -picked.mean())
    torch.testing.assert_close(task_loss(logits, labels, False, reduction="sum"), -picked.sum())
