"""Encoders of sentences of every family, read and written. Oracles: transformers with pooling by hand, and the
sentence-transformers library; vectors within the 1e-5 that the project promises for fp32. The engine:
test_family_matrix.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from family_models import CASES, batch, make_checkpoint, pooled
from safetensors.torch import load_file, save_file

from bitpress.encoder import load_classifier, load_config, save_classifier
from bitpress.errors import UnsupportedModelError
from bitpress.families import POOLINGS
from bitpress.sentence_model import SentenceModel, read_sentence_model

TOLERANCE = 1e-5
MODULES = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]


def sentence_directory(path: Path, pooling: dict[str, Any], modules: list[tuple[str, str]] = MODULES) -> Path:
    """The files of sentence-transformers beside a checkpoint in ``path``."""
    listed = [
        {"idx": i, "type": f"sentence_transformers.models.{kind}", "path": p} for i, (kind, p) in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return path


def bare_checkpoint(case: str, path: Path) -> Any:
    """A random checkpoint of an encoder without head; the transformers model."""
    theirs = make_checkpoint(case, path).base_model
    theirs.save_pretrained(path)
    return theirs


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("case", CASES)
def test_vectors(case: str, pooling: str, tmp_path: Path) -> None:
    theirs = bare_checkpoint(case, tmp_path / "m")
    model = load_classifier(tmp_path / "m", head=pooling)
    assert model.fresh_tensors == ()
    assert model.config.normalizes
    pad = model.config.pad_token_id or 0
    ids, mask, _ = batch(4, 9, padded=True, pad_id=pad)
    with torch.no_grad():
        hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(model(ids, mask).logits, pooled(hidden, mask, pooling), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_what_is_saved_is_loaded_again_and_by_transformers(case: str, tmp_path: Path) -> None:
    bare_checkpoint(case, tmp_path / "m")
    model = load_classifier(tmp_path / "m", head="mean")
    save_classifier(model, tmp_path / "out", max_length=17)
    save_classifier(model, tmp_path / "out", max_length=17)  # into a directory that is there
    assert read_sentence_model(tmp_path / "out") == SentenceModel("mean", True, 17)
    again = load_classifier(tmp_path / "out")
    assert again.config == model.config
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    ids, mask, _ = batch(4, 9, padded=True, pad_id=model.config.pad_token_id or 0)
    with torch.no_grad():
        expected = model(ids, mask).logits
        assert torch.equal(again(ids, mask).logits, expected)
        hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(pooled(hidden, mask, "mean"), expected, rtol=0, atol=TOLERANCE)
    before, after = load_file(tmp_path / "m" / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == {name for name in before if not name.startswith("pooler.")}


@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_sentence_transformers_agrees(pooling: str, normalizes: bool, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(56))]
    make_checkpoint("bert", tmp_path / "m")
    (tmp_path / "m" / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab=str(tmp_path / "m" / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path / "m")
    modules = library.sentence_transformer.modules
    transformer = modules.Transformer(str(tmp_path / "m"), max_seq_length=12)
    parts = [transformer, modules.Pooling(24, pooling), *([modules.Normalize()] if normalizes else [])]
    library.SentenceTransformer(modules=parts).save_pretrained(str(tmp_path / "st"))
    model = load_classifier(tmp_path / "st")
    found = read_sentence_model(tmp_path / "st")
    assert found is not None
    assert (found.pooling, found.normalizes) == (pooling, normalizes)
    assert (model.config.head, model.config.normalizes) == (pooling, normalizes)
    save_classifier(model, tmp_path / "ours", tokenizer_from=tmp_path / "st", max_length=12)
    texts = ["w1 w2 w3", "w5", " ".join(f"w{i}" for i in range(30))]
    vectors = [library.SentenceTransformer(str(tmp_path / name)).encode(texts) for name in ("st", "ours")]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=TOLERANCE)
    encoded = [[2, *(5 + int(word[1:]) for word in text.split()[:10]), 3] for text in texts]
    with torch.no_grad():
        ours = [model(torch.tensor([row])).logits[0] for row in encoded]
    ours = [torch.nn.functional.normalize(row, dim=0) if normalizes else row for row in ours]
    np.testing.assert_allclose(torch.stack(ours).numpy(), vectors[0], rtol=0, atol=TOLERANCE)


def test_flags_of_older_files_and_the_key_of_newer_ones(tmp_path: Path) -> None:
    make_checkpoint("bert", tmp_path)
    assert load_config(tmp_path).head == "linear"
    raw = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"architectures": ["BertModel"]}))
    for settings, expected in (
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"word_embedding_dimension": 24}, "mean"),
    ):
        assert load_config(sentence_directory(tmp_path, settings)).head == expected
    assert not load_config(sentence_directory(tmp_path, {}, MODULES[:2])).normalizes
    # A head that config.json names is the model's.
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert load_config(tmp_path).head == "linear"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode": "weightedmean"},
            "the pooling is weightedmean; bitpress runs",
        ),
        (
            "1_Pooling/config.json",
            {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
            "the pooling is cls and mean; bitpress runs one of mean, cls, max",
        ),
        (
            "modules.json",
            [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Dense")],
            "the modules are Transformer, Pooling, Dense; bitpress runs Transformer, Pooling and, maybe, Normalize",
        ),
        (
            "modules.json",
            [{"type": "a.Transformer", "path": "0_Transformer"}, {"type": "a.Pooling", "path": "1_Pooling"}],
            "the transformer stands in '0_Transformer'",
        ),
        ("modules.json", {}, "holds a dict; expected a list"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case is true, but the tokenizer tells"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length is 'long'"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "default_prompt_name is 'query'"),
    ],
)
def test_refused_by_name(file: str, content: Any, message: str, tmp_path: Path) -> None:
    bare_checkpoint("bert", tmp_path)
    sentence_directory(tmp_path, {"pooling_mode": "mean"})
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UnsupportedModelError, match=f"{file}: .*{message}"):
        load_config(tmp_path)


def test_a_missing_file_and_a_tensor_without_a_place(tmp_path: Path) -> None:
    bare_checkpoint("bert", tmp_path)
    sentence_directory(tmp_path, {})
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {"encoder.layer.9.output.dense.bias": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"'encoder.layer.9.output.dense.bias' has no place"):
        load_classifier(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").unlink()
    with pytest.raises(UnsupportedModelError, match=r"config.json: no such file, though modules.json needs it"):
        load_config(tmp_path)
