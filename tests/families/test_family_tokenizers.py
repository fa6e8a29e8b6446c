"""Tokenizers of every family. Oracle: transformers' AutoTokenizer on the same directory, ids compared exactly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from family_models import make_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from bitpress.encoder import load_classifier, save_classifier
from bitpress.errors import UnsupportedModelError
from bitpress.runtime.tokenization import Tokenizer

LINES = ["the lovely film was a delight", "naïve café, Ünïcode ﬁne ½ — it’s", "Das ist sehr schön; 这部电影很好"] * 3
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDPIECE = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = [
    "the lovely film",
    "",
    "  the\tfilm \n",
    "The FILM! Ünïcode",
    "naïve cafe\u0301 ﬁlm 这部电影",
    "<s> the </s> film <mask> <pad> <unk> [SEP] [MASK]",
    "👩‍👩‍👧 \u200b \x00 ½\ufffd",
    "the film " * 20,
]


def byte_bpe() -> Backend:
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


def unigram(normalizer: Any) -> Backend:
    backend = Backend(models.Unigram())
    backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(LINES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


def write(folder: Path, kind: str) -> Path:
    """A model directory (without weights) with a tokenizer of that kind."""
    folder.mkdir()
    family, files, config = KINDS[kind]
    (folder / "config.json").write_text(json.dumps({"model_type": family}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if files == "merges":
        byte_bpe().model.save(str(folder))
    elif files == "bpe":
        byte_bpe().save(str(folder / "tokenizer.json"))
    elif files == "vocabulary":
        letters = sorted({c for line in LINES for word in line.split() for c in word + word.lower()} | set("中文"))
        tokens = [*WORDPIECE, "the", "film", "Film", "love", "##ly", *letters, *(f"##{c}" for c in letters)]
        (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(tokens)) + "\n", encoding="utf-8")
    else:
        unigram(normalizers.NFKC() if files == "normalized" else None).save(str(folder / "tokenizer.json"))
    return folder


# By what it is: the family, its files, tokenizer_config.json.
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "roberta, vocab.json": ("roberta", "merges", {"tokenizer_class": "RobertaTokenizer"}),
    "roberta, no class": ("roberta", "merges", {}),
    "roberta, prefixed": ("roberta", "merges", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True}),
    "roberta, tokenizer.json": ("roberta", "bpe", {"tokenizer_class": "RobertaTokenizer"}),
    "roberta, json prefixed": ("roberta", "bpe", {"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": True}),
    "xlm-roberta": ("xlm-roberta", "unigram", {"tokenizer_class": "XLMRobertaTokenizer"}),
    "camembert": ("camembert", "unigram", {"tokenizer_class": "PreTrainedTokenizerFast", "mask_token": "<mask>"}),
    "minilm, multilingual": ("bert", "normalized", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "distilbert": ("distilbert", "vocabulary", {"tokenizer_class": "DistilBertTokenizer"}),
    "electra": ("electra", "vocabulary", {"tokenizer_class": "ElectraTokenizer"}),
    "bert, cased": ("bert", "vocabulary", {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
    "bert, chinese": ("bert", "vocabulary", {"tokenizer_class": "BertTokenizer", "tokenize_chinese_chars": True}),
}


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, Any]:
    folder = write(tmp_path_factory.mktemp("tokenizers") / "model", request.param)
    return Tokenizer.from_directory(folder), AutoTokenizer.from_pretrained(folder)


def assert_equal(ours: Tokenizer, theirs: Any, texts: list[str], pairs: list[str] | None, max_length: int) -> None:
    expected = theirs(texts, pairs, truncation="longest_first", max_length=max_length)
    found = ours.encode(texts, pairs, max_length)
    assert [encoding.ids for encoding in found] == expected["input_ids"]
    if "token_type_ids" in expected:
        assert [encoding.type_ids for encoding in found] == expected["token_type_ids"]


@pytest.mark.parametrize("max_length", [8, 100])
def test_texts_and_pairs(both: tuple[Tokenizer, Any], max_length: int) -> None:
    assert_equal(*both, TEXTS, None, max_length)
    assert_equal(*both, TEXTS, TEXTS[::-1], max_length)


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=40), pair=st.none() | st.text(max_size=40), max_length=st.integers(5, 40))
def test_any_text(both: tuple[Tokenizer, Any], text: str, pair: str | None, max_length: int) -> None:
    assert_equal(*both, [text], None if pair is None else [pair], max_length)


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifacts_tokenizer_is_the_same(kind: str, tmp_path: Path) -> None:
    ours = Tokenizer.from_directory(write(tmp_path / "model", kind))
    (tmp_path / "artifact").mkdir()
    for name, content in Tokenizer.files(tmp_path / "model").items():
        (tmp_path / "artifact" / name).write_bytes(content)
    assert Tokenizer.from_directory(tmp_path / "artifact").encode(TEXTS, TEXTS, 50) == ours.encode(TEXTS, TEXTS, 50)


def test_saving_copies_the_files(tmp_path: Path) -> None:
    make_checkpoint("roberta", tmp_path / "model")
    source = write(tmp_path / "tokenizer", "roberta, vocab.json")
    save_classifier(load_classifier(tmp_path / "model"), tmp_path / "out", tokenizer_from=source)
    assert {"vocab.json", "merges.txt", "tokenizer_config.json"} <= {file.name for file in (tmp_path / "out").iterdir()}
    expected = Tokenizer.from_directory(source).encode(TEXTS)
    assert Tokenizer.from_directory(tmp_path / "out").encode(TEXTS) == expected


def refusal(folder: Path) -> str:
    with pytest.raises(UnsupportedModelError) as caught:
        Tokenizer.from_directory(folder)
    return str(caught.value)


def test_a_sentencepiece_model_alone(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"\n")
    text = refusal(tmp_path)
    assert "found sentencepiece.bpe.model, a SentencePiece model, without tokenizer.json" in text
    assert "save it there with save_pretrained" in text


def test_merges_of_other_tokenizers(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "roberta, vocab.json")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    assert "vocab.json and merges.txt of a CLIPTokenizer; allowed: RobertaTokenizer" in refusal(folder)


def test_merges_without_a_vocabulary_or_its_special_tokens(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "roberta, no class")
    shutil.copy(folder / "vocab.json", tmp_path / "vocab.json")
    vocabulary = json.loads((folder / "vocab.json").read_text())
    vocabulary["<begin>"] = vocabulary.pop("<s>")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    assert "vocab.json: lacks the cls token '<s>'" in refusal(folder)
    (folder / "vocab.json").unlink()
    assert "no tokenizer found; expected tokenizer.json, vocab.txt of a BERT" in refusal(folder)
